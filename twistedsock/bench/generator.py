"""The load generator: publishers that publish as fast as the subscribers read or at a fixed rate, and subscribers that
count.

It is one process with one thread, so that it uses one processor and one clock. It reports how busy it was: if it was
busy nearly all the time, the generator was the bottleneck.
"""

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

from twistedsock.bench.clients import DeliveryError, Stream

WINDOW = 8_000
"""The most events that the publishers of a channel are ahead of its slowest subscriber. The history of sockbridge keeps
10,000 events, and other servers disconnect slow subscribers."""

EVENT_OVERHEAD = 328
"""The most bytes of bookkeeping that the history of sockbridge counts for an event."""

WINDOW_BYTES = 3 * 1024 * 1024
"""The same in bytes. The history of sockbridge keeps 4 MiB."""

ALL_WINDOWS_BYTES = 192 * 1024 * 1024
"""The same for all channels together. All histories of sockbridge keep 256 MiB."""


def window(size: int, channels: int) -> int:
    """Return the most events that the publishers of each channel can be ahead of its slowest subscriber."""
    return max(1, min(WINDOW, min(WINDOW_BYTES, ALL_WINDOWS_BYTES // channels) // (size + EVENT_OVERHEAD)))


SENT_AT_ONCE = 65_536
"""The most bytes of one ``send``."""

STALL_TIMEOUT_SECONDS = 30.0
"""Seconds without a delivery after which a load fails."""

OnProgress = Callable[[float], object]
"""Called very often with the fraction of a load that has been delivered."""


@dataclass
class LoadResult:
    """``seconds`` is the time from the first publication to the last delivery, ``busy`` the CPU time of the generator
    in it. ``latencies`` are measured at a fixed rate only, from before the ``send`` to after the ``recv``."""

    deliveries: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Publisher:
    """Publishes frames. ``sent`` counts bytes."""

    __slots__ = ("_ends", "connection", "count", "frames", "sent")

    def __init__(self, connection: socket.socket, frames: Sequence[bytes]) -> None:
        self.connection = connection
        self.frames = memoryview(b"".join(frames))
        self.count = len(frames)
        self.sent = 0
        size = len(frames[0])
        # Most protocols have frames of one length, which need no list of ends.
        self._ends: Sequence[int] = range(0, len(self.frames) + 1, size)
        if any(len(frame) != size for frame in frames):
            self._ends = list(accumulate(map(len, frames), initial=0))

    def publish(self, allowed: int) -> bool:
        """Send until ``allowed`` events are sent in total. Returns False if the socket is full."""
        end = self._ends[min(allowed, self.count)]
        while self.sent < end:
            try:
                self.sent += self.connection.send(self.frames[self.sent : min(end, self.sent + SENT_AT_ONCE)])
            except BlockingIOError:
                return False
        return True


class ChannelLoad:
    """The publishers of a channel, and its subscribers, for which they wait."""

    __slots__ = ("_allowed", "_events", "_slowest", "_step", "_window", "publishers", "readers")

    def __init__(self, publishers: Sequence[Publisher], readers: Sequence[Stream], window: int) -> None:
        self.publishers = publishers
        self.readers = readers
        self._events = sum(publisher.count for publisher in publishers)
        self._window = max(window, len(publishers))
        self._allowed = 0
        # Publish in large pieces, not after every delivery.
        self._step = max(1, self._window // 4)
        self._slowest = readers[0]

    def part(self) -> float:
        """Return the fraction that the slowest subscriber has received. The slowest is determined now and then."""
        return self._slowest.part()

    def push(self) -> list[Publisher]:
        """Publish more, and return the publishers whose socket is full."""
        if self.part() * self._events + self._window < self._allowed + self._step:
            return []
        self._slowest = min(self.readers, key=Stream.part)
        allowed = min(self._events, int(self._slowest.part() * self._events) + self._window)
        if allowed < self._events and allowed < self._allowed + self._step:
            return []
        self._allowed = allowed
        return self.send()

    def send(self) -> list[Publisher]:
        """Send the allowed events, and return the publishers whose socket is full."""
        each = self._allowed // len(self.publishers)
        return [publisher for publisher in self.publishers if not publisher.publish(each)]


class Load:
    """A load that is ready to run. ``replies`` are the streams of the publishers. ``poll`` must be one of the first
    1,024 files of the process, because ``select`` waits for it: create it before the connections."""

    def __init__(
        self, rooms: Sequence[ChannelLoad], replies: Sequence[Stream], on_progress: OnProgress, poll: select.epoll
    ) -> None:
        self._rooms = rooms
        self._on_progress = on_progress
        self._poll = poll
        self._streams: dict[int, Stream] = {}
        self._read_in: dict[int, ChannelLoad] = {}
        self._sent_in: dict[int, ChannelLoad] = {}
        self._sent_at: list[float] = []
        self._outcome = LoadResult()
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

    def run(self, rate: float | None = None) -> LoadResult:
        """Run as fast as possible, or at ``rate`` events per second. Raises DeliveryError."""
        return self.flat_out() if rate is None else self.paced(rate)

    def flat_out(self) -> LoadResult:
        """Publish as fast as the slowest subscribers read."""
        with self._measured():
            for room in self._rooms:
                self._await_writable(room.push())
            while self._missing:
                for room in self._step(STALL_TIMEOUT_SECONDS):
                    self._await_writable(room.push())
                self._on_progress(self._rooms[0].part())
        return self._outcome

    def paced(self, rate: float) -> LoadResult:
        """Publish ``rate`` single events per second from the only publisher, and record latencies."""
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
                self._on_progress(number / publisher.count)
            while self._missing:
                self._step(STALL_TIMEOUT_SECONDS)
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

    def _await_writable(self, full: Iterable[Publisher]) -> None:
        for publisher in full:
            self._poll.modify(publisher.connection, select.EPOLLIN | select.EPOLLOUT)

    def _step(self, timeout: float) -> set[ChannelLoad]:
        """Wait for data and read it. Returns the channels whose subscribers received data."""
        # select, because the timeout of epoll has a resolution of a millisecond.
        if not select.select([self._poll], (), (), timeout)[0]:
            if timeout >= STALL_TIMEOUT_SECONDS:
                late = next(stream for stream in self._streams.values() if not stream.is_complete)
                raise DeliveryError(
                    f"no delivery for {STALL_TIMEOUT_SECONDS:.0f} s, and {self._missing} connections are not complete, "
                    f"among them {late.name} with {late.progress()}"
                )
            return set()
        touched = set()
        for descriptor, mask in self._poll.poll(0):
            if mask & select.EPOLLOUT:
                self._poll.modify(descriptor, select.EPOLLIN)
                self._await_writable(self._sent_in[descriptor].send())
            if mask & ~select.EPOLLOUT:
                stream, room = self._streams[descriptor], self._read_in.get(descriptor)
                was_complete = stream.is_complete
                stream.receive()
                if room is not None:
                    touched.add(room)
                    if self._sent_at:
                        self._record_latencies(stream)
                self._missing -= stream.is_complete and not was_complete
        return touched

    def _record_latencies(self, stream: Stream) -> None:
        now, sent_at, latencies = time.perf_counter(), self._sent_at, self._outcome.latencies
        for number in stream.arrived():
            latencies.append(now - sent_at[number])
