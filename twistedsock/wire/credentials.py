"""The token that a WebSocket handshake brings along: in its header (RFC 6750 section 2.1), its query or a cookie."""

import re

import msgspec

from twistedsock.wire.http_head import RequestHead

_BEARER = re.compile(r"bearer +(\S*)", re.IGNORECASE)
_QUERY = re.compile(r"(?:^|&)token=([^&]*)")


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """``token`` may be anything: nobody has looked at it. ``in_header`` is whether a program set it, which can read an
    answer of HTTP; a page cannot."""

    token: bytes
    in_header: bool = False

    def __repr__(self) -> str:
        return f"Credentials(in_header={self.in_header})"


def find_credentials(head: RequestHead, cookie: str) -> Credentials | None:
    """What a head brings, the first place that has something. ``cookie`` is the name of the one to look at, "" for
    none. Other schemes than Bearer are for somebody else, such as a proxy."""
    bearer = _BEARER.fullmatch(head.authorization)
    if bearer is not None:
        return Credentials(bearer[1].encode("latin-1"), in_header=True)
    query = _QUERY.search(head.query)
    if query is not None:
        return Credentials(query[1].encode("latin-1"))
    for crumb in head.cookies.split(";") if cookie else ():
        name, _, value = crumb.strip().partition("=")
        if name == cookie:
            return Credentials(value.strip('"').encode("latin-1"))
    return None
