"""The newest events of one channel, limited in number, bytes and age.

The same history serves requests for old events, recovery, and slow subscribers, which therefore need no memory of their
own. It holds batches as they were delivered: their offsets are contiguous. The first events of the oldest batch may
have been dropped.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from operator import attrgetter

from twistedsock.limits.settings import CHUNK_BYTES, Limits
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Event, Lost, cost

AGE_STEPS = 64
"""Ages are measured in steps of the age limit divided by this. So an event is dropped late by at most 1/64 of the
limit, and the marks need little memory compared with the events."""

FRAME_COST = 48
"""Bytes that an encoder writes around a payload, about: 20 to 40 for lines, 90 for JSON. With this, the size of events
is measured in the bytes that will be sent."""

MAX_WASTE = 4
"""The dropped events of the oldest batch are held until they cost more than the rest of it divided by this, because
copying the rest each time would take quadratic time."""

_first = attrgetter("first")
_time = attrgetter("time")


def take(batches: Iterable[Batch], size: int, stop: float = inf) -> list[Batch]:
    """The first ones of some batches: as many events as about ``size`` bytes to send, and at least one if there is one.
    The last batch is at most the one that has the event before ``stop``."""
    chosen: list[Batch] = []
    for batch in batches:
        size -= batch.payloads.size + FRAME_COST * len(batch)
        if size < 0 and len(batch) > 1:
            each = batch.payloads.size / len(batch) + FRAME_COST
            batch = batch.part(batch.first, batch.first + max(1, len(batch) + int(size / each)))
        chosen.append(batch)
        if size <= 0 or batch.end >= stop:
            break
    return chosen


class History:
    """``first`` is the offset of the oldest event, ``end`` the offset of the next one; they are equal if the history is
    empty. ``size`` is the cost of the events in bytes. ``dropped_time`` is the time of the newest event before
    ``first``, in milliseconds since 1970, or a later time if it is not known exactly; 0 if there was none, or if
    nothing is known about it. ``origin`` is the offset of the first event that the channel has ever had."""

    __slots__ = (
        "_batches",
        "_has_exact_time",
        "_limits",
        "_marks",
        "_waste",
        "dropped_time",
        "end",
        "first",
        "origin",
        "size",
    )

    def __init__(self, limits: Limits, first: int = 1, dropped_time: int = 0, origin: int = 1) -> None:
        self.first = self.end = first
        self.origin = origin
        self.dropped_time = dropped_time
        # Whether dropped_time is exactly the time of the newest dropped event.
        self._has_exact_time = dropped_time > 0
        self.size = 0
        self._batches: deque[Batch] = deque()
        # Bytes of dropped events that the oldest batch still holds.
        self._waste = 0
        self._limits = limits
        # (offset after the last event of a step, when the step ends)
        self._marks: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        return self.end - self.first

    @property
    def newest(self) -> Event | None:
        """The newest event, None if the history is empty."""
        if not self._batches:
            return None
        batch = self._batches[-1]
        kind, time = batch.payloads.kind, batch.time
        return Event(batch.end - 1, batch.publisher, batch.sender, batch.name, batch.payloads.items[-1], kind, time)

    def extend(self, batches: Sequence[Batch], now: float) -> None:
        """Append events, then drop the oldest ones that exceed a limit."""
        limits = self._limits
        self._batches.extend(batches)
        for batch in batches:
            self.size += BATCH_COST + EVENT_COST * (batch.end - batch.first) + batch.payloads.size
        self.end = batch.end
        if self._marks and now < self._marks[-1][1]:
            self._marks[-1] = (self.end, self._marks[-1][1])
        else:
            self._marks.append((self.end, now + limits.history_age / AGE_STEPS))
        if self.end - self.first > limits.history_events:
            self._drop_before(self.end - limits.history_events)
        if self.size > limits.history_bytes:
            self.shrink(limits.history_bytes)
        if self._marks[0][1] <= now - limits.history_age:
            self.expire(now)

    def expire(self, now: float) -> None:
        """Drop the events that are older than the age limit."""
        marks, oldest = self._marks, now - self._limits.history_age
        while marks and marks[0][1] <= oldest:
            self._drop_before(marks.popleft()[0])

    def shrink(self, size: int) -> None:
        """Drop the oldest events until the rest costs at most ``size``."""
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

    def skip_to(self, offset: int, time: int) -> None:
        """Drop all events; the next one has this offset, which is greater than ``end``, and this time."""
        self.shrink(0)
        self.dropped_time, self._has_exact_time = time, False
        self._marks.clear()
        self.first = self.end = offset

    def first_after(self, time: int) -> int:
        """The offset of the first event that was published after this time (milliseconds since 1970)."""
        return self._offset_at(bisect_right(self._batches, time, key=_time))

    def first_since(self, time: int) -> int:
        """The offset of the first event that was published at this time or after it."""
        return self._offset_at(bisect_left(self._batches, time, key=_time))

    def start_after(self, time: int) -> int:
        """The offset of the first event that may have been published after this time, also if it was dropped. The times
        of most dropped events are not known: if the newest of them may be later, this is ``origin``."""
        start = self.first_after(time)
        if start > self.first or self.first <= self.origin:
            return start  # all dropped events are older than one that is not later
        return self.origin if self.dropped_time > time or not self.dropped_time else start

    def stop_before(self, time: int) -> int:
        """The offset of the first event that was certainly published at this time or after it. The newest dropped event
        can be that, if its time is known."""
        if self._has_exact_time and self.dropped_time >= time and self.first > self.origin:
            return self.first - 1
        return self.first_since(time)

    def may_have_dropped_after(self, time: int) -> bool:
        """Whether an event that was dropped may have been published after this time."""
        return self.start_after(time) < self.first

    def may_have_dropped_since(self, time: int) -> bool:
        """Whether an event that was dropped may have been published at this time or after it."""
        is_possible = self.first > self.origin and self.first_since(time) == self.first
        return is_possible and not 0 < self.dropped_time < time

    def _offset_at(self, index: int) -> int:
        return max(self.first, self._batches[index].first) if index < len(self._batches) else self.end

    def events(self, start: int, stop: int) -> Iterator[Event | Lost]:
        """Iterate over the events from offset ``start`` on and before ``stop``. They are read a chunk at a time, as far
        as the iterator is advanced, so that a slow client does not keep them in memory. Events that the history has
        dropped by then are reported as ``Lost`` in their place."""
        stop = min(stop, self.end)
        while start < stop:
            if start < self.first:
                lost = Lost(start, min(stop, self.first) - 1)
                start = lost.last + 1
                yield lost
                continue
            batches = self.read(start, CHUNK_BYTES, stop)
            start = batches[-1].end
            for batch in batches:
                yield from batch.part(batch.first, stop).events()

    def read(self, offset: int, size: int, stop: int | None = None) -> Sequence[Batch]:
        """The events from ``offset`` on, as many as about ``size`` bytes to send, and at least one if there is one. The
        last batch is at most the one that has the event before ``stop``."""
        return take(self._from(offset), size, self.end if stop is None else stop)

    def _from(self, offset: int) -> Iterator[Batch]:
        """The batches from ``offset`` on; the first one may be a part of a batch."""
        offset = max(offset, self.first)
        if offset < self.end:
            index = bisect_right(self._batches, offset, key=_first) - 1
            yield self._batches[index].part(offset, self.end)
            yield from islice(self._batches, index + 1, None)

    def _drop_before(self, offset: int) -> None:
        while self.first < offset:
            oldest = self._batches[0]
            payloads, start = oldest.payloads, self.first - oldest.first
            self.dropped_time, self._has_exact_time = oldest.time, True
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
