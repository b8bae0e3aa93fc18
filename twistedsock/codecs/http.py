"""HTTP/1.1 (RFC 9112): request heads, bodies in chunks, and credentials.

The web port reads the head of each first request itself: it decides between HTTP and WebSocket, and checks the host,
the origin and the token before twisted.web or Autobahn sees the request.
"""

import re
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from twistedsock.codecs.websocket import Headers, listed, plain_key


def http_on_line_port(web_address: str) -> bytes:
    """The response of the line port to an HTTP request. ``web_address`` can be empty."""
    hint = f"use the web port at {web_address}" if web_address else "this server has no web port"
    return error_response(400, f"this port speaks the line protocol, not HTTP: {hint}")


MAX_HEAD_BYTES = 16 * 1024
"""Of a request head: twice as much as nginx and Apache allow for one header. Autobahn has no limit, so an endless
handshake must be rejected before."""

MAX_HEADERS = 100
"""Header lines in a request head, as in Apache. Browsers send about twenty. Many short headers cost more time than
their bytes suggest."""

# A character of a method (RFC 9110 section 5.6.2), or an empty line before it (RFC 9112 section 2.2).
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z\r\n-]")


def can_begin_head(start: bytes | bytearray) -> bool:
    """False if the first bytes of a connection cannot become a request: those of TLS and other binary protocols, and a
    first line without an HTTP version. The server can reject them without waiting for more."""
    if start and _BEGINNING.match(start) is None:
        return False
    end = start.find(b"\n", 2)
    return end < 0 or start.find(b" HTTP/", 0, end) >= 0


def has_too_many_headers(head: bytes) -> bool:
    """True if a head has more header lines than allowed."""
    return head.count(b"\r\n") > MAX_HEADERS + 2  # the request line, and the empty line at the end


_ABSOLUTE = re.compile(r"https?://([^/?#]*)([^#]*)", re.IGNORECASE)

_TARGET = re.compile(r"[^\x00-\x20\x7f]+")

# RFC 3986 section 3.2.2: an address in brackets, or a registered name, which may be empty; then perhaps a port.
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?",
)

_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")
"""RFC 9110 section 5.6.2."""


def origin_form(method: str, target: str) -> tuple[str, str | None] | None:
    """Reduce a request target to origin form (RFC 9112 section 3.2).

    Returns the path with its query, and the authority if the target is in absolute form; the authority then replaces
    the ``Host`` header (section 3.2.2). Returns None for a target in no form that an origin server accepts."""
    if not _TARGET.fullmatch(target):
        return None
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        return target, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1]:
        return None
    path = absolute[2]
    return (path if path.startswith("/") else "/" + path), absolute[1]


def is_valid_host(host: str | None, version: str) -> bool:
    """True if a request can have this ``Host`` header; None stands for no header. HTTP/1.1 requires one, and it must be
    valid in all versions (RFC 9112 section 3.2)."""
    return version != "HTTP/1.1" if host is None else _HOST.fullmatch(host) is not None


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The first request on a web connection. Header values are unchanged, "" for a missing header. ``key`` is the key
    of a plain WebSocket handshake, "" for all other requests. ``forwarded_for`` is X-Forwarded-For, which the server
    ignores unless it trusts the proxy. ``has_body`` is true if the head announces one. If ``has_valid_host`` is false,
    the response must be 400. ``query``, ``authorization`` and ``cookies`` can contain secrets, so ``repr`` omits
    them."""

    method: str
    path: str
    host: str
    origin: str | None
    upgrade: bool
    subprotocols: tuple[str, ...]
    key: str = ""
    forwarded_for: str = ""
    has_body: bool = False
    query: str = ""
    authorization: str = ""
    cookies: str = ""
    has_valid_host: bool = True

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.path!r})"


def read_head(data: bytes) -> RequestHead | None:
    """Read a complete head, including the empty line. Returns None if it is invalid or has two hosts or origins.

    A header line without a valid name, or with a bare CR, a bare LF or a NUL, makes the head invalid: other servers
    read such a line in other ways (RFC 9112 sections 2.2 and 5.1)."""
    text = data.decode("latin-1")
    lines = text.split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return None
    if not text.count("\r") == text.count("\n") == len(lines) - 1 or "\0" in text:
        return None
    method, version = words[0], words[2]
    form = origin_form(method, words[1])
    if form is None:
        return None
    path, _, query = form[0].partition("?")
    headers: Headers = {}
    for line in lines[1:-2]:
        name, colon, value = line.partition(":")
        if not colon:
            return None
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in ("host", "origin"):
                return None
            value = f"{headers[name]},{value}"
        headers[name] = value
    if "" in headers or not _TOKENS.fullmatch("".join(headers)):
        return None
    # In HTTP/1.0 the header Upgrade means nothing (RFC 9110 section 7.8).
    upgrade = version == "HTTP/1.1" and "websocket" in listed(headers.get("upgrade", "").lower())
    host = headers.get("host") if form[1] is None else form[1]
    return RequestHead(
        method=method,
        path=path,
        host=host or "",
        origin=headers.get("origin"),
        upgrade=upgrade,
        subprotocols=tuple(listed(headers.get("sec-websocket-protocol", ""))),
        key=plain_key(lines, headers) if upgrade else "",
        forwarded_for=headers.get("x-forwarded-for", ""),
        has_body="transfer-encoding" in headers or headers.get("content-length", "0") != "0",
        query=query,
        authorization=headers.get("authorization", ""),
        cookies=headers.get("cookie", ""),
        has_valid_host=is_valid_host(headers.get("host"), version)
        and (form[1] is None or is_valid_host(form[1], version)),
    )


def error_response(status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A complete error response that ends the connection."""
    body = message.encode() + b"\n"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: text/plain; charset=utf-8"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "X-Content-Type-Options: nosniff"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


MAX_CHUNKS = 1_000
"""In one body: one or two milliseconds of work for the smallest chunks. Clients send chunks of 4 KiB and more, and no
request accepts a body of more than 1 MiB."""

MAX_SIZE_LINE_BYTES = 256
"""Of the line with the size of a chunk. No client uses chunk extensions."""

MAX_TRAILER_BYTES = 4 * 1024
"""Of the lines after the last chunk, which are ignored (RFC 9110 section 6.5.1)."""

# 16 digits are more than any memory. RFC 9112 section 7.1.1 allows spaces before an extension.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")


class InvalidChunks(Exception):
    """The body is not valid. The text is the reason."""


class ChunkDecoder:
    """Decodes one body in chunks (RFC 9112 section 7.1). ``on_data`` is called with each part of the body, which can be
    less than a chunk. The number of chunks is limited because a chunk of one byte costs as much as one of 64 KiB."""

    __slots__ = ("_buffer", "_chunks", "_left", "_on_data", "_trailer")

    def __init__(self, on_data: Callable[[bytes], object]) -> None:
        self._on_data = on_data
        self._buffer = b""
        self._chunks = 0
        self._left = 0  # bytes of the chunk and of the line end behind it
        self._trailer: int | None = None

    def feed(self, data: bytes) -> bytes | None:
        """The data after the body, or None while the body is incomplete."""
        data, position = self._buffer + data if self._buffer else data, 0
        self._buffer = b""
        while self._trailer is None:
            if self._left:
                position = self._read_chunk(data, position)
                if self._left:
                    self._buffer = data[position:]
                    return None
            end = data.find(b"\r\n", position, position + MAX_SIZE_LINE_BYTES + 2)
            if end < 0:
                if len(data) - position > MAX_SIZE_LINE_BYTES:
                    raise InvalidChunks("chunk size line too long")
                self._buffer = data[position:]
                return None
            self._start_chunk(data[position:end])
            position = end + 2
        return self._read_trailer(data, position)

    def _start_chunk(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None:
            raise InvalidChunks("invalid chunk size")
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise InvalidChunks(f"too many chunks: at most {MAX_CHUNKS} are allowed")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailer = 0

    def _read_chunk(self, data: bytes, position: int) -> int:
        """Pass on as much of the chunk as there is. Returns the position after it."""
        available = min(self._left - 2, len(data) - position)
        if available > 0:
            self._on_data(data[position : position + available])
            position += available
            self._left -= available
        if self._left == 2 and len(data) - position >= 2:
            if not data.startswith(b"\r\n", position):
                raise InvalidChunks("chunk longer than its size")
            self._left = 0
            position += 2
        return position

    def _read_trailer(self, data: bytes, position: int) -> bytes | None:
        assert self._trailer is not None
        while (end := data.find(b"\r\n", position)) != position:
            self._trailer += (len(data) if end < 0 else end) - position
            if self._trailer > MAX_TRAILER_BYTES:
                raise InvalidChunks("trailer too long")
            if end < 0:
                self._buffer = data[position:]
                self._trailer -= len(self._buffer)  # counted when the line is complete
                return None
            position = end + 2
        return data[position + 2 :]


_BEARER = re.compile(r"bearer +(\S*)", re.IGNORECASE)

_QUERY = re.compile(r"(?:^|&)token=([^&]*)")


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """``token`` has not been checked. ``in_header`` is true if it was in a header: only programs can set that, and they
    can read an HTTP error response, which pages cannot."""

    token: bytes
    in_header: bool = False

    def __repr__(self) -> str:
        return f"Credentials(in_header={self.in_header})"


def find_credentials(authorization: str, query: str, cookies: str, cookie: str) -> Credentials | None:
    """The token of a request: from the header (RFC 6750 section 2.1), the query or the cookie with the name ``cookie``,
    which can be "". Authorization schemes other than Bearer are ignored; they can be for a proxy."""
    bearer = _BEARER.fullmatch(authorization)
    if bearer is not None:
        return Credentials(bearer[1].encode("latin-1"), in_header=True)
    in_query = _QUERY.search(query)
    if in_query is not None:
        return Credentials(in_query[1].encode("latin-1"))
    for pair in cookies.split(";") if cookie else ():
        name, _, value = pair.strip().partition("=")
        if name == cookie:
            return Credentials(value.strip('"').encode("latin-1"))
    return None
