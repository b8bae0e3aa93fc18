"""Engine.IO on the web port: limits, rates, memory, closing and faults. ``tests/socketio`` has the cases of the
protocol."""

import json
from collections.abc import Callable

import pytest

from tests.conftest import Messages
from tests.fakes import FakeReactor
from tests.fuzz.grammars import frame
from tests.server.clients import PING, PONG, TEXT, request_bytes, split_frames, upgrade
from tests.server.engineio_clients import NEW_POLLING, NEW_WEBSOCKET, Echo, EnginePort
from tests.server.http.clients import read_response
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.codecs import http
from twistedsock.codecs.engineio import PATH, Packet, PacketType
from twistedsock.codecs.engineio_session import CloseCause, EngineSettings
from twistedsock.server.engineio_websocket import EngineWebSocket
from twistedsock.testing import FakePolicy, FakeServer

REMOTE = "192.0.2.1"


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def make_port(autobahn_reactor: FakeReactor, echo: Echo) -> Callable[..., EnginePort]:
    """Build a web port with ``echo``: ``make_port(settings=None, server=None, **options)``."""

    def make(**options: object) -> EnginePort:
        return EnginePort(autobahn_reactor, echo, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def port(make_port: Callable[..., EnginePort]) -> EnginePort:
    return make_port()


# Requests.


def test_errors_have_the_form_of_the_protocol(port: EnginePort) -> None:
    response = port.request(NEW_POLLING + "&sid=unknown")
    assert (response.status, response.headers["content-type"]) == (400, "application/json")
    assert response.json == {"code": 1, "message": "Session ID unknown"}
    assert port.request("?EIO=4&transport=websocket").json["code"] == 3
    assert port.request("").json["code"] == 0


def test_poll_has_the_headers_of_the_protocol(port: EnginePort) -> None:
    response = port.request(NEW_POLLING)
    assert response.headers["content-type"] == "text/plain; charset=UTF-8"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_are_bad_requests(port: EnginePort, method: str) -> None:
    assert port.request(port.open(), method).json["code"] == 3


def test_octet_stream_closes_the_session(port: EnginePort, echo: Echo) -> None:
    """Clients of revision 3 send it."""
    session = port.open()
    assert port.post(session, b"\x00", Content_Type="application/octet-stream") == 400
    assert echo.causes == [CloseCause.INVALID]


def test_invalid_binary_message_closes_the_session(port: EnginePort, echo: Echo) -> None:
    """CVE-2026-59725."""
    session = port.open()
    poll = port.poll(session)
    assert port.post(session, b"bAQID!") == 400
    assert poll.body == b"1" and echo.causes == [CloseCause.INVALID] and not len(port.endpoint)


def test_too_long_body_closes_the_session(port: EnginePort, echo: Echo) -> None:
    session = port.open()
    body = b"4" + b"x" * port.endpoint.settings.max_payload
    assert port.request(session, "POST", body).status == 413
    assert echo.causes == [CloseCause.TRANSPORT] and not len(port.endpoint)
    assert port.request(session, "POST", body[:-1]).status == 400


def test_too_long_body_in_chunks_closes_the_session(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(settings=EngineSettings(max_payload=100))
    session = port.open()
    chunk = b"%x\r\n%b\r\n" % (101, b"4" + b"x" * 100)
    assert port.request(session, "POST", chunk, Transfer_Encoding="chunked").status == 413
    assert echo.causes == [CloseCause.TRANSPORT]


def test_incomplete_body_closes_the_session(port: EnginePort, echo: Echo) -> None:
    session = port.open()
    client = port.web()
    client.send_bytes(request_bytes(PATH + session, "POST", Content_Length="100") + b"4abc")
    for _ in range(3):  # the heartbeat goes on meanwhile
        poll = port.poll(session)
        port.wait(25)
        assert poll.body in (b"2", b"1")
        if poll.body == b"2":
            port.post(session, b"3")
    assert client.transport.output().startswith(b"HTTP/1.1 408 ")
    assert echo.causes == [CloseCause.TRANSPORT]


def test_rejected_request_without_session_changes_nothing(port: EnginePort, echo: Echo) -> None:
    port.open()
    body = b"x" * (port.endpoint.settings.max_payload + 1)
    for query in (NEW_POLLING, NEW_POLLING + "&sid=unknown", ""):
        assert port.request(query, "POST", body).status == 413
    assert echo.causes == []


def test_second_post_closes_the_session(port: EnginePort, echo: Echo) -> None:
    """The first one waits for its next time slice."""
    session = port.open()
    port.server.clock = iter(range(1000)).__next__  # each time slice is over after one step
    first = port.start(session, "POST", b"4a\x1e4b\x1e4c")
    assert first.response is None
    assert port.post(session, b"4d") == 400
    port.server.turn()
    assert echo.causes == [CloseCause.TRANSPORT]
    assert first.response is not None and first.response.status == 200


def test_client_that_disconnects_while_its_packets_are_handled(port: EnginePort, echo: Echo) -> None:
    session = port.open()
    port.server.clock = iter(range(1000)).__next__
    first = port.start(session, "POST", b"4a\x1e4b\x1e4c")
    first.client.disconnect()
    port.server.turn()
    assert echo.causes == [CloseCause.TRANSPORT]


def test_exception_of_the_application_closes_the_session(port: EnginePort, echo: Echo, messages: Messages) -> None:
    session = port.open()
    poll = port.poll(session)
    assert port.post(session, b"4fail") == 200
    assert poll.body == b"1" and echo.causes == [CloseCause.SERVER]
    assert messages() == ["internal error while a command was processed"]


class Failing:
    """An application that raises exceptions."""

    buffered_bytes = 0

    def __init__(self) -> None:
        self.fails = False

    def open(self, connection: object) -> "Failing":
        if self.fails:
            raise ZeroDivisionError
        return self

    def received(self, data: bytes, is_binary: bool) -> None:
        raise ZeroDivisionError

    def closed(self, cause: CloseCause) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("fails", [True, False])
def test_exceptions_leave_no_session(autobahn_reactor: FakeReactor, messages: Messages, fails: bool) -> None:
    application = Failing()
    port = EnginePort(autobahn_reactor, application)
    application.fails = fails
    socket = port.websocket()
    if not fails:
        socket.send("4a")
    assert socket.close_code() == 1000 and len(port.endpoint) == 0
    assert set(messages()) == {"internal error while a command was processed"}


# Origins, identities and listeners.


def test_pages_of_other_origins_are_refused(port: EnginePort) -> None:
    """CVE-2020-28481: the default allowed every origin."""
    assert port.request(NEW_POLLING, Origin="http://evil.example").status == 403
    client = port.websocket(NEW_WEBSOCKET, Origin="http://evil.example")
    assert client.status == 403


def test_allowed_origins_can_read_responses(make_port: Callable[..., EnginePort]) -> None:
    port = make_port(origins=AllowedOrigins(("http://page.example",)))
    response = port.request(NEW_POLLING, Origin="http://page.example")
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == "http://page.example"


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_pages_of_allowed_origins_can_use_cookies(make_port: Callable[..., EnginePort], method: str) -> None:
    """``withCredentials: true``: browsers hide the responses otherwise."""
    port = make_port(origins=AllowedOrigins(("http://page.example",)))
    headers = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
    assert port.request(NEW_POLLING, method, **headers).headers["access-control-allow-credentials"] == "true"
    refused = port.request(NEW_POLLING, method, **{**headers, "Origin": "http://evil.example"})
    assert "access-control-allow-credentials" not in refused.headers


def test_handshake_describes_the_client(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    server = FakeServer(policy=FakePolicy(tokens={"secret": ("ada", {}, None)}))
    port = make_port(server=server)
    port.open(Authorization="Bearer secret", X_Test="1")
    port.websocket(NEW_WEBSOCKET + "&room=a", Authorization="Bearer secret", X_Test="1")
    port.websocket(NEW_WEBSOCKET + "&token=secret", X_Test="1")
    for connection in echo.connections:
        handshake = connection.handshake
        assert handshake.identity is not None and handshake.identity.subject == b"ada"
        assert handshake.principal == b"=ada" and not handshake.secure
        assert handshake.headers["x-test"] == "1"
        assert handshake.endpoints.client == b"127.0.0.1:50000"
    assert echo.connections[1].handshake.query.parameters["room"] == "a"


@pytest.mark.parametrize("where", ["query", "header"])
def test_unknown_token_is_refused(make_port: Callable[..., EnginePort], where: str) -> None:
    port = make_port(server=FakeServer(policy=FakePolicy()))
    more, headers = ("&token=x", {}) if where == "query" else ("", {"Authorization": "Bearer x"})
    assert port.request(NEW_POLLING + more, **headers).status == 401
    assert port.websocket(NEW_WEBSOCKET + more, **headers).status == 401


def test_without_an_application_the_path_does_not_exist(autobahn_reactor: FakeReactor, echo: Echo) -> None:
    port = EnginePort(autobahn_reactor, echo)
    del port.web.factory.endpoints[PATH]
    assert port.websocket().status == 404


# Limits.


def test_sessions_of_one_address_are_limited(make_port: Callable[..., EnginePort]) -> None:
    port = make_port(server=FakeServer(max_connections_per_address=2))
    session = port.open(there=REMOTE)
    assert port.request(NEW_POLLING, there=REMOTE).status == 200
    response = port.request(NEW_POLLING, there=REMOTE)
    assert (response.status, response.headers["retry-after"]) == (503, "5")
    assert port.request(NEW_POLLING, there="192.0.2.2").status == 200
    port.post(session, b"1")
    assert port.request(NEW_POLLING, there=REMOTE).status == 200


def test_websocket_over_the_limit_of_sessions_is_closed(make_port: Callable[..., EnginePort]) -> None:
    port = make_port(server=FakeServer(max_connections=2))
    for _ in range(2):
        port.open()
    assert port.websocket().close_code() == 1013


def test_rate_limit_closes_a_websocket(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(server=FakeServer(commands_per_second=1, commands_burst=10))
    socket = port.websocket(there=REMOTE)
    socket.send(*["4a"] * 12)
    assert echo.causes == [CloseCause.TRANSPORT] and socket.close_code() == 1000


def test_rate_limit_of_bytes_closes_a_websocket(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(server=FakeServer(bytes_per_second=1, bytes_burst=1000))
    socket = port.websocket(there=REMOTE)
    socket.send("4" + "x" * 1000, "4a")
    assert echo.causes == [CloseCause.TRANSPORT]


def test_rate_limit_closes_a_polling_session(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    """A payload costs as much as its packets."""
    port = make_port(server=FakeServer(commands_per_second=1, commands_burst=10))
    session = port.open(there=REMOTE)
    assert port.start(session, "POST", b"\x1e".join([b"4a"] * 20), REMOTE).response.status == 200  # type: ignore[union-attr]
    assert port.start(session, "POST", b"4a\x1e4a", REMOTE).response.status == 429  # type: ignore[union-attr]


def test_ping_flood_closes_a_websocket(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(server=FakeServer(commands_per_second=1, commands_burst=10))
    socket = port.websocket(there=REMOTE)
    socket.client.send_bytes(frame(PING, b"") * 12)
    assert echo.causes == [CloseCause.TRANSPORT]


def test_pings_of_websocket_are_answered(port: EnginePort) -> None:
    socket = port.websocket()
    socket.received()
    socket.client.send_bytes(frame(PING, b"abc"))
    assert socket.frames() == [(PONG, b"abc")]


def test_client_that_does_not_read_its_pongs_is_not_read(port: EnginePort) -> None:
    socket = port.websocket()
    transport = socket.client.transport
    transport.producer.pauseProducing()
    socket.client.send_bytes(frame(PING, b""))
    assert not transport.is_reading
    transport.producer.resumeProducing()
    port.reactor.turn()
    assert transport.is_reading


def test_tiny_fragments_are_limited(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    """CVE-2026-48779: a message can have as many fragments as bytes."""
    port = make_port(settings=EngineSettings(max_payload=1000))
    socket = port.websocket()
    socket.client.send_bytes(frame(0x01, b"4"))
    for _ in range(100):
        socket.client.send_bytes(frame(0x00, b"") * 20)
        port.server.turn()
    assert socket.close_code() == 1009 and echo.causes == [CloseCause.CLIENT]


def test_too_long_message_closes_a_websocket(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(settings=EngineSettings(max_payload=1000))
    socket = port.websocket()
    socket.send("4" + "x" * 1000)
    assert socket.close_code() == 1009 and echo.causes == [CloseCause.CLIENT]


def test_message_of_the_maximum_length_is_received(port: EnginePort) -> None:
    """It is longer than the messages of other protocols."""
    assert port.endpoint.settings.max_payload > port.server.context.limits.max_message_bytes
    socket = port.websocket()
    socket.send("4" + "x" * (port.endpoint.settings.max_payload - 1))
    port.server.turn()
    data = socket.client.transport.output()
    assert data.endswith(b"x" * 1000) and len(data) > port.endpoint.settings.max_payload


def test_packets_that_wait_count_in_the_memory_budget(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(
        server=FakeServer(max_buffered_bytes=1024 * 1024), settings=EngineSettings(max_buffered_bytes=10**7)
    )
    budget = port.server.context.memory_budget
    session = port.open()
    port.post(session, b"4" + b"x" * 100_000)
    assert budget.used > 100_000
    assert port.poll(session).body == b"4" + b"x" * 100_000
    assert budget.used == 0
    for _ in range(12):
        port.post(session, b"4" + b"x" * 100_000)
    assert echo.causes == [CloseCause.TOO_SLOW] and budget.used == 0


def test_unfinished_messages_count_in_the_memory_budget(port: EnginePort) -> None:
    budget = port.server.context.memory_budget
    socket = port.websocket()
    whole = frame(TEXT, b"4" + b"x" * 500_000)
    socket.client.send_bytes(whole[:-1])
    port.server.turn()
    assert budget.used > 400_000
    socket.client.send_bytes(whole[-1:])
    port.server.turn()
    assert budget.used < 1000
    socket.client.send_bytes(whole[:-1])
    port.server.turn()
    socket.client.disconnect()
    assert budget.used == 0


def test_bytes_of_the_application_count_in_the_memory_budget(port: EnginePort, echo: Echo) -> None:
    session = port.open()
    echo.buffered_bytes = 50_000
    port.post(session, b"4a")
    assert port.server.context.memory_budget.used >= 50_000
    port.post(session, b"1")
    assert port.server.context.memory_budget.used == 0


def test_slow_websocket_is_closed_over_its_limit(make_port: Callable[..., EnginePort], echo: Echo) -> None:
    port = make_port(settings=EngineSettings(max_buffered_bytes=10_000))
    socket = port.websocket()
    socket.client.transport.producer.pauseProducing()
    for _ in range(11):
        socket.send("4" + "x" * 1000)
    assert echo.causes == [CloseCause.TOO_SLOW]


def test_packets_follow_when_the_websocket_has_room(port: EnginePort) -> None:
    socket = port.websocket()
    socket.received()
    socket.client.transport.producer.pauseProducing()
    socket.send("4a", "4b")
    assert socket.received() == []
    socket.client.transport.producer.resumeProducing()
    port.reactor.turn()
    assert socket.received() == ["4a", "4b"]


def test_input_is_parsed_in_time_slices(port: EnginePort) -> None:
    socket = port.websocket()
    socket.received()
    port.server.clock = iter(range(10_000)).__next__
    socket.client.send_bytes(frame(TEXT, b"4a") * 100)
    assert 0 < len(socket.received()) < 100 and not socket.client.transport.is_reading
    socket.client.send_bytes(frame(TEXT, b"4b"))
    port.server.turn()
    assert socket.received()[-1] == "4b" and socket.client.transport.is_reading


# Handshakes of WebSockets.


@pytest.mark.parametrize(
    "query", [NEW_WEBSOCKET, NEW_WEBSOCKET + "&t=a.b-c", NEW_WEBSOCKET + "&sid=x", "?EIO=3&transport=websocket", "?a"]
)
def test_plain_handshake_has_the_same_result_as_with_autobahn(
    make_port: Callable[..., EnginePort], echo: Echo, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    def opened() -> tuple[bytes, list[object]]:
        echo.connections.clear()
        client = make_port().web()
        headers = {"Origin": "http://127.0.0.1:8082", "Cookie": "a=b; c=d", "User_Agent": "x"}
        client.send_bytes(upgrade(PATH + query, **headers) + frame(TEXT, b"4hello"))
        return client.transport.output(), [connection.handshake.headers for connection in echo.connections]

    plain = opened()
    monkeypatch.setattr(http, "plain_key", lambda lines, headers: "")
    assert opened() == plain


def test_exception_at_the_opening_of_a_websocket_aborts_it(
    port: EnginePort, messages: Messages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EngineWebSocket, "onOpen", lambda websocket: 1 / 0)
    client = port.web()
    client.send_bytes(upgrade(PATH + NEW_WEBSOCKET) + frame(TEXT, b"4hello"))
    assert client.transport.aborted
    assert messages() == ["internal error while a command was processed"]


# Upgrade and closing.


def test_session_moves_to_a_websocket_on_the_connection_of_its_requests(port: EnginePort) -> None:
    """Clients that keep a pool of connections do that."""
    client = port.web().request(PATH + NEW_POLLING)
    sid = json.loads(read_response(client.transport.output()).body[1:])["sid"]
    client.send_bytes(upgrade(f"{PATH}{NEW_WEBSOCKET}&sid={sid}"))
    assert client.transport.output().startswith(b"HTTP/1.1 101 ")
    client.send_bytes(frame(TEXT, b"2probe") + frame(TEXT, b"5") + frame(TEXT, b"4hello"))
    assert split_frames(client.transport.output()) == [(TEXT, b"3probe"), (TEXT, b"4hello")]
    client.disconnect()
    assert not len(port.endpoint)


def test_websocket_on_a_used_connection_must_be_a_handshake(port: EnginePort) -> None:
    assert port.request(NEW_WEBSOCKET, "POST", b"x").json["code"] == 3
    client = port.web().request(PATH + NEW_POLLING)
    client.transport.output()
    client.send_bytes(upgrade(PATH + NEW_WEBSOCKET).replace(b"Sec-WebSocket-Key", b"X-Key"))
    assert client.transport.output().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("revision", ["EIO=3&", "EIO=5&", ""])
def test_upgrade_with_another_revision_is_refused(port: EnginePort, revision: str) -> None:
    session = port.open()
    query = session.replace("polling", "websocket").replace("EIO=4&", revision)
    assert port.websocket(query).close_code() == 1008
    assert port.poll(session).response is None


def test_upgrade_of_an_unknown_session_is_refused(port: EnginePort) -> None:
    assert port.websocket(NEW_WEBSOCKET + "&sid=unknown").close_code() == 1008


def test_upgrade_that_is_not_completed_leaves_the_session(port: EnginePort) -> None:
    session = port.open()
    socket = port.websocket(session.replace("polling", "websocket"))
    port.wait(10.1)
    assert socket.close_code() == 1000
    assert port.poll(session).response is None


def test_lost_websocket_of_an_unfinished_upgrade_leaves_no_memory(port: EnginePort) -> None:
    session = port.open()
    socket = port.websocket(session.replace("polling", "websocket"))
    socket.client.send_bytes(frame(TEXT, b"x" * 50_000)[:-1])
    port.server.turn()
    assert port.server.context.memory_budget.used > 40_000
    socket.client.disconnect()
    assert port.server.context.memory_budget.used == 0 and port.poll(session).response is None


def test_lost_websocket_closes_its_session(port: EnginePort, echo: Echo) -> None:
    socket = port.websocket()
    socket.client.disconnect()
    assert echo.causes == [CloseCause.CLIENT] and not len(port.endpoint)


def test_half_closed_websocket_closes_its_session(port: EnginePort, echo: Echo) -> None:
    socket = port.websocket()
    socket.client.half_close()
    assert socket.client.transport.disconnecting
    socket.client.disconnect()
    assert echo.causes == [CloseCause.CLIENT]


def test_offered_subprotocols_are_ignored(port: EnginePort) -> None:
    assert port.websocket(NEW_WEBSOCKET, Sec_WebSocket_Protocol="abc").received()


def test_shutdown_closes_all_sessions(port: EnginePort, echo: Echo) -> None:
    waiting, idle, socket = port.open(), port.open(), port.websocket()
    poll = port.poll(waiting)
    port.endpoint.close_all()
    assert poll.body == b"1" and socket.close_code() == 1000
    assert echo.causes == [CloseCause.SERVER] * 3
    assert port.poll(idle).body == b"1" and not len(port.endpoint)


def test_waiting_request_ends_at_shutdown(port: EnginePort) -> None:
    poll = port.poll(port.open())
    port.web.factory.site.shut_down(lambda: None)
    assert poll.body == b"1"


def test_closed_session_leaves_no_timer(port: EnginePort) -> None:
    session = port.open()
    before = len(port.reactor.getDelayedCalls())
    port.post(session, b"1")
    assert len(port.reactor.getDelayedCalls()) < before


def test_messages_of_the_application_before_the_first_poll(autobahn_reactor: FakeReactor) -> None:
    class Greeting(Echo):
        def open(self, connection):  # type: ignore[no-untyped-def]
            connection.send(Packet(PacketType.MESSAGE, b"hello"))
            return super().open(connection)

    port = EnginePort(autobahn_reactor, Greeting())
    opening, greeting = port.request(NEW_POLLING).body.split(b"\x1e")
    assert json.loads(opening[1:])["sid"] == "s1" and greeting == b"4hello"
