"""Which pages may open a WebSocket here, and under which names this server is asked for (docs/protocol-json.md).

Browsers send the ``Origin`` of the page (RFC 6454, RFC 6455 section 10.2) and the ``Host`` that they think they talk
to. The first keeps foreign pages out; the second keeps out a page whose own name was made to point here (DNS
rebinding): its origin equals its host, but the host is a name that we do not know.
"""

from collections.abc import Collection
from enum import Enum
from ipaddress import ip_address

import msgspec

from twistedsock.core.principal import is_loopback


class Verdict(Enum):
    WELCOME = 0
    FOREIGN_HOST = 421
    """Misdirected Request (RFC 9110 section 15.5.20)."""
    FOREIGN_ORIGIN = 403


class Door(msgspec.Struct, frozen=True):
    """What is known of the listener that a request came in by. ``loopback`` is whether only this machine reaches it;
    ``port`` is 0 for a Unix socket."""

    loopback: bool
    port: int


class Origins(msgspec.Struct, frozen=True):
    """``origins`` are allowed ones, as ``https://example.org``; ``hosts`` are names of this server, without a port."""

    origins: Collection[str] = ()
    hosts: Collection[str] = ()

    def judge_host(self, host: str, door: Door) -> Verdict:
        """Whether a request for ``host`` may be answered; every request is to be asked about. Browsers always name a
        host; what names none is a health check, or another program."""
        name = _split(host.lower())[0]
        if host and door.loopback and not (name == "localhost" or is_loopback(name) or name in self.hosts):
            return Verdict.FOREIGN_HOST
        return Verdict.WELCOME

    def judge_nobody(self, host: str, door: Door) -> Verdict:
        """Whether somebody who shows nothing may ask ``host`` for what is on the channels. A page whose own name was
        made to point here sends no origin then, as it takes us for its own server; but the name is none of ours. What
        is no browser may name no host at all."""
        name = _split(host.lower())[0]
        if name and not (name == "localhost" or _is_literal(name) or name in self.hosts):
            return Verdict.FOREIGN_HOST
        return self.judge_host(host, door)

    def judge(self, host: str, origin: str | None, door: Door) -> Verdict:
        """Whether a WebSocket may be opened; ``origin`` is None where no browser asks."""
        verdict = self.judge_host(host, door)
        if verdict is not Verdict.WELCOME or origin is None or origin in self.origins:
            return verdict
        return Verdict.WELCOME if self._is_own(host, origin, door) else Verdict.FOREIGN_ORIGIN

    def _is_own(self, host: str, origin: str, door: Door) -> bool:
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
    """Host and port of ``example.org:8082``, ``example.org.`` or ``[::1]:8082``. A dot at the end only says that the
    name is complete (RFC 1034 section 3.1)."""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        return host, port.removeprefix(":") or default
    host, _, port = authority.partition(":")
    return host.removesuffix("."), port or default


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
