"""How the load generator talks to a server: a driver for each of the servers and wires that are compared."""

import re
import socket
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

MARK = b"(#)"
"""Begins every payload, and stands nowhere else in what a server sends: where the bytes around a payload cannot be
foretold, deliveries are counted by it."""

NUMBERED = re.compile(rb"\(#\)(\d{8})")
"""The mark and the number of a payload."""

SMALLEST_PAYLOAD = 11
"""Bytes of a payload that holds no more than its mark and its number."""


def payloads(count: int, size: int) -> list[bytes]:
    """Numbered payloads of ``size`` bytes, at least SMALLEST_PAYLOAD: text that every server takes as it is."""
    filler = b"x" * (size - SMALLEST_PAYLOAD)
    return [b"(#)%08d%b" % (number, filler) for number in range(count)]


class Step(NamedTuple):
    """Something to say, and how the end of the answer is known; empty where nothing is said or awaited. ``begins`` is
    how an answer begins that is no refusal, where that can be said."""

    say: bytes
    until: bytes = b""
    begins: bytes = b""


@dataclass(frozen=True)
class Noise:
    """What a server says between deliveries without being asked, and what must be answered to it."""

    said: bytes
    answer: bytes


class Driver(Protocol):
    """One wire of one server. ``foretold`` says whether a reader's bytes are known beforehand: then all of them are
    compared; else deliveries are counted by their mark, and one reader's are looked at one by one."""

    name: str
    foretold: bool
    noise: Noise | None
    reply_mark: bytes
    """What stands in each reply to a publish once, if the replies differ when others publish there too; else empty."""

    def greet(self, host: str) -> Sequence[Step]:
        """What is said on a new connection, until it can be used. ``host`` is address and port."""

    def prepare(self) -> Sequence[Step]:
        """What a publisher says before it publishes."""

    def subscribe(self, channel: bytes, number: int) -> Step:
        """Ask for a channel; ``number`` counts the subscriptions of the connection from 1."""

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """What publishes each payload."""

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        """What a publisher hears of so many publishes to so many readers, when nobody else publishes there."""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        """What a reader whose subscription has that number gets for each payload, when nothing was published to the
        channel before."""


@dataclass(frozen=True)
class Target:
    """A server to load, with the wire that is spoken there."""

    driver: Driver
    address: tuple[str, int]

    @property
    def host(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


BATCH = 50
"""Connections that are opened together: as a server's backlog of connections sees it, a small crowd."""

PATIENCE = 30.0
"""Seconds without an answer after which a connection is given up."""


class Refused(Wrong):
    """A server's answer is not the one that lets us go on: ``answer``."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(f"the server answered {answer[:500]!r}")
        self.answer = answer


def receive_until(connection: socket.socket, end: bytes, begins: bytes = b"") -> bytes:
    """Read until ``end`` has come. Raises Refused when the server closes, or what comes does not begin as it should."""
    data = b""
    while end not in data:
        more = connection.recv(65_536)
        data += more
        if not more or not data.startswith(begins[: len(data)]):
            raise Refused(data)
    if not data.startswith(begins):
        raise Refused(data)
    return data


def perform(connections: Sequence[socket.socket], steps: Sequence[Step], patience: float = PATIENCE) -> None:
    """Take steps on all connections together: say it on all, then await the answer on all."""
    for step in steps:
        ask([(connection, step) for connection in connections], patience)


def ask(asked: Sequence[tuple[socket.socket, Step]], patience: float = PATIENCE) -> None:
    """Say something on each connection, then await all answers. Raises Refused, TimeoutError."""
    for connection, step in asked:
        connection.settimeout(patience)
        if step.say:
            connection.sendall(step.say)
    for connection, step in asked:
        if step.until:
            receive_until(connection, step.until, step.begins)


def connect(
    target: Target,
    count: int,
    stack: ExitStack,
    told: Callable[[int], object] = lambda done: None,
    patience: float = PATIENCE,
) -> list[socket.socket]:
    """So many connections that have been greeted, and that the stack closes; ``told`` hears of progress."""
    connections: list[socket.socket] = []
    steps = target.driver.greet(target.host)
    while len(connections) < count:
        batch = []
        for _ in range(min(BATCH, count - len(connections))):
            connection = stack.enter_context(socket.create_connection(target.address, timeout=patience))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            batch.append(connection)
        perform(batch, steps, patience)
        connections += batch
        told(len(connections))
    return connections


# TODO-MERGED-DOC: What comes in on one connection, held against what should.

# TODO-MERGED-DOC: Opening connections: many together, each until the server has said that it may be used.
