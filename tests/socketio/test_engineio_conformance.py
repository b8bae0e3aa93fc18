"""The cases of the official Engine.IO suite, without sockets. Those that the Socket.IO suite repeats run with both
applications."""

import json

import pytest

from tests.fakes import FakeReactor
from tests.server.engineio_clients import NEW_POLLING, Echo, EnginePort
from tests.socketio.clients import conformance_application
from twistedsock.codecs.engineio_session import EngineSettings

FIELDS = {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}


def make_port(reactor: FakeReactor, suite: str) -> EnginePort:
    if suite == "engine.io":
        return EnginePort(reactor, Echo(), EngineSettings(ping_interval=0.3, ping_timeout=0.2))
    application = conformance_application()
    return EnginePort(reactor, application, application.engine_settings)


@pytest.fixture(params=["engine.io", "socket.io"])
def port(request: pytest.FixtureRequest, reactor: FakeReactor) -> EnginePort:
    """The application of each suite."""
    return make_port(reactor, request.param)


@pytest.fixture
def echo(reactor: FakeReactor) -> EnginePort:
    """The application that returns each message."""
    return make_port(reactor, "engine.io")


def opening(packet: str, upgrades: list[str]) -> None:
    """Assert that a packet opens a session as the suites expect it."""
    assert packet[0] == "0"
    values = json.loads(packet[1:])
    assert set(values) == FIELDS and isinstance(values["sid"], str) and values["upgrades"] == upgrades
    assert (values["pingInterval"], values["pingTimeout"], values["maxPayload"]) == (300, 200, 1_000_000)


# Handshake.


def test_opens_a_polling_session(port: EnginePort) -> None:
    response = port.request(NEW_POLLING)
    assert response.status == 200
    opening(response.body.decode(), ["websocket"])


@pytest.mark.parametrize("query", ["?transport=polling", "?EIO=abc&transport=polling"])
def test_rejects_an_invalid_revision(port: EnginePort, query: str) -> None:
    assert port.request(query).status == 400


@pytest.mark.parametrize("query", ["?EIO=4", "?EIO=4&transport=abc"])
def test_rejects_an_invalid_transport(port: EnginePort, query: str) -> None:
    assert port.request(query).status == 400


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_rejects_an_invalid_method(port: EnginePort, method: str) -> None:
    assert port.request(NEW_POLLING, method).status == 400


def test_opens_a_websocket_session(port: EnginePort) -> None:
    (packet,) = port.websocket().received()
    opening(str(packet), [])


@pytest.mark.parametrize("query", ["?transport=websocket", "?EIO=abc&transport=websocket"])
def test_closes_a_websocket_with_an_invalid_revision(port: EnginePort, query: str) -> None:
    assert port.websocket(query).close_code() == 1008


@pytest.mark.parametrize("query", ["?EIO=4", "?EIO=4&transport=abc"])
def test_closes_a_websocket_with_an_invalid_transport(port: EnginePort, query: str) -> None:
    assert port.websocket(query).close_code() == 1008


# Messages.


@pytest.mark.parametrize("body", [b"4hello", b"4test1\x1e4test2\x1e4test3", b"4test4\x1ebAQIDBA=="])
def test_returns_a_payload_to_a_polling_client(echo: EnginePort, body: bytes) -> None:
    """One text; several texts; text and bytes."""
    session = echo.open()
    response = echo.request(session, "POST", body)
    assert (response.status, response.body) == (200, b"ok")
    assert echo.poll(session).body == body


def test_invalid_packet_closes_a_polling_session(echo: EnginePort) -> None:
    session = echo.open()
    assert echo.post(session, b"abc") == 400
    assert echo.request(session).status == 400


def test_second_poll_closes_a_session(echo: EnginePort) -> None:
    session = echo.open()
    first, second = echo.poll(session), echo.poll(session)
    assert first.response is not None and (first.response.status, first.body) == (200, b"1")
    assert second.response is not None and second.response.status == 400
    assert echo.request(session).status == 400


def test_cancelled_poll_closes_a_session(echo: EnginePort) -> None:
    session = echo.open()
    echo.poll(session).client.disconnect()
    assert echo.request(session).status == 400


@pytest.mark.parametrize(("message", "expected"), [("4hello", "4hello"), (b"\x01\x02\x03\x04", b"\x01\x02\x03\x04")])
def test_returns_a_message_to_a_websocket(echo: EnginePort, message: str | bytes, expected: str | bytes) -> None:
    socket = echo.websocket()
    socket.send(message)
    assert socket.received()[1:] == [expected]


def test_invalid_packet_closes_a_websocket(echo: EnginePort) -> None:
    socket = echo.websocket()
    socket.send("abc")
    assert socket.close_code() == 1000


# Heartbeat.


def test_pings_a_polling_client(port: EnginePort) -> None:
    session = port.open()
    for _ in range(3):
        poll = port.poll(session)
        port.wait(0.3)
        assert poll.body == b"2"
        assert port.post(session, b"3") == 200


def test_missing_pong_closes_a_polling_session(port: EnginePort) -> None:
    session = port.open()
    port.wait(0.6)
    assert port.request(session).status == 400


def test_pings_a_websocket(port: EnginePort) -> None:
    socket = port.websocket()
    socket.received()
    for _ in range(3):
        port.wait(0.3)
        assert socket.received() == ["2"]
        socket.send("3")


def test_missing_pong_closes_a_websocket(port: EnginePort) -> None:
    socket = port.websocket()
    port.wait(0.6)
    assert socket.close_code() == 1000


# Closing.


def test_client_closes_a_polling_session(port: EnginePort) -> None:
    session = port.open()
    poll = port.poll(session)
    assert port.post(session, b"1") == 200
    assert poll.body == b"6"
    assert port.request(session).status == 400


def test_client_closes_a_websocket(port: EnginePort) -> None:
    socket = port.websocket()
    socket.send("1")
    assert socket.close_code() == 1000


# Upgrade.


def test_moves_from_polling_to_a_websocket(port: EnginePort) -> None:
    socket = port.upgrade(port.open())
    port.wait(0.3)
    assert socket.received() == ["2"]


def test_rejects_requests_after_the_upgrade(port: EnginePort) -> None:
    session = port.open()
    socket = port.upgrade(session)
    assert port.request(session).status == 400
    assert port.post(session, b"4abc") == 400
    assert socket.received() == []


def test_rejects_a_second_websocket_after_the_upgrade(port: EnginePort) -> None:
    """The handshake must succeed first: a test of the suite fails if the response is an error."""
    session = port.open()
    first = port.upgrade(session)
    second = port.websocket(session.replace("polling", "websocket"))
    assert second.status == 101 and second.close_code() == 1008
    port.wait(0.3)
    assert first.received() == ["2"]
