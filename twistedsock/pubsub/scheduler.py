"""Turns of the reactor, and how work is shared out over them.

The server has one thread, so work that may take long must not be done at once. It is done in time slices: it runs for
at most ``TIME_SLICE_SECONDS``, then other work has its turn, and the rest follows in one of the next turns. The
deferred work waits in one queue, so each piece of it waits for at most one slice of each other piece.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from twistedsock.limits.settings import TIME_SLICE_SECONDS


class TimeSlice:
    """The time that a piece of work has in this turn. It begins now; do at least one step, then ask after each."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._end = clock() + TIME_SLICE_SECONDS

    def is_over(self) -> bool:
        return self._clock() >= self._end


def do_nothing() -> None: ...


class Scheduler:
    """``clock`` returns seconds and never goes back. ``schedule_turn`` asks the reactor to run a turn soon: when the
    input that it has read has been handled."""

    def __init__(self, clock: Callable[[], float], schedule_turn: Callable[[], None]) -> None:
        self.clock = clock
        self.is_turn_requested = False
        self._schedule_turn = schedule_turn
        self.deferred: OrderedDict[Callable[[], None], None] = OrderedDict()
        """Calls for the next turns, in their order. Only ``defer`` adds to them."""
        self._running_calls = 0

    @property
    def is_running_calls(self) -> bool:
        """Whether ``run_calls`` has calls to make that have been deferred."""
        return self._running_calls > 0

    def request_turn(self) -> None:
        if not self.is_turn_requested:
            self.is_turn_requested = True
            self._schedule_turn()

    def time_slice(self) -> TimeSlice:
        return TimeSlice(self.clock)

    def defer(self, call: Callable[[], None]) -> None:
        """Make a call in the next turn or in one of those after it. A call that waits already is not added again."""
        self.deferred[call] = None
        self.request_turn()

    def run_deferred(self) -> None:
        """Make calls that have been deferred to this turn, for a time slice."""
        time_slice = TimeSlice(self.clock)
        for _ in range(len(self.deferred)):
            call, _ = self.deferred.popitem(last=False)
            call()
            if time_slice.is_over():
                break

    def run_steps(self, steps: Iterator[object], done: Callable[[], object]) -> None:
        """Exhaust an iterator for a time slice now, and for one in each of the next turns, then call ``done``; also if
        a step raises an exception."""
        time_slice = TimeSlice(self.clock)
        try:
            for _ in steps:
                if time_slice.is_over():
                    self.defer(partial(self.run_steps, steps, done))
                    return
        except BaseException:
            done()
            raise
        done()

    def run_calls(
        self,
        calls: Iterable[Callable[[], Iterator[object] | None]],
        message: str,
        done: Callable[[], object] = do_nothing,
    ) -> None:
        """Make many calls, for example one for each session, as ``run_steps`` does. A call may return steps of its own.
        All calls are made even if some raise exceptions: these are raised as an ExceptionGroup with this message after
        ``done`` has been called."""
        exceptions: list[Exception] = []

        def finish() -> None:
            self._running_calls -= 1
            done()
            if exceptions:
                raise ExceptionGroup(message, exceptions)

        self._running_calls += 1
        self.run_steps(_steps_of(calls, exceptions), finish)


def _steps_of(calls: Iterable[Callable[[], Iterator[object] | None]], exceptions: list[Exception]) -> Iterator[object]:
    for call in calls:
        try:
            steps = call()
            if steps is not None:
                yield from steps
        except Exception as exception:
            exceptions.append(exception)
        yield None
