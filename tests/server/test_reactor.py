"""The epoll reactor without log prefixes behaves as Twisted's, here with a list of events instead of a kernel; the
monotonic clock."""

import time
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

import pytest
import txaio
from twisted.internet import epollreactor, main
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionFdescWentAway, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import LoopingCall
from twisted.python import log
from zope.interface import alsoProvides

from twistedsock.server import reactor as module
from twistedsock.server.reactor import UnprefixedEPollReactor, use_monotonic_clock


class FakePoller:
    """Returns ``events``, and records in ``asked`` how it was called."""

    def __init__(self):
        self.events = []
        self.asked = []
        self.registered = {}

    def register(self, descriptor, flags):
        self.registered[descriptor] = flags

    modify = register

    def unregister(self, descriptor):
        del self.registered[descriptor]

    def poll(self, timeout, max_events):
        self.asked.append((timeout, max_events))
        events, self.events = self.events, []
        return events


class Selectable:
    """Records what the reactor calls in ``said``. ``outcome`` is the result of reading and writing."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.said = []
        self.outcome = lambda: None

    def fileno(self):
        return self.descriptor

    def logPrefix(self):
        return "what Twisted's own asks for"

    def doRead(self):
        self.said.append("read")
        return self.outcome()

    def doWrite(self):
        self.said.append("written")
        return self.outcome()

    def connectionLost(self, reason):
        self.said.append(reason.type)

    def readConnectionLost(self, reason):
        self.said.append(("half", reason.type))


@pytest.fixture
def poller(monkeypatch):
    poller = FakePoller()
    monkeypatch.setattr(epollreactor, "epoll", lambda hint: poller)
    return poller


@pytest.fixture(params=[UnprefixedEPollReactor, epollreactor.EPollReactor], ids=["ours", "Twisted's"])
def reactor(request, poller):
    """Ours and Twisted's: both must behave in the same way."""
    reactor = request.param()
    yield reactor
    reactor.removeReader(reactor.waker)
    reactor.waker.connectionLost(None)


@pytest.fixture
def reading(reactor):
    """A reader with descriptor 1001."""
    selectable = Selectable(1001)
    reactor.addReader(selectable)
    return selectable


@pytest.fixture
def logged():
    """Messages of the old log. An exception is one message."""
    messages = []
    log.addObserver(messages.append)
    yield messages
    log.removeObserver(messages.append)


def turn(reactor, poller, *events):
    poller.events = list(events)
    reactor.doIteration(0)


def test_reads_and_writes_ready_descriptors(reactor, poller, reading, logged):
    writing = Selectable(1002)
    reactor.addWriter(writing)
    turn(reactor, poller, (1002, EPOLLOUT), (1001, EPOLLIN))
    reactor.addWriter(reading)
    turn(reactor, poller, (1001, EPOLLIN | EPOLLOUT))
    assert reading.said == ["read", "read", "written"]
    assert writing.said == ["written"]
    assert not logged


@pytest.mark.parametrize("timeout", [0, 1.5, None])
def test_waits_for_the_timeout(reactor, poller, timeout):
    reactor.doIteration(timeout)
    ((waited, max_events),) = poller.asked
    assert waited == timeout or (timeout is None and waited == -1)
    assert max_events == 1, "the pipe that wakes it up"


def test_failed_read_disconnects(reactor, poller, reading, logged):
    reading.outcome = lambda: main.CONNECTION_DONE
    turn(reactor, poller, (1001, EPOLLIN))
    assert reading.said == ["read", ConnectionDone]
    assert 1001 not in poller.registered
    assert not logged


def test_end_of_input_is_a_half_close(reactor, poller, reading):
    alsoProvides(reading, IHalfCloseableDescriptor)
    reading.outcome = lambda: main.CONNECTION_DONE
    turn(reactor, poller, (1001, EPOLLIN | EPOLLHUP))
    assert reading.said == ["read", ("half", ConnectionDone)]


@pytest.mark.parametrize("event", [EPOLLIN, EPOLLOUT])
def test_exception_disconnects_and_is_logged_once(reactor, poller, reading, logged, event):
    other = Selectable(1002)
    reactor.addReader(other)
    reactor.addWriter(reading)
    reading.outcome = lambda: 1 / 0
    turn(reactor, poller, (1001, event), (1002, EPOLLIN))
    assert reading.said[1:] == [ZeroDivisionError]
    assert 1001 not in poller.registered
    assert [message["failure"].type for message in logged if message["isError"]] == [ZeroDivisionError]
    assert other.said == ["read"], "not noticed elsewhere"


def test_exception_while_disconnecting_is_logged(reactor, poller, reading, logged):
    other = Selectable(1002)
    reactor.addReader(other)
    reading.connectionLost = lambda reason: 1 / 0
    turn(reactor, poller, (1001, EPOLLHUP), (1002, EPOLLIN))
    assert [message["failure"].type for message in logged if message["isError"]] == [ZeroDivisionError]
    assert other.said == ["read"]


@pytest.mark.parametrize("event", [EPOLLHUP, EPOLLERR, EPOLLHUP | EPOLLERR | EPOLLOUT])
def test_hang_up_without_input_disconnects(reactor, poller, reading, event):
    writing = Selectable(1002)
    reactor.addWriter(writing)
    turn(reactor, poller, (1001, event), (1002, event))
    assert reading.said == [ConnectionDone]
    assert writing.said == [ConnectionLost]


def test_reads_input_before_a_hang_up(reactor, poller, reading):
    turn(reactor, poller, (1001, EPOLLIN | EPOLLHUP))
    assert reading.said == ["read"]


def test_skips_descriptor_removed_by_an_earlier_event(reactor, poller, reading, logged):
    later = Selectable(1002)
    reactor.addReader(later)
    reading.outcome = lambda: reactor.removeReader(later)
    turn(reactor, poller, (1001, EPOLLIN), (1002, EPOLLIN))
    assert (reading.said, later.said) == (["read"], [])
    assert not logged


def test_disconnects_closed_descriptor(reactor, poller, reading):
    reading.descriptor = -1
    turn(reactor, poller, (1001, EPOLLIN))
    assert reading.said == [ConnectionFdescWentAway]


def test_installs_the_reactor(poller, monkeypatch):
    installed = []
    monkeypatch.setattr(module, "installReactor", installed.append)
    module.install()
    (reactor,) = installed
    assert type(reactor) is UnprefixedEPollReactor
    reactor.waker.connectionLost(None)


class Clocks:
    """A wall clock and a monotonic clock."""

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
def steady_reactor(clocks):
    """A real reactor that is not run."""
    reactor = EPollReactor()
    use_monotonic_clock(reactor)
    yield reactor
    for selectable in reactor.removeAll():
        selectable.connectionLost(None)


@pytest.mark.parametrize("step", [-3600, 3600])
def test_timers_ignore_steps_of_the_wall_clock(steady_reactor, clocks, monkeypatch, step):
    """Calls, delayed calls, loops, and Autobahn's timers."""
    calls = []
    monkeypatch.setattr(txaio.config, "loop", steady_reactor)
    steady_reactor.callLater(10, calls.append, "late")
    steady_reactor.callLater(1, calls.append, "put off").reset(10)
    loop = LoopingCall(calls.append, "again")
    loop.clock = steady_reactor
    loop.start(10, now=False)
    txaio.make_batched_timer(1).call_later(10, calls.append, "pinged")
    clocks.wall += step
    clocks.passes(8)
    steady_reactor.runUntilCurrent()
    assert calls == []
    assert steady_reactor.timeout() == pytest.approx(2, abs=1)
    clocks.passes(2)
    steady_reactor.runUntilCurrent()
    assert sorted(calls) == ["again", "late", "pinged", "put off"]
    loop.stop()
