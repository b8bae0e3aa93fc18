"""Trusted proxies, and the client addresses that they report in ``X-Forwarded-For``."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from twistedsock.limits.principal import is_loopback

UNIX = "unix"
"""In place of a network: connections over Unix sockets."""


class Source(msgspec.Struct, frozen=True, gc=False):
    """The address of a client that a proxy reports. ``host`` is a literal address, or "" for a Unix socket. ``port`` is
    0 if the proxy does not report it."""

    host: str
    port: int = 0

    def relative_to(self, proxy: str) -> "Source":
        """Return the source as seen from this machine, if a proxy at the address ``proxy`` reports it. If the proxy is
        on another machine, its loopback addresses and Unix sockets mean that machine."""
        return Source(proxy, self.port) if _is_local(self.host) and not _is_local(proxy) else self


def parse_source(host: str, port: int) -> Source | None:
    """Return a source with a normalized address, so that one client is not counted as two. Returns None if ``host`` is
    not a literal address, or has a zone, which means nothing on another machine (RFC 4007 section 6)."""
    address = _literal(host)
    return Source(str(address), port) if address is not None and "%" not in host else None


class TrustedProxies(msgspec.Struct, frozen=True):
    """The networks that are trusted, and whether Unix sockets are."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def trusts(self, host: str) -> bool:
        """Return whether a proxy at a literal address is trusted. "" is a Unix socket."""
        if not host:
            return self.unix
        if not self.networks:
            return False
        address = _literal(host)
        return address is not None and any(address in network for network in self.networks)

    def find_client(self, forwarded: str, proxy: str) -> Source | None:
        """Return the client of a trusted proxy at the address ``proxy``, from its ``X-Forwarded-For`` header. Returns
        None if an element is not an address.

        Each proxy appends the address that it sees, so the header is read from the right, up to the first address that
        is not a trusted proxy. A client can write anything to the left of it. Each address is relative to the proxy
        that appended it."""
        source = None
        for element in reversed(forwarded.split(",")):
            element = element.strip(" \t")
            if not element:
                continue
            reported = _read_element(element)
            if reported is None:
                return None
            source = reported.relative_to(proxy)
            if not self.trusts(reported.host):
                return source
            proxy = source.host
        return source


NO_PROXIES = TrustedProxies()


def parse_trusted(words: Iterable[str]) -> TrustedProxies:
    """Parse addresses, networks and the word ``unix``. Raises ValueError, which quotes an invalid one."""
    networks = []
    unix = False
    for word in words:
        if word == UNIX:
            unix = True
        else:
            networks.append(_parse_network(word))
    return TrustedProxies(tuple(networks), unix)


def _parse_network(word: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(word)
    except ValueError as error:
        if "host bits set" in str(error):
            raise ValueError(f"{word!r} is not a network: did you mean {ip_network(word, strict=False)}?") from None
        raise ValueError(f"{word!r} is not an address, a network (10.0.0.0/8) or the word unix") from None


def _is_local(host: str) -> bool:
    return not host or is_loopback(host)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """Parse a literal address, without its zone. An IPv4-mapped IPv6 address is an IPv4 address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_ELEMENT = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<four>[0-9.]{7,15}))(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<bare>[0-9A-Fa-f:.]{2,45})"
)
"""An address, and the port that some proxies append. The longest IPv6 address has 45 characters."""


def _read_element(element: str) -> Source | None:
    found = _ELEMENT.fullmatch(element)
    if found is None:
        return None
    port = int(found["port"] or 0)
    host = found["six"] or found["four"] or found["bare"]
    return parse_source(host, port) if port <= 65535 else None
