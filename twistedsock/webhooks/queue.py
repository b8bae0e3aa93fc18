"""The events that wait for delivery, within limits of count and bytes.

If a limit is exceeded, the principal with the most events loses its oldest ones. Dropped events are counted, and the
next batch reports their number.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.limits.shares import EvictionQueue, Shares

ENTRY_BYTES = 448
"""Memory of an entry without its event: 360 bytes on CPython 3.11, and 1,050 in the worst case, in which each counts
for another principal. It is added to the size of events, so that the limit is one of memory."""

MAX_BATCH_BYTES = 1024 * 1024
"""Receivers accept as much by default. A batch ends there, even if more events are waiting."""


class DeliveryBatch(msgspec.Struct, frozen=True):
    """Events that are delivered together. The id is the same in each attempt."""

    id: str
    events: Sequence[bytes]
    since: float
    """Wall clock time when the first event was queued."""
    dropped: int
    """Events dropped before these and not reported yet."""
    dropped_since: float

    @property
    def size(self) -> int:
        return sum(map(len, self.events)) + ENTRY_BYTES * len(self.events)


class EventQueue:
    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.bytes = 0
        """Bytes of all entries, ``ENTRY_BYTES`` included."""
        self.dropped = 0
        """Events dropped since the start."""
        self.overflowed = 0
        """Of these, the ones dropped because of a limit."""
        self._unreported = 0
        self._unreported_since = 0.0
        self._serial = 0
        # By serial number, so the oldest first.
        self._entries: OrderedDict[int, tuple[float, bytes, Principal]] = OrderedDict()
        self._by_bytes = EvictionQueue[int](max_bytes)
        self._by_count = Shares(max_events)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, event: bytes, time: float, principal: Principal = ELSEWHERE) -> None:
        """Queue an event that counts for ``principal``. ``time`` is wall clock time."""
        self._serial += 1
        self._entries[self._serial] = time, event, principal
        self._by_bytes.add(principal, self._serial, len(event) + ENTRY_BYTES)
        self.bytes += len(event) + ENTRY_BYTES
        self._by_count.add(principal, 1)
        self.enforce_limits()

    def enforce_limits(self) -> None:
        """To be called after a change of the limits."""
        while self._entries:
            if len(self._entries) > self.max_events:
                victim = self._by_bytes.oldest_of(self._by_count.largest())
            elif self.bytes > self.max_bytes:
                victim = self._by_bytes.next_victim()
            else:
                return
            self._count_dropped(1, self._remove(victim)[0])
            self.dropped += 1
            self.overflowed += 1

    def pop_batch(self, id: str, max_events: int) -> DeliveryBatch:
        """Remove the oldest events. The queue must not be empty."""
        since, event = self._remove(next(iter(self._entries)))
        events, size = [event], len(event)
        while self._entries and len(events) < max_events:
            serial = next(iter(self._entries))
            if size + len(self._entries[serial][1]) > MAX_BATCH_BYTES:
                break
            _, event = self._remove(serial)
            events.append(event)
            size += len(event)
        batch = DeliveryBatch(id, events, since, self._unreported, self._unreported_since)
        self._unreported = 0
        return batch

    def drop(self, batch: DeliveryBatch) -> None:
        """Count a batch as dropped that cannot be delivered. The next batch reports what this one would have."""
        if batch.dropped:
            self._count_dropped(batch.dropped, batch.dropped_since)
        self._count_dropped(len(batch.events), batch.since)
        self.dropped += len(batch.events)

    def _remove(self, serial: int) -> tuple[float, bytes]:
        time, event, principal = self._entries.pop(serial)
        self._by_bytes.remove(principal, serial, len(event) + ENTRY_BYTES)
        self.bytes -= len(event) + ENTRY_BYTES
        self._by_count.add(principal, -1)
        return time, event

    def _count_dropped(self, count: int, since: float) -> None:
        self._unreported_since = min(self._unreported_since, since) if self._unreported else since
        self._unreported += count
