"""Counters of the load."""

from collections import Counter, deque
from dataclasses import dataclass, field

MAX_WRONGS = 20
"""Maximum number of fault messages that are kept: one fault causes many."""


class Wrong(Exception):
    """The server has broken the promise in the message."""


@dataclass
class Tally:
    """``wrongs`` are messages about broken promises. ``seen`` counts other events, so that a run can show that it
    reached every limit."""

    connections: int = 0
    events: int = 0
    deliveries: int = 0
    lost: int = 0
    visits: int = 0
    wrong: int = 0
    wrongs: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def blame(self, words: str) -> None:
        self.wrong += 1
        if len(self.wrongs) < MAX_WRONGS:
            self.wrongs.append(words)


class RecentEvents:
    """The events of one channel that its history must still contain: those published within the last ``seconds``.
    Offsets start at 1."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._first = 1
        # When the event at offset ``_first`` and those after it were published.
        self._times: deque[float] = deque()

    def publish(self, now: float) -> None:
        """The next event is about to be published. The server receives it after ``now``, and so cannot delete it
        because of its age before ``now + seconds``."""
        self._times.append(now)

    def first(self, now: float) -> int:
        """The offset of the oldest of these events, or of the next event if there are none."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
            self._first += 1
        return self._first


class Names:
    """New channel names, and how many of them can still have a history: those published to within ``age`` seconds."""

    def __init__(self, age: float) -> None:
        self._age = age
        self._count = 0
        # In the order of the last publish.
        self._published: dict[bytes, float] = {}

    def new(self) -> bytes:
        self._count += 1
        return b"new.%d" % self._count

    def publish(self, name: bytes, now: float) -> None:
        self._published.pop(name, None)
        self._published[name] = now

    def alive(self, now: float) -> int:
        published = self._published
        while published and (oldest := next(iter(published))) and published[oldest] < now - self._age:
            del published[oldest]
        return len(published)
