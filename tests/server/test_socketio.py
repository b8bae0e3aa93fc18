"""Socket.IO clients of the broker on the web port: polling and WebSocket, slow clients, rates and closing."""

import json
from collections.abc import Callable

import pytest

from tests.calls import python_calls
from tests.fuzz.grammars import frame
from tests.server.engineio_clients import NEW_WEBSOCKET, EnginePort, EngineSocket
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.websocket import split_frames
from twistedsock.errors import CloseReason
from twistedsock.limits.rate import RateLimiterPool
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import TEXT, Publication
from twistedsock.session.session import Session
from twistedsock.testing import FakePolicy, FakeServer

REMOTE = "192.0.2.1"

META = '{"channel":"kitchen","offset":%d,"time":1800000000000,"from":"%s"}'


@pytest.fixture
def port(socketio: EnginePort) -> EnginePort:
    return socketio


@pytest.fixture
def polling(port: EnginePort) -> str:
    """The query of a client that polls and has joined ``/kitchen``."""
    query = port.open()
    post(port, query, "40/kitchen,")
    assert polled(port, query) == '40/kitchen,{"sid":"p1"}'
    return query


@pytest.fixture
def socket(port: EnginePort) -> EngineSocket:
    """A WebSocket that has joined ``/kitchen``."""
    socket = port.websocket()
    socket.send("40/kitchen,")
    port.wait(0.1)
    assert socket.received()[1:] == ['40/kitchen,{"sid":"p1"}']
    return socket


def post(port: EnginePort, query: str, *packets: str) -> None:
    assert port.post(query, "\x1e".join(packets).encode()) == 200
    port.wait(0)


def polled(port: EnginePort, query: str) -> str | None:
    """The payload that a request is answered with, if it is answered at once."""
    poll = port.poll(query)
    port.wait(0)
    return None if poll.body is None else poll.body.decode()


def publish(server: FakeServer, *payloads: str) -> None:
    server.line_client().send(*[f"PUB kitchen {payload}" for payload in payloads])
    server.turn()


def session_of(server: FakeServer) -> Session:
    session = server.context.sessions.get(b"p1")
    assert session is not None
    return session


# Long polling.


def test_event_answers_the_poll_that_waits(port: EnginePort, server: FakeServer, polling: str) -> None:
    poll = port.poll(polling)
    publish(server, "a", "b")
    port.wait(0)
    events = [f'42/kitchen,["message","{text}",{META % (offset, "p2")}]' for offset, text in ((1, "a"), (2, "b"))]
    assert poll.body == "\x1e".join(events).encode()


def test_events_wait_in_the_history_and_not_in_a_buffer(port: EnginePort, server: FakeServer, polling: str) -> None:
    publish(server, *["x" * 1_000] * 200)
    session, connection = session_of(server), port.endpoint.find(polling.rpartition("=")[2])
    assert session.lag == 200 and connection is not None and connection.session.buffered_bytes == 0
    bodies: list[str] = []
    while session.lag:
        bodies.append(polled(port, polling) or "")
    assert len(bodies) > 3 and max(map(len, bodies)) < 140_000
    assert sum(body.count("42/kitchen,") for body in bodies) == 200


def test_ack_and_event_leave_together(port: EnginePort, polling: str) -> None:
    poll = port.poll(polling)
    post(port, polling, '42/kitchen,1["alarm",1]')
    assert poll.body is not None
    assert poll.body.decode().split("\x1e") == [
        '43/kitchen,1[{"offset":1,"time":1800000000000}]',
        f'42/kitchen,["alarm",1,{META % (1, "p1")}]',
    ]


def test_commands_wait_while_the_client_does_not_poll(port: EnginePort, server: FakeServer, polling: str) -> None:
    """Their requests are answered, because a client that moves to a WebSocket waits for that."""
    for number in range(3):
        post(port, polling, f'42/kitchen,{number}["a",1]')
    assert server.broker.channels[b"kitchen"].head == 0
    received = "".join(str(polled(port, polling)) for _ in range(2))
    assert server.broker.channels[b"kitchen"].head == 3
    assert received.count("43/kitchen,") == received.count("42/kitchen,") == 3


@pytest.mark.parametrize("waits", [True, False], ids=["poll before joining", "poll after joining"])
def test_events_follow_the_answer_of_a_client_that_recovers(port: EnginePort, server: FakeServer, waits: bool) -> None:
    """In the same response or in the next one. A client that receives only the first continues at the same position."""
    publish(server, "a")
    query = port.open()
    post(port, query, '40/kitchen,{"recover":true}')
    joined = polled(port, query)
    assert joined == '40/kitchen,{"sid":"p2","pid":"1/e1:1"}'
    publish(server, "b", "c")
    for _ in range(2):
        query = port.open()
        poll = port.poll(query) if waits else None
        post(port, query, '40/kitchen,{"recover":true,"pid":"1/e1:1"}')
        answer = polled(port, query) if poll is None else (poll.body or b"").decode()
        assert answer is not None and '"pid":"1/e1:1"' in answer.split("\x1e")[0]
    events = str(polled(port, query)) if poll is None else answer.partition("\x1e")[2]
    assert [json.loads(event.removeprefix("42/kitchen,"))[-1] for event in events.split("\x1e")] == ["e1:2", "e1:3"]


def test_bytes_over_polling(port: EnginePort, polling: str) -> None:
    poll = port.poll(polling)
    post(port, polling, '451-/kitchen,["a",{"_placeholder":true,"num":0}]', "bAQID")
    assert poll.body is not None and poll.body.endswith(b"\x1ebAQID")


def test_long_answer_is_one_packet(port: EnginePort, server: FakeServer, polling: str) -> None:
    post(port, polling, "40")
    assert polled(port, polling) == '40{"sid":"p1"}'
    publish(server, *["x" * 1_000] * 300)
    while session_of(server).lag:
        polled(port, polling)
    post(port, polling, '421["history","kitchen"]')
    answer = polled(port, polling) or polled(port, polling)
    assert answer is not None and answer.startswith("431[")
    (history,) = json.loads(answer.removeprefix("431"))
    assert len(history["events"]) == 300
    assert polled(port, polling) is None


def test_longest_event_reaches_a_client_that_polls(make_socketio: Callable[..., EnginePort]) -> None:
    """Its packet is six times as long, and longer than what waits for a client otherwise."""
    size = 700_000
    server = FakeServer(max_message_bytes=size)
    port = make_socketio(server)
    query = port.open()
    post(port, query, "40/kitchen,")
    assert polled(port, query) == '40/kitchen,{"sid":"p1"}'
    payloads = build_payloads((b"\x01" * size,), TEXT)
    server.broker.publish(Client(b"p"), Publication(b"kitchen", payloads, b"message"))
    server.turn()
    event = polled(port, query) or polled(port, query)
    assert event is not None and event.count("\\u0001") == size


def test_session_moves_to_a_websocket(port: EnginePort, server: FakeServer, polling: str) -> None:
    publish(server, "a")
    poll = port.poll(polling)
    socket = port.upgrade(polling)
    port.wait(0)
    publish(server, "b")
    port.wait(0)
    received = [*(poll.body or b"").decode().split("\x1e"), *socket.received()]
    assert sum('["message","a"' in str(text) for text in received) == 1
    assert sum('["message","b"' in str(text) for text in received) == 1
    assert session_of(server).tcp_stats() is None and session_of(server).lag == 0


# WebSocket.


def test_messages_over_websocket(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    socket.send('42/kitchen,1["a",1]', '42/kitchen,["a",2]')
    port.wait(0)
    assert socket.received() == [
        '43/kitchen,1[{"offset":1,"time":1800000000000}]',
        f'42/kitchen,["a",1,{META % (1, "p1")}]',
        f'42/kitchen,["a",2,{META % (2, "p1")}]',
    ]


def test_bytes_in_base64_over_websocket(port: EnginePort, server: FakeServer) -> None:
    """They are charged once."""
    limit(server, commands_per_second=0.1, commands_burst=25)
    socket = port.websocket(there=REMOTE)
    socket.send("40/kitchen,")
    for _ in range(10):
        socket.send('451-/kitchen,["a",{"_placeholder":true,"num":0}]', "bAQID")
    port.wait(0)
    received = socket.received()
    assert received.count(b"\x01\x02\x03") == 10 and not any("error" in str(packet) for packet in received)


def test_attachments_count_in_the_memory_budget(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    """As long as their packet is not complete."""
    budget = server.context.memory_budget
    socket.send('452-/kitchen,["photo",{"_placeholder":true,"num":0},1]', b"x" * 50_000)
    assert budget.used > 50_000
    socket.send(b"")
    assert budget.used == 0


def test_slow_reader_is_a_cursor(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    outlet = socket.client.transport.producer
    outlet.pauseProducing()
    publish(server, *["x" * 1_000] * 200)
    assert session_of(server).lag == 200 and socket.received() == []
    outlet.resumeProducing()
    port.wait(0)
    assert len(socket.received()) == 200 and session_of(server).lag == 0


def test_ping_waits_for_the_end_of_a_long_answer(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    """Packets cannot be sent between the fragments of a message."""
    publish(server, *["x" * 1_000] * 200)
    port.wait(0)
    socket.send("40")
    outlet, output = socket.client.transport.producer, socket.client.transport.output
    output()
    outlet.pauseProducing()
    socket.send('421["history","kitchen"]')
    port.wait(26)
    begun = output()
    assert begun.startswith(b"\x01")
    outlet.resumeProducing()
    port.wait(0)
    answer, ping = [data for data, _ in split_frames(begun + output())]
    assert ping == b"2" and len(json.loads(answer.removeprefix(b"431"))[0]["events"]) == 200


def test_violation_of_the_protocol_closes_the_connection(port: EnginePort, socket: EngineSocket) -> None:
    socket.send("4x")
    port.wait(0)
    assert socket.close_code() == 1000 and not len(port.endpoint)


def test_session_ends_with_its_connection(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    socket.client.disconnect()
    assert not len(server.context.sessions) and not len(port.endpoint)


def test_last_messages_are_run(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    socket.send('42/kitchen,["a",1]', "1")
    port.wait(0)
    assert server.broker.channels[b"kitchen"].head == 1 and not len(server.context.sessions)


# Closing.


def test_disconnected_client_does_not_return(port: EnginePort, server: FakeServer, socket: EngineSocket) -> None:
    session_of(server).close(CloseReason.POLICY, b"go", b"disconnected")
    frames = [payload.decode(errors="replace") for _, payload in socket.frames()]
    assert frames[:2] == ['42/kitchen,["#notice",{"text":"go","code":"disconnected"}]', "41/kitchen,"]


def test_shutdown_closes_the_connection_only(port: EnginePort, server: FakeServer, polling: str) -> None:
    """The client connects again, to the server that follows."""
    poll = port.poll(polling)
    server.context.close_all(CloseReason.GOING_AWAY, b"the server is going away")
    port.wait(0)
    assert poll.body == b'42/kitchen,["#notice",{"text":"the server is going away"}]\x1e1'
    assert not len(server.context.sessions)


def test_too_many_clients_of_an_identity(make_socketio: Callable[..., EnginePort]) -> None:
    policy = FakePolicy({}, {"t": ("ann", {"*": "rw"}, None)})
    server = FakeServer(policy=policy, max_connections_per_identity=1)
    port = make_socketio(server)
    assert port.websocket(NEW_WEBSOCKET + "&token=t").close_code() is None
    second = port.websocket(NEW_WEBSOCKET + "&token=t")
    assert second.close_code() == 1000 and len(server.context.sessions) == 1


# Limits.


def limit(server: FakeServer, **limits: float) -> None:
    rates = {"commands_per_second": 0, "bytes_per_second": 0, **limits}
    server.context.rate_limiters = RateLimiterPool(Limits(**rates))  # type: ignore[arg-type]


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_commands_are_charged_once(make_socketio: Callable[..., EnginePort], transport: str) -> None:
    server = FakeServer()
    port = make_socketio(server)
    limit(server, commands_per_second=0.1, commands_burst=100)
    events = [f'42/kitchen,{id}["a",1]' for id in range(40)]
    if transport == "websocket":
        socket = port.websocket(there=REMOTE)
        socket.send("40/kitchen,", *events)
        port.wait(0)
    else:
        query = NEW_WEBSOCKET.replace("websocket", "polling")
        sid = json.loads(port.request(query, there=REMOTE).body[1:])["sid"]
        poll = port.start(f"{query}&sid={sid}", there=REMOTE)
        body = "\x1e".join(["40/kitchen,", *events]).encode()
        assert port.request(f"{query}&sid={sid}", "POST", body, REMOTE).status == 200
        port.wait(0)
        assert poll.body is not None
    assert server.broker.channels[b"kitchen"].head == 40


def test_flood_is_charged_while_the_client_does_not_poll(make_socketio: Callable[..., EnginePort]) -> None:
    """Its messages wait, and the rest of the request is not even decoded when the session has ended."""
    server = FakeServer()
    port = make_socketio(server)
    query = NEW_WEBSOCKET.replace("websocket", "polling")
    query += "&sid=" + json.loads(port.request(query, there=REMOTE).body[1:])["sid"]
    assert port.request(query, "POST", b"40/kitchen,", REMOTE).status == 200  # and the answer waits for a poll
    limit(server, commands_per_second=0.1, commands_burst=50)
    body = b"\x1e".join([b'42/kitchen,["a"]'] * 50_000)
    calls = python_calls(lambda: port.request(query, "POST", body, REMOTE))
    assert not len(server.context.sessions) and calls < 100_000


def test_unfinished_frame_counts_in_the_memory_budget(
    socketio: EnginePort, server: FakeServer, socket: EngineSocket
) -> None:
    data, budget = frame(0x81, b'42/kitchen,["a","%b"]' % (b"x" * 50_000)), server.context.memory_budget
    socket.client.send_bytes(data[:-1])
    assert budget.used > 50_000
    socket.client.send_bytes(data[-1:])
    assert budget.used == 0 and server.broker.channels[b"kitchen"].head == 1


def test_flood_of_other_packets_is_charged(make_socketio: Callable[..., EnginePort]) -> None:
    server = FakeServer()
    port = make_socketio(server)
    limit(server, commands_per_second=0.1, commands_burst=50)
    socket = port.websocket(there=REMOTE)
    socket.send(*["3"] * 60)
    assert socket.close_code() == 1000 and not len(port.endpoint)


def test_bytes_are_charged(make_socketio: Callable[..., EnginePort]) -> None:
    server = FakeServer()
    port = make_socketio(server)
    limit(server, bytes_per_second=1, bytes_burst=2_000)
    socket = port.websocket(there=REMOTE)
    socket.send("40/kitchen,", *[f'42/kitchen,["a","{"x" * 500}"]'] * 20)
    port.wait(0)
    assert socket.close_code() == 1000 and not len(server.context.sessions)


def test_first_command_and_idle_timeouts(make_socketio: Callable[..., EnginePort]) -> None:
    server = FakeServer(first_command_timeout=5.0, idle_timeout=10.0)
    port = make_socketio(server)
    silent, idle = port.websocket(), port.websocket()
    idle.send("40/kitchen,")
    port.wait(6)
    assert silent.close_code() == 1000
    port.wait(5)
    assert "no command received for 10 seconds" in str(idle.frames())
