"""The head of an HTTP request (RFC 9112), as far as we must know it before somebody else reads it."""

import re
from http import HTTPStatus

import msgspec

from twistedsock.wire.handshake import Headers, listed, plain_key

_REQUEST_LINE = re.compile(rb"(?:^|.* )HTTP/[0-9][^ ]*$", re.DOTALL)


def is_request_line(line: bytes) -> bool:
    """Whether a line is the first of an HTTP request: its last word is ``HTTP/`` and a number. On the line port this
    is a browser that lost its way, or a page that attacks."""
    return _REQUEST_LINE.match(line) is not None


MOST_METHOD = 8
"""Bytes of a line that ``begins_request`` wants to see."""


def begins_request(start: bytes) -> bool:
    """Whether a line of which only the start is known is the first of an HTTP request. These are the methods that a
    browser sends for a page (and none of them is a verb of ours)."""
    return start.startswith((b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH "))


def wrong_door(web_address: str) -> bytes:
    """The answer of the line port to an HTTP request. ``web_address`` may be empty."""
    where = f"The web port is {web_address}" if web_address else "This server has no web port"
    return refusal(400, f"This port speaks lines, not HTTP. {where}")


MOST_HEAD = 16 * 1024
"""Bytes in a request head: what nginx and Apache allow for one header field twice over. Autobahn has no bound of its
own, so an endless handshake must end before it gets there."""


MOST_HEADERS = 100
"""Header lines in a request head: what Apache and Go's proxies allow; browsers send twenty. Many short ones cost more
to read than their bytes tell."""


def has_too_many_headers(head: bytes) -> bool:
    """Whether a whole head has more header lines than are read."""
    return head.count(b"\r\n") > MOST_HEADERS + 2  # the request line, and the empty line at the end


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The first request on a web connection. Header values are as they came, "" where there is none. ``key`` is that of
    a plain WebSocket handshake, "" where it is any other request. ``forwarded_for`` is X-Forwarded-For, for those who
    believe it. ``content`` is whether something is to follow that belongs to it. ``query``, ``authorization`` and
    ``cookies`` may hold a secret, so they are not shown."""

    method: str
    path: str
    host: str
    origin: str | None
    upgrade: bool
    subprotocols: tuple[str, ...]
    key: str = ""
    forwarded_for: str = ""
    content: bool = False
    query: str = ""
    authorization: str = ""
    cookies: str = ""

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.path!r})"


def read_head(data: bytes) -> RequestHead | None:
    """Read a whole head, its empty line included; None where it is none, or where it names two hosts or origins."""
    lines = data.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return None
    path, _, query = words[1].partition("?")
    headers: Headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            name = name.lower()
            value = value.strip(" \t")
            if name in headers:
                if name in ("host", "origin"):
                    return None
                value = f"{headers[name]},{value}"
            headers[name] = value
    upgrade = "websocket" in listed(headers.get("upgrade", "").lower())
    return RequestHead(
        method=words[0],
        path=path,
        host=headers.get("host", ""),
        origin=headers.get("origin"),
        upgrade=upgrade,
        subprotocols=tuple(listed(headers.get("sec-websocket-protocol", ""))),
        key=plain_key(lines, headers) if upgrade else "",
        forwarded_for=headers.get("x-forwarded-for", ""),
        content="transfer-encoding" in headers or headers.get("content-length", "0") != "0",
        query=query,
        authorization=headers.get("authorization", ""),
        cookies=headers.get("cookie", ""),
    )


def refusal(status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A whole answer that refuses a request and ends the connection."""
    body = words.encode() + b"\n"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: text/plain; charset=utf-8"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "X-Content-Type-Options: nosniff"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
