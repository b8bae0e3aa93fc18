"""Bodies in chunks (RFC 9112 section 7.1), at a bounded cost: a chunk of a byte costs as much as one of 64 KiB."""

import re
from collections.abc import Callable

MOST_CHUNKS = 1_000
"""In one body: a millisecond or two for the smallest. What clients send is cut at 4 KiB or more, and nothing that is
taken here is longer than some hundreds of KiB."""

MOST_SIZE_LINE = 256
"""Bytes of the line that tells the size of a chunk; nobody uses its extensions."""

MOST_TRAILER = 4 * 1024
"""Bytes of the lines behind the last chunk. They are dropped: what they say must not matter (section 6.5.1)."""

# Sixteen digits would be more than any memory; spaces before the extension are bad manners that section 7.1.1 allows.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")


class BadChunks(Exception):
    """This is no body in chunks, or it is in too many; its text says which."""


class Chunks:
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
            end = data.find(b"\r\n", position, position + MOST_SIZE_LINE + 2)
            if end < 0:
                if len(data) - position > MOST_SIZE_LINE:
                    raise BadChunks("the line with the size of a chunk is too long")
                self._buffer = data[position:]
                return None
            self._begin_chunk(data[position:end])
            position = end + 2
        return self._read_trailer(data, position)

    def _begin_chunk(self, line: bytes) -> None:
        size = _SIZE.fullmatch(line)
        if size is None:
            raise BadChunks("a chunk does not begin with its size")
        self._chunks += 1
        if self._chunks > MOST_CHUNKS:
            raise BadChunks(f"the body is in more than {MOST_CHUNKS} chunks")
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
                raise BadChunks("a chunk does not end where its size says")
            self._left = 0
            position += 2
        return position

    def _read_trailer(self, data: bytes, position: int) -> bytes | None:
        assert self._trailer is not None
        while (end := data.find(b"\r\n", position)) != position:
            self._trailer += (len(data) if end < 0 else end) - position
            if self._trailer > MOST_TRAILER:
                raise BadChunks("there is too much behind the last chunk")
            if end < 0:
                self._buffer = data[position:]
                self._trailer -= len(self._buffer)  # it is counted when it is whole
                return None
            position = end + 2
        return data[position + 2 :]
