"""Which proxies are believed when they tell whom they speak for (docs/operations.md)."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from twistedsock.limits.principal import is_loopback

UNIX = "unix"
"""In place of a network: whoever comes by a Unix socket."""


class Source(msgspec.Struct, frozen=True, gc=False):
    """The far end of a connection, as a proxy tells it. ``host`` is a literal address, "" for a Unix socket; ``port``
    is 0 where it is not told."""

    host: str
    port: int = 0

    def relative_to(self, proxy: str) -> "Source":
        """The source as it is to be understood here, if a proxy at the address ``proxy`` reports it. A loopback address
        or a Unix socket means the machine that saw it: if the proxy is on another machine, that is the proxy's address.
        """
        return Source(proxy, self.port) if _is_local(self.host) and not _is_local(proxy) else self


def parse_source(host: str, port: int) -> Source | None:
    """A source whose address is written as we write all of them, so that one client is not counted as two; None where
    it is no literal address, or one that means nothing elsewhere (RFC 4007 section 6)."""
    address = _literal(host)
    return Source(str(address), port) if address is not None and "%" not in host else None


class TrustedProxies(msgspec.Struct, frozen=True):
    """``networks`` are trusted, and Unix sockets if ``unix``."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def trusts(self, host: str) -> bool:
        """Whether a proxy at a literal address is believed; "" is a Unix socket."""
        if not host:
            return self.unix
        if not self.networks:
            return False
        address = _literal(host)
        return address is not None and any(address in network for network in self.networks)

    def find_client(self, forwarded: str, proxy: str) -> Source | None:
        """Whom a trusted proxy at the address ``proxy`` speaks for, by the value of its X-Forwarded-For; None if that
        holds no address where one should be. Each proxy adds the address that it sees at the right, so what stands
        further left than the first address that is not a proxy of ours was written by that stranger, and is not even
        looked at. Each address is understood at the proxy that saw it."""
        source = None
        for element in reversed(forwarded.split(",")):
            element = element.strip(" \t")
            if not element:
                continue
            told = _read_element(element)
            if told is None:
                return None
            source = told.relative_to(proxy)
            if not self.trusts(told.host):
                return source
            proxy = source.host
        return source


NO_PROXIES = TrustedProxies()


def parse_trusted(words: Iterable[str]) -> TrustedProxies:
    """Proxies from addresses, networks and the word ``unix``; ValueError, with words that name it, where one is
    neither."""
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
            raise ValueError(
                f"{word!r} has bits set behind its mask; is {ip_network(word, strict=False)} meant?"
            ) from None
        raise ValueError(f"{word!r} is no address, no network such as 10.0.0.0/8, and not the word unix") from None


def _is_local(host: str) -> bool:
    return not host or is_loopback(host)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """IPv4 in IPv6 counts as IPv4, and an interface is not looked at."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


_ELEMENT = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<four>[0-9.]{7,15}))(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<bare>[0-9A-Fa-f:.]{2,45})"
)
"""An address, and the port that some proxies add; 45 characters are the longest IPv6 address."""


def _read_element(element: str) -> Source | None:
    found = _ELEMENT.fullmatch(element)
    if found is None:
        return None
    port = int(found["port"] or 0)
    host = found["six"] or found["four"] or found["bare"]
    return parse_source(host, port) if port <= 65535 else None
