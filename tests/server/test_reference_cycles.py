"""Ended connections are freed without the garbage collector, which rarely runs (`tap._spare_the_collector`): they could
hold an unfinished line or frame."""

import gc

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from tests.fuzz.grammars import frame
from tests.server.clients import request_bytes, upgrade
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.sse import EventStream
from twistedsock.server.tcp import LineProtocol
from twistedsock.server.transport import BufferedOutlet, DirectTCPTransport
from twistedsock.server.web import HTTPDispatcher
from twistedsock.server.websocket import WebSocketConnection
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.session import Session

PLAIN, AUTOBAHNS = upgrade(), upgrade(Sec_WebSocket_Extensions="x-unknown")
POLL = request_bytes("/channels/a/events?wait=30")
SUBSCRIBE = frame(0x81, b'{"type":"subscribe","id":1,"channel":"a","presence":true}')

OURS = (
    Session,
    InputPipeline,
    LineProtocol,
    HTTPDispatcher,
    WebSocketConnection,
    DirectTCPTransport,
    BufferedOutlet,
    HTTPConnection,
    HTTPRequest,
    EventStream,
)


def left():
    """The class names of our live objects."""
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, OURS)]


@pytest.fixture
def factories(lines, make_web, server):
    return {"lines": lines.factory, "web": make_web(server, ping_interval=30).factory}


VISITS = {
    "says nothing": ("lines", b""),
    "is polite": ("lines", b"SUB a\nPUB a 1\nQUIT\n"),
    "leaves a line unfinished": ("lines", b"SUB a presence=on\nPUB a " + b"x" * 60_000),
    "asks for a page at the wrong door": ("lines", b"GET / HTTP/1.1\r\n"),
    "speaks as telnet": ("lines", b"\xff\xfd\x06\xff\xf4"),
    "asks and goes": ("web", POLL),
    "asks for several and goes": ("web", request_bytes("/events?channel=a&channel=b&wait=30")),
    "asks for too much at once": ("web", POLL * 50),
    "leaves a body unfinished": ("web", request_bytes("/events", "POST", b"x" * 60_001)[:-1]),
    "leaves a chunk unfinished": ("web", request_bytes("/events", "POST", b"9\r\nx", Transfer_Encoding="chunked")),
    "breaks the rules of HTTP": ("web", request_bytes("/healthz") + b"GET / HTTP/1.1\r\n a\r\n\r\n"),
    "streams": ("web", request_bytes("/channels/a/events", Accept="text/event-stream")),
    "streams several": ("web", request_bytes("/events?channel=a&channel=b&presence=on")),
    "streams in place of a WebSocket": ("web", request_bytes("/stream")),
    "asks for a page": ("web", request_bytes("/page.css")),
    "leaves a head unfinished": ("web", b"GET / HTTP/1.1\r\n"),
    "is refused": ("web", upgrade(Origin="http://evil.example")),
    "subscribes": ("web", PLAIN + SUBSCRIBE),
    "subscribes after Autobahn's handshake": ("web", AUTOBAHNS + SUBSCRIBE),
    "leaves a frame unfinished": ("web", PLAIN + frame(0x81, b"x" * 60_000)[:-1]),
    "leaves a message unfinished": ("web", PLAIN + frame(0x01, b"{")),
    "pings": ("web", PLAIN + frame(0x89, b"x")),
    "closes": ("web", PLAIN + frame(0x88, b"\x03\xe8")),
    "breaks the rules": ("web", PLAIN + frame(0x83, b"x")),
}


@pytest.mark.parametrize("reason", [ConnectionDone, ConnectionLost])
@pytest.mark.parametrize("visit", VISITS)
def test_ended_connection_is_freed(visit, reason, no_collector, factories, server, reactor, fake_socket):
    kind, said = VISITS[visit]
    fake_socket.getsockname = lambda: ("127.0.0.1", 8081)
    fake_socket.incoming = [said] * bool(said)
    protocol = factories[kind].buildProtocol(None)
    transport = DirectTCPTransport(fake_socket, protocol, ("127.0.0.1", 50000), None, 1, reactor)
    protocol.makeConnection(transport)
    assert left()
    transport.doRead()
    server.turn()
    transport.connectionLost(Failure(reason()))
    reactor.advance(2 * LINGER_SECONDS)  # Autobahn does not cancel all of its timers
    server.turn()
    reactor.readers.clear()
    reactor.writers.clear()
    del protocol, transport
    assert not left()


def test_slow_subscriber_is_freed(no_collector, factories, server, reactor, fake_socket):
    sent = b"PUB a " + b"x" * 5_000 + b"\nSUB a last=1\nHIST a\nHIST a\nPING\n"
    lose_while_blocked(factories["lines"], sent, server, reactor, fake_socket)
    assert not left()


def test_client_with_unread_history_is_freed(no_collector, factories, server, reactor, fake_socket):
    server.line_client().send(*["PUB a " + "x" * 1_000] * 300)
    before = left()
    lose_while_blocked(factories["web"], request_bytes("/channels/a/events"), server, reactor, fake_socket)
    assert sorted(left()) == sorted(before)


def lose_while_blocked(factory, sent, server, reactor, fake_socket):
    """Connect, send this, and lose the connection before the client has read what it asked for."""
    fake_socket.getsockname = lambda: ("127.0.0.1", 8081)
    fake_socket.room = 1_000
    fake_socket.incoming = [sent]
    protocol = factory.buildProtocol(None)
    transport = DirectTCPTransport(fake_socket, protocol, ("127.0.0.1", 50000), None, 1, reactor)
    protocol.makeConnection(transport)
    transport.doRead()
    server.turn()
    assert transport.blocked
    transport.connectionLost(Failure(ConnectionDone()))
    reactor.turn()
    reactor.readers.clear()
    reactor.writers.clear()
