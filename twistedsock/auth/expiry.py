"""Calls sessions before their tokens expire, and when they have expired."""

from collections.abc import Callable, Iterable
from functools import partial
from math import inf

EXPIRY_WARNING_SECONDS = 60.0
"""The time between the warning and the end: enough to get another token."""

ExpiryCallback = Callable[[float], None]
"""Called with the seconds until the token expires: ``EXPIRY_WARNING_SECONDS`` for the warning, 0 for the end."""


class ExpiryWatcher:
    """``wall_clock`` returns seconds since 1970, as tokens use; it may jump. ``check`` must be called each second.
    ``make_calls`` makes many calls in time slices; its second argument is the message for the exceptions they raise."""

    def __init__(
        self, wall_clock: Callable[[], float], make_calls: Callable[[Iterable[Callable[[], None]], str], None]
    ) -> None:
        self._wall_clock = wall_clock
        self._make_calls = make_calls
        # The next call, and the end of the token. At most one entry for each connection.
        self._times: dict[ExpiryCallback, tuple[float, float]] = {}
        self._next = inf

    def __len__(self) -> int:
        return len(self._times)

    def watch(self, callback: ExpiryCallback, expires: float | None) -> None:
        """Replace the time at which the token of this callback expires. None: never."""
        self._times.pop(callback, None)
        if expires is not None:
            warning = expires - EXPIRY_WARNING_SECONDS
            at = warning if warning > self._wall_clock() else expires
            self._times[callback] = (at, expires)
            self._next = min(self._next, at)

    def check(self) -> None:
        """Make all calls that are due, although some of them raise: their exceptions are raised together at the end, as
        an ExceptionGroup."""
        now = self._wall_clock()
        if now < self._next:
            return
        due = {callback: times for callback, times in self._times.items() if times[0] <= now}
        for callback, (_, expires) in due.items():
            # The last call is not looked for again; its entry is deleted when it is made.
            self._times[callback] = (inf if expires <= now else expires, expires)
        self._next = min((at for at, _ in self._times.values()), default=inf)
        calls = [partial(self._call, callback, self._times[callback]) for callback in due]
        self._make_calls(calls, "some sessions could not be called about their tokens")

    def _call(self, callback: ExpiryCallback, times: tuple[float, float]) -> None:
        if self._times.get(callback) is not times:
            return  # the session has got another token meanwhile, or was closed
        if times[0] == inf:
            del self._times[callback]
            callback(0.0)
        else:
            callback(EXPIRY_WARNING_SECONDS)
