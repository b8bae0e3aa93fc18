"""What comes in on one connection, held against what should."""

import socket
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from twistedsock.bench.driver import MARK, NUMBERED, Noise

AT_ONCE = 65_536
"""Bytes read at once: below what the allocator takes from the system anew each time."""


class Wrong(Exception):
    """A server has not delivered what it should have."""


class Expected:
    """What a connection should get, shared by all that should get the same: ``pieces`` in their order where that is
    ``foretold``, else only so many of them."""

    def __init__(self, pieces: Sequence[bytes], foretold: bool) -> None:
        self.count = len(pieces)
        self.stream = b"".join(pieces) if foretold else None
        self.size = len(self.stream) if self.stream is not None else self.count
        self._lengths = [len(piece) for piece in pieces] if foretold else [1] * self.count

    @cached_property
    def ends(self) -> list[int]:
        """The position at which each piece is complete."""
        return list(accumulate(self._lengths))


class Stream:
    """One connection. ``position`` goes up to ``expected.size``: bytes where they are foretold, else deliveries."""

    __slots__ = ("_arrived", "connection", "expected", "name", "noise", "position")

    def __init__(self, connection: socket.socket, expected: Expected, name: str, noise: Noise | None) -> None:
        self.connection = connection
        self.expected = expected
        self.name = name
        self.noise = noise
        self.position = 0
        self._arrived = 0

    @property
    def is_complete(self) -> bool:
        return self.position == self.expected.size

    def part(self) -> float:
        """What part of all has come."""
        return self.position / self.expected.size if self.expected.size else 1.0

    def arrived(self) -> range:
        """The numbers of the pieces that have become complete since this was last asked."""
        before, self._arrived = self._arrived, bisect_right(self.expected.ends, self.position)
        return range(before, self._arrived)

    def receive(self) -> None:
        """Take what waits in the socket. Raises Wrong where it is not what should come."""
        try:
            chunk = self.connection.recv(AT_ONCE)
        except BlockingIOError:
            return
        if not chunk:
            raise Wrong(f"{self.name}: the server closed after {self._progress()}")
        self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Some more bytes have come."""
        stream = self.expected.stream
        if stream is None or not stream.startswith(chunk, self.position):
            chunk = self._without_noise(chunk)
            if stream is None or not stream.startswith(chunk, self.position):
                raise Wrong(f"{self.name}: after {self._progress()} came {chunk[:200]!r}{self._instead()}")
        self.position += len(chunk)

    def _without_noise(self, chunk: bytes) -> bytes:
        if self.noise is not None and self.noise.said in chunk:
            self.connection.send(self.noise.answer)
            return chunk.replace(self.noise.said, b"")
        return chunk

    def _instead(self) -> str:
        if self.expected.stream is None:
            return ""
        return f" where {self.expected.stream[self.position :][:200]!r} was expected"

    def _progress(self) -> str:
        return f"{self.part():.1%} of {self.expected.count:,}"


class CountedStream(Stream):
    """A connection whose bytes cannot be foretold: the marks of payloads are counted. The first reader is looked at
    ``closely``: its payloads must come in the order of their numbers."""

    __slots__ = ("_next", "_rest", "closely")

    def __init__(
        self, connection: socket.socket, expected: Expected, name: str, noise: Noise | None, closely: bool = False
    ) -> None:
        super().__init__(connection, expected, name, noise)
        self.closely = closely
        self._rest = b""
        self._next = 0

    def take(self, chunk: bytes) -> None:
        data = self._rest + self._without_noise(chunk)
        if self.closely:
            self._compare(data)
        else:
            self.position += data.count(MARK)
            self._rest = data[1 - len(MARK) :]
        if self.position > self.expected.count:
            raise Wrong(f"{self.name}: {self.position:,} deliveries came where {self.expected.count:,} were expected")

    def _compare(self, data: bytes) -> None:
        end = 0
        for found in NUMBERED.finditer(data):
            if int(found[1]) != self._next:
                raise Wrong(f"{self.name}: number {int(found[1])} came where {self._next} was expected")
            self._next += 1
            end = found.end()
        self.position = self._next
        self._rest = data[max(end, len(data) - len(MARK) - 8 + 1) :]
