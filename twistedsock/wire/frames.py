"""WebSocket frames, as far as we touch them ourselves (RFC 6455 section 5.2).

Outwards: heads for text messages. Inwards: only the one frame that matters for speed - final, masked, unfragmented,
uncompressed, complete - is taken here; whatever else comes is left to Autobahn, byte for byte.
"""

from twistedsock.wire.payloads import is_utf8

_SHORT = [bytes((0x81, size)) for size in range(126)]
"""Heads of final text frames of 0 to 125 bytes."""


def text_frame(message: bytes) -> bytes:
    """A text message in one frame."""
    size = len(message)
    if size < 126:
        return _SHORT[size] + message
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + message
    return b"\x81\x7f" + size.to_bytes(8, "big") + message


def text_fragment(piece: bytes, first: bool, last: bool) -> bytes:
    """A piece of a text message in a frame of its own (RFC 6455 section 5.4)."""
    frame = text_frame(piece)
    return bytes(((0x80 if last else 0) | (1 if first else 0),)) + frame[1:]


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with a mask of 4 bytes (RFC 6455 section 5.3). As integers, this is the fastest that CPython can do for
    short messages, and linear for long ones."""
    size = len(data)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(data, "little") ^ key).to_bytes(size, "little")


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
    """The short way in for text messages. ``feed`` gives the messages that came as plain frames, and the bytes that
    Autobahn must have: whatever stands behind them, if it begins with anything else."""

    __slots__ = ("_held", "_most", "_needed", "_size")

    def __init__(self, most: int) -> None:
        self._most = most
        # The beginning of a plain frame, in pieces, as joining them at each feed would cost the square of its length.
        self._held: list[bytes] | None = None
        self._size = 0
        self._needed = 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        if self._held is not None:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return [], b""
            data, self._held = b"".join(self._held), None
        messages: list[bytes] = []
        position, size = 0, len(data)
        while position < size:
            end, body = plain_frame(data, position, self._most)
            if not end:
                return messages, data[position:]
            if end > size:
                self._held, self._size, self._needed = [data[position:]], size - position, end - position
                break
            message = unmask(data[body:end], data[body - 4 : body])
            if not message.isascii() and not is_utf8(message):
                return messages, data[position:]
            messages.append(message)
            position = end
        return messages, b""

    def rest(self) -> bytes:
        """What is held back, for whoever goes on in its place."""
        held, self._held = self._held, None
        return b"".join(held) if held is not None else b""
