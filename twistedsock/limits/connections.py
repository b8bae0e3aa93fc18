"""Who may connect at all: how many connections there may be, in all, from one address and of one identity."""

from typing import Any

from twistedsock.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, TOO_MANY_OF_IDENTITY, Error
from twistedsock.limits.principal import LOCAL, Principal, address_principal
from twistedsock.limits.settings import Limits


class ConnectionLimiter:
    """Counts connections. An address is a literal IP address, or "" for a Unix socket; loopback and "" count in all,
    but not by address, as behind them stand many users or a proxy. The addresses of one network of IPv6 are one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections = 0
        # As many entries as there are connections at most.
        self._by_address: dict[Principal, int] = {}
        self._by_identity: dict[bytes, int] = {}

    @property
    def connections(self) -> int:
        return self._connections

    def enter(self, address: str) -> Error | None:
        """Count a connection in, or say why it may not stay: then it is not counted and must not ``leave``."""
        if self._connections >= self._limits.max_connections:
            return TOO_MANY_CONNECTIONS
        principal = address_principal(address)
        if principal != LOCAL:
            count = self._by_address.get(principal, 0)
            if count >= self._limits.max_connections_per_address:
                return TOO_MANY_FROM_ADDRESS
            self._by_address[principal] = count + 1
        self._connections += 1
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that had been counted in."""
        self._connections -= 1
        _decrease(self._by_address, address_principal(address))

    def identify(self, subject: bytes) -> Error | None:
        """Count one more connection of an identity, or say why there may not be one; nobody, "", is not counted."""
        if subject:
            count = self._by_identity.get(subject, 0)
            if count >= self._limits.max_connections_per_identity:
                return TOO_MANY_OF_IDENTITY
            self._by_identity[subject] = count + 1
        return None

    def forget(self, subject: bytes) -> None:
        """Count one out that had been counted in."""
        _decrease(self._by_identity, subject)


def _decrease(counts: dict[Any, int], key: Any) -> None:
    count = counts.get(key, 0)
    if count > 1:
        counts[key] = count - 1
    else:
        counts.pop(key, None)
