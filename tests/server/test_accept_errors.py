"""Listening ports while no file descriptor is left for another connection."""

from errno import ECONNABORTED, EMFILE, ENFILE
from types import SimpleNamespace

import pytest
from twisted.internet import tcp
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel, formatEvent

from twistedsock.server.accept_errors import ACCEPT_PAUSE_SECONDS, LOG_INTERVAL_SECONDS, install_accept_backoff

TOLD = (
    "out of file descriptors (see ulimit -n): closed {} new connections since the last message; existing connections "
    "are unaffected"
)


class Listening:
    """A listening socket: each item of ``waiting`` is a connection, or an error."""

    def __init__(self):
        self.waiting, self.closed = [], 0

    def accept(self):
        if not self.waiting:
            raise BlockingIOError(11, "no connection")
        error = self.waiting[0]
        if error is None:
            self.waiting.pop(0)
            return self, ("127.0.0.1", 50_000)
        if error != EMFILE:  # it persists until the reserve is given up
            self.waiting.pop(0)
        raise OSError(error, "as the test wants it")

    def close(self):
        self.closed += 1


class Reserve:
    """Twisted's reserved file descriptor. While it is held, accepting fails."""

    def __init__(self, listening):
        self.listening, self.there = listening, True

    def available(self):
        return self.there

    def __enter__(self):
        self.listening.waiting = [None if error == EMFILE else error for error in self.listening.waiting]

    def __exit__(self, *error):
        pass


@pytest.fixture
def port(reactor, monkeypatch):
    port = tcp.Port(0, Factory(), reactor=reactor)
    port.socket, port.connected, port.numberAccepts = Listening(), True, 100
    port.reserve = Reserve(port.socket)
    monkeypatch.setattr(tcp, "_reservedFD", port.reserve)
    install_accept_backoff(port, reactor)
    port.startReading()
    return port


def knock(port, *errors):
    port.socket.waiting += errors
    port.numberAccepts = 100
    port.doRead()


def test_logs_closed_connections_once_a_minute(port, reactor, logged):
    knock(port, *[EMFILE] * 5)
    knock(port, *[EMFILE] * 50)
    assert port.socket.closed == 55
    reactor.advance(LOG_INTERVAL_SECONDS)
    knock(port, EMFILE)
    assert [formatEvent(event) for event in logged] == [TOLD.format(1), TOLD.format(55)]
    assert {event["log_level"] for event in logged} == {LogLevel.warn}


def test_continues_to_accept_while_connections_can_be_closed(port, reactor):
    knock(port, EMFILE)
    assert port in reactor.readers


@pytest.mark.parametrize("error", [EMFILE, ENFILE])
def test_pauses_accepting_if_not_even_a_reserve_helps(port, reactor, logged, error):
    """The waiting connections would keep the process busy."""
    port.reserve.there = False
    knock(port, error)
    assert port not in reactor.readers
    reactor.advance(ACCEPT_PAUSE_SECONDS)
    assert port in reactor.readers
    knock(port, error)
    assert port not in reactor.readers
    assert [formatEvent(event) for event in logged] == [TOLD.format(0)]


def test_port_closed_during_a_pause_stays_closed(port, reactor):
    port.reserve.there = False
    knock(port, EMFILE)
    port.disconnecting = True
    reactor.advance(ACCEPT_PAUSE_SECONDS)
    assert port not in reactor.readers


def test_client_that_left_before_accept_is_not_logged(port, reactor, logged):
    knock(port, ECONNABORTED)
    assert port in reactor.readers
    assert logged == []


def test_leaves_other_ports_unchanged(reactor):
    other = SimpleNamespace()
    install_accept_backoff(other, reactor)
    assert other == SimpleNamespace()
