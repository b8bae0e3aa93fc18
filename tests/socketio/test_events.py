"""Events and acks in both directions, rooms, and the limits of clients that flood or do not answer."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.conftest import Messages
from tests.server.engineio_clients import EnginePort
from tests.socketio.clients import SocketClient
from twistedsock.socketio import Disconnected, Socket, SocketIO
from twistedsock.socketio.connection import MAX_RUNNING_HANDLERS
from twistedsock.socketio.namespace import LOG_INTERVAL_SECONDS, MAX_ROOMS_PER_SOCKET
from twistedsock.socketio.socket import DEFAULT_CALL_TIMEOUT_SECONDS, MAX_PENDING_CALLS

Connect = Callable[..., SocketClient]

PLACEHOLDER = '{"_placeholder":true,"num":0}'


def only(sio: SocketIO) -> Socket:
    (socket,) = sio.sockets.values()
    return socket


# Events of clients.


@pytest.mark.parametrize(
    ("value", "ack"), [(None, "[]"), (5, "[5]"), ((1, "a"), '[1,"a"]'), ([1, 2], "[[1,2]]"), ((), "[]"), ({}, "[{}]")]
)
def test_return_value_of_a_handler_is_the_ack(sio: SocketIO, connect: Connect, value: Any, ack: str) -> None:
    sio.on("ask")(lambda socket: value)
    client = connect()
    client.send('27["ask"]', '2["ask"]')
    assert client.received() == ["37" + ack]


def test_handler_returns_bytes(sio: SocketIO, connect: Connect) -> None:
    sio.on("ask")(lambda socket, data: data + b"!")
    client = connect()
    client.send(f'51-7["ask",{PLACEHOLDER}]', b"abc")
    assert client.received() == [f"61-7[{PLACEHOLDER}]", b"abc!"]


def test_handlers_can_wait(sio: SocketIO, connect: Connect) -> None:
    waiting: list[Deferred[Any]] = []

    @sio.on("ask")
    async def ask(socket: Socket, number: int) -> int:
        waiting.append(Deferred())
        return int(await waiting[-1]) + number

    client = connect()
    client.send('20["ask",1]', '21["ask",2]')
    waiting[1].callback(10)
    waiting[0].callback(10)
    assert client.received() == ["31[12]", "30[11]"]


def test_answer_to_a_client_that_is_gone_is_dropped(sio: SocketIO, connect: Connect) -> None:
    answer: Deferred[int] = Deferred()
    sio.on("ask")(lambda socket: answer)
    client = connect()
    client.send('27["ask"]')
    client.disconnect()
    answer.callback(1)


def test_events_without_handler_are_ignored(connect: Connect) -> None:
    client = connect()
    client.send('27["unknown"]', '2["unknown"]')
    assert client.received() == []


@pytest.mark.parametrize("packet", ['2["fail"]', '2["fail",1,2,3]', '27["unserializable"]'])
def test_failing_handler_is_logged_once_a_minute(
    sio: SocketIO, port: EnginePort, connect: Connect, messages: Messages, packet: str
) -> None:
    """A client can cause any number of failures, for example with a wrong number of arguments."""
    sio.on("fail")(lambda socket: 1 / 0)
    sio.on("unserializable")(lambda socket: object())
    client = connect()
    client.send(packet, packet)
    assert len(messages()) == 1 and client.received() == []
    port.reactor.advance(LOG_INTERVAL_SECONDS)
    client = connect()
    client.send(packet)
    assert len(messages()) == 1


def test_handlers_that_have_not_returned_are_limited(sio: SocketIO, connect: Connect) -> None:
    """CVE-2026-48802 and CVE-2026-48809: other servers start a thread for each event."""
    sio.on("wait")(lambda socket: Deferred())
    client = connect()
    client.send(*['2["wait"]'] * MAX_RUNNING_HANDLERS)
    assert not client.is_closed
    client.send('2["wait"]')
    assert client.is_closed


def test_handlers_that_have_returned_do_not_count(sio: SocketIO, connect: Connect) -> None:
    sio.on("now")(lambda socket: None)
    client = connect()
    client.send(*['2["now"]'] * (MAX_RUNNING_HANDLERS + 1))
    assert not client.is_closed


def test_values_that_cannot_be_decoded_close_the_connection(sio: SocketIO, connect: Connect) -> None:
    sio.on("a")(lambda socket, value: None)
    client = connect()
    client.send('2["a",1e999]')
    assert client.is_closed


def test_events_have_one_handler(sio: SocketIO) -> None:
    sio.on("a")(lambda socket: None)
    with pytest.raises(ValueError, match="has a handler already"):
        sio.on("a")(lambda socket: None)


# Events of the server.


def test_emits_to_one_client(sio: SocketIO, connect: Connect) -> None:
    client = connect()
    only(sio).emit("news", 1, {"a": b"x"}, None)
    assert client.received() == [f'51-["news",1,{{"a":{PLACEHOLDER}}},null]', b"x"]


@pytest.mark.parametrize("event", ["connect", "disconnect", 5])
def test_rejects_invalid_event_names(sio: SocketIO, event: Any) -> None:
    with pytest.raises(ValueError, match="invalid event name"):
        sio.emit(event)


def test_emits_to_all_clients_of_a_namespace(sio: SocketIO, connect: Connect) -> None:
    sio.of("/chat")
    first, second, other = connect(), connect(), connect("/chat")
    sio.emit("news")
    assert first.received() == second.received() == ['2["news"]'] and other.received() == []
    sio.of("/chat").emit("news")
    assert other.received() == ['2/chat,["news"]'] and first.received() == []


def test_emits_to_rooms(sio: SocketIO, connect: Connect) -> None:
    clients = [connect() for _ in range(4)]
    sockets = list(sio.sockets.values())
    for socket, rooms in zip(sockets, (["a"], ["b"], ["a", "b"], []), strict=True):
        for room in rooms:
            socket.join(room)
            socket.join(room)
    sio.emit("in a", room="a")
    sio.emit("in both", room=["a", "b", "c"])
    sio.emit("not to the sender", room="a", skip=sockets[0])
    assert [len(client.received()) for client in clients] == [2, 1, 3, 0]
    sockets[0].leave("a")
    sockets[0].leave("a")
    assert sio.room("a") == [sockets[2]] and sockets[2].rooms == {"a", "b"}


def test_rooms_of_a_socket_are_limited(sio: SocketIO, connect: Connect) -> None:
    connect()
    for number in range(MAX_ROOMS_PER_SOCKET):
        only(sio).join(str(number))
    with pytest.raises(ValueError, match="too many rooms"):
        only(sio).join("one more")


# Calls to clients.


@pytest.mark.parametrize(("ack", "value"), [("[]", None), ("[1]", 1), ('[1,"a"]', (1, "a")), ("[[1]]", [1])])
def test_call_returns_the_answer(sio: SocketIO, port: EnginePort, connect: Connect, ack: str, value: Any) -> None:
    client = connect()
    answers: list[Any] = []
    only(sio).call("ask", 5).addCallback(answers.append)
    assert client.received() == ['20["ask",5]']
    client.send("30" + ack, "30" + ack, "399[]")
    assert answers == [value]
    only(sio).call("ask")
    assert client.received() == ['21["ask"]']
    client.send("31[]")


def test_call_times_out(sio: SocketIO, port: EnginePort, connect: Connect) -> None:
    client = connect()
    failures: list[Any] = []
    only(sio).call("ask", timeout=5).addErrback(failures.append)
    port.wait(4.9)
    assert failures == []
    port.wait(0.2)
    assert failures[0].check(TimeoutError)
    client.send("30[1]")
    assert not client.is_closed


def test_call_fails_when_the_client_disconnects(sio: SocketIO, port: EnginePort, connect: Connect) -> None:
    client, socket = connect(), only(sio)
    failures: list[Any] = []
    socket.call("ask").addErrback(failures.append)
    client.disconnect()
    socket.call("ask").addErrback(failures.append)
    assert [failure.check(Disconnected) for failure in failures] == [Disconnected] * 2
    assert failures[0].getErrorMessage() == "transport close"
    port.reactor.advance(DEFAULT_CALL_TIMEOUT_SECONDS)
    assert len(failures) == 2


def test_calls_without_an_answer_are_limited(sio: SocketIO, connect: Connect) -> None:
    connect()
    failures: list[Any] = []
    for _ in range(MAX_PENDING_CALLS + 1):
        only(sio).call("ask").addErrback(failures.append)
    assert len(failures) == 1 and failures[0].check(RuntimeError)
    only(sio).disconnect()
    assert len(failures) == MAX_PENDING_CALLS + 1


def test_answer_that_cannot_be_decoded_closes_the_connection(sio: SocketIO, connect: Connect) -> None:
    client = connect()
    failures: list[Any] = []
    only(sio).call("ask").addErrback(failures.append)
    client.send("30[1e999]")
    assert client.is_closed and failures[0].check(Disconnected)


def test_default_timeout_is_longer_than_that_of_pings(sio: SocketIO) -> None:
    settings = sio.engine_settings
    assert settings.ping_interval + settings.ping_timeout < DEFAULT_CALL_TIMEOUT_SECONDS


# Memory.


def test_packet_that_waits_for_attachments_is_limited(reactor: Any, connect: Connect) -> None:
    sio = SocketIO(max_payload=1000)
    port = EnginePort(reactor, sio, sio.engine_settings)
    client = SocketClient(port)
    client.join()
    client.send(f'53-["a",{PLACEHOLDER}]', b"x" * 900)
    assert not client.is_closed
    client.send(b"x" * 900, b"x" * 900)
    assert client.is_closed


def test_slow_client_is_disconnected(reactor: Any) -> None:
    sio = SocketIO(max_buffered_bytes=10_000)
    port = EnginePort(reactor, sio, sio.engine_settings)
    reasons: list[str] = []
    sio.on("disconnect")(lambda socket, reason: reasons.append(reason))
    session = port.open()
    port.post(session, b"40")
    for _ in range(10):
        sio.emit("news", "x" * 1000)
    assert reasons == ["client too slow"]
