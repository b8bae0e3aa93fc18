"""The head of an HTTP request (RFC 9112), as far as we must know it before somebody else reads it."""

import re
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from twistedsock.codecs.websocket import Headers, listed, plain_key


def http_on_line_port(web_address: str) -> bytes:
    """The answer of the line port to an HTTP request. ``web_address`` may be empty."""
    where = f"The web port is {web_address}" if web_address else "This server has no web port"
    return error_response(400, f"This port speaks lines, not HTTP. {where}")


MAX_HEAD_BYTES = 16 * 1024
"""Bytes in a request head: what nginx and Apache allow for one header field twice over. Autobahn has no bound of its
own, so an endless handshake must end before it gets there."""

MAX_HEADERS = 100
"""Header lines in a request head: what Apache and Go's proxies allow; browsers send twenty. Many short ones cost more
to read than their bytes tell."""

# A character of a method (RFC 9110 section 5.6.2), or an empty line before it (RFC 9112 section 2.2).
_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z\r\n-]")


def can_begin_head(start: bytes | bytearray) -> bool:
    """Whether these first bytes of a connection can become a request. Those of TLS and other binary protocols cannot,
    nor can a first line without a version of HTTP, so that the answer need not wait for more."""
    if start and _BEGINNING.match(start) is None:
        return False
    end = start.find(b"\n", 2)
    return end < 0 or start.find(b" HTTP/", 0, end) >= 0


def has_too_many_headers(head: bytes) -> bool:
    """Whether a whole head has more header lines than are read."""
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
    """Whether a request may have this ``Host`` header, None for a request without one. A request of HTTP/1.1 must have
    one, and its value must be valid in every version (RFC 9112 section 3.2)."""
    return version != "HTTP/1.1" if host is None else _HOST.fullmatch(host) is not None


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The first request on a web connection. Header values are as they came, "" where there is none. ``key`` is that of
    a plain WebSocket handshake, "" where it is any other request. ``forwarded_for`` is X-Forwarded-For, for those who
    believe it. ``has_body`` is whether something is to follow that belongs to it. ``query``, ``authorization`` and
    ``cookies`` may hold a secret, so they are not shown. ``has_valid_host`` is False where the answer must be 400."""

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
    """Read a whole head, its empty line included; None where it is none, or where it names two hosts or origins.

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


def error_response(status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A whole answer that refuses a request and ends the connection."""
    body = words.encode() + b"\n"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: text/plain; charset=utf-8"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "X-Content-Type-Options: nosniff"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


MAX_CHUNKS = 1_000
"""In one body: a millisecond or two for the smallest. What clients send is cut at 4 KiB or more, and nothing that is
taken here is longer than some hundreds of KiB."""

MAX_SIZE_LINE_BYTES = 256
"""Bytes of the line that tells the size of a chunk; nobody uses its extensions."""

MAX_TRAILER_BYTES = 4 * 1024
"""Bytes of the lines behind the last chunk. They are dropped: what they say must not matter (section 6.5.1)."""

# Sixteen digits would be more than any memory; spaces before the extension are bad manners that section 7.1.1 allows.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")


class InvalidChunks(Exception):
    """This is no body in chunks, or it is in too many; its text says which."""


class ChunkDecoder:
    """Reads one body. ``take`` is called with each piece; it may be called with a piece of a chunk."""

    __slots__ = ("_buffer", "_chunks", "_left", "_take", "_trailer")

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._buffer = b""
        self._chunks = 0
        self._left = 0  # of the chunk's bytes, and of the line end behind it
        self._trailer: int | None = None

    def feed(self, data: bytes) -> bytes | None:
        """What stands behind the body, once it has ended; None as long as it has not."""
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
                    raise InvalidChunks("the line with the size of a chunk is too long")
                self._buffer = data[position:]
                return None
            self._begin_chunk(data[position:end])
            position = end + 2
        return self._read_trailer(data, position)

    def _begin_chunk(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None:
            raise InvalidChunks("a chunk does not begin with its size")
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise InvalidChunks(f"the body is in more than {MAX_CHUNKS} chunks")
        length = int(size[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailer = 0

    def _read_chunk(self, data: bytes, position: int) -> int:
        """As much as is there; gives the position after it."""
        here = min(self._left - 2, len(data) - position)
        if here > 0:
            self._take(data[position : position + here])
            position += here
            self._left -= here
        if self._left == 2 and len(data) - position >= 2:
            if not data.startswith(b"\r\n", position):
                raise InvalidChunks("a chunk does not end where its size says")
            self._left = 0
            position += 2
        return position

    def _read_trailer(self, data: bytes, position: int) -> bytes | None:
        assert self._trailer is not None
        while (end := data.find(b"\r\n", position)) != position:
            self._trailer += (len(data) if end < 0 else end) - position
            if self._trailer > MAX_TRAILER_BYTES:
                raise InvalidChunks("there is too much behind the last chunk")
            if end < 0:
                self._buffer = data[position:]
                self._trailer -= len(self._buffer)  # it is counted when it is whole
                return None
            position = end + 2
        return data[position + 2 :]


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


# TODO-MERGED-DOC: Bodies in chunks (RFC 9112 section 7.1), at a bounded cost: a chunk of a byte costs as much
# as one of 64 KiB.

# TODO-MERGED-DOC: The token that a WebSocket handshake brings along: in its header (RFC 6750 section 2.1), its
# query or a cookie.
