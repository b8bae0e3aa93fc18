"""The last events of one channel, bounded in count, bytes and age.

The one log serves history, recovery and slow readers alike, so that a slow reader costs no memory of its own. It
holds batches, as they came: their offsets are contiguous. Of the oldest, the first events may be gone already.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import attrgetter

from twistedsock.limits.settings import CHUNK_BYTES, Limits
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Event, Lost, cost

AGE_STEPS = 64
"""Ages are kept in this many steps of the age bound: an event leaves at most 1/64 of the bound late, and the marks
cost nothing beside the events."""

FRAME_COST = 48
"""Bytes that a dialect writes around a payload, roughly: the line dialect 20 to 40, the JSON dialect 90. With it, what
is read or waits is measured in the bytes that will be sent."""

MAX_WASTE = 4
"""What has gone of the oldest batch is still held, until it is more than one part in so many of what the rest costs:
copying the rest each time would cost the square of its length."""

_first = attrgetter("first")


class History:
    """Events and their bounds. ``size`` is their cost in bytes, ``first`` the offset of the oldest, or of the next;
    ``end`` is the offset that the next one will have."""

    __slots__ = ("_batches", "_limits", "_marks", "_waste", "end", "first", "size")

    def __init__(self, limits: Limits, first: int = 1) -> None:
        self.first = self.end = first
        self.size = 0
        self._batches: deque[Batch] = deque()
        # Bytes that the oldest batch still holds of events that are not there any more.
        self._waste = 0
        self._limits = limits
        # (offset after the last event of a step, when the step ends)
        self._marks: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        return self.end - self.first

    def extend(self, batches: Sequence[Batch], now: float) -> None:
        """Append events, then let go what the bounds do not hold."""
        limits = self._limits
        self._batches.extend(batches)
        self.size += sum([cost(batch) for batch in batches])
        self.end = batches[-1].end
        if self._marks and now < self._marks[-1][1]:
            self._marks[-1] = (self.end, self._marks[-1][1])
        else:
            self._marks.append((self.end, now + limits.history_age / AGE_STEPS))
        if self.end - self.first > limits.history_events:
            self._drop_before(self.end - limits.history_events)
        if self.size > limits.history_bytes:
            self.shrink(limits.history_bytes)
        self.expire(now)

    def expire(self, now: float) -> None:
        """Let go the events that are older than the age bound."""
        marks, oldest = self._marks, now - self._limits.history_age
        while marks and marks[0][1] <= oldest:
            self._drop_before(marks.popleft()[0])

    def shrink(self, size: int) -> None:
        """Let go the oldest events until they cost at most ``size``."""
        while self.size > size:
            oldest = self._batches[0]
            if self.size - cost(oldest) >= size:
                self._drop_before(oldest.end)
                continue
            excess, dropped = self.size - size, 0
            for payload in islice(oldest.payloads.items, self.first - oldest.first, None):
                dropped += 1
                excess -= len(payload) + EVENT_COST
                if excess <= 0:
                    break
            self._drop_before(self.first + dropped)

    def skip_to(self, offset: int) -> None:
        """Let go of all events; the next one has this offset, which is beyond ``end``."""
        self.shrink(0)
        self._marks.clear()
        self.first = self.end = offset

    def events(self, start: int, stop: int) -> Iterator[Event | Lost]:
        """The events from offset ``start`` on and before ``stop``. They are read when they are asked for, a chunk at a
        time, so that a slow client holds nothing of the log. Events that the log has dropped by then are reported as
        ``Lost``, in their place: every offset is in an event or in a ``Lost``, in order."""
        stop = min(stop, self.end)
        while start < stop:
            if start < self.first:
                lost = Lost(start, min(stop, self.first) - 1)
                start = lost.last + 1
                yield lost
                continue
            batches = self.read(start, CHUNK_BYTES)
            start = batches[-1].end
            for batch in batches:
                if batch.first < stop:
                    yield from batch.part(batch.first, stop).events()

    def read(self, offset: int, size: int) -> Sequence[Batch]:
        """The events from ``offset`` on, until they make about ``size`` bytes to send: at least one, unless the log
        ends before."""
        chosen: list[Batch] = []
        for batch in self._from(offset):
            size -= batch.payloads.size + FRAME_COST * len(batch)
            if size < 0 and len(batch) > 1:
                each = batch.payloads.size / len(batch) + FRAME_COST
                batch = batch.part(batch.first, batch.first + max(1, len(batch) + int(size / each)))
            chosen.append(batch)
            if size <= 0:
                break
        return chosen

    def _from(self, offset: int) -> Iterator[Batch]:
        """The batches from ``offset`` on; the first of them may be a part."""
        offset = max(offset, self.first)
        if offset < self.end:
            index = bisect_right(self._batches, offset, key=_first) - 1
            yield self._batches[index].part(offset, self.end)
            yield from islice(self._batches, index + 1, None)

    def _drop_before(self, offset: int) -> None:
        """Let go all before ``offset``."""
        while self.first < offset:
            oldest = self._batches[0]
            payloads, start = oldest.payloads, self.first - oldest.first
            if offset >= oldest.end:
                self._batches.popleft()
                self.first, self._waste = oldest.end, 0
                if not start:
                    self.size -= cost(oldest)
                    continue
                self.size -= BATCH_COST
            else:
                self.first = offset
            dropped = payloads.items[start : self.first - oldest.first]
            freed = EVENT_COST * len(dropped) + sum(map(len, dropped))
            self.size -= freed
            if self.first < oldest.end:
                self._waste += freed
                if self._waste * MAX_WASTE > EVENT_COST * (oldest.end - self.first):
                    self._batches[0] = oldest.part(self.first, oldest.end)
                    self._waste = 0
