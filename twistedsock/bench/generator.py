"""The load: publishers that publish as fast as the readers read, or at a pace, and readers that count.

One process and one thread, so that it takes one processor at most and sees all by one clock. It says how busy it was:
where that is near to all of the time, it is itself what was measured.
"""

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

from twistedsock.bench.clients import Stream, Wrong

WINDOW = 8_000
"""Events that the publishers of a channel are ahead of its slowest reader at most, together: a log of ours keeps
10,000, and others cut off who is too far behind."""

EVENT_OVERHEAD = 288
"""Bytes of bookkeeping that a log of ours counts for an event at most."""

WINDOW_BYTES = 3 * 1024 * 1024
"""Bytes that the publishers of a channel are ahead at most: a log of ours keeps 4 MiB."""

ALL_WINDOWS_BYTES = 192 * 1024 * 1024
"""Bytes that all publishers are ahead at most: all logs of ours keep 256 MiB."""


def window(size: int, channels: int) -> int:
    """Events that the publishers of each of so many channels are ahead of its slowest reader at most."""
    return max(1, min(WINDOW, min(WINDOW_BYTES, ALL_WINDOWS_BYTES // channels) // (size + EVENT_OVERHEAD)))


SENT_AT_ONCE = 65_536
"""Bytes that a publisher hands to the kernel at once."""

PATIENCE = 30.0
"""Seconds without anything new after which a load is given up."""

Told = Callable[[float], object]
"""Hears, very often, what part of a load has been delivered."""


@dataclass
class Outcome:
    """``seconds`` from the first publish to the last delivery; ``busy`` is the generator's own CPU in that time;
    ``latencies``, where a pace was kept, from before the publish to after the read, in seconds."""

    deliveries: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Publisher:
    """Publishes frames, as far as it may. ``sent`` counts bytes."""

    __slots__ = ("_ends", "connection", "count", "frames", "sent")

    def __init__(self, connection: socket.socket, frames: Sequence[bytes]) -> None:
        self.connection = connection
        self.frames = memoryview(b"".join(frames))
        self.count = len(frames)
        self.sent = 0
        size = len(frames[0])
        # Most wires have frames of one length: then a million of them need no list.
        self._ends: Sequence[int] = range(0, len(self.frames) + 1, size)
        if any(len(frame) != size for frame in frames):
            self._ends = list(accumulate(map(len, frames), initial=0))

    def publish(self, allowed: int) -> bool:
        """Send up to ``allowed`` events in all; False when the socket is full."""
        end = self._ends[min(allowed, self.count)]
        while self.sent < end:
            try:
                self.sent += self.connection.send(self.frames[self.sent : min(end, self.sent + SENT_AT_ONCE)])
            except BlockingIOError:
                return False
        return True


class Room:
    """Publishers and the readers that they wait for."""

    __slots__ = ("_allowed", "_events", "_slowest", "_step", "_window", "publishers", "readers")

    def __init__(self, publishers: Sequence[Publisher], readers: Sequence[Stream], window: int) -> None:
        self.publishers = publishers
        self.readers = readers
        self._events = sum(publisher.count for publisher in publishers)
        self._window = max(window, len(publishers))
        self._allowed = 0
        # Not for every event that is read: what is sent is to be sent in large pieces.
        self._step = max(1, self._window // 4)
        self._slowest = readers[0]

    def part(self) -> float:
        """What part of all the slowest reader has, or had when it was last looked for."""
        return self._slowest.part()

    def push(self) -> list[Publisher]:
        """Let the publishers go on; gives those whose socket is full."""
        if self.part() * self._events + self._window < self._allowed + self._step:
            return []
        self._slowest = min(self.readers, key=Stream.part)
        allowed = min(self._events, int(self._slowest.part() * self._events) + self._window)
        if allowed < self._events and allowed < self._allowed + self._step:
            return []
        self._allowed = allowed
        return self.send()

    def send(self) -> list[Publisher]:
        """Send what is allowed; gives the publishers whose socket is full."""
        each = self._allowed // len(self.publishers)
        return [publisher for publisher in self.publishers if not publisher.publish(each)]


class Load:
    """``replies`` are the publishers' own streams. ``poll`` must be one of the first 1,024 files of this process, as we
    wait for it with select: make it before the connections."""

    def __init__(self, rooms: Sequence[Room], replies: Sequence[Stream], told: Told, poll: select.epoll) -> None:
        self._rooms = rooms
        self._told = told
        self._poll = poll
        self._streams: dict[int, Stream] = {}
        self._read_in: dict[int, Room] = {}
        self._sent_in: dict[int, Room] = {}
        self._sent_at: list[float] = []
        self._outcome = Outcome()
        for room in rooms:
            for publisher in room.publishers:
                self._sent_in[publisher.connection.fileno()] = room
            for reader in room.readers:
                self._read_in[reader.connection.fileno()] = room
                self._outcome.deliveries += reader.expected.count
                self._add(reader)
        for reply in replies:
            self._add(reply)
        self._missing = sum(not stream.is_complete for stream in self._streams.values())

    def run(self, rate: float | None = None) -> Outcome:
        """Flat out, or at ``rate`` events a second. Raises Wrong when a connection does not get what it should."""
        return self.flat_out() if rate is None else self.paced(rate)

    def flat_out(self) -> Outcome:
        """Publish as fast as the slowest readers read."""
        with self._measured():
            for room in self._rooms:
                self._await_room(room.push())
            while self._missing:
                for room in self._step(PATIENCE):
                    self._await_room(room.push())
                self._told(self._rooms[0].part())
        return self._outcome

    def paced(self, rate: float) -> Outcome:
        """One event at a time, ``rate`` a second, from the only publisher; notes how long each delivery took."""
        (room,) = self._rooms
        (publisher,) = room.publishers
        with self._measured():
            start = time.perf_counter()
            for number in range(publisher.count):
                due = start + number / rate
                self._step(0)
                while (wait := due - time.perf_counter()) > 0:
                    self._step(wait)
                self._sent_at.append(time.perf_counter())
                publisher.publish(number + 1)
                self._told(number / publisher.count)
            while self._missing:
                self._step(PATIENCE)
        return self._outcome

    @contextmanager
    def _measured(self) -> Iterator[None]:
        start, busy = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._outcome.seconds = time.perf_counter() - start
            self._outcome.busy = time.process_time() - busy
            for stream in self._streams.values():
                self._poll.unregister(stream.connection)

    def _add(self, stream: Stream) -> None:
        stream.connection.setblocking(False)
        self._streams[stream.connection.fileno()] = stream
        self._poll.register(stream.connection, select.EPOLLIN)

    def _await_room(self, full: Iterable[Publisher]) -> None:
        for publisher in full:
            self._poll.modify(publisher.connection, select.EPOLLIN | select.EPOLLOUT)

    def _step(self, timeout: float) -> set[Room]:
        """Wait for something to read, and read; gives the rooms in which something was read."""
        # select, because the resolution of epoll's own timeout is a millisecond.
        if not select.select([self._poll], (), (), timeout)[0]:
            if timeout >= PATIENCE:
                late = next(stream for stream in self._streams.values() if not stream.is_complete)
                raise Wrong(
                    f"{self._missing} connections have not got all, and for {PATIENCE:.0f} s came nothing; "
                    f"{late.name}: {late.progress()}"
                )
            return set()
        touched = set()
        for descriptor, mask in self._poll.poll(0):
            if mask & select.EPOLLOUT:
                self._poll.modify(descriptor, select.EPOLLIN)
                self._await_room(self._sent_in[descriptor].send())
            if mask & ~select.EPOLLOUT:
                stream, room = self._streams[descriptor], self._read_in.get(descriptor)
                was_complete = stream.is_complete
                stream.receive()
                if room is not None:
                    touched.add(room)
                    if self._sent_at:
                        self._note(stream)
                self._missing -= stream.is_complete and not was_complete
        return touched

    def _note(self, stream: Stream) -> None:
        now, sent_at, latencies = time.perf_counter(), self._sent_at, self._outcome.latencies
        for number in stream.arrived():
            latencies.append(now - sent_at[number])
