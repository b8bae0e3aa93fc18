"""The head of an HTTP request (RFC 9112), as far as we must know it before somebody else reads it."""

import re
from dataclasses import dataclass
from http import HTTPStatus

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


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The first request on a web connection. Header values are as they came, "" where there is none."""

    method: str
    path: str
    host: str
    origin: str | None
    upgrade: bool
    subprotocols: tuple[str, ...]


def read_head(data: bytes) -> RequestHead | None:
    """Read a whole head, its empty line included; None where it is none, or where it names two hosts or origins."""
    lines = data.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return None
    headers: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.lower(), []).append(value.strip(" \t"))
    host, origin = headers.get("host", [""]), headers.get("origin", [])
    if len(host) > 1 or len(origin) > 1:
        return None
    return RequestHead(
        method=words[0],
        path=words[1].partition("?")[0],
        host=host[0],
        origin=origin[0] if origin else None,
        upgrade="websocket" in _listed(headers.get("upgrade", [])),
        subprotocols=tuple(_listed(headers.get("sec-websocket-protocol", []), fold=False)),
    )


def _listed(values: list[str], fold: bool = True) -> list[str]:
    words = [word.strip() for value in values for word in value.split(",")]
    return [word.lower() if fold else word for word in words if word]


def refusal(status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A whole answer that refuses a request and ends the connection."""
    body = words.encode() + b"\n"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: text/plain; charset=utf-8"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "X-Content-Type-Options: nosniff"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body
