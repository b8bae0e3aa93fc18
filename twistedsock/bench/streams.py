"""What comes in on one connection, held against what should."""

import socket
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from twistedsock.bench.driver import MARK, NUMBERED, SMALLEST_PAYLOAD, Noise

AT_ONCE = 65_536
"""Bytes read at once: below what the allocator takes from the system anew each time."""


LONGEST_PART = SMALLEST_PAYLOAD - 1
"""Bytes of a numbered mark that may have come without its last one."""


class Wrong(Exception):
    """A server has not delivered what it should have."""


class Expected:
    """What a connection should get, shared by all that should get the same: ``pieces`` in their order where that is
    ``foretold``, else only so many of them."""

    def __init__(self, pieces: Sequence[bytes], foretold: bool) -> None:
        self.count = len(pieces)
        self.stream = b"".join(pieces) if foretold else None
        self.size = len(self.stream) if self.stream is not None else self.count
        self.ends: Sequence[int] = array("Q", accumulate(map(len, pieces))) if foretold else range(1, self.count + 1)
        """The position at which each piece is complete."""


class Stream:
    """One connection. ``position`` goes up to ``expected.size``: bytes where they are foretold, else deliveries."""

    __slots__ = ("_arrived", "_held", "connection", "expected", "name", "noise", "position")

    def __init__(self, connection: socket.socket, expected: Expected, name: str, noise: Noise | None) -> None:
        self.connection = connection
        self.expected = expected
        self.name = name
        self.noise = noise
        self.position = 0
        self._arrived = 0
        self._held = b""

    @property
    def is_complete(self) -> bool:
        return self.position == self.expected.size

    def part(self) -> float:
        """What part of all the pieces has come."""
        expected = self.expected
        return bisect_right(expected.ends, self.position) / expected.count if expected.count else 1.0

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
            raise Wrong(f"{self.name}: the server closed after {self.progress()}")
        self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Some more bytes have come."""
        stream = self.expected.stream or b""
        if self._held or not stream.startswith(chunk, self.position):
            chunk = self._without_noise(chunk)
            if not stream.startswith(chunk, self.position):
                instead = stream[self.position :][:200]
                raise Wrong(f"{self.name}: after {self.progress()} came {chunk[:200]!r} where {instead!r} was expected")
        self.position += len(chunk)

    def _without_noise(self, chunk: bytes) -> bytes:
        """Answers noise, and takes it out; what begins it at the end is held back until the next chunk."""
        if self.noise is None:
            return chunk
        chunk = self._held + chunk
        said = self.noise.said
        if said in chunk:
            self.connection.send(self.noise.answer)
            chunk = chunk.replace(said, b"")
        begun = next((size for size in range(len(said) - 1, 0, -1) if chunk.endswith(said[:size])), 0)
        end = len(chunk) - begun
        self._held = chunk[end:]
        return chunk[:end]

    def progress(self) -> str:
        """How far it has come, in words."""
        return f"{self.part():.1%} of {self.expected.count:,}"


class CountedStream(Stream):
    """A connection whose bytes cannot be foretold: marks are counted, usually those of payloads. Where it is looked at
    ``closely``, the payloads of each of its ``channels`` must come in the order of their numbers; number 0 is of the
    first channel, 1 of the second, and so on in turn."""

    __slots__ = ("_channels", "_closely", "_mark", "_next", "_rest")

    def __init__(
        self,
        connection: socket.socket,
        expected: Expected,
        name: str,
        noise: Noise | None,
        closely: bool = False,
        channels: int = 1,
        mark: bytes = MARK,
    ) -> None:
        super().__init__(connection, expected, name, noise)
        self._closely = closely
        self._channels = channels
        self._mark = mark
        self._rest = b""
        self._next: dict[int, int] = {}

    def take(self, chunk: bytes) -> None:
        data = self._rest + self._without_noise(chunk)
        if self._closely:
            self._compare(data)
        else:
            self.position += data.count(self._mark)
            # What may be the beginning of a mark; all of one would be counted twice.
            self._rest = data[1 - len(self._mark) :] if len(self._mark) > 1 else b""
        if self.position > self.expected.count:
            raise Wrong(f"{self.name}: {self.position:,} deliveries came where {self.expected.count:,} were expected")

    def _compare(self, data: bytes) -> None:
        end = 0
        for found in NUMBERED.finditer(data):
            number = int(found[1])
            channel = number % self._channels
            awaited = self._next.get(channel, channel)
            if number != awaited:
                raise Wrong(f"{self.name}: number {number} came where {awaited} was expected")
            self._next[channel] = number + self._channels
            self.position += 1
            end = found.end()
        self._rest = data[max(end, len(data) - LONGEST_PART) :]
