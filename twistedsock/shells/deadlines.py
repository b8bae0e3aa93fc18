"""A bound on the time that each of many may take."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """``expired`` is called with each that is ``seconds`` old and was not stopped. As all have the same time, they grow
    old in the order in which they came, and one timer does for all: one for each would be made and cancelled with each
    connection. 0 seconds are for ever."""

    def __init__(self, reactor: Any, seconds: float, expired: Callable[[T], object]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._expired = expired
        self._waiting: dict[T, float] = {}
        self._timer: Any = None

    def start(self, who: T) -> None:
        """Also for those who are waited for: from now on."""
        if not self._seconds:
            return
        self._waiting.pop(who, None)
        self._waiting[who] = self._reactor.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._reactor.callLater(self._seconds, self._look)

    def stop(self, who: T) -> None:
        """Also for those who are not waited for."""
        self._waiting.pop(who, None)

    def now(self) -> float:
        """The time by which they go."""
        now: float = self._reactor.seconds()
        return now

    def rest(self) -> None:
        """Needs no timer while nobody is waited for."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._reactor.seconds()
        late = []
        for who, deadline in self._waiting.items():
            if deadline > now:
                break
            late.append(who)
        for who in late:
            del self._waiting[who]
        first = next(iter(self._waiting.values()), None)
        self._timer = None if first is None else self._reactor.callLater(first - now, self._look)
        for who in late:
            self._expired(who)
