"""The web port gives each connection to the handler of its first request, checks origins, and authenticates by token or
certificate."""

import json

import pytest
from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.logger import LogLevel, formatEvent

from tests.authority import Authority
from tests.fakes import Ticking
from tests.server.clients import HOST, request_bytes, upgrade
from twistedsock.auth.origins import AllowedOrigins, ListenerScope, host_name
from twistedsock.codecs.http import MAX_HEAD_BYTES
from twistedsock.errors import ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.http.origin_policy import MAX_LOGGED, OriginPolicy
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakePolicy, FakeServer, read_frames

HANDSHAKE_TIMEOUT = Limits().handshake_timeout


@pytest.mark.parametrize("extra", [{}, {"Sec-WebSocket-Extensions": "x"}], ids=["at once", "by Autobahn"])
@pytest.mark.parametrize("secure", [True, False])
def test_timeline_of_a_websocket_begins_with_its_handshakes(make_web, server, extra, secure):
    web = make_web(server, listening=ListenerConfig("ssl:8082" if secure else "tcp:8082"))
    client = web()
    if secure:
        web.server.now += 1
        client.protocol.handshakeCompleted()
    web.server.now += 1
    assert client.ask(upgrade(**extra))[0] == 101
    (session,) = web.server.context.sessions
    steps = [(step.name, step.words, step.at - 1000) for step in session.timeline.steps]
    if secure:
        handshakes = [("handshake", "TLS", 1.0), ("handshake", "WebSocket", 2.0), ("open", "", 2.0)]
    else:
        handshakes = [("handshake", "WebSocket", 1.0), ("open", "", 1.0)]
    assert steps == [("accepted", "", 0.0), *handshakes]


@pytest.mark.parametrize("path", ["/ws", "/"])
def test_opens_websocket_at_any_split(web, path):
    handshake = upgrade(path)
    for cut in range(len(handshake) + 1):
        client = web()
        client.send_bytes(handshake[:cut])
        status, headers, frames = client.ask(handshake[cut:])
        assert (status, headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        assert read_frames(frames)[0].startswith('{"type":"welcome","protocol":1,"id":"p')
        client.disconnect()


def test_serves_page_at_any_split(web):
    question = request_bytes("/")
    for cut in range(len(question) + 1):
        client = web()
        client.send_bytes(question[:cut])
        status, headers, _ = client.ask(question[cut:])
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        client.disconnect()


def test_offers_http_1_1_over_tls(web):
    """A client that offers protocols needs one of them."""
    assert IProtocolNegotiationFactory(web.factory).acceptableProtocols() == [b"http/1.1"]


def test_keeps_input_after_the_request_head(web):
    client = web()
    masked = bytes([0x81, 0x80 | 15]) + bytes(4) + b'{"type":"ping"}'
    status, _, frames = client.ask(upgrade() + masked)
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
def test_sends_handshake_response_and_welcome_together(web, more):
    client, other = web(), web()
    writes = counted(client.transport)
    assert client.ask(upgrade(**more))[0] == 101
    assert len(writes) == 1
    # The same request in a form that only Autobahn parses.
    writes = counted(other.transport)
    assert other.ask(upgrade("/ws?", **more))[0] == 101
    assert len(writes) == 2
    answer, welcome = writes
    assert b"welcome" in welcome.lower()


def test_exception_in_a_plain_handshake_aborts_the_connection(web, monkeypatch, logged):
    client = web()
    monkeypatch.setattr(web.server.context.sessions, "add", lambda id, session: 1 / 0)
    client.send_bytes(upgrade() + bytes([0x81, 0x80]) + bytes(4))
    assert client.transport.aborted
    assert client.transport.output() == b""
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [ZeroDivisionError]
    logged.clear()
    client.disconnect()
    assert web.server.context.connection_limiter.connections == 0


def test_rejects_websocket_at_an_unknown_path(web):
    status, _, body = web().ask(upgrade("/chat"))
    assert (status, body) == (404, b"no WebSocket at this path: connect to /ws\n")


def test_rejects_unknown_subprotocols(web):
    status, _, body = web().ask(upgrade(Sec_WebSocket_Protocol="mqtt, stomp"))
    assert status == 400 and body == (
        b"no supported subprotocol: offer sockbridge.v1.json, sockbridge.v1.line or sockbridge.v1.binary\n"
    )
    status, headers, _ = web().ask(upgrade(Sec_WebSocket_Protocol="mqtt, sockbridge.v1.line"))
    assert (status, headers["sec-websocket-protocol"]) == (101, "sockbridge.v1.line")


def test_plain_request_for_the_websocket_is_426(web):
    status, headers, _ = web().ask(request_bytes("/ws"))
    assert (status, headers["upgrade"]) == (426, "websocket")


def test_rejects_endless_request_head(web):
    client = web()
    client.send_bytes(b"GET / HTTP/1.1\r\nX: ")
    for _ in range(MAX_HEAD_BYTES // 1024 - 1):
        client.send_bytes(b"x" * 1024)
        assert client.transport.output() == b""
    status, _, _ = client.ask(b"x" * 1024)
    assert (status, client.transport.half_closed) == (431, True)


def test_rejects_request_that_does_not_arrive_in_time(web, reactor):
    client = web()
    client.send_bytes(b"GET / HT")
    reactor.advance(HANDSHAKE_TIMEOUT)
    assert client.response()[0] == 408
    assert client.transport.half_closed
    reactor.advance(LINGER_SECONDS)
    assert client.transport.aborted


@pytest.mark.parametrize(
    "data",
    [b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x80\x2e", b"\0", b"\xff\xfb\x18", b'{"type":', b" GET / "]
    + [b"SUB kitchen\n", b"GET /\r\nHost: x\r\n"],
)
def test_rejects_other_protocols_at_the_first_byte(web, data):
    client = web()
    assert client.ask(data)[0] == 400
    assert client.transport.half_closed
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
    assert client.transport.output() == b""


@pytest.mark.parametrize("data", [b"", b"GET", request_bytes("/"), upgrade("/chat")])
def test_lost_connection_leaves_no_timers(web, reactor, data):
    client = web()
    client.send_bytes(data)
    client.disconnect()
    said = client.transport.value()
    assert web.server.context.connection_limiter.connections == 0
    reactor.advance(HANDSHAKE_TIMEOUT)
    assert client.transport.output() == said
    assert not reactor.getDelayedCalls()
    client.disconnect()
    assert web.server.context.connection_limiter.connections == 0


def test_lost_websocket_ends_its_session(web):
    client = web()
    client.send_bytes(upgrade())
    assert len(web.server.context.sessions) == web.server.context.connection_limiter.connections == 1
    client.disconnect()
    assert len(web.server.context.sessions) == web.server.context.connection_limiter.connections == 0


def test_rejects_connection_over_the_limit_with_retry_after(make_web, reactor):
    web = make_web(FakeServer(max_connections=1))
    web()
    refused = web()
    status, headers, body = refused.response()
    assert (status, headers["retry-after"]) == (503, "5")
    assert b"too many connections" in body
    assert web.server.context.stats.errors == {ErrorCode.LIMIT: 1}
    reactor.advance(2 * HANDSHAKE_TIMEOUT)
    assert refused.transport.output() == b"", "there is nothing that it has to send in time"
    refused.disconnect()
    assert web.server.context.connection_limiter.connections == 1


LOOPBACK, ANYWHERE = "127.0.0.1", "192.0.2.1"
KNOWING = AllowedOrigins(origins=("https://example.org",), hosts=("bridge.example",))


@pytest.mark.parametrize(
    ("here", "host", "origin", "status"),
    [
        (LOOPBACK, HOST, None, 101),
        (LOOPBACK, "localhost:8082", "http://[::1]:8082", 101),
        (LOOPBACK, "bridge.example", "https://bridge.example", 101),
        (ANYWHERE, "192.0.2.1:8082", "http://192.0.2.1:8082", 101),
        (LOOPBACK, HOST, "https://example.org", 101),
        (LOOPBACK, HOST, "http://evil.example", 403),
        (LOOPBACK, HOST, "null", 403),
        (ANYWHERE, "192.0.2.1:8082", "http://192.0.2.2:8082", 403),
        # DNS rebinding: the origin equals the host.
        (LOOPBACK, "evil.example:8082", "http://evil.example:8082", 421),
        (LOOPBACK, "evil.example", None, 421),
        (ANYWHERE, "evil.example:8082", "http://evil.example:8082", 403),
    ],
)
def test_checks_origins_and_hosts(make_web, server, logged, here, host, origin, status):
    web = make_web(server, origins=KNOWING)
    headers = {"Origin": origin} if origin is not None else {}
    assert web(here).ask(upgrade(Host=host, **headers))[0] == status
    web(here).send_bytes(upgrade(Host=host, **headers))
    said = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.warn]
    refused = {
        101: [],
        403: [f"refused a WebSocket of origin {origin!r}; --allow-origin would allow it"],
        421: [f"refused a request for host {host_name(host)!r}; --allow-host would allow it"],
    }
    assert said == refused[status], "once, however often it comes"


def test_logged_option_allows_the_origin(make_web, server):
    origin, host = "http://evil.example", "evil.example"
    web = make_web(server, origins=AllowedOrigins(origins=(origin,), hosts=(host,)))
    assert web().ask(upgrade(Origin=origin))[0] == 101
    assert web().ask(upgrade(Host=f"{host}:8082", Origin=f"http://{host}:8082"))[0] == 101


def test_checks_each_request_of_a_kept_alive_connection(web):
    client = web()
    assert client.ask(request_bytes("/"))[0] == 200
    status, headers, _ = client.ask(request_bytes("/", Host="evil.example:8082"))
    assert (status, headers.get("connection")) == (421, None)
    assert client.ask(request_bytes("/bridge.json"))[0] == 200
    assert client.ask(upgrade("/ws", Host="evil.example"))[0] == 421
    assert client.ask(upgrade("/ws"))[0] == 426, "it is too late for a WebSocket here"


def test_origins_cannot_forge_or_fill_the_log(logged):
    gate, door = OriginPolicy(AllowedOrigins()), ListenerScope(True, 8082)
    gate.check_origin(HOST, "http://a\n2026 [sockbridge] all is well" + "x" * 1000, door)
    (said,) = [formatEvent(event) for event in logged]
    assert "\n" not in said
    assert len(said) < 250
    for number in range(2 * MAX_LOGGED):
        gate.check_origin(HOST, f"http://{number}.example", door)
    assert len(logged) == MAX_LOGGED


def test_closes_client_that_does_not_read_the_page(web, reactor):
    client = web()
    client.ask(request_bytes("/"))
    assert not client.transport.disconnecting
    reactor.advance(61)
    assert client.transport.disconnecting or client.transport.aborted


def test_rejects_too_many_headers(web):
    status, _, _ = web().ask(request_bytes(**{f"X-{number}": "" for number in range(101)}))
    assert status == 431


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (upgrade(Host="evil.example"), 421, ErrorCode.FORBIDDEN),
        (upgrade(Origin="https://evil.example"), 403, ErrorCode.FORBIDDEN),
        (upgrade("/elsewhere"), 404, ErrorCode.UNKNOWN_COMMAND),
        (b"nonsense\r\n\r\n", 400, ErrorCode.BAD_ARGUMENT),
        (b"x" * MAX_HEAD_BYTES, 431, ErrorCode.TOO_LONG),
    ],
)
def test_counts_rejections(web, data, status, code):
    assert web().ask(data)[0] == status
    assert web.server.context.stats.requests == {(b"other", status): 1}
    assert web.server.context.stats.errors == {code: 1}


# Tokens.

POLICY = FakePolicy({"lobby": "r"}, {"good": ("ann", {"kitchen": "rw"}, None)})

for_each_handshake = pytest.mark.parametrize("way", [{}, {"X-Odd": "\x80"}], ids=["plain", "by Autobahn"])
"""A header that is not ASCII is no part of a plain handshake."""


@pytest.fixture
def open_websocket(make_web):
    """Send a handshake. Returns status, headers, messages, close code (0: not closed), and the nick of the session."""

    def open_websocket(path, headers, policy=POLICY, endpoint="tcp:8082", certificate=None):
        web = make_web(FakeServer(policy=policy), listening=ListenerConfig(endpoint))
        client = web()
        client.transport.getPeerCertificate = lambda: certificate
        status, answered, frames = client.ask(upgrade(path, **headers))
        closing = b""
        if b"\x88" in frames:  # the close frame is last
            frames, closing = frames[: frames.rindex(b"\x88")], frames[frames.rindex(b"\x88") :]
        messages = [json.loads(text) for text in read_frames(frames)] if status == 101 else []
        nicks = [session.client.nick for session in web.server.context.sessions]
        return status, answered, messages, int.from_bytes(closing[2:4], "big"), nicks

    return open_websocket


@for_each_handshake
@pytest.mark.parametrize(
    "path, headers",
    [
        ("/ws?token=good", {}),
        ("/?token=good", {}),
        ("/ws", {"Authorization": "Bearer good"}),
        ("/ws", {"Cookie": "bridge-token=good"}),
    ],
)
def test_valid_token_authenticates_the_session(open_websocket, way, path, headers):
    status, _, messages, closing, nicks = open_websocket(path, headers | way)
    assert (status, closing, nicks) == (101, 0, [b"ann"])
    assert [message["type"] for message in messages] == ["welcome"]


@for_each_handshake
def test_rejects_invalid_token_in_a_header_with_401(open_websocket, way):
    status, headers, _, _, nicks = open_websocket("/ws", {"Authorization": "Bearer bad"} | way)
    assert (status, headers["www-authenticate"], nicks) == (401, 'Bearer error="invalid_token"', [])


@for_each_handshake
@pytest.mark.parametrize("path, headers", [("/ws?token=bad", {}), ("/ws", {"Cookie": "bridge-token=bad"})])
def test_reports_invalid_token_of_a_page_in_the_connection(open_websocket, way, path, headers):
    status, _, messages, closing, _ = open_websocket(path, headers | way)
    assert (status, closing) == (101, 1008)
    assert [message["type"] for message in messages] == ["welcome", "error"]
    assert messages[1]["code"] == "unauthorized"


@for_each_handshake
@pytest.mark.parametrize("path, headers", [("/ws?token=bad", {}), ("/ws", {"Authorization": "Bearer bad"})])
def test_ignores_tokens_without_a_policy(open_websocket, way, path, headers):
    status, _, messages, closing, _ = open_websocket(path, headers | way, policy=None)
    assert (status, len(messages), closing) == (101, 1, 0)


def test_cookie_does_not_allow_a_foreign_origin(open_websocket):
    assert open_websocket("/ws", {"Cookie": "bridge-token=good", "Origin": "https://evil.example"})[0] == 403


@for_each_handshake
@pytest.mark.parametrize(
    "endpoint, shown, path, nick",
    [
        ("ssl:8082", True, "/ws", b"meter"),
        ("ssl:8082", True, "/ws?token=good", b"ann"),
        ("ssl:8082", False, "/ws", b"p1"),
        ("tcp:8082", True, "/ws", b"p1"),
    ],
)
def test_token_takes_precedence_over_a_certificate(open_websocket, tmp_path, way, endpoint, shown, path, nick):
    Authority(tmp_path).issue("meter", "meter")
    certificate = load_certificate(FILETYPE_PEM, (tmp_path / "meter.pem").read_bytes()) if shown else None
    status, _, _, _, nicks = open_websocket(path, way, endpoint=endpoint, certificate=certificate)
    assert (status, nicks) == (101, [nick])


def test_policy_change_during_a_handshake_applies(make_web):
    server = FakeServer(policy=POLICY)
    server.clock = Ticking(1.0)  # each part takes a whole time slice
    client = make_web(server)()
    client.send_bytes(upgrade("/ws?token=good", X_Long="x" * 500, X_Odd="\x80"))
    assert client.transport.output() == b""
    server.context.change_policy(FakePolicy({"lobby": "r"}))
    server.turn()
    status, _, frames = client.response()
    assert status == 101 and b"that token is not known" in frames
    assert [session.client.nick for session in server.context.sessions] == [b"p1"]
