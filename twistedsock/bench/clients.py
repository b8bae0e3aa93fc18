"""The connections of the load generator: opening them, and verifying the bytes that arrive.

A driver describes the protocol of a server: its requests, and the replies and deliveries that they cause.
"""

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
"""The beginning of every payload. Servers send it nowhere else, so it counts deliveries whose bytes are not
predictable."""

NUMBERED = re.compile(rb"\(#\)(\d{8})")
"""The mark and the number of a payload."""

SMALLEST_PAYLOAD = 11
"""Bytes of a payload that contains only its mark and its number."""


def payloads(count: int, size: int) -> list[bytes]:
    """Return numbered payloads of ``size`` bytes, which is at least SMALLEST_PAYLOAD. Every server accepts the text."""
    filler = b"x" * (size - SMALLEST_PAYLOAD)
    return [b"(#)%08d%b" % (number, filler) for number in range(count)]


class Exchange(NamedTuple):
    """A request, and the bytes that end its reply. Empty: no request, or no reply. ``begins`` is the beginning of a
    successful reply, if there is a fixed one."""

    request: bytes
    until: bytes = b""
    begins: bytes = b""


@dataclass(frozen=True)
class ServerPing:
    """A message that a server sends between deliveries, and the reply that it requires."""

    message: bytes
    reply: bytes


class Driver(Protocol):
    """A protocol of a server. If ``is_predictable``, the bytes that a subscriber receives are known in advance, and all
    of them are compared. Otherwise deliveries are counted by their mark, and those of one subscriber are verified."""

    name: str
    is_predictable: bool
    is_size_predictable: bool
    """True if only the number of bytes is known in advance."""
    keep_alive: ServerPing | None
    reply_mark: bytes
    """Occurs once in each reply to a publication. Empty if there are none."""

    def greet(self, host: str) -> Sequence[Exchange]:
        """Return the exchanges that open a session. ``host`` is address and port."""

    def prepare(self) -> Sequence[Exchange]:
        """Return the exchanges of a publisher before it publishes."""

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        """Return the exchange that subscribes. ``number`` counts the subscriptions of the connection from 1."""

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """Return the request that publishes each payload."""

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        """Return the replies to a publisher that publishes ``count`` events as the only one on a channel, or nothing if
        they are not predictable, and are counted by their mark."""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        """Return the bytes that a subscription with this number receives for each payload on a new channel."""


@dataclass(frozen=True)
class Target:
    """A server to load, and its protocol."""

    driver: Driver
    address: tuple[str, int]

    @property
    def host(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


AT_ONCE = 65_536
"""Bytes read at once. The allocator requests larger buffers from the system each time."""

LONGEST_PART = SMALLEST_PAYLOAD - 1
"""The most bytes of an incomplete mark and number."""


class DeliveryError(Exception):
    """A server has not delivered the expected bytes. ``received`` are those in their place, if there are any."""

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received


class ExpectedData:
    """The data that a connection should receive, shared by all connections with the same data. If ``is_predictable``,
    the pieces themselves in their order; otherwise only their number."""

    def __init__(self, pieces: Sequence[bytes], is_predictable: bool) -> None:
        self.count = len(pieces)
        self.stream = b"".join(pieces) if is_predictable else None
        self.size = len(self.stream) if self.stream is not None else self.count
        self.ends: Sequence[int] = (
            array("Q", accumulate(map(len, pieces))) if is_predictable else range(1, self.count + 1)
        )
        """The position at which each piece is complete."""


class Stream:
    """A connection that verifies the bytes that it receives. ``position`` counts bytes if they are predictable, and
    deliveries otherwise, up to ``expected.size``."""

    __slots__ = ("_arrived", "_held", "connection", "expected", "name", "keep_alive", "position")

    def __init__(
        self, connection: socket.socket, expected: ExpectedData, name: str, keep_alive: ServerPing | None
    ) -> None:
        self.connection = connection
        self.expected = expected
        self.name = name
        self.keep_alive = keep_alive
        self.position = 0
        self._arrived = 0
        self._held = b""

    @property
    def is_complete(self) -> bool:
        return self.position == self.expected.size

    def part(self) -> float:
        """Return the fraction of the pieces that has arrived."""
        expected = self.expected
        return bisect_right(expected.ends, self.position) / expected.count if expected.count else 1.0

    def arrived(self) -> range:
        """Return the numbers of the pieces that have become complete since the last call."""
        before, self._arrived = self._arrived, bisect_right(self.expected.ends, self.position)
        return range(before, self._arrived)

    def receive(self) -> None:
        """Read from the socket. Raises DeliveryError if the bytes are not the expected ones."""
        try:
            chunk = self.connection.recv(AT_ONCE)
        except BlockingIOError:
            return
        if not chunk:
            raise DeliveryError(f"{self.name}: the server closed after {self.progress()}")
        self.feed(chunk)

    def feed(self, chunk: bytes) -> None:
        """Verify received bytes."""
        stream = self.expected.stream or b""
        if self._held or not stream.startswith(chunk, self.position):
            chunk = self._without_keep_alive(chunk)
            if not stream.startswith(chunk, self.position):
                expected = stream[self.position :][:200]
                message = f"{self.name}: after {self.progress()}, expected {expected!r}, received {chunk[:200]!r}"
                raise DeliveryError(message, chunk)
        self.position += len(chunk)

    def _without_keep_alive(self, chunk: bytes) -> bytes:
        """Reply to keep-alives, and remove them. The beginning of one at the end waits for the next chunk."""
        if self.keep_alive is None:
            return chunk
        chunk = self._held + chunk
        message = self.keep_alive.message
        if message in chunk:
            self.connection.send(self.keep_alive.reply)
            chunk = chunk.replace(message, b"")
        begun = next((size for size in range(len(message) - 1, 0, -1) if chunk.endswith(message[:size])), 0)
        end = len(chunk) - begun
        self._held = chunk[end:]
        return chunk[:end]

    def progress(self) -> str:
        """Return the progress for a message."""
        return f"{self.part():.1%} of {self.expected.count:,}"


class SizedStream(Stream):
    """A connection of which only the number of bytes is predictable, and verified."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> None:
        self.position += len(self._without_keep_alive(chunk))
        if self.position > self.expected.size:
            raise DeliveryError(f"{self.name}: expected {self.expected.size:,} bytes, received {self.position:,}")


class CountedStream(Stream):
    """A connection whose bytes are not predictable: counts marks, usually those of payloads. If ``verifies_order``, the
    payloads of each of its ``channels`` must arrive in the order of their numbers. The numbers belong to the channels
    in turn: 0 to the first channel, 1 to the second."""

    __slots__ = ("_channels", "_verifies_order", "_mark", "_next", "_rest")

    def __init__(
        self,
        connection: socket.socket,
        expected: ExpectedData,
        name: str,
        keep_alive: ServerPing | None,
        verifies_order: bool = False,
        channels: int = 1,
        mark: bytes = MARK,
    ) -> None:
        super().__init__(connection, expected, name, keep_alive)
        self._verifies_order = verifies_order
        self._channels = channels
        self._mark = mark
        self._rest = b""
        self._next: dict[int, int] = {}

    def feed(self, chunk: bytes) -> None:
        data = self._rest + self._without_keep_alive(chunk)
        if self._verifies_order:
            self._compare(data)
        else:
            self.position += data.count(self._mark)
            # Keep what can be the beginning of a mark, but not a whole one, which would be counted twice.
            self._rest = data[1 - len(self._mark) :] if len(self._mark) > 1 else b""
        if self.position > self.expected.count:
            raise DeliveryError(f"{self.name}: expected {self.expected.count:,} deliveries, received {self.position:,}")

    def _compare(self, data: bytes) -> None:
        end = 0
        for found in NUMBERED.finditer(data):
            number = int(found[1])
            channel = number % self._channels
            awaited = self._next.get(channel, channel)
            if number != awaited:
                raise DeliveryError(f"{self.name}: expected event number {awaited}, received {number}")
            self._next[channel] = number + self._channels
            self.position += 1
            end = found.end()
        self._rest = data[max(end, len(data) - LONGEST_PART) :]


BATCH = 50
"""Connections that are opened together, well below the accept backlog of servers."""

REPLY_TIMEOUT_SECONDS = 30.0


class UnexpectedReply(DeliveryError):
    """A server has replied with an error, or has closed the connection."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(f"the server replied {reply[:500]!r}")
        self.reply = reply


def receive_until(connection: socket.socket, end: bytes, begins: bytes = b"") -> bytes:
    """Read until ``end`` has arrived. Raises UnexpectedReply if the server closes the connection, or if the data does
    not begin with ``begins``."""
    data = b""
    while end not in data:
        more = connection.recv(65_536)
        data += more
        if not more or not data.startswith(begins[: len(data)]):
            raise UnexpectedReply(data)
    if not data.startswith(begins):
        raise UnexpectedReply(data)
    return data


def perform(
    connections: Sequence[socket.socket], steps: Sequence[Exchange], timeout: float = REPLY_TIMEOUT_SECONDS
) -> None:
    """Do each exchange on all connections together: send all requests, then wait for all replies."""
    for step in steps:
        exchange([(connection, step) for connection in connections], timeout)


def exchange(asked: Sequence[tuple[socket.socket, Exchange]], timeout: float = REPLY_TIMEOUT_SECONDS) -> None:
    """Send a request on each connection, then wait for all replies. Raises UnexpectedReply, TimeoutError."""
    for connection, step in asked:
        connection.settimeout(timeout)
        if step.request:
            connection.sendall(step.request)
    for connection, step in asked:
        if step.until:
            receive_until(connection, step.until, step.begins)


def connect(
    target: Target,
    count: int,
    stack: ExitStack,
    on_progress: Callable[[int], object] = lambda done: None,
    timeout: float = REPLY_TIMEOUT_SECONDS,
) -> list[socket.socket]:
    """Open ``count`` sessions, which the stack closes. ``on_progress`` is called with their number so far."""
    connections: list[socket.socket] = []
    steps = target.driver.greet(target.host)
    while len(connections) < count:
        batch = []
        for _ in range(min(BATCH, count - len(connections))):
            connection = stack.enter_context(socket.create_connection(target.address, timeout=timeout))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            batch.append(connection)
        perform(batch, steps, timeout)
        connections += batch
        on_progress(len(connections))
    return connections
