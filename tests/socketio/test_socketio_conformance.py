"""The cases of the official Socket.IO suite above Engine.IO, without sockets."""

import pytest

from tests.fakes import FakeReactor
from tests.server.engineio_clients import EnginePort
from tests.socketio.clients import SocketClient, conformance_application

PLACEHOLDERS = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'


@pytest.fixture
def port(reactor: FakeReactor) -> EnginePort:
    application = conformance_application(generate_id=lambda: "id")
    return EnginePort(reactor, application, application.engine_settings)


@pytest.fixture
def client(port: EnginePort) -> SocketClient:
    """A client that has not joined a namespace."""
    return SocketClient(port)


@pytest.fixture
def joined(client: SocketClient) -> SocketClient:
    """A client in the main namespace."""
    client.join()
    return client


@pytest.mark.parametrize(
    ("sent", "reply", "auth"),
    [
        ("0", '0{"sid":"id"}', '2["auth",{}]'),
        ('0{"token":"123"}', '0{"sid":"id"}', '2["auth",{"token":"123"}]'),
        ("0/custom,", '0/custom,{"sid":"id"}', '2/custom,["auth",{}]'),
        ('0/custom,{"token":"abc"}', '0/custom,{"sid":"id"}', '2/custom,["auth",{"token":"abc"}]'),
    ],
)
def test_joins_a_namespace(client: SocketClient, sent: str, reply: str, auth: str) -> None:
    client.send(sent)
    assert client.received() == [reply, auth]


def test_refuses_an_unknown_namespace(client: SocketClient) -> None:
    client.send("0/random")
    assert client.received() == ['4/random,{"message":"Invalid namespace"}']


def test_invalid_handshake_closes_the_connection(client: SocketClient) -> None:
    client.send("4abc")
    assert client.is_closed


def test_missing_handshake_closes_the_connection(port: EnginePort) -> None:
    client = SocketClient(port)
    for _ in range(4):
        port.wait(0.3)
        client.socket.send("3")
    assert client.is_closed


def test_leaves_the_main_namespace_and_stays_connected(joined: SocketClient, port: EnginePort) -> None:
    joined.send("1")
    port.wait(0.3)
    assert joined.socket.received() == ["2"]


def test_leaves_a_custom_namespace_and_stays_in_the_main_one(joined: SocketClient) -> None:
    joined.join("/custom")
    joined.send("1/custom", '2["message","message to main namespace"]')
    assert joined.received() == ['2["message-back","message to main namespace"]']


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (['2["message",1,"2",{"3":[true]}]'], ['2["message-back",1,"2",{"3":[true]}]']),
        (
            [f'52-["message",{PLACEHOLDERS}]', b"\x01\x02\x03", b"\x04\x05\x06"],
            [f'52-["message-back",{PLACEHOLDERS}]', b"\x01\x02\x03", b"\x04\x05\x06"],
        ),
        (['2456["message-with-ack",1,"2",{"3":[false]}]'], ['3456[1,"2",{"3":[false]}]']),
        (
            [f'52-789["message-with-ack",{PLACEHOLDERS}]', b"\x01\x02\x03", b"\x04\x05\x06"],
            [f"62-789[{PLACEHOLDERS}]", b"\x01\x02\x03", b"\x04\x05\x06"],
        ),
    ],
)
def test_answers_an_event(joined: SocketClient, sent: list[str | bytes], expected: list[str | bytes]) -> None:
    joined.send(*sent)
    assert joined.received() == expected


@pytest.mark.parametrize("packet", ["4abc", "2{}", '2abc["message-with-ack",1,"2",{"3":[false]}]'])
def test_invalid_packet_closes_the_connection(joined: SocketClient, packet: str) -> None:
    joined.send(packet)
    assert joined.is_closed
