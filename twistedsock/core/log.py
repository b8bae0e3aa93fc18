"""The last events of one channel, bounded in count, bytes and age.

The one log serves history, recovery and slow readers alike, so that a slow reader costs no memory of its own.
Offsets in it are contiguous: the event at position p has offset ``first + p``.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from twistedsock.core.events import EVENT_COST, Event, cost
from twistedsock.core.limits import Limits

AGE_STEPS = 64
"""Ages are kept in this many steps of the age bound: an event leaves at most 1/64 of the bound late, and the marks
cost nothing beside the events."""


class Log:
    """Events and their bounds. ``size`` is their cost in bytes, ``first`` the offset of the oldest, or of the next."""

    __slots__ = ("first", "size", "_events", "_limits", "_marks")

    def __init__(self, limits: Limits, first: int = 1) -> None:
        self.first = first
        self.size = 0
        self._events: deque[Event] = deque()
        self._limits = limits
        # (offset after the last event of a step, when the step ends)
        self._marks: deque[tuple[int, float]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def end(self) -> int:
        """The offset that the next event will have."""
        return self.first + len(self._events)

    def extend(self, events: Sequence[Event], size: int, now: float) -> None:
        """Append events whose costs add up to ``size``, then let go what the bounds do not hold."""
        self._events.extend(events)
        self.size += size
        if self._marks and now < self._marks[-1][1]:
            self._marks[-1] = (self.end, self._marks[-1][1])
        else:
            self._marks.append((self.end, now + self._limits.history_age / AGE_STEPS))
        excess = len(self._events) - self._limits.history_events
        if excess > 0:
            self._drop(excess)
        while self.size > self._limits.history_bytes:
            self._drop(1)
        self.expire(now)

    def expire(self, now: float) -> None:
        """Let go the events that are older than the age bound."""
        marks, oldest = self._marks, now - self._limits.history_age
        while marks and marks[0][1] <= oldest:
            end = marks.popleft()[0]
            self._drop(min(max(0, end - self.first), len(self._events)))

    def shrink(self, size: int) -> None:
        """Let go the oldest events until they cost at most ``size``."""
        while self.size > size:
            self._drop(1)

    def since(self, offset: int) -> Sequence[Event]:
        """The events after ``offset`` that are still there."""
        return list(islice(self._events, max(0, offset + 1 - self.first), None))

    def read(self, offset: int, size: int) -> Sequence[Event]:
        """The events from ``offset`` on, until they cost ``size``: at least one, unless the log ends before."""
        chosen = []
        for event in islice(self._events, offset - self.first, None):
            chosen.append(event)
            size -= cost(event)
            if size <= 0:
                break
        return chosen

    def _drop(self, count: int) -> None:
        oldest = self._events.popleft
        self.size -= sum([len(oldest().payload) for _ in range(count)]) + EVENT_COST * count
        self.first += count
