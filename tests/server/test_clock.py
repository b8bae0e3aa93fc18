"""No timer goes by the clock on the wall."""

import time

import pytest
import txaio
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import LoopingCall

from twistedsock.server.reactor import use_monotonic_clock


class Clocks:
    """Of the wall, and a steady one."""

    def __init__(self):
        self.wall, self.steady = 1_700_000_000.0, 50.0

    def passes(self, seconds):
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr(time, "time", lambda: clocks.wall)
    monkeypatch.setattr(EPollReactor, "seconds", lambda reactor: clocks.wall)
    monkeypatch.setattr(time, "monotonic", lambda: clocks.steady)
    return clocks


@pytest.fixture
def reactor(clocks):
    """A real one, that is never run."""
    reactor = EPollReactor()
    use_monotonic_clock(reactor)
    yield reactor
    for selectable in reactor.removeAll():
        selectable.connectionLost(None)
    reactor._poller.close()


@pytest.mark.parametrize("step", [-3600, 3600])
def test_timers_ignore_steps_of_the_wall_clock(reactor, clocks, monkeypatch, step):
    """Calls, delayed calls, loops, and Autobahn's timers."""
    told = []
    monkeypatch.setattr(txaio.config, "loop", reactor)
    reactor.callLater(10, told.append, "late")
    reactor.callLater(1, told.append, "put off").reset(10)
    loop = LoopingCall(told.append, "again")
    loop.clock = reactor
    loop.start(10, now=False)
    txaio.make_batched_timer(1).call_later(10, told.append, "pinged")
    clocks.wall += step
    clocks.passes(8)
    reactor.runUntilCurrent()
    assert told == []
    assert reactor.timeout() == pytest.approx(2, abs=1)
    clocks.passes(2)
    reactor.runUntilCurrent()
    assert sorted(told) == ["again", "late", "pinged", "put off"]
    loop.stop()
