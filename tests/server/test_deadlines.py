"""Timeouts of first commands, unfinished lines and messages, and idle clients, on both ports."""

import pytest

from twistedsock.server.timeouts import TimeoutQueue


@pytest.fixture
def late():
    return []


@pytest.fixture
def deadlines(reactor, late):
    return TimeoutQueue(reactor, 10, late.append)


def test_items_expire_in_order(deadlines, reactor, late):
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


def test_stopped_items_do_not_expire(deadlines, reactor, late):
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


def test_queue_has_one_timer(deadlines, reactor):
    for number in range(100):
        deadlines.start(number)
        if number % 3:
            deadlines.stop(number)
        reactor.advance(0.01)
        assert len(reactor.getDelayedCalls()) == 1


def test_expired_item_can_start_again_or_stop_another(reactor):
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


def test_queue_survives_an_exception(reactor, late):
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
