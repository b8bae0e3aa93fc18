"""What the load counts while it runs."""

from collections import Counter
from dataclasses import dataclass, field

MAX_WRONGS = 20
"""Faults whose words are kept: one fault has many."""


class Wrong(Exception):
    """The bridge has broken a promise; says which."""


@dataclass
class Tally:
    """``wrongs`` are broken promises in words; ``seen`` counts what else happened, so that a run can tell that it
    reached every bound."""

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


class Names:
    """New names of channels, and how many of them can still have a log: those published to within ``age`` seconds."""

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
