"""Checks of the ``Origin`` and ``Host`` headers that browsers send.

The origin (RFC 6454, RFC 6455 section 10.2) keeps foreign pages out. The host prevents DNS rebinding: an attacker lets
the name of a page point to this server, so that origin and host are equal, but the host is an unknown name.
"""

import re
from collections.abc import Collection
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from twistedsock.limits.principal import is_loopback


class OriginDecision(Enum):
    ALLOWED = 0
    FOREIGN_HOST = 421
    """Misdirected Request (RFC 9110 section 15.5.20)."""
    FOREIGN_ORIGIN = 403


class ListenerScope(msgspec.Struct, frozen=True):
    """The listener that a request arrived at. ``loopback`` is true if only this machine can reach it; ``port`` is 0 for
    a Unix socket."""

    loopback: bool
    port: int


class AllowedOrigins(msgspec.Struct, frozen=True):
    """``origins`` are foreign origins, for example ``https://example.org``. ``hosts`` are the server's own names,
    without a port."""

    origins: Collection[str] = ()
    hosts: Collection[str] = ()

    def check_host(self, host: str, door: ListenerScope) -> OriginDecision:
        """Check the ``Host`` of any request. Browsers always send one; health checks and other programs may not."""
        name = _split(host.lower())[0]
        if host and door.loopback and not (name == "localhost" or is_loopback(name) or name in self.hosts):
            return OriginDecision.FOREIGN_HOST
        return OriginDecision.ALLOWED

    def check_anonymous_host(self, host: str, door: ListenerScope) -> OriginDecision:
        """Check the ``Host`` of a request without credentials. After DNS rebinding, a page sends no origin, because it
        takes this server for its own, but the host is not a name of this server."""
        name = _split(host.lower())[0]
        if name and not (name == "localhost" or _is_literal(name) or name in self.hosts):
            return OriginDecision.FOREIGN_HOST
        return self.check_host(host, door)

    def check_origin(self, host: str, origin: str | None, door: ListenerScope) -> OriginDecision:
        """Check the ``Host`` and ``Origin`` of a WebSocket handshake. ``origin`` is None if it is missing."""
        decision = self.check_host(host, door)
        if decision is not OriginDecision.ALLOWED or origin is None or origin in self.origins:
            return decision
        return OriginDecision.ALLOWED if self._is_own(host, origin, door) else OriginDecision.FOREIGN_ORIGIN

    def _is_own(self, host: str, origin: str, door: ListenerScope) -> bool:
        scheme, separator, authority = origin.lower().partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:
            return False
        default = _DEFAULT_PORTS[scheme]
        asked, page = _split(host.lower(), default), _split(authority, default)
        if not (asked[0] == "localhost" or _is_literal(asked[0]) or asked[0] in self.hosts):
            return False
        here = ("localhost", "127.0.0.1", "::1")
        return asked == page or (asked[0] in here and page[0] in here and asked[1] == page[1] == str(door.port))


_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _split(authority: str, default: str = "") -> tuple[str, str]:
    """Return host and port of ``example.org:8082``, ``example.org.`` or ``[::1]:8082``. A dot at the end marks a
    complete name (RFC 1034 section 3.1)."""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        return host, port.removeprefix(":") or default
    host, _, port = authority.partition(":")
    return host.removesuffix("."), port or default


MAX_LITERAL_LENGTH = 64
"""The longest IPv6 address has 45 characters."""


def _is_literal(host: str) -> bool:
    return len(host) <= MAX_LITERAL_LENGTH and _is_address(host)


@lru_cache(maxsize=256)
def _is_address(host: str) -> bool:
    """Cached, because parsing an address takes microseconds, and all browsers send the same few."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")

_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::([0-9]{1,5}))?")

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def host_name(authority: str) -> str:
    """Return the host of a ``Host`` header, without port and brackets."""
    return _split(authority)[0]


def normalize_origin(text: str) -> str:
    """Return an allowed origin as browsers send it (HTML, "serialization of an origin"): in lower case, without the
    default port and a slash at the end. Raises ValueError, with a correction, if no browser can send it."""
    if text in ("null", "file://"):  # sandboxed pages, and files
        return text
    problem = f"invalid origin {text!r}"
    scheme, separator, authority = text.lower().partition("://")
    authority = authority.removesuffix("/")
    if not separator and "*" not in text:
        name = host_name(scheme.partition("/")[0]) or "example.org"
        raise ValueError(f"{problem}: write it with its scheme, for example https://{name}")
    host, port = _parse_authority(authority if separator else text, problem)
    if not _SCHEME.fullmatch(scheme) or scheme in ("ws", "wss"):
        raise ValueError(f"{problem}: write the scheme of the page, for example https://{host}")
    if port and port != _DEFAULT_PORTS.get(scheme):
        host += f":{port}"
    return f"{scheme}://{host}"


def normalize_host(text: str) -> str:
    """Return a host name as ``AllowedOrigins`` compares it: in lower case, without scheme, port, brackets and a dot at
    the end. Raises ValueError, with a correction, if no browser can ask for it."""
    name = text.lower().removeprefix("https://").removeprefix("http://").removesuffix("/")
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    host, _ = _parse_authority(name, f"invalid host {text!r}")
    return host.strip("[]").removesuffix(".")


def _parse_authority(authority: str, problem: str) -> tuple[str, str]:
    """Return host (an IPv6 address in brackets) and port. Raises ValueError, which begins with ``problem``."""
    if "*" in authority:
        raise ValueError(f"{problem}: wildcards are not supported, write each name in full")
    if not authority.isascii():
        raise ValueError(f"{problem}: write the name in ASCII, beginning with xn--")
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found[3] or 0) > 65535:
        raise ValueError(f"{problem}: write a host name or an address, with an optional port")
    address, name, port = found.groups()
    if address is not None:
        try:
            name = f"[{IPv6Address(address)}]"
        except ValueError:
            raise ValueError(f"{problem}: the brackets do not contain an IPv6 address") from None
    elif _NUMBER.fullmatch(name.removesuffix(".").rpartition(".")[2]):
        # Browsers read it as an IPv4 address and normalize it (the URL standard, "host parsing").
        try:
            name = str(IPv4Address(name))
        except ValueError:
            raise ValueError(f"{problem}: write the IPv4 address as four decimal numbers") from None
    elif not all(map(_LABEL.fullmatch, name.removesuffix(".").split("."))):
        raise ValueError(f"{problem}: {name!r} is not a host name")
    return name, port and str(int(port))
