"""Proofs run out while their peers are connected: they are warned before, and told when it has happened."""

from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Protocol

EXPIRY_WARNING_SECONDS = 60.0
"""Seconds between the warning and the end: time enough to fetch another token."""


class TokenHolder(Protocol):
    """Whose proof runs out: a session."""

    def warn_of_token_expiry(self) -> None:
        """It will, in ``EXPIRY_WARNING_SECONDS`` seconds."""

    def close_expired(self) -> None:
        """It has."""


class ExpiryWatcher:
    """``wall_clock`` gives seconds since 1970, as tokens do; it may jump. ``check`` is to be called each second.
    ``make_calls`` makes many calls, maybe some of them later; the words are for the exceptions that it raises."""

    def __init__(
        self, wall_clock: Callable[[], float], make_calls: Callable[[Iterable[Callable[[], None]], str], None]
    ) -> None:
        self.wall_clock = wall_clock
        self._make_calls = make_calls
        # When to look again, and when the proof runs out. As many entries as there are connections at most.
        self._bearers: dict[TokenHolder, tuple[float, float]] = {}
        self._next = inf

    def __len__(self) -> int:
        return len(self._bearers)

    def watch(self, bearer: TokenHolder, expires: float | None) -> None:
        """Tell ``bearer``; in place of what was said about it before. None: it never runs out."""
        self._bearers.pop(bearer, None)
        if expires is not None:
            warning = expires - EXPIRY_WARNING_SECONDS
            self._note(bearer, warning if warning > self.wall_clock() else expires, expires)

    def check(self) -> None:
        """Tell those whose time has come: each of them, though a fault meets another. Faults are raised together in
        the end, as an ExceptionGroup."""
        now = self.wall_clock()
        if now < self._next:
            return
        due = {bearer: times for bearer, times in self._bearers.items() if times[0] <= now}
        for bearer, (_, expires) in due.items():
            # Who is told of the end is not looked for any more, and forgotten when it has been told.
            self._bearers[bearer] = (inf if expires <= now else expires, expires)
        self._next = min((look for look, _ in self._bearers.values()), default=inf)
        calls = [partial(self._tell, bearer, self._bearers[bearer]) for bearer in due]
        self._make_calls(calls, "peers could not be told that their tokens run out")

    def _tell(self, bearer: TokenHolder, times: tuple[float, float]) -> None:
        if self._bearers.get(bearer) is not times:
            return  # it has shown another token meanwhile, or gone
        if times[0] == inf:
            del self._bearers[bearer]
            bearer.close_expired()
        else:
            bearer.warn_of_token_expiry()

    def _note(self, bearer: TokenHolder, look: float, expires: float) -> None:
        self._bearers[bearer] = (look, expires)
        self._next = min(self._next, look)
