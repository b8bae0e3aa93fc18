"""WebSocket frames, as far as we touch them ourselves (RFC 6455 section 5.2).

Outwards: heads for text messages. Inwards: only the one frame that matters for speed - final, masked, unfragmented,
uncompressed, complete - is taken here; whatever else comes is left to Autobahn, byte for byte.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha1

from twistedsock.codecs.payload import is_utf8


def _head(size: int) -> bytes:
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


MAX_FRAMES_TOGETHER = 256
"""Frames that are looked at together at most, so that what is looked at in vain costs less than a frame; and bytes of
the longest payload for which it pays."""

MIN_FRAMES_TOGETHER = 16
"""Fewer frames than this, or than a sixteenth of the bytes of a payload, are faster one by one."""

_HEADS = [_head(size) for size in range(1024)]
"""The heads that are needed most."""


def text_head(size: int) -> bytes:
    """The head of a final, unmasked text frame of so many bytes."""
    return _HEADS[size] if size < 1024 else _head(size)


def text_frame(message: bytes) -> bytes:
    """A text message in one frame."""
    return text_head(len(message)) + message


def text_fragment(piece: bytes, first: bool, last: bool) -> bytes:
    """A piece of a text message in a frame of its own (RFC 6455 section 5.4)."""
    frame = text_frame(piece)
    return bytes(((0x80 if last else 0) | (1 if first else 0),)) + frame[1:]


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with a mask of 4 bytes (RFC 6455 section 5.3). As integers, this is the fastest that CPython can do for
    short messages, and linear for long ones."""
    words = len(data) + 3 >> 2
    masked, key = int.from_bytes(data, "little"), int.from_bytes(mask * words, "little")
    return (masked ^ key).to_bytes(words << 2, "little")[: len(data)]


def unmask_alike(data: bytes, start: int, whole: int, before: int, count: int) -> list[bytes]:
    """The payloads of ``count`` frames of ``whole`` bytes each, the first of which begins at ``start``, with ``before``
    bytes before the payload. Together, a payload of a hundred bytes costs half of what it costs alone: the key is
    written for all frames at once, byte by byte of the payload, and there is one XOR."""
    stop = start + whole * count
    masks = [data[start + before - 4 + index : stop : whole] for index in range(4)]
    key = bytearray(whole * count)
    for index in range(whole - before):
        key[before + index :: whole] = masks[index & 3]
    clear = int.from_bytes(data[start:stop], "little") ^ int.from_bytes(key, "little")
    frames = clear.to_bytes(whole * count, "little")
    return [frames[body : body + whole - before] for body in range(before, whole * count, whole)]


def count_alike(data: bytes, start: int, head: bytes, whole: int) -> int:
    """How many whole frames in a row, of TOGETHER at most, have the same head as the one at ``start``."""
    count = min((len(data) - start) // whole, MAX_FRAMES_TOGETHER)
    stop = start + count * whole
    for index in range(len(head)):
        column = data[start + index : stop : whole]
        count = min(count, len(column) - len(column.lstrip(head[index : index + 1])))
    return count


def plain_frame(data: bytes, start: int, most: int) -> tuple[int, int]:
    """Where the plain text frame that begins at ``start`` ends, and where its payload begins. The end lies behind the
    data while not all of it is there, and is 0 where something else stands there: another kind of frame, more than
    ``most`` bytes, a length that is not in its shortest form."""
    available = len(data) - start
    if data[start] != 0x81:
        return 0, 0
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
    return (body + size, body) if size <= most else (0, 0)


class PlainFrames:
    """Decodes plain text frames. ``feed`` returns the messages of plain frames, and the bytes that
    Autobahn must decode: all that follows them, from the first frame of another kind on. ``partial`` is a plain frame
    that is not complete yet."""

    __slots__ = ("_max_bytes", "_needed", "partial")

    def __init__(self, most: int) -> None:
        self._max_bytes = most
        # The beginning of a plain frame: as bytes, each feed would cost its length; in pieces, a piece of two bytes
        # would take the memory of fifty.
        self.partial: bytearray | None = None
        self._needed = 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        if self.partial is not None:
            if len(self.partial) + len(data) < self._needed:
                self.partial += data
                return [], b""
            data, self.partial = b"".join((self.partial, data)), None
        messages: list[bytes] = []
        position, size = 0, len(data)
        while position < size:
            end, body = plain_frame(data, position, self._max_bytes)
            if not end:
                return messages, data[position:]
            if end > size:
                self.partial, self._needed = bytearray(data[position:]), end - position
                break
            start = position
            for message in self._some(data, start, body, end):
                if not message.isascii() and not is_utf8(message):
                    return messages, data[position:]
                messages.append(message)
                position += end - start
        return messages, b""

    @staticmethod
    def _some(data: bytes, start: int, body: int, end: int) -> Sequence[bytes]:
        """The payload of a frame; and of those that follow, where they are like it: most of a program's messages have
        one length."""
        head, size = data[start : body - 4], end - body
        if data.startswith(head, end) and size <= MAX_FRAMES_TOGETHER:
            count = count_alike(data, start, head, end - start)
            if count >= MIN_FRAMES_TOGETHER and size <= 16 * count:
                return unmask_alike(data, start, end - start, body - start, count)
        return (unmask(data[body:end], data[body - 4 : body]),)

    def drain(self) -> bytes:
        """What is held back, for whoever goes on in its place."""
        held, self.partial = self.partial, None
        return bytes(held) if held is not None else b""


_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

_TARGET = re.compile(r"/[a-z]*(?:\?token=[A-Za-z0-9._-]+)?")
"""The query is for pages that show a token: its letters are those of base64url (RFC 7515 section 3.1)."""

_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::([0-9]{1,5}))?")

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")

_OFFERS = ("permessage-deflate", "permessage-deflate; client_max_window_bits")
"""Extensions as Firefox and Safari, Chrome and the usual libraries offer them. They need no answer."""

Headers = dict[str, str]
"""Values by name in lower case; those of a name that stands there twice are joined to a list."""


def listed(value: str) -> list[str]:
    """The words of a list (RFC 9110 section 5.6.1): between commas, empty ones left out."""
    return [word for word in map(str.strip, value.split(",")) if word]


def plain_key(lines: list[str], headers: Headers) -> str:
    """The ``Sec-WebSocket-Key`` of a plain handshake, "" where it is any other. ``lines`` are those of the head, two
    empty ones at its end; ``headers`` is what they say."""
    text, names = "".join(lines), "".join(headers)
    # As many names as lines: none stands there twice, and no line is without one.
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


def _are_different(words: list[str]) -> bool:
    found = {word.strip(" ") for word in words}
    return len(found) == len(words) and "" not in found


def _is_usual(origin: str) -> bool:
    found = _ORIGIN.fullmatch(origin)
    return found is not None and int(found[1] or 0) < 65536


_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"

_EXTENSION = re.compile(rf'{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|"{_TOKEN}"))?)*')
"""RFC 6455 section 9.1."""


def take_extensions(head: bytes) -> tuple[bytes, str]:
    """A whole head without its ``Sec-WebSocket-Extensions`` lines, of which there may be several (RFC 6455 section
    11.3.2), and the list in them."""
    lines = head.split(b"\r\n")
    offers = [line for line in lines if line.partition(b":")[0].lower() == b"sec-websocket-extensions"]
    if not offers:
        return head, ""
    told = b",".join([line.partition(b":")[2] for line in offers])
    return b"\r\n".join([line for line in lines if line not in offers]), told.decode("latin-1")


def are_extensions(offers: str) -> bool:
    """Whether this list of extensions follows the grammar. If not, the handshake must fail (RFC 6455 section 9.1); an
    extension that is unknown, or has unknown or invalid parameters, is only declined (RFC 7692 section 7.1)."""
    return all(map(_EXTENSION.fullmatch, listed(offers)))


def switching_protocols(key: str, subprotocol: str | None, server: str) -> bytes:
    """The answer that opens the connection, to the byte as Autobahn writes it."""
    accept = b64encode(sha1(key.encode() + _MAGIC, usedforsecurity=False).digest()).decode()
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nServer: {server}\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        f"{chosen}Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


# TODO-MERGED-DOC: The opening handshake of a WebSocket (RFC 6455 section 4.2), as far as we answer it
# ourselves. Only the plain form is taken here, which is what browsers and the usual clients send: each header
# once, nothing but printable ASCII, no extension but the compression that they all offer and that is refused.
# Whatever else is asked for is left to Autobahn, which answers it or refuses it with the reason.
