"""Input that arrives while its session can run no commands, on each transport.

Most transports are not read then, except for what they have read already. Requests that carry input are accepted.
"""

from collections.abc import Callable

import pytest

from tests.calls import python_calls
from tests.fakes import FakeReactor
from tests.fuzz.grammars import frame
from tests.server.clients import TEXT, LinePort, upgrade
from tests.server.engineio_clients import NEW_WEBSOCKET, EnginePort
from tests.server.http.clients import WebPort
from twistedsock.server.socketio import BrokerApplication
from twistedsock.testing import FakeServer

MESSAGES, PIECES = 600, 8

SUBSCRIBE, PING = b'{"type":"subscribe","channel":"kitchen"}', b'{"type":"ping"}'

Send = Callable[[], object]


def line_port(reactor: FakeReactor, server: FakeServer) -> Send:
    client = LinePort(reactor, server)()
    client.send("SUB kitchen")
    return lambda: client.send_bytes(b"PING\n" * MESSAGES)


def json_lines(reactor: FakeReactor, server: FakeServer) -> Send:
    client = LinePort(reactor, server)()
    client.send(SUBSCRIBE.decode())
    return lambda: client.send_bytes((PING + b"\n") * MESSAGES)


def websocket(reactor: FakeReactor, server: FakeServer) -> Send:
    client = WebPort(reactor, server)()
    client.send_bytes(upgrade() + frame(TEXT, SUBSCRIBE))
    return lambda: client.send_bytes(frame(TEXT, PING) * MESSAGES)


def stream(reactor: FakeReactor, server: FakeServer) -> Send:
    """One request waits, and the following ones are rejected."""
    web = WebPort(reactor, server)
    (welcome,) = web().open_stream("/stream").received()
    key = welcome.message["key"]
    web().request("/stream", "POST", SUBSCRIBE + b"\n" + PING, Sockbridge_Stream=key)
    return lambda: web().request("/stream", "POST", (PING + b"\n") * MESSAGES, Sockbridge_Stream=key)


def engine_port(reactor: FakeReactor, server: FakeServer) -> EnginePort:
    application = BrokerApplication(server.context, reactor)
    return EnginePort(reactor, application, application.engine_settings, server)


def socketio_polling(reactor: FakeReactor, server: FakeServer) -> Send:
    port = engine_port(reactor, server)
    session = port.open()
    port.post(session, b"40/kitchen,")
    body = b"\x1e".join([b'42/kitchen,["a"]'] * MESSAGES)
    return lambda: port.post(session, body)


def socketio_websocket(reactor: FakeReactor, server: FakeServer) -> Send:
    socket = engine_port(reactor, server).websocket(NEW_WEBSOCKET)
    socket.send("40/kitchen,")
    return lambda: socket.client.send_bytes(frame(TEXT, b'42/kitchen,["a"]') * MESSAGES)


@pytest.mark.parametrize("transport", [line_port, json_lines, websocket, stream, socketio_polling, socketio_websocket])
def test_cost_does_not_depend_on_the_input_that_waits(
    transport: Callable[[FakeReactor, FakeServer], Send], autobahn_reactor: FakeReactor
) -> None:
    server = FakeServer(late=True)
    send = transport(autobahn_reactor, server)
    (session,) = server.context.sessions
    assert session.replies.is_busy  # the backplane has not answered the subscription
    _, first, *_, last = [python_calls(send) for _ in range(PIECES)]
    assert session.replies.is_busy and last < 1.1 * first
    assert server.context.memory_budget.used < PIECES * MESSAGES * (len(SUBSCRIBE) + 8)
