"""Who may connect at all: how many connections there may be, in all and from one address."""

from ipaddress import ip_address

from twistedsock.core.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, Refusal
from twistedsock.core.limits import Limits


def is_loopback(host: str) -> bool:
    """Whether a literal address is this machine's own; IPv4 in IPv6 counts as IPv4, a name is never one."""
    if host == "127.0.0.1":  # nearly everybody; it is asked of each connection, and parsing takes a while
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class Admission:
    """Counts connections. An address is a literal IP address, or "" for a Unix socket; loopback and "" count in all,
    but not by address, as behind them stand many users or a proxy."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections = 0
        # As many entries as there are connections at most.
        self._by_address: dict[str, int] = {}

    @property
    def connections(self) -> int:
        return self._connections

    def enter(self, address: str) -> Refusal | None:
        """Count a connection in, or say why it may not stay: then it is not counted and must not ``leave``."""
        if self._connections >= self._limits.max_connections:
            return TOO_MANY_CONNECTIONS
        if address and not is_loopback(address):
            count = self._by_address.get(address, 0)
            if count >= self._limits.max_connections_per_address:
                return TOO_MANY_FROM_ADDRESS
            self._by_address[address] = count + 1
        self._connections += 1
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that had been counted in."""
        self._connections -= 1
        count = self._by_address.get(address, 0)
        if count > 1:
            self._by_address[address] = count - 1
        else:
            self._by_address.pop(address, None)
