"""The maximum number of connections: in total, from one address, and of one identity."""

from typing import TypeVar

from twistedsock.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, TOO_MANY_OF_IDENTITY, Error
from twistedsock.limits.principal import LOCAL, Principal, address_principal
from twistedsock.limits.settings import Limits

K = TypeVar("K")


class ConnectionLimiter:
    """Counts connections. An address is a literal IP address, or "" for a Unix socket. Connections over loopback and
    Unix sockets count only in total, because they can be those of many users, or of a proxy. All addresses of one /64
    network of IPv6 count as one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.elsewhere = 0
        """Connections to other processes of this server, as far as this one knows. They count in total only."""
        self._connections = 0
        # Neither has more entries than there are connections.
        self._by_address: dict[Principal, int] = {}
        self._by_identity: dict[bytes, int] = {}

    @property
    def connections(self) -> int:
        return self._connections

    def acquire(self, address: str) -> Error | None:
        """Count a connection, or return why there cannot be one. Only a connection that was counted must be
        released."""
        if self._connections + self.elsewhere >= self._limits.max_connections:
            return TOO_MANY_CONNECTIONS
        principal = address_principal(address)
        if principal != LOCAL:
            count = self._by_address.get(principal, 0)
            if count >= self._limits.max_connections_per_address:
                return TOO_MANY_FROM_ADDRESS
            self._by_address[principal] = count + 1
        self._connections += 1
        return None

    def release(self, address: str) -> None:
        self._connections -= 1
        _decrease(self._by_address, address_principal(address))

    def acquire_identity(self, subject: bytes) -> Error | None:
        """Count a connection of an identity, or return why there cannot be one. Anonymous clients, whose subject is
        empty, are not counted."""
        if subject:
            count = self._by_identity.get(subject, 0)
            if count >= self._limits.max_connections_per_identity:
                return TOO_MANY_OF_IDENTITY
            self._by_identity[subject] = count + 1
        return None

    def release_identity(self, subject: bytes) -> None:
        _decrease(self._by_identity, subject)


def _decrease(counts: dict[K, int], key: K) -> None:
    count = counts.get(key, 0)
    if count > 1:
        counts[key] = count - 1
    else:
        counts.pop(key, None)
