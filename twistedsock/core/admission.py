"""Who may connect at all: how many connections there may be, in all, from one address and of one identity."""

from ipaddress import IPv6Address, ip_address
from typing import Any

from twistedsock.core.errors import TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS, TOO_MANY_OF_IDENTITY, Refusal
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


def is_stranger(client: bytes) -> bool:
    """Whether the client's end of a connection, as people write it, is neither on this machine nor a Unix socket."""
    if client.startswith((b"127.0.0.1:", b"unix:")):
        return False
    return not is_loopback(client.rpartition(b":")[0].strip(b"[]").decode())


PREFIX = 64
"""Bits of an IPv6 address that are counted as one: a network has at least so many to itself (RFC 4291 section 2.5.1),
and each host there takes as many of the 2^64 addresses as it likes (RFC 8981)."""


def counted_as(address: str) -> str:
    """One IPv4 address, or one network of IPv6; "" for what is not counted. IPv4 in IPv6 counts as IPv4."""
    if not address or is_loopback(address):
        return ""
    if ":" not in address:
        return address
    whole = IPv6Address(address.partition("%")[0])
    return str(whole.ipv4_mapped or IPv6Address(int(whole) >> 128 - PREFIX << 128 - PREFIX))


class Admission:
    """Counts connections. An address is a literal IP address, or "" for a Unix socket; loopback and "" count in all,
    but not by address, as behind them stand many users or a proxy. The addresses of one network of IPv6 are one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections = 0
        # As many entries as there are connections at most.
        self._by_address: dict[str, int] = {}
        self._by_identity: dict[bytes, int] = {}

    @property
    def connections(self) -> int:
        return self._connections

    def enter(self, address: str) -> Refusal | None:
        """Count a connection in, or say why it may not stay: then it is not counted and must not ``leave``."""
        if self._connections >= self._limits.max_connections:
            return TOO_MANY_CONNECTIONS
        source = counted_as(address)
        if source:
            count = self._by_address.get(source, 0)
            if count >= self._limits.max_connections_per_address:
                return TOO_MANY_FROM_ADDRESS
            self._by_address[source] = count + 1
        self._connections += 1
        return None

    def leave(self, address: str) -> None:
        """Count a connection out that had been counted in."""
        self._connections -= 1
        _decrease(self._by_address, counted_as(address))

    def identify(self, subject: bytes) -> Refusal | None:
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
