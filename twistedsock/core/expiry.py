"""Proofs run out while their peers are connected: they are warned before, and told when it has happened."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

WARNING = 60.0
"""Seconds between the warning and the end: time enough to fetch another token."""


class Bearer(Protocol):
    """Whose proof runs out: a session."""

    def warn_of_expiry(self) -> None:
        """It will, in ``WARNING`` seconds."""

    def expire(self) -> None:
        """It has."""


class Expiries:
    """``wall_clock`` gives seconds since 1970, as tokens do; it may jump. ``check`` is to be called each second."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.wall_clock = wall_clock
        # When to look again, and when the proof runs out. As many entries as there are connections at most.
        self._bearers: dict[Bearer, tuple[float, float]] = {}
        self._next = inf

    def __len__(self) -> int:
        return len(self._bearers)

    def watch(self, bearer: Bearer, expires: float | None) -> None:
        """Tell ``bearer``; in place of what was said about it before. None: it never runs out."""
        self._bearers.pop(bearer, None)
        if expires is not None:
            warning = expires - WARNING
            self._note(bearer, warning if warning > self.wall_clock() else expires, expires)

    def check(self) -> None:
        """Tell those whose time has come: each of them, though a fault meets another. Faults are raised together in
        the end, as an ExceptionGroup."""
        now = self.wall_clock()
        if now < self._next:
            return
        due = [(bearer, times) for bearer, times in self._bearers.items() if times[0] <= now]
        for bearer, (_, expires) in due:
            if expires <= now:
                del self._bearers[bearer]
            else:
                self._bearers[bearer] = (expires, expires)
        self._next = min((look for look, _ in self._bearers.values()), default=inf)
        told = [bearer.expire if expires <= now else bearer.warn_of_expiry for bearer, (_, expires) in due]
        tell_all(told, "peers could not be told that their tokens run out")

    def _note(self, bearer: Bearer, look: float, expires: float) -> None:
        self._bearers[bearer] = (look, expires)
        self._next = min(self._next, look)


def tell_all(calls: Sequence[Callable[[], object]], words: str) -> None:
    """Make all calls, whatever becomes of each. Their exceptions are raised in the end, as an ExceptionGroup."""
    faults = []
    for call in calls:
        try:
            call()
        except Exception as fault:
            faults.append(fault)
    if faults:
        raise ExceptionGroup(words, faults)
