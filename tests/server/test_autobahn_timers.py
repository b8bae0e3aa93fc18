"""The timers of Autobahn's connections: for pings, pongs and handshakes."""

from collections.abc import Callable
from functools import partial

import pytest
from twisted.internet.task import Clock

from twistedsock.server.autobahn_internals import CALLS_PER_TURN, Timers


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timers(clock: Clock) -> Timers:
    return Timers(clock)


@pytest.fixture
def made() -> list[int]:
    """The calls that were made."""
    return []


def make_all(timers: Timers, delay: float, calls: int, call: Callable[[int], object]) -> None:
    for number in range(calls):
        timers.call_later(delay, partial(call, number))


def test_calls_of_one_second_share_a_timer(timers: Timers, clock: Clock, made: list[int]) -> None:
    make_all(timers, 10, 3, made.append)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(9)
    assert made == []
    clock.advance(1)
    assert made == [0, 1, 2] and not clock.getDelayedCalls()


def test_cancelled_call_is_not_made(timers: Timers, clock: Clock, made: list[int]) -> None:
    make_all(timers, 10, 1, made.append)
    second = timers.call_later(10, partial(made.append, 1))
    second.cancel()
    second.cancel()
    clock.advance(10)
    assert made == [0]
    second.cancel()


def test_no_timer_runs_without_calls(timers: Timers, clock: Clock, made: list[int]) -> None:
    timers.call_later(10, partial(made.append, 0)).cancel()
    assert not clock.getDelayedCalls()


def test_call_can_cancel_the_next_one(timers: Timers, clock: Clock, made: list[int]) -> None:
    """A connection that is closed can close another one."""
    timers.call_later(10, lambda: second.cancel())
    second = timers.call_later(10, partial(made.append, 1))
    clock.advance(10)
    assert made == [] and not clock.getDelayedCalls()


def test_many_calls_take_several_turns(timers: Timers, clock: Clock, made: list[int]) -> None:
    """Pings for thousands of clients must not delay the events of the rest."""
    make_all(timers, 10, CALLS_PER_TURN + 1, made.append)
    clock.callLater(10, made.append, -1)
    clock.advance(10)
    assert made == [*range(CALLS_PER_TURN), -1, CALLS_PER_TURN] and not clock.getDelayedCalls()


def test_exception_does_not_prevent_other_calls(timers: Timers, clock: Clock, made: list[int]) -> None:
    timers.call_later(10, lambda: 1 / 0)
    make_all(timers, 10, 2, made.append)
    with pytest.raises(ZeroDivisionError):
        clock.advance(10)
    clock.advance(0)
    assert made == [0, 1] and not clock.getDelayedCalls()
