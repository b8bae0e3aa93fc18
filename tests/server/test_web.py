"""The web port gives each connection to the handler of its first request, and rejects foreign origins."""

import pytest
import txaio
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.logger import LogLevel, formatEvent

from tests.server.clients import HOST, WebConnection, request, upgrade
from twistedsock.auth.origins import AllowedOrigins, ListenerScope, host_name
from twistedsock.codecs.http import MAX_HEAD_BYTES
from twistedsock.errors import ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.http.origin_policy import MAX_LOGGED, OriginPolicy
from twistedsock.server.sockets import DEFAULT_LISTENER, ListenerConfig
from twistedsock.server.web import WebFactory
from twistedsock.testing import FakeServer, read_frames

HANDSHAKE_TIMEOUT = Limits().handshake_timeout


@pytest.fixture
def build(reactor, wire, monkeypatch):
    """Make a factory and connect to it: ``build(server=…, origins=…)(here=…, there=…)``."""
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)

    def make(server=None, origins=None, listening=DEFAULT_LISTENER):
        server = server or FakeServer()
        lines = [{"kind": "tcp", "host": "127.0.0.1", "port": 8081}]
        factory = WebFactory(
            server.context, reactor, OriginPolicy(origins or AllowedOrigins()), 0, 0, 3, lambda: lines, listening
        )

        def visit(here="127.0.0.1", there="127.0.0.1"):
            return WebConnection(factory, wire(here, 8082, there))

        visit.server = server
        return visit

    return make


@pytest.fixture
def visit(build):
    return build()


@pytest.mark.parametrize("extra", [{}, {"Sec-WebSocket-Extensions": "x"}], ids=["at once", "by Autobahn"])
@pytest.mark.parametrize("secure", [True, False])
def test_timeline_of_a_websocket_begins_with_its_handshakes(build, extra, secure):
    visit = build(listening=ListenerConfig("ssl:8082" if secure else "tcp:8082"))
    peer = visit()
    if secure:
        visit.server.now += 1
        peer.protocol.handshakeCompleted()
    visit.server.now += 1
    assert peer.ask(upgrade(**extra))[0] == 101
    (session,) = visit.server.context.sessions
    steps = [(step.name, step.words, step.at - 1000) for step in session.timeline.steps]
    if secure:
        handshakes = [("handshake", "TLS", 1.0), ("handshake", "WebSocket", 2.0), ("open", "", 2.0)]
    else:
        handshakes = [("handshake", "WebSocket", 1.0), ("open", "", 1.0)]
    assert steps == [("accepted", "", 0.0), *handshakes]


@pytest.mark.parametrize("path", ["/ws", "/"])
def test_opens_websocket_at_any_split(visit, path):
    handshake = upgrade(path)
    for cut in range(len(handshake) + 1):
        peer = visit()
        peer.send_bytes(handshake[:cut])
        status, headers, frames = peer.ask(handshake[cut:])
        assert (status, headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        assert read_frames(frames)[0].startswith('{"type":"welcome","protocol":1,"id":"p')
        peer.lose()


def test_serves_page_at_any_split(visit):
    question = request("/")
    for cut in range(len(question) + 1):
        peer = visit()
        peer.send_bytes(question[:cut])
        status, headers, _ = peer.ask(question[cut:])
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        peer.lose()


def test_offers_http_1_1_over_tls(reactor):
    """A client that offers protocols needs one of them."""
    factory = WebFactory(FakeServer().context, reactor, OriginPolicy(AllowedOrigins()), 0, 0, 3, lambda: [])
    assert IProtocolNegotiationFactory(factory).acceptableProtocols() == [b"http/1.1"]


def test_keeps_input_after_the_request_head(visit):
    peer = visit()
    masked = bytes([0x81, 0x80 | 15]) + bytes(4) + b'{"type":"ping"}'
    status, _, frames = peer.ask(upgrade() + masked)
    assert status == 101
    assert read_frames(frames)[1] == '{"type":"pong"}'


def counted(transport):
    """Count the writes of a transport."""
    writes = []

    def write(data, write=transport.write):
        writes.append(data)
        write(data)

    transport.write = write
    return writes


@pytest.mark.parametrize("more", [{}, {"Sec_WebSocket_Protocol": "sockbridge.v1.line"}, {"Origin": "http://" + HOST}])
def test_sends_handshake_response_and_welcome_together(visit, more):
    peer, other = visit(), visit()
    writes = counted(peer.transport)
    assert peer.ask(upgrade(**more))[0] == 101
    assert len(writes) == 1
    # The same request in a form that only Autobahn parses.
    writes = counted(other.transport)
    assert other.ask(upgrade("/ws?", **more))[0] == 101
    assert len(writes) == 2
    answer, welcome = writes
    assert b"welcome" in welcome.lower()


def test_exception_in_a_plain_handshake_aborts_the_connection(visit, monkeypatch, logged):
    peer = visit()
    monkeypatch.setattr(visit.server.context.sessions, "add", lambda id, session: 1 / 0)
    peer.send_bytes(upgrade() + bytes([0x81, 0x80]) + bytes(4))
    assert peer.transport.aborted
    assert peer.transport.output() == b""
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [ZeroDivisionError]
    logged.clear()
    peer.lose()
    assert visit.server.context.connection_limiter.connections == 0


def test_rejects_websocket_at_an_unknown_path(visit):
    status, _, body = visit().ask(upgrade("/chat"))
    assert (status, body) == (404, b"no WebSocket at this path: connect to /ws\n")


def test_rejects_unknown_subprotocols(visit):
    status, _, body = visit().ask(upgrade(Sec_WebSocket_Protocol="mqtt, stomp"))
    assert (status, body) == (400, b"no supported subprotocol: offer sockbridge.v1.json and sockbridge.v1.line\n")
    status, headers, _ = visit().ask(upgrade(Sec_WebSocket_Protocol="mqtt, sockbridge.v1.line"))
    assert (status, headers["sec-websocket-protocol"]) == (101, "sockbridge.v1.line")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": "0"}, 101),
        ({"Content_Length": "5"}, 400),
        ({"Content_Length": "00"}, 400),
        ({"Transfer_Encoding": "chunked"}, 400),
        ({"Content_Length": "0", "Transfer_Encoding": "identity"}, 400),
    ],
)
def test_rejects_handshake_with_content(visit, headers, status):
    """A proxy and the server must agree on the end of a request."""
    assert visit().ask(upgrade(**headers))[0] == status


def test_plain_request_for_the_websocket_is_426(visit):
    status, headers, _ = visit().ask(request("/ws"))
    assert (status, headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    "data", [b"SUB kitchen\r\n\r\n", request() [:-2] + b"Host: other\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"]
)  # fmt: skip
def test_rejects_invalid_requests(visit, data):
    peer = visit()
    status, _, _ = peer.ask(data)
    assert (status, peer.transport.half_closed) == (400, True)
    peer.send_bytes(request())
    assert peer.transport.output() == b""


def test_rejects_endless_request_head(visit):
    peer = visit()
    peer.send_bytes(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(MAX_HEAD_BYTES // 1024 - 1):
        peer.send_bytes(b"x" * 1024)
        assert peer.transport.output() == b""
    status, _, _ = peer.ask(b"x" * 1024)
    assert (status, peer.transport.half_closed) == (431, True)


def test_rejects_long_request_head_in_one_read(visit):
    status, _, _ = visit().ask(request(X="x" * MAX_HEAD_BYTES))
    assert status == 431


def test_rejects_request_that_does_not_arrive_in_time(visit, reactor):
    peer = visit()
    peer.send_bytes(b"GET / HT")
    reactor.advance(HANDSHAKE_TIMEOUT)
    assert peer.received()[0] == 408
    assert peer.transport.half_closed
    reactor.advance(LINGER_SECONDS)
    assert peer.transport.aborted


@pytest.mark.parametrize(
    "data",
    [b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x80\x2e", b"\0", b"\xff\xfb\x18", b'{"type":', b" GET / "]
    + [b"SUB kitchen\n", b"GET /\r\nHost: x\r\n"],
)
def test_rejects_other_protocols_at_the_first_byte(visit, data):
    peer = visit()
    assert peer.ask(data)[0] == 400
    assert peer.transport.half_closed
    peer.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
    assert peer.transport.output() == b""


@pytest.mark.parametrize("data", [b"", b"GET", request("/"), upgrade("/chat")])
def test_lost_connection_leaves_no_timers(visit, reactor, data):
    peer = visit()
    peer.send_bytes(data)
    peer.lose()
    said = peer.transport.value()
    assert visit.server.context.connection_limiter.connections == 0
    reactor.advance(HANDSHAKE_TIMEOUT)
    assert peer.transport.output() == said
    assert not reactor.getDelayedCalls()
    peer.lose()
    assert visit.server.context.connection_limiter.connections == 0


def test_lost_websocket_ends_its_session(visit):
    peer = visit()
    peer.send_bytes(upgrade())
    assert len(visit.server.context.sessions) == visit.server.context.connection_limiter.connections == 1
    peer.lose()
    assert len(visit.server.context.sessions) == visit.server.context.connection_limiter.connections == 0


def test_rejects_connection_over_the_limit_with_retry_after(build, reactor):
    visit = build(FakeServer(max_connections=1))
    visit()
    refused = visit()
    status, headers, body = refused.received()
    assert (status, headers["retry-after"]) == (503, "5")
    assert b"too many connections" in body
    reactor.advance(2 * HANDSHAKE_TIMEOUT)
    assert refused.transport.output() == b"", "there is nothing that it has to send in time"
    refused.lose()
    assert visit.server.context.connection_limiter.connections == 1


LOOPBACK, ANYWHERE = "127.0.0.1", "192.0.2.1"
KNOWING = AllowedOrigins(origins=("https://example.org",), hosts=("bridge.example",))


@pytest.mark.parametrize(
    ("here", "host", "origin", "status"),
    [
        # Programs, which send no origin.
        (LOOPBACK, HOST, None, 101),
        (LOOPBACK, "localhost:8082", None, 101),
        (LOOPBACK, "[::1]:8082", None, 101),
        # Our own page, under each of its names.
        (LOOPBACK, HOST, "http://127.0.0.1:8082", 101),
        (LOOPBACK, HOST, "http://localhost:8082", 101),
        (LOOPBACK, "localhost:8082", "http://[::1]:8082", 101),
        (LOOPBACK, "bridge.example", "https://bridge.example", 101),
        (ANYWHERE, "192.0.2.1:8082", "http://192.0.2.1:8082", 101),
        (ANYWHERE, "bridge.example:8082", "http://bridge.example:8082", 101),
        # Allowed origins.
        (LOOPBACK, HOST, "https://example.org", 101),
        # Foreign origins.
        (LOOPBACK, HOST, "http://evil.example", 403),
        (LOOPBACK, HOST, "null", 403),
        (LOOPBACK, HOST, "http://127.0.0.1:9999", 403),
        (LOOPBACK, HOST, "http://localhost", 403),
        (LOOPBACK, HOST, "http://example.org", 403),
        (ANYWHERE, "192.0.2.1:8082", "http://192.0.2.2:8082", 403),
        # DNS rebinding: the origin equals the host.
        (LOOPBACK, "evil.example:8082", "http://evil.example:8082", 421),
        (LOOPBACK, "evil.example", None, 421),
        (LOOPBACK, "[2001:db8::1]:8082", None, 421),
        (LOOPBACK, "localhost.evil.example:8082", None, 421),
        (ANYWHERE, "evil.example:8082", "http://evil.example:8082", 403),
    ],
)
def test_checks_origins_and_hosts(build, logged, here, host, origin, status):
    visit = build(origins=KNOWING)
    headers = {"Origin": origin} if origin is not None else {}
    assert visit(here).ask(upgrade(host=host, **headers))[0] == status
    visit(here).send_bytes(upgrade(host=host, **headers))
    said = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.warn]
    refused = {
        101: [],
        403: [f"refused a WebSocket of origin {origin!r}; --allow-origin would allow it"],
        421: [f"refused a request for host {host_name(host)!r}; --allow-host would allow it"],
    }
    assert said == refused[status], "once, however often it comes"


def test_logged_option_allows_the_origin(build):
    origin, host = "http://evil.example", "evil.example"
    visit = build(origins=AllowedOrigins(origins=(origin,), hosts=(host,)))
    assert visit().ask(upgrade(Origin=origin))[0] == 101
    assert visit().ask(upgrade(host=f"{host}:8082", Origin=f"http://{host}:8082"))[0] == 101


def test_checks_each_request_of_a_kept_alive_connection(visit):
    peer = visit()
    assert peer.ask(request("/"))[0] == 200
    status, headers, _ = peer.ask(request("/", host="evil.example:8082"))
    assert (status, headers.get("connection")) == (421, None)
    assert peer.ask(request("/bridge.json"))[0] == 200
    assert peer.ask(upgrade("/ws", host="evil.example"))[0] == 421
    assert peer.ask(upgrade("/ws"))[0] == 426, "it is too late for a WebSocket here"


def test_origins_cannot_forge_or_fill_the_log(logged):
    gate, door = OriginPolicy(AllowedOrigins()), ListenerScope(True, 8082)
    gate.check_origin(HOST, "http://a\n2026 [sockbridge] all is well" + "x" * 1000, door)
    (said,) = [formatEvent(event) for event in logged]
    assert "\n" not in said
    assert len(said) < 250
    for number in range(2 * MAX_LOGGED):
        gate.check_origin(HOST, f"http://{number}.example", door)
    assert len(logged) == MAX_LOGGED


def test_closes_client_that_does_not_read_the_page(visit, reactor):
    peer = visit()
    peer.ask(request("/"))
    assert not peer.transport.disconnecting
    reactor.advance(61)
    assert peer.transport.disconnecting or peer.transport.aborted


def test_rejects_too_many_headers(visit):
    status, _, _ = visit().ask(request(**{f"X-{number}": "" for number in range(101)}))
    assert status == 431


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (upgrade(host="evil.example"), 421, ErrorCode.FORBIDDEN),
        (upgrade(Origin="https://evil.example"), 403, ErrorCode.FORBIDDEN),
        (upgrade("/elsewhere"), 404, ErrorCode.UNKNOWN_COMMAND),
        (b"nonsense\r\n\r\n", 400, ErrorCode.BAD_ARGUMENT),
        (b"x" * MAX_HEAD_BYTES, 431, ErrorCode.TOO_LONG),
    ],
)
def test_counts_rejections(build, data, status, code):
    visit = build()
    assert visit().ask(data)[0] == status
    assert visit.server.context.stats.requests == {(b"other", status): 1}
    assert visit.server.context.stats.errors == {code: 1}


def test_counts_rejections_over_the_connection_limit(build):
    visit = build(FakeServer(max_connections=1))
    visit()
    assert visit().received()[0] == 503
    assert visit.server.context.stats.errors == {ErrorCode.LIMIT: 1}
