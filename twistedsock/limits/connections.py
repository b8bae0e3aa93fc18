"""The maximum number of connections: in total, from one address, and of one identity."""

from collections.abc import Callable, Mapping

from twistedsock.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, TOO_MANY_OF_IDENTITY, Error
from twistedsock.limits.principal import LOCAL, Principal, address_principal, is_subject, subject_principal
from twistedsock.limits.settings import Limits


def _ignore_change(principal: Principal) -> None: ...


class ConnectionLimiter:
    """Counts connections. An address is a literal IP address, or "" for a Unix socket. Connections over loopback and
    Unix sockets count only in total, because they can be those of many users, or of a proxy. All addresses of one /64
    network of IPv6 count as one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.elsewhere = 0
        """Connections to other processes of this server, as far as this one knows."""
        self.elsewhere_of: dict[Principal, int] = {}
        """The same for addresses and identities, of which only those with many connections are known."""
        self.changed: Callable[[Principal], object] = _ignore_change
        """Called with each principal whose count has changed, or that was rejected because of other processes."""
        self._connections = 0
        # Addresses and identities: not more than two entries for each connection.
        self._counts: dict[Principal, int] = {}

    @property
    def connections(self) -> int:
        return self._connections

    @property
    def counts(self) -> Mapping[Principal, int]:
        """The connections of each address and identity that has any."""
        return self._counts

    def acquire(self, address: str) -> Error | None:
        """Count a connection, or return why there cannot be one. Only a connection that was counted must be
        released."""
        if self._connections + self.elsewhere >= self._limits.max_connections:
            return TOO_MANY_CONNECTIONS
        principal = address_principal(address)
        if principal != LOCAL and not self._increase(principal):
            return TOO_MANY_FROM_ADDRESS
        self._connections += 1
        return None

    def release(self, address: str) -> None:
        self._connections -= 1
        self._decrease(address_principal(address))

    def acquire_identity(self, subject: bytes) -> Error | None:
        """Count a connection of an identity, or return why there cannot be one. Anonymous clients, whose subject is
        empty, are not counted."""
        if subject and not self._increase(subject_principal(subject)):
            return TOO_MANY_OF_IDENTITY
        return None

    def release_identity(self, subject: bytes) -> None:
        self._decrease(subject_principal(subject))

    def _increase(self, principal: Principal) -> bool:
        """Count a connection of a principal, unless that is one too many."""
        count = self._counts.get(principal, 0)
        is_allowed = count + self.elsewhere_of.get(principal, 0) < max_connections_of(principal, self._limits)
        if is_allowed:
            self._counts[principal] = count + 1
        self.changed(principal)
        return is_allowed

    def _decrease(self, principal: Principal) -> None:
        count = self._counts.get(principal, 0)
        if count:
            if count > 1:
                self._counts[principal] = count - 1
            else:
                del self._counts[principal]
            self.changed(principal)


def max_connections_of(principal: Principal, limits: Limits) -> int:
    """The maximum number of connections of an address or identity."""
    return limits.max_connections_per_identity if is_subject(principal) else limits.max_connections_per_address


def is_many(principal: Principal, count: int, limits: Limits) -> bool:
    """Whether a principal has so many connections to all processes together that each of them must know it: half of
    the maximum."""
    return 2 * count >= max_connections_of(principal, limits)
