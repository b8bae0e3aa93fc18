"""Thousands of connections that all send their first input at once."""

import select
from errno import EAGAIN
from types import SimpleNamespace

import pytest
from twisted.internet import tcp
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from tests.fakes import FakeSocket
from tests.server.clients import upgrade
from twistedsock.limits.shares import MemoryBudget
from twistedsock.server import new_connections as module
from twistedsock.server.new_connections import (
    ACCEPTS_PER_TURN,
    CONNECTIONS_PER_TURN,
    NewConnections,
    limit_accepts,
    new_connections,
)
from twistedsock.server.transport import install_direct_writes


class NumberedSocket(FakeSocket):
    """A socket with a file descriptor of its own."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def fileno(self):
        return self.number


class FakePoll:
    """An epoll instance: reports the registered sockets that have input."""

    def __init__(self, sockets):
        self.sockets = sockets
        self.registered = set()
        self.closed = False

    def fileno(self):
        return 5

    def register(self, number, events):
        assert events == select.EPOLLIN
        assert number not in self.registered
        self.registered.add(number)

    def unregister(self, number):
        self.registered.remove(number)

    def poll(self, timeout, maximum):
        assert timeout == 0
        return [(number, select.EPOLLIN) for number in sorted(self.registered) if self.sockets[number].incoming][
            :maximum
        ]

    def close(self):
        self.closed = True


class Place:
    """A server with a line port and a web port, whose turns read all descriptors of the reactor that are ready."""

    def __init__(self, reactor, server, factories):
        self.reactor, self.server, self.factories = reactor, server, factories
        self.sockets = {}
        self.poll = FakePoll(self.sockets)
        self.new = NewConnections(reactor, self.poll)
        self.port = SimpleNamespace(transport=tcp.Server, _realPortNumber=8081)
        install_direct_writes(self.port, MemoryBudget(1_000_000), None, self.new)
        self.new.start()

    def connect(self, kind):
        number = 100 + len(self.sockets)
        self.sockets[number] = socket = NumberedSocket(number)
        protocol = self.factories[kind].buildProtocol(None)
        transport = self.port.transport(socket, protocol, ("127.0.0.1", number), self.port, number, self.reactor)
        protocol.makeConnection(transport)
        return transport

    def turn(self):
        """Handle what was ready before. Returns the number of connections that were read."""
        ready = [one for one in self.reactor.readers if one is self.new or one.socket.incoming]
        for one in ready:
            one.doRead()
        self.server.turn()
        return len(ready) - 1


@pytest.fixture
def place(reactor, lines, web):
    return Place(reactor, web.server, {"lines": lines.factory, "web": web.factory})


@pytest.mark.parametrize(("kind", "first"), [("web", upgrade()), ("lines", b"SUB k\n")])
def test_ping_is_answered_while_many_clients_connect(place, kind, first):
    client = place.connect("lines")
    client.socket.incoming = [b"PING early\n"]
    place.turn()
    place.turn()
    storm = [place.connect(kind) for _ in range(10 * CONNECTIONS_PER_TURN)]
    for transport in storm:
        transport.socket.incoming = [first]
    for turn in range(10):
        client.socket.incoming = [b"PING %d\n" % turn]
        assert place.turn() <= CONNECTIONS_PER_TURN + 1
        assert client.socket.sent.endswith(b"PONG %d\n" % turn)
    assert place.turn() == CONNECTIONS_PER_TURN  # the last of them: each turn has admitted as many as it can
    assert not any(transport.socket.incoming for transport in storm)


class Crowd:
    """A listening socket at which many connections wait."""

    def __init__(self, waiting):
        self.waiting = waiting

    def accept(self):
        if not self.waiting:
            raise BlockingIOError(EAGAIN, "no connection")
        self.waiting -= 1
        return FakeSocket(), ("127.0.0.1", 50000)


def test_port_accepts_a_limited_number_in_a_turn(reactor):
    accepted = []
    port = tcp.Port(0, SimpleNamespace(buildProtocol=accepted.append), reactor=reactor)
    port.socket, port.connected, port.numberAccepts = Crowd(10 * ACCEPTS_PER_TURN), True, ACCEPTS_PER_TURN
    limit_accepts(port)
    for turn in range(1, 11):
        port.doRead()
        assert len(accepted) == turn * ACCEPTS_PER_TURN
    port.doRead()
    assert len(accepted) == 10 * ACCEPTS_PER_TURN


def test_port_of_another_library_is_left_unchanged():
    limit_accepts(SimpleNamespace())


def test_silent_connection_waits_outside_the_reactor(place):
    client = place.connect("web")
    place.turn()
    assert client not in place.reactor.readers
    client.socket.incoming = [upgrade()]
    place.turn()
    assert client in place.reactor.readers
    assert place.poll.registered == set()


def test_connection_that_pauses_or_ends_no_longer_waits(place):
    paused, lost = place.connect("lines"), place.connect("lines")
    paused.pauseProducing()
    lost.connectionLost(Failure(ConnectionLost()))
    assert place.poll.registered == set()
    paused.resumeProducing()
    assert place.reactor.readers == {place.new, paused}


def test_stop_leaves_the_rest_to_the_reactor(place):
    silent = place.connect("web")
    place.new.stop()
    assert place.reactor.readers == {silent}
    assert place.poll.closed


def test_platforms_without_epoll_read_new_connections_at_once(place, reactor, monkeypatch):
    made = new_connections(reactor)
    made.start()
    assert made.fileno() > 2
    made.stop()
    monkeypatch.delattr(module.select, "epoll")
    assert new_connections(reactor) is None
