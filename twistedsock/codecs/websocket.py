"""WebSocket frames and handshakes that do not need Autobahn (RFC 6455).

Frames: the server writes its text messages itself. It decodes plain frames, which are nearly all: complete text frames
that are final, masked and uncompressed. Autobahn decodes everything else, and receives it unchanged.

Handshakes: the server answers plain ones itself, as browsers and the usual libraries send them: each header once,
only printable ASCII, and no extension other than permessage-deflate, which it declines. Autobahn answers all others.
"""

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from hashlib import sha1
from typing import Any

from twistedsock.codecs.payload import is_utf8
from twistedsock.errors import CloseReason
from twistedsock.speedups import compiled

CLOSE_CODES = {
    CloseReason.NORMAL: 1000,
    CloseReason.GOING_AWAY: 1001,
    CloseReason.POLICY: 1008,
    CloseReason.TRY_AGAIN: 1013,
}
"""The close codes of RFC 6455 section 7.4.1 and the IANA registry. Streams and JSON lines send them in a message."""


def _head(size: int) -> bytes:
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


_TEXT, _BINARY = 0x81, 0x82
"""The first byte of a complete message in one frame (RFC 6455 section 5.2)."""

_HEADS = [_head(size) for size in range(1024)]
"""The heads of short messages."""


def text_head(size: int) -> bytes:
    """The head of a final, unmasked text frame with a payload of ``size`` bytes."""
    return _HEADS[size] if size < 1024 else _head(size)


def text_frame(message: bytes) -> bytes:
    """A text message in one frame."""
    size = len(message)
    return (_HEADS[size] if size < 1024 else _head(size)) + message


def binary_frame(message: bytes) -> bytes:
    """A binary message in one frame."""
    return b"\x82" + text_head(len(message))[1:] + message


def text_fragment(piece: bytes, first: bool, last: bool) -> bytes:
    """A fragment of a text message (RFC 6455 section 5.4)."""
    frame = text_frame(piece)
    return bytes(((0x80 if last else 0) | (1 if first else 0),)) + frame[1:]


def split_frames(frames: bytes) -> Iterator[tuple[bytes, bool]]:
    """The messages in frames of the functions above, each with True if it is binary. One that does not end is left
    out."""
    position, begun = 0, b""
    while position < len(frames):
        first, size, position = frames[position], frames[position + 1], position + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, position = int.from_bytes(frames[position : position + width]), position + width
        payload, position = frames[position : position + size], position + size
        if first & 0x80:
            yield begun + payload, first == 0x82
            begun = b""
        else:
            begun += payload


def choose_unmask() -> Callable[[bytes, bytes], bytes]:
    """A function that XORs with a mask of 4 bytes (RFC 6455 section 5.3): the one in C of the library websockets or, if
    its package for this platform has none, that in Python."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        from websockets.utils import apply_mask
    return apply_mask


unmask = choose_unmask()
"""For 68 bytes, the one in C took 0.1 us, and that in Python 0.7 us; for 16 KiB 0.5 us and at least 35 us."""


def frame_bounds(data: bytes, start: int, max_bytes: int) -> tuple[int, int]:
    """The end of the masked frame at ``start``, and the start of its payload. The end is beyond the data if the frame
    is incomplete. It is 0 for frames without a mask, for payloads of more than ``max_bytes``, and for lengths that are
    not in their shortest form. The first byte is not examined."""
    available = len(data) - start
    if available < 2:
        return start + 2, 0
    size = data[start + 1] - 0x80
    if size < 0 or size == 127:
        return 0, 0
    body = start + 6
    if size == 126:
        if available < 4:
            return start + 8, 0
        size = data[start + 2] << 8 | data[start + 3]
        if size < 126:
            return 0, 0
        body = start + 8
    return (body + size, body) if size <= max_bytes else (0, 0)


@compiled
def scan_frames(data: bytes, position: int, max_bytes: int) -> tuple[list[bytes], int]:
    """The messages in the plain text frames from ``position`` on, and the position after these frames. They end with
    the data, or before the first frame that is incomplete or not plain: that has another first byte, no mask, more than
    ``max_bytes``, a length of 64 bits or one that is not in its shortest form, or a payload that is not UTF-8."""
    messages: list[bytes] = []
    available = len(data)
    while position < available and data[position] == _TEXT:
        end, body = frame_bounds(data, position, max_bytes)
        if not 0 < end <= available:
            break
        message = unmask(data[body:end], data[body - 4 : body])
        if not (message.isascii() or is_utf8(message)):
            break
        messages.append(message)
        position = end
    return messages, position


class PlainFrames:
    """Decodes plain text frames. ``feed`` returns the messages of plain frames, and the bytes that Autobahn must
    decode: everything from the first frame of another kind on. With ``decode_binary``, complete binary frames are plain
    too, and what it returns takes the place of their messages. ``partial`` is a plain frame that is not
    complete yet."""

    __slots__ = ("_decode_binary", "_max_bytes", "_needed", "partial")

    def __init__(self, max_bytes: int, decode_binary: Callable[[bytes], Any] | None = None) -> None:
        self._max_bytes = max_bytes
        self._decode_binary = decode_binary
        # A bytes object would be copied by each feed; in a list, a piece of two bytes would take the memory of fifty.
        self.partial: bytearray | None = None
        self._needed = 0

    def feed(self, data: bytes) -> tuple[list[Any], bytes]:
        if self.partial is not None:
            if len(self.partial) + len(data) < self._needed:
                self.partial += data
                return [], b""
            data, self.partial = b"".join((self.partial, data)), None
        messages: list[Any]
        messages, position = scan_frames(data, 0, self._max_bytes)
        while position < len(data):
            first, decode = data[position], self._decode_binary
            if first != _TEXT and (first != _BINARY or decode is None):
                return messages, data[position:]
            end, body = frame_bounds(data, position, self._max_bytes)
            if end > len(data):
                self.partial, self._needed = bytearray(data[position:]), end - position
                break
            if not end or first != _BINARY or decode is None:
                return messages, data[position:]
            messages.append(decode(unmask(data[body:end], data[body - 4 : body])))
            more, position = scan_frames(data, end, self._max_bytes)
            messages += more
        return messages, b""

    def drain(self) -> bytes:
        """Return the incomplete frame and forget it, so that Autobahn can decode it."""
        partial, self.partial = self.partial, None
        return bytes(partial) if partial is not None else b""


_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

_TARGET = re.compile(r"/[a-z]*(?:\?token=[A-Za-z0-9._-]+)?|/socket\.io/\?[A-Za-z0-9._=&-]+")
"""The query is for pages that authenticate with a token, in base64url (RFC 7515 section 3.1), or that of Engine.IO."""

_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::([0-9]{1,5}))?")

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")

_OFFERS = ("permessage-deflate", "permessage-deflate; client_max_window_bits")
"""Extension offers of Firefox and Safari, of Chrome, and of the usual libraries. The server declines them silently."""

Headers = dict[str, str]
"""Values by lower-case name. The values of a repeated header are joined to a list."""


def listed(value: str) -> list[str]:
    """The elements of a comma-separated list, without empty ones (RFC 9110 section 5.6.1)."""
    return [word for word in map(str.strip, value.split(",")) if word]


def plain_key(lines: list[str], headers: Headers) -> str:
    """The ``Sec-WebSocket-Key`` of a plain handshake, "" for all other requests. ``lines`` are the lines of the head
    with two empty ones at the end, ``headers`` the headers in them."""
    text, names = "".join(lines), "".join(headers)
    # As many names as lines: each line has a name, and no name occurs twice.
    if not text.isascii() or not text.isprintable() or len(headers) != len(lines) - 3 or "" in headers or " " in names:
        return ""
    method, target, version = lines[0].split(" ")
    get = headers.get
    if (
        method != "GET"
        or version != "HTTP/1.1"
        or get("sec-websocket-version") != "13"
        or get("upgrade", "").lower() != "websocket"
        or "upgrade" not in listed(get("connection", "").lower())
        or get("sec-websocket-extensions", _OFFERS[0]) not in _OFFERS
        or not _TARGET.fullmatch(target)
        or not _HOST.fullmatch(get("host", ""))
    ):
        return ""
    origin, protocols = get("origin"), get("sec-websocket-protocol")
    if origin is not None and not _is_usual(origin):
        return ""
    if protocols is not None and not _are_different(protocols.split(",")):
        return ""
    key = get("sec-websocket-key", "")
    return key if _KEY.fullmatch(key) else ""


def plain_headers(head: bytes) -> Headers:
    """All headers of a plain handshake."""
    lines = head.decode().split("\r\n")[1:-2]
    return {name.lower(): value.strip() for name, _, value in [line.partition(":") for line in lines]}


def _are_different(words: list[str]) -> bool:
    found = {word.strip(" ") for word in words}
    return len(found) == len(words) and "" not in found


def _is_usual(origin: str) -> bool:
    found = _ORIGIN.fullmatch(origin)
    return found is not None and int(found[1] or 0) < 65536


_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"

_EXTENSION = re.compile(rf'{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|"{_TOKEN}"))?)*')
"""RFC 6455 section 9.1."""


def split_extensions(head: bytes) -> tuple[bytes, str]:
    """Split a head into the head without its ``Sec-WebSocket-Extensions`` headers and the list in these headers, of
    which there can be several (RFC 6455 section 11.3.2)."""
    lines = head.split(b"\r\n")
    offers = [line for line in lines if line.partition(b":")[0].lower() == b"sec-websocket-extensions"]
    if not offers:
        return head, ""
    joined = b",".join([line.partition(b":")[2] for line in offers])
    return b"\r\n".join([line for line in lines if line not in offers]), joined.decode("latin-1")


def are_extensions(offers: str) -> bool:
    """True for a list of extensions that follows the grammar. If it does not, the handshake must fail (RFC 6455 section
    9.1). Extensions that are unknown, or have invalid parameters, are only declined (RFC 7692 section 7.1)."""
    return all(map(_EXTENSION.fullmatch, listed(offers)))


def switching_protocols(key: str, subprotocol: str | None, server: str) -> bytes:
    """The response that opens the connection, with the same bytes as Autobahn's."""
    accept = b2a_base64(sha1(key.encode() + _MAGIC, usedforsecurity=False).digest(), newline=False).decode()
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nServer: {server}\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        f"{chosen}Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()
