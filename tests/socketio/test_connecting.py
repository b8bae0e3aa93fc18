"""Clients that join and leave namespaces, and connect handlers that accept and refuse them."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.conftest import Messages
from tests.server.engineio_clients import EnginePort
from tests.socketio.clients import SocketClient
from twistedsock.auth.identity import Identity
from twistedsock.socketio import ConnectionRefused, Socket, SocketIO
from twistedsock.socketio.connection import MAX_HELD_PACKETS
from twistedsock.testing import FakePolicy, FakeServer

Connect = Callable[..., SocketClient]


@pytest.fixture
def reasons(sio: SocketIO) -> list[str]:
    """The reasons with which the disconnect handler was called."""
    reasons: list[str] = []

    @sio.on("disconnect")
    def disconnect(socket: Socket, reason: str) -> None:
        assert not socket.is_connected
        reasons.append(reason)

    return reasons


def test_connect_handler_gets_what_the_client_sends(sio: SocketIO, connect: Connect) -> None:
    seen: list[Any] = []
    sio.on("connect")(lambda socket, auth: seen.append((socket.auth, auth)))
    connect(auth='{"token":"abc"}')
    connect()
    assert seen == [({"token": "abc"}, {"token": "abc"}), ({}, {})]


def test_namespaces_have_sockets_of_their_own(sio: SocketIO, connect: Connect) -> None:
    client = connect()
    sio.of("/chat")
    first, second = *sio.sockets, client.join("/chat")
    assert first != second and list(sio.of("/chat").sockets) == [second]
    assert repr(sio.of("/chat").sockets[second]) == f"<Socket {second} /chat>"


def test_handler_refuses_a_client(sio: SocketIO, port: EnginePort, reasons: list[str]) -> None:
    @sio.on("connect")
    def refuse(socket: Socket, auth: Any) -> None:
        socket.join("lobby")
        socket.emit("never sent")
        if not auth:
            raise ConnectionRefused("not authorized", {"retry": False})

    client = SocketClient(port)
    client.send("0")
    assert client.received() == ['4{"message":"not authorized","data":{"retry":false}}']
    assert sio.sockets == {} and sio.room("lobby") == [] and reasons == []
    client.send('2["late"]')
    assert not client.is_closed
    client.join("/", '{"token":1}')
    assert client.first == ['2["never sent"]']


def test_failing_handler_refuses_a_client(sio: SocketIO, port: EnginePort, messages: Messages) -> None:
    sio.on("connect")(lambda socket, auth: 1 / 0)
    client = SocketClient(port)
    client.send("0")
    assert client.received() == ['4{"message":"internal error"}']
    assert messages() == ["the handler of 'connect' in / failed"]


def test_handler_can_decide_later(sio: SocketIO, port: EnginePort) -> None:
    decision: Deferred[None] = Deferred()

    @sio.on("connect")
    async def connect(socket: Socket, auth: Any) -> None:
        socket.emit("before")
        await decision
        socket.emit("after")

    client = SocketClient(port)
    client.send("0")
    assert client.received() == [] and sio.sockets == {}
    decision.callback(None)
    reply, *events = client.received()
    assert str(reply).startswith('0{"sid"') and events == ['2["before"]', '2["after"]']
    assert len(sio.sockets) == 1


def test_client_that_is_gone_before_the_decision(sio: SocketIO, port: EnginePort, reasons: list[str]) -> None:
    decision: Deferred[None] = Deferred()
    sio.on("connect")(lambda socket, auth: decision)
    client = SocketClient(port)
    client.send("0")
    client.disconnect()
    assert reasons == []
    decision.callback(None)
    assert reasons == ["transport close"] and sio.sockets == {}


def test_client_that_is_gone_before_it_is_refused(sio: SocketIO, port: EnginePort, reasons: list[str]) -> None:
    decision: Deferred[None] = Deferred()
    sio.on("connect")(lambda socket, auth: decision)
    client = SocketClient(port)
    client.send("0")
    client.disconnect()
    decision.errback(ConnectionRefused("too late"))
    assert reasons == [] and sio.sockets == {}


def test_handler_that_disconnects_the_client_refuses_it(sio: SocketIO, port: EnginePort, reasons: list[str]) -> None:
    sio.on("connect")(lambda socket, auth: socket.disconnect())
    client = SocketClient(port)
    client.send("0")
    assert client.received() == ['4{"message":"disconnected"}']
    assert reasons == ["server namespace disconnect"]


def test_packets_for_an_undecided_client_are_limited(sio: SocketIO, port: EnginePort) -> None:
    @sio.on("connect")
    def connect(socket: Socket, auth: Any) -> Deferred[None]:
        socket.join("lobby")
        return Deferred()

    client = SocketClient(port)
    client.send("0")
    for _ in range(MAX_HELD_PACKETS):
        sio.emit("news", room="lobby")
    assert not client.is_closed
    sio.emit("news", room="lobby")
    assert client.is_closed


@pytest.mark.parametrize(
    "packet", ['2["a"]', '2/chat,["a"]', "3/chat,1[]", "1/chat,", "0"], ids=["main", "event", "ack", "leave", "twice"]
)
def test_packet_for_a_namespace_that_was_not_joined_closes_the_connection(
    sio: SocketIO, port: EnginePort, packet: str
) -> None:
    sio.of("/chat")
    client = SocketClient(port)
    if packet == "0":
        client.join()
    client.send(packet)
    assert client.is_closed


def test_packets_for_an_undecided_namespace_close_the_connection(sio: SocketIO, port: EnginePort) -> None:
    sio.on("connect")(lambda socket, auth: Deferred())
    client = SocketClient(port)
    client.send("0", '2["a"]')
    assert client.is_closed


def test_packets_on_their_way_when_a_namespace_is_left_are_ignored(sio: SocketIO, connect: Connect) -> None:
    client = connect()
    (socket,) = sio.sockets.values()
    socket.disconnect()
    assert client.received() == ["1"]
    client.send('2["a"]', "31[]", "1")
    assert not client.is_closed
    client.join()
    assert len(sio.sockets) == 1


def test_packets_for_a_namespace_that_is_joined_again_must_wait(sio: SocketIO, connect: Connect) -> None:
    answers: list[Any] = [None, Deferred()]
    sio.on("connect")(lambda socket, auth: answers.pop(0))
    client = connect()
    client.send("1", '2["late"]', "0")
    assert not client.is_closed
    client.send('2["early"]')
    assert client.is_closed


@pytest.mark.parametrize("value", ["1e999", "NaN", "[" * 101 + "]" * 101])
def test_auth_that_cannot_be_decoded_closes_the_connection(port: EnginePort, value: str) -> None:
    client = SocketClient(port)
    client.send(f'0{{"a":{value}}}')
    assert client.is_closed


@pytest.mark.parametrize("packet", ['2["a",NaN]', "3999[NaN]", f'2["a",{"[" * 4000}{"]" * 4000}]'])
def test_data_that_cannot_be_decoded_close_the_connection(port: EnginePort, packet: str) -> None:
    client = SocketClient(port)
    client.join()
    client.send(packet)
    assert client.is_closed


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("leave", "client namespace disconnect"),
        ("disconnect", "server namespace disconnect"),
        ("lose", "transport close"),
        ("break", "parse error"),
        ("wait", "ping timeout"),
        ("stop", "server shutting down"),
    ],
)
def test_disconnect_handler_gets_the_reason(
    sio: SocketIO, port: EnginePort, connect: Connect, reasons: list[str], how: str, reason: str
) -> None:
    client = connect()
    (socket,) = sio.sockets.values()
    socket.join("lobby")
    match how:
        case "leave":
            client.send("1")
        case "disconnect":
            socket.disconnect()
        case "lose":
            client.disconnect()
        case "break":
            client.send("x")
        case "wait":
            port.wait(46)
        case "stop":
            port.endpoint.close_all()
    assert reasons == [reason] and sio.sockets == {} and sio.room("lobby") == []
    socket.emit("too late")
    socket.disconnect()
    socket.join("lobby")
    assert reasons == [reason] and sio.room("lobby") == []


def test_failing_disconnect_handler_is_logged(sio: SocketIO, connect: Connect, messages: Messages) -> None:
    sio.on("disconnect")(lambda socket, reason: 1 / 0)
    connect().disconnect()
    assert messages() == ["the handler of 'disconnect' in / failed"]


def test_client_without_a_namespace_is_disconnected_in_time(sio: SocketIO, port: EnginePort) -> None:
    idle, joined = SocketClient(port), SocketClient(port)
    joined.join()
    refused = SocketClient(port)
    refused.send("0/unknown")
    for _ in range(5):
        port.wait(10)
        for client in (idle, joined, refused):
            if client.socket.client.transport.is_reading and not client.is_closed:
                client.socket.send("3")
    assert len(port.endpoint) == 1 and len(sio.sockets) == 1


def test_socket_describes_its_client(reactor: Any) -> None:
    sio = SocketIO()
    server = FakeServer(policy=FakePolicy(tokens={"secret": ("ada", {}, None)}))
    port = EnginePort(reactor, sio, server=server)
    session = port.open(Authorization="Bearer secret", X_Test="1")
    port.post(session + "&room=a", b"40")
    (socket,) = sio.sockets.values()
    assert socket.address == "127.0.0.1:50000" and socket.headers["x-test"] == "1"
    assert isinstance(socket.identity, Identity) and socket.identity.subject == b"ada"
    assert dict(socket.query) == {"EIO": "4", "transport": "polling"}
    assert socket.transport == "polling"
    port.upgrade(session)
    assert socket.transport == "websocket" and socket.is_connected


@pytest.mark.parametrize("name", ["chat", "", "/a,b", "/a?b", "/" + "a" * 500])
def test_rejects_invalid_namespaces(sio: SocketIO, name: str) -> None:
    with pytest.raises(ValueError, match="invalid namespace"):
        sio.of(name)


def test_the_main_namespace_is_the_application(sio: SocketIO) -> None:
    assert sio.of("/") is sio and sio.of("/chat") is sio.of("/chat")
