"""Ended connections are freed without the garbage collector, which rarely runs (`tap._spare_the_collector`): they could
hold an unfinished line or frame."""

import gc

import pytest
import txaio
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from tests.server.websocket_streams import frame
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.sse import EventStream
from twistedsock.server.tcp import LineFactory, LineProtocol
from twistedsock.server.transport import BufferedOutlet, DirectTCPTransport
from twistedsock.server.web import HTTPDispatcher, WebFactory
from twistedsock.server.websocket import WebSocketConnection
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.session import Session

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PLAIN = UPGRADE + b"\r\n"
AUTOBAHNS = UPGRADE + b"Sec-WebSocket-Extensions: x-unknown\r\n\r\n"
HTTP = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n"
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
def quiet():
    """Disables the collector, and ignores existing objects."""
    gc.collect()
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.fixture
def factories(server, reactor, monkeypatch):
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)
    web = WebFactory(server.context, reactor, OriginPolicy(AllowedOrigins()), 0, 0, 3, lambda: [])
    return {"lines": LineFactory(server.context, reactor, 0), "web": web}


VISITS = {
    "says nothing": ("lines", b""),
    "is polite": ("lines", b"SUB a\nPUB a 1\nQUIT\n"),
    "leaves a line unfinished": ("lines", b"SUB a presence=on\nPUB a " + b"x" * 60_000),
    "asks for a page at the wrong door": ("lines", b"GET / HTTP/1.1\r\n"),
    "speaks as telnet": ("lines", b"\xff\xfd\x06\xff\xf4"),
    "asks and goes": ("web", HTTP % (b"GET", b"/channels/a/events?wait=30") + b"\r\n"),
    "asks for several and goes": ("web", HTTP % (b"GET", b"/events?channel=a&channel=b&wait=30") + b"\r\n"),
    "asks for too much at once": ("web", (HTTP % (b"GET", b"/channels/a/events?wait=30") + b"\r\n") * 50),
    "leaves a body unfinished": (
        "web",
        HTTP % (b"POST", b"/events") + b"Content-Length: 60001\r\n\r\n" + b"x" * 60_000,
    ),
    "leaves a chunk unfinished": ("web", HTTP % (b"POST", b"/events") + b"Transfer-Encoding: chunked\r\n\r\n9\r\nx"),
    "breaks the rules of HTTP": ("web", HTTP % (b"GET", b"/healthz") + b"\r\nGET / HTTP/1.1\r\n a\r\n\r\n"),
    "streams": ("web", HTTP % (b"GET", b"/channels/a/events") + b"Accept: text/event-stream\r\n\r\n"),
    "streams several": ("web", HTTP % (b"GET", b"/events?channel=a&channel=b&presence=on") + b"\r\n"),
    "streams in place of a WebSocket": ("web", HTTP % (b"GET", b"/stream") + b"\r\n"),
    "asks for a page": ("web", b"GET /page.css HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n"),
    "leaves a head unfinished": ("web", b"GET / HTTP/1.1\r\n"),
    "is refused": ("web", UPGRADE + b"Origin: http://evil.example\r\n\r\n"),
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
def test_ended_connection_is_freed(visit, reason, quiet, factories, server, reactor, fake_socket):
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


def test_slow_subscriber_is_freed(quiet, factories, server, reactor, fake_socket):
    sent = b"PUB a " + b"x" * 5_000 + b"\nSUB a last=1\nHIST a\nHIST a\nPING\n"
    lose_while_blocked(factories["lines"], sent, server, reactor, fake_socket)
    assert not left()


def test_client_with_unread_history_is_freed(quiet, factories, server, reactor, fake_socket):
    server.line_client().send(*["PUB a " + "x" * 1_000] * 300)
    before = left()
    sent = HTTP % (b"GET", b"/channels/a/events") + b"\r\n"
    lose_while_blocked(factories["web"], sent, server, reactor, fake_socket)
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
