"""What waits to be delivered: bounded, the oldest gives way, and what gave way is counted."""

from collections import deque
from collections.abc import Sequence

import msgspec

ENTRY_COST = 128
"""Bytes of bookkeeping of one that waits: 121 on CPython 3.11. They are counted, so that the bound is one on memory."""

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
        self.dropped = 0
        """In all."""
        self.overflowed = 0
        """Of those, how many because of the bounds."""
        self._untold = 0
        self._untold_since = 0.0
        self._entries: deque[tuple[float, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, event: bytes, time: float) -> None:
        """``time`` by the clock on the wall, as all here."""
        self._entries.append((time, event))
        self.bytes += len(event) + ENTRY_COST
        self.shrink()

    def shrink(self) -> None:
        """Keep to the bounds, which may be others now."""
        while self._entries and (len(self._entries) > self.most_events or self.bytes > self.most_bytes):
            self._count(1, self._pop()[0])
            self.dropped += 1
            self.overflowed += 1

    def take(self, id: str, most_events: int) -> Batch:
        """The oldest; there must be one."""
        since, event = self._pop()
        events, size = [event], len(event)
        while self._entries and len(events) < most_events and size + len(self._entries[0][1]) <= BATCH_BYTES:
            event = self._pop()[1]
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

    def _pop(self) -> tuple[float, bytes]:
        time, event = self._entries.popleft()
        self.bytes -= len(event) + ENTRY_COST
        return time, event

    def _count(self, dropped: int, since: float) -> None:
        self._untold_since = min(self._untold_since, since) if self._untold else since
        self._untold += dropped
