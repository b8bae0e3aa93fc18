"""System calls of a delivery and memory of an idle connection, on Twisted's own transports."""

import gc
import tracemalloc
import weakref
from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.calls import python_calls
from tests.fakes import FakeSocket
from tests.fuzz.grammars import frame
from tests.server.clients import upgrade
from tests.server.engineio_clients import NEW_WEBSOCKET
from twistedsock.codecs.engineio import PATH
from twistedsock.limits.shares import MemoryBudget
from twistedsock.server.transport import DirectTCPTransport

READERS = 50
HELLO = {"lines": b"", "web": upgrade(), "socketio": upgrade(PATH + NEW_WEBSOCKET)}
PUBLISH = frame(0x81, b'{"type":"publish","channel":"k","data":"x"}')
SUBSCRIBE = frame(0x81, b'{"type":"subscribe","channel":"k"}')
CONNECTIONS = 300


class Transport(DirectTCPTransport):
    """A separate class: attributes that other tests set would end the sharing of instance keys."""


class Place:
    """A server with both ports."""

    def __init__(self, reactor, lines, web, socketio):
        self.reactor, self.server = reactor, web.server
        self.port = SimpleNamespace(_realPortNumber=8081, getHost=lambda: IPv4Address("TCP", "127.0.0.1", 8081))
        self.lines, self.web, self.socketio = lines.factory, web.factory, socketio.web.factory

    def connect(self, factory, socket, data=b""):
        """A connection that has sent ``data``."""
        protocol = factory.buildProtocol(None)
        transport = Transport(socket, protocol, ("127.0.0.1", 50000), self.port, 1, self.reactor)
        protocol.makeConnection(transport)
        if data:
            transport.protocol.dataReceived(data)
        return transport

    def reads(self, transport, data):
        """Input arrives from the socket."""
        transport.socket.incoming.append(data)
        transport.doRead()


@pytest.fixture
def place(reactor, lines, web, socketio):
    return Place(reactor, lines, web, socketio)


def test_delivery_costs_one_system_call(place):
    """A thousand events of one turn cost each subscriber one ``send``."""
    sockets = [FakeSocket() for _ in range(READERS)]
    for socket in sockets:
        place.connect(place.lines, socket, b"SUB k\n")
    publisher = place.connect(place.lines, FakeSocket())
    place.server.turn()
    before, asked = [socket.sends for socket in sockets], place.reactor.system_calls
    place.reads(publisher, b"PUB k x\n" * 1000)
    place.server.turn()
    assert [socket.sends for socket in sockets] == [sends + 1 for sends in before]
    assert all(socket.sent.endswith(b" x\n") and b" 1000 " in socket.sent for socket in sockets)
    assert place.reactor.system_calls == asked


@pytest.mark.parametrize(
    ("kind", "subscribe", "publish", "most"),
    [
        ("lines", b"SUB k\n", b"PUB k x\n", 38),
        ("web", SUBSCRIBE, PUBLISH, 40),
        ("socketio", frame(0x81, b'42["subscribe","k"]'), frame(0x81, b'42["publish","k","x"]'), 59),
    ],
    ids=["line", "message", "socketio"],
)
def test_event_alone_costs_few_calls(place, kind, subscribe, publish, most):
    """One event in a packet, with one reader: from the socket of the publisher to that of the reader. Nothing is shared
    then, and what it costs is the number of calls."""
    factory = getattr(place, kind)
    reader, publisher = (place.connect(factory, FakeSocket(), HELLO[kind]) for _ in range(2))
    for client in (reader, publisher) if kind == "socketio" else ():
        place.reads(client, frame(0x81, b"40"))
    place.reads(reader, subscribe)
    place.reads(publisher, publish)
    place.server.turn()
    sends = reader.socket.sends

    def publish_one():
        place.reads(publisher, publish)
        place.server.turn()

    assert python_calls(publish_one) <= most
    assert reader.socket.sends == sends + 1


def test_burst_of_socketio_events_costs_few_calls(place):
    """Events in one packet are decoded, published, encoded and sent together."""
    readers = [place.connect(place.socketio, FakeSocket(), HELLO["socketio"]) for _ in range(READERS)]
    publisher = place.connect(place.socketio, FakeSocket(), HELLO["socketio"])
    for client in (*readers, publisher):
        place.reads(client, frame(0x81, b"40/k,"))
    place.server.turn()
    sends = [reader.socket.sends for reader in readers]

    def publish_many():
        place.reads(publisher, frame(0x81, b'42/k,["message","x"]') * 100)
        place.server.turn()

    assert python_calls(publish_many) <= 4 * 100
    assert [reader.socket.sends for reader in readers] == [number + 1 for number in sends]


def test_websocket_leaves_the_dispatcher_behind(place):
    """What reads the handshake is freed as soon as the connection is open."""
    dispatcher = place.web.buildProtocol(None)
    freed = weakref.ref(dispatcher)
    transport = Transport(FakeSocket(), dispatcher, ("127.0.0.1", 50000), place.port, 1, place.reactor)
    dispatcher.makeConnection(transport)
    del dispatcher
    transport.protocol.dataReceived(upgrade())
    assert freed() is None
    place.reads(transport, frame(0x81, b"PING x"))
    assert transport.socket.sent.endswith(b"PONG x")
    limiter = place.server.context.connection_limiter
    assert limiter.connections == 1
    transport.connectionLost(Failure(ConnectionDone()))
    assert limiter.connections == 0


def test_full_socket_is_not_tried_again_before_it_drains(place):
    full = FakeSocket()
    place.connect(place.lines, full, b"SUB k\n")
    publisher = place.connect(place.lines, FakeSocket())
    place.server.turn()
    full.room, before, asked = 0, full.sends, place.reactor.system_calls
    for _ in range(20):
        place.reads(publisher, b"PUB k x\n" * 100)
        place.server.turn()
    assert full.sends == before + 1
    assert place.reactor.system_calls == asked + 1


@pytest.mark.parametrize("kind", ["lines", "web"])
def test_complete_input_is_not_counted(place, kind, monkeypatch):
    """Complete lines and messages, a short incomplete one, and sends that the socket accepts."""
    monkeypatch.setattr(MemoryBudget, "adjust", lambda *arguments: pytest.fail("something was counted"))
    socket = FakeSocket()
    peer = place.connect(getattr(place, kind), socket, HELLO[kind])
    one = b"PING x\n" if kind == "lines" else frame(0x81, b'{"type":"ping","id":1}')
    for data in (one, one * 1000, one * 1000 + one[:5], one[5:]):
        place.reads(peer, data)
        place.server.turn()
    assert socket.sent.lower().count(b"pong") == 2002


@pytest.mark.parametrize(("kind", "max_bytes"), [("lines", 2.2 * 1024), ("web", 2.2 * 1024), ("socketio", 4.8 * 1024)])
def test_idle_connection_takes_little_memory(place, kind, max_bytes):
    """Including the parts of Twisted and Autobahn, but not those of the kernel. The fake socket is included too."""
    factory, hello = getattr(place, kind), HELLO[kind]
    sockets = [FakeSocket() for _ in range(2 * CONNECTIONS)]
    kept = [place.connect(factory, socket, hello) for socket in sockets[:CONNECTIONS]]
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept += [place.connect(factory, socket, hello) for socket in sockets[CONNECTIONS:]]
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / CONNECTIONS
    finally:
        tracemalloc.stop()
    said = bytes(sockets[-1].sent)
    assert b"welcome" in said.lower() or b'0{"sid":"s' in said
    assert each < max_bytes
