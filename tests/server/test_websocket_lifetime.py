"""Flow control, pings and the end of WebSocket connections."""

import gc
import weakref

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fuzz.grammars import frame
from tests.server.clients import (
    CLOSE,
    PING,
    PING_INTERVAL,
    PING_TIMEOUT,
    PONG,
    TEXT,
    WebSocketClient,
    WebSocketPort,
    pass_time,
)
from twistedsock.codecs.websocket import CLOSE_CODES
from twistedsock.errors import CloseReason
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.web_endpoints import JSON_PROTOCOL, LINE_PROTOCOL
from twistedsock.server.websocket import CLOSE_TIMEOUT_SECONDS
from twistedsock.testing import FakeServer


def session_of(server: FakeServer, id: bytes = b"p1"):
    (session,) = (session for session in server.context.sessions if session.client.id == id)
    return session


# Slow clients.


def test_pauses_reading_while_replies_wait(port: WebSocketPort, server: FakeServer) -> None:
    """Messages that have been read already wait too. Then all continues in order."""
    client = port.open(LINE_PROTOCOL)
    client.stall()
    client.send("PING 1")
    assert not client.transport.is_reading
    client.server.dataReceived(frame(TEXT, b"PING 2") + frame(TEXT, b"PING 3"))  # already received by the kernel
    assert client.received() == ["PONG 1"]
    client.drain()
    assert client.transport.is_reading
    assert client.received() == ["PONG 2", "PONG 3"]


def test_slow_subscriber_catches_up_from_the_history(
    client: WebSocketClient, port: WebSocketPort, server: FakeServer
) -> None:
    other = port.open(LINE_PROTOCOL)
    client.send("SUB a")
    client.received()
    client.stall()
    other.send("PUB a 1", "PUB a 2")
    server.turn()
    assert client.received() == []
    client.drain()
    server.turn()
    assert client.received() == ["MSG a 1 p2 1", "MSG a 2 p2 2"]


def test_pauses_reading_while_pongs_wait(port: WebSocketPort) -> None:
    """A flood of pings must not fill the memory with pongs."""
    client = port.open(LINE_PROTOCOL)
    client.stall()
    client.send_bytes(frame(PING, b"x"))
    assert not client.transport.is_reading
    client.drain()
    assert client.transport.is_reading
    assert client.frames() == [(PONG, b"x")]
    client.send("PING")
    assert client.received() == ["PONG"]


# Pings.


def last_ping(client: WebSocketClient) -> bytes:
    """The payload of the only ping since the last call."""
    ((first, payload),) = client.frames()
    assert first == PING and len(payload) == 12
    return payload


def test_keeps_client_that_answers_pings(port: WebSocketPort, clock: Clock) -> None:
    client = port.open()
    for _ in range(3):
        pass_time(clock, PING_INTERVAL)
        client.send_bytes(frame(PONG, last_ping(client)))
    pass_time(clock, PING_INTERVAL - 1)
    assert not client.transport.is_closed


def test_drops_client_that_does_not_answer_a_ping(port: WebSocketPort, clock: Clock, server: FakeServer) -> None:
    client = port.open()
    pass_time(clock, PING_INTERVAL)
    last_ping(client)
    pass_time(clock, PING_TIMEOUT)
    assert client.transport.aborted
    client.disconnect()
    assert len(server.context.sessions) == 0
    assert not clock.getDelayedCalls()


def test_unsolicited_pong_does_not_answer_a_ping(port: WebSocketPort, clock: Clock) -> None:
    client = port.open()
    pass_time(clock, PING_INTERVAL)
    last_ping(client)
    client.send_bytes(frame(PONG, b"x" * 12))
    pass_time(clock, PING_TIMEOUT)
    assert client.transport.aborted


@pytest.mark.parametrize("sent", [frame(TEXT, b"\n"), frame(0x01, b"\n") + frame(0x80, b""), frame(0x01, b"\n")])
def test_any_message_answers_a_ping(sent: bytes, port: WebSocketPort, clock: Clock) -> None:
    client = port.open(LINE_PROTOCOL)
    pass_time(clock, PING_INTERVAL)
    last_ping(client)
    client.send_bytes(sent)
    pass_time(clock, PING_TIMEOUT)
    assert not client.transport.is_closed
    pass_time(clock, PING_INTERVAL - PING_TIMEOUT)
    last_ping(client)
    pass_time(clock, PING_TIMEOUT)
    assert client.transport.aborted


def test_pongs_and_replies_are_sent_in_order(client: WebSocketClient) -> None:
    client.send_bytes(frame(TEXT, b"PING 1") + frame(PING, b"x") + frame(TEXT, b"PING 2"))
    assert client.frames() == [(TEXT, b"PONG 1"), (PONG, b"x"), (TEXT, b"PONG 2")]


# The end.


@pytest.mark.parametrize(("code", "answer"), [(1000, 1000), (1001, 1000), (3000, 1000)])
def test_answers_close_frame_and_closes(
    code: int, answer: int, port: WebSocketPort, server: FakeServer, clock: Clock
) -> None:
    client = port.open(LINE_PROTOCOL)
    client.send("SUB a")
    client.send_bytes(frame(TEXT, b"PING") + frame(CLOSE, code.to_bytes(2, "big")))
    session = session_of(server)
    client.is_closed_with(answer, "OK a offset=0 epoch=e1", "PONG")
    assert client.transport.disconnecting and not client.transport.aborted
    closing = [step for step in session.timeline.steps if step.name == "closing"]
    assert [(step.by, step.words) for step in closing] == [("peer", f"a close frame with code {code}")]
    server.turn()
    assert server.broker.channels == {}
    client.disconnect()
    assert len(server.context.sessions) == 0
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("ending", CloseReason)
@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, LINE_PROTOCOL])
def test_sends_notice_and_close_frame_then_closes(
    ending: CloseReason, protocol: str, port: WebSocketPort, server: FakeServer, clock: Clock
) -> None:
    client = port.open(protocol)
    session_of(server).close(ending, b"because")
    *words, close = client.frames()
    # The close frame has the reason of a policy violation, because browsers show it to programs.
    code, reason = CLOSE_CODES[ending], b"because" if ending is CloseReason.POLICY else b""
    assert close == (CLOSE, code.to_bytes(2, "big") + reason)
    lines = [payload for _, payload in words]
    assert lines == (
        [b"NOTICE because", b"BYE"] if protocol == LINE_PROTOCOL else [b'{"type":"notice","text":"because"}']
    )
    assert not client.transport.is_closed
    session = session_of(server)
    client.answer_close(CLOSE_CODES[ending])
    assert [step.by for step in session.timeline.steps if step.name == "closing"] == ["server"]
    assert client.transport.aborted and client.server.wasClean
    client.disconnect()
    assert len(server.context.sessions) == 0
    assert not clock.getDelayedCalls()


def test_quit_sends_bye_and_close_code_1000(client: WebSocketClient) -> None:
    """Messages after QUIT are not run."""
    client.send("PING 1\nQUIT\nPING 2", "PING 3")
    assert client.frames() == [(TEXT, b"PONG 1"), (TEXT, b"BYE"), (CLOSE, b"\x03\xe8")]
    client.send("PING 4")
    assert client.frames() == []


def test_drops_client_that_does_not_answer_a_close_frame(port: WebSocketPort, clock: Clock, server: FakeServer) -> None:
    client = port.open(LINE_PROTOCOL)
    client.send("QUIT")
    pass_time(clock, CLOSE_TIMEOUT_SECONDS)
    assert client.transport.aborted
    client.disconnect()
    assert len(server.context.sessions) == 0
    assert not clock.getDelayedCalls()


def test_reads_again_after_sending_a_close_frame(port: WebSocketPort, server: FakeServer) -> None:
    """The answer could not be received while reading is paused."""
    client = port.open(LINE_PROTOCOL)
    client.stall()
    client.send("PING 1")
    client.server.dataReceived(frame(TEXT, b"PING 2"))  # already received by the kernel
    assert not client.transport.is_reading
    session_of(server).close(CloseReason.GOING_AWAY, b"good night")
    client.answer_close(1001)
    assert client.server.wasClean and client.transport.aborted
    assert b"PONG 2" not in client.transport.value()


def test_reads_again_after_quit_of_a_slow_client(port: WebSocketPort) -> None:
    client = port.open(LINE_PROTOCOL)
    client.stall()
    client.send("QUIT")
    client.answer_close(1000)
    assert client.server.wasClean and client.transport.aborted


def test_aborts_client_that_closes_but_does_not_read(port: WebSocketPort, clock: Clock, server: FakeServer) -> None:
    client = port.open(LINE_PROTOCOL)
    client.stall()
    client.send_bytes(frame(CLOSE, b"\x03\xe8"))
    assert client.transport.disconnecting and not client.transport.aborted
    pass_time(clock, int(LINGER_SECONDS) + 1)
    assert client.transport.aborted
    client.disconnect()
    assert not clock.getDelayedCalls()


def test_sends_nothing_after_a_close_frame(client: WebSocketClient, port: WebSocketPort, server: FakeServer) -> None:
    """Neither events, nor replies to later messages (RFC 6455 section 5.5.1)."""
    other = port.open(LINE_PROTOCOL)
    client.send("SUB a presence=on", "PUB a 1", "HIST a")
    session = session_of(server)
    client.server.sendCloseFrame(1001)
    other.send("SUB a", "PUB a 2", "NICK bob")
    session.close(CloseReason.GOING_AWAY, b"again")
    server.turn()
    client.drain()
    server.turn()
    client.is_closed_with(1001, "OK a offset=0 epoch=e1", "OK 1", "MSG a 1 p1 1", "MSG a 1 p1 1", "OK 1")


def test_late_replies_of_the_backplane_are_not_sent_after_a_close_frame(clock: Clock) -> None:
    server = FakeServer(late=True)
    client = WebSocketPort(server, clock).open(LINE_PROTOCOL)
    client.send("PUB a 1", "SUB a", "PING")
    client.server.sendCloseFrame(1001)
    server.backplane.release()
    server.turn()
    client.is_closed_with(1001)
    client.answer_close(1001)
    client.disconnect()
    server.backplane.release()
    server.turn()
    assert len(server.context.sessions) == 0


@pytest.mark.parametrize("stalled", [False, True])
def test_broken_connection_ends_its_session_and_is_freed(
    stalled: bool, client: WebSocketClient, server: FakeServer, clock: Clock
) -> None:
    client.send("SUB a")
    if stalled:
        client.stall()
        client.send("PING 1")
    client.server.dataReceived(frame(TEXT, b"PING 2")[:5])
    client.disconnect()
    server.turn()
    client.drain()
    assert len(server.context.sessions) == 0
    assert server.broker.channels == {}
    assert not clock.getDelayedCalls()
    server = weakref.ref(client.server)
    del client.server
    gc.collect()
    assert server() is None


@pytest.mark.parametrize("fault", [frame(TEXT, b"\xff"), frame(0x83, b"x"), frame(0xC1, b"x"), frame(CLOSE, b"\x00")])
def test_protocol_errors_of_clients_are_not_logged(
    client: WebSocketClient, logged: list[dict[str, object]], fault: bytes
) -> None:
    """Clients could fill the disk."""
    client.server.dataReceived(fault)
    client.server.connectionLost(Failure(ConnectionDone()))
    assert logged == []
