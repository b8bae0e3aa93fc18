"""Events that wait to be delivered, within limits. Beyond them the client with most of them loses its oldest, and what
was lost is counted."""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from twistedsock.limits.memory import Aging, Shares
from twistedsock.limits.principal import ELSEWHERE, Principal

ENTRY_COST = 448
"""Bytes of bookkeeping of one that waits: 360 on CPython 3.11, and 1,050 in the worst case, where each counts for
another principal. They are counted, so that the limit is one on memory."""

BATCH_BYTES = 1024 * 1024
"""Where a batch ends, though more events might go into it: what receivers take without being told to."""


class Batch(msgspec.Struct, frozen=True):
    """What is delivered together. Its id stays the same however often it is tried."""

    id: str
    events: Sequence[bytes]
    since: float
    """When the first of them was queued, by the clock on the wall."""
    dropped: int
    """How many were dropped before them, and not told yet."""
    dropped_since: float

    @property
    def size(self) -> int:
        return sum(map(len, self.events)) + ENTRY_COST * len(self.events)


class Queue:
    def __init__(self, most_events: int, most_bytes: int) -> None:
        self.most_events = most_events
        self.most_bytes = most_bytes
        self.bytes = 0
        """Of all that wait, with their bookkeeping."""
        self.dropped = 0
        """In all."""
        self.overflowed = 0
        """Of those, how many because of the bounds."""
        self._untold = 0
        self._untold_since = 0.0
        self._serial = 0
        # The oldest first, by the order in which they came.
        self._entries: OrderedDict[int, tuple[float, bytes, Principal]] = OrderedDict()
        self._by_bytes = Aging[int](most_bytes)
        self._by_count = Shares(most_events)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, event: bytes, time: float, principal: Principal = ELSEWHERE) -> None:
        """``time`` by the clock on the wall, as all here. ``principal`` is the one that the event counts for."""
        self._serial += 1
        self._entries[self._serial] = time, event, principal
        self._by_bytes.add(principal, self._serial, len(event) + ENTRY_COST)
        self.bytes += len(event) + ENTRY_COST
        self._by_count.add(principal, 1)
        self.shrink()

    def shrink(self) -> None:
        """Keep to the bounds, which may be others now."""
        while self._entries:
            if len(self._entries) > self.most_events:
                victim = self._by_bytes.oldest_of(self._by_count.largest())
            elif self.bytes > self.most_bytes:
                victim = self._by_bytes.first_to_go()
            else:
                return
            self._count(1, self._remove(victim)[0])
            self.dropped += 1
            self.overflowed += 1

    def take(self, id: str, most_events: int) -> Batch:
        """The oldest; there must be one."""
        since, event = self._remove(next(iter(self._entries)))
        events, size = [event], len(event)
        while self._entries and len(events) < most_events:
            serial = next(iter(self._entries))
            if size + len(self._entries[serial][1]) > BATCH_BYTES:
                break
            _, event = self._remove(serial)
            events.append(event)
            size += len(event)
        batch = Batch(id, events, since, self._untold, self._untold_since)
        self._untold = 0
        return batch

    def give_up(self, batch: Batch) -> None:
        """It will not be delivered. What it would have told of others is told by the next."""
        if batch.dropped:
            self._count(batch.dropped, batch.dropped_since)
        self._count(len(batch.events), batch.since)
        self.dropped += len(batch.events)

    def _remove(self, serial: int) -> tuple[float, bytes]:
        time, event, principal = self._entries.pop(serial)
        self._by_bytes.remove(principal, serial, len(event) + ENTRY_COST)
        self.bytes -= len(event) + ENTRY_COST
        self._by_count.add(principal, -1)
        return time, event

    def _count(self, dropped: int, since: float) -> None:
        self._untold_since = min(self._untold_since, since) if self._untold else since
        self._untold += dropped
