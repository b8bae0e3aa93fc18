"""Who takes too long is found, with one timer for all."""

import pytest

from twistedsock.server.timeouts import TimeoutQueue


@pytest.fixture
def late():
    return []


@pytest.fixture
def deadlines(reactor, late):
    return TimeoutQueue(reactor, 10, late.append)


def test_each_has_the_same_time(deadlines, reactor, late):
    deadlines.start("a")
    reactor.advance(4)
    deadlines.start("b")
    deadlines.start("c")
    reactor.advance(5.9)
    assert late == []
    reactor.advance(0.1)
    assert late == ["a"]
    reactor.advance(4)
    assert late == ["a", "b", "c"]
    assert not reactor.getDelayedCalls()


def test_who_was_in_time_is_left_alone(deadlines, reactor, late):
    deadlines.start("a")
    reactor.advance(4)
    deadlines.start("b")
    deadlines.stop("a")
    reactor.advance(6)
    assert late == []
    deadlines.stop("b")
    deadlines.stop("b")
    reactor.advance(10)
    assert late == []
    assert not reactor.getDelayedCalls()
    deadlines.start("a")
    reactor.advance(10)
    assert late == ["a"]


def test_there_is_one_timer_however_many_come(deadlines, reactor):
    for number in range(100):
        deadlines.start(number)
        if number % 3:
            deadlines.stop(number)
        reactor.advance(0.01)
        assert len(reactor.getDelayedCalls()) == 1


def test_who_is_late_may_start_again_or_stop_others(reactor):
    def expired(who):
        told.append(who)
        if len(told) < 3:
            deadlines.start(who)
        deadlines.stop("b")

    told = []
    deadlines = TimeoutQueue(reactor, 10, expired)
    deadlines.start("a")
    reactor.advance(1)
    deadlines.start("b")
    for _ in range(40):
        reactor.advance(1)
    assert told == ["a"] * 3
    assert not reactor.getDelayedCalls()


def test_a_fault_is_not_the_end_of_it(reactor, late):
    def expired(who):
        late.append(who)
        if who == "a":
            raise ZeroDivisionError

    deadlines = TimeoutQueue(reactor, 10, expired)
    deadlines.start("a")
    reactor.advance(1)
    deadlines.start("b")
    with pytest.raises(ZeroDivisionError):
        reactor.advance(9)
    reactor.advance(1)
    assert late == ["a", "b"]
