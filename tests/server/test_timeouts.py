"""Timeouts of first commands, unfinished lines and messages, and idle clients, on both ports."""

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.fakes import Ticking
from tests.fuzz.grammars import frame
from tests.server.clients import CLOSE, PING, PONG, TEXT, LineConnection, LinePort, MakeLinePort, WebSocketClient
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.server.timeouts import TimeoutQueue
from twistedsock.server.websocket_transport import PARSE_BYTES
from twistedsock.testing import FakeServer, limit_session


@pytest.fixture
def late():
    return []


@pytest.fixture
def deadlines(reactor, late):
    return TimeoutQueue(reactor, 10, late.append)


def test_items_expire_in_order(deadlines, reactor, late):
    deadlines.start("a")
    reactor.advance(4)
    deadlines.start("b")
    deadlines.start("c")
    reactor.advance(5.9)
    assert late == []
    reactor.advance(0.1)
    assert late == ["a"]
    reactor.advance(4)
    assert late == ["a", "b", "c"]
    assert not reactor.getDelayedCalls()


def test_stopped_items_do_not_expire(deadlines, reactor, late):
    deadlines.start("a")
    reactor.advance(4)
    deadlines.start("b")
    deadlines.stop("a")
    reactor.advance(6)
    assert late == []
    deadlines.stop("b")
    deadlines.stop("b")
    reactor.advance(10)
    assert late == []
    assert not reactor.getDelayedCalls()
    deadlines.start("a")
    reactor.advance(10)
    assert late == ["a"]


def test_queue_has_one_timer(deadlines, reactor):
    for number in range(100):
        deadlines.start(number)
        if number % 3:
            deadlines.stop(number)
        reactor.advance(0.01)
        assert len(reactor.getDelayedCalls()) == 1


def test_expired_item_can_start_again_or_stop_another(reactor):
    def expire(who):
        expired.append(who)
        if len(expired) < 3:
            deadlines.start(who)
        deadlines.stop("b")

    expired = []
    deadlines = TimeoutQueue(reactor, 10, expire)
    deadlines.start("a")
    reactor.advance(1)
    deadlines.start("b")
    for _ in range(40):
        reactor.advance(1)
    assert expired == ["a"] * 3
    assert not reactor.getDelayedCalls()


def test_queue_survives_an_exception(reactor, late):
    def expired(who):
        late.append(who)
        if who == "a":
            raise ZeroDivisionError

    deadlines = TimeoutQueue(reactor, 10, expired)
    deadlines.start("a")
    reactor.advance(1)
    deadlines.start("b")
    with pytest.raises(ZeroDivisionError):
        reactor.advance(9)
    reactor.advance(1)
    assert late == ["a", "b"]


LIMITS = {"first_command_timeout": 100.0, "read_timeout": 10.0, "idle_timeout": 200.0}
POLICY = (1008).to_bytes(2, "big")
UNFINISHED = "a line or message was not completed within 10 seconds"
IDLE = "no command received for 200 seconds: send PING to stay connected"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(**LIMITS)


def was_closed_with(call: LineConnection, notice: str) -> bool:
    received = call.received()
    return received[-2:] == [f"NOTICE {notice}", "BYE"] and call.transport.half_closed


def test_closes_client_without_a_first_command(call: LineConnection, reactor: Any) -> None:
    reactor.advance(99)
    assert call.received() == []
    reactor.advance(1)
    assert was_closed_with(call, "no command received within 100 seconds")


def test_first_command_stops_its_timeout(call: LineConnection, reactor: Any) -> None:
    call.send_bytes(b"SUB a\n")
    call.received()
    reactor.advance(150)
    assert call.received() == [] and not call.transport.half_closed


def test_closes_client_with_an_unfinished_line(call: LineConnection, reactor: Any) -> None:
    call.send_bytes(b"PING 1\nPI")
    call.received()
    for _ in range(9):
        reactor.advance(1)
        call.send_bytes(b"x")
    assert call.received() == []
    reactor.advance(1)
    assert was_closed_with(call, UNFINISHED)


def test_each_line_has_its_own_timeout(call: LineConnection, reactor: Any) -> None:
    """Also if one read ends a line and begins the next."""
    for _ in range(5):
        call.send_bytes(b"NG\nPI")
        reactor.advance(9)
    call.send_bytes(b"NG\n")
    call.received()
    reactor.advance(50)
    assert call.received() == [] and not call.transport.half_closed


def test_later_unfinished_lines_have_a_timeout(call: LineConnection, reactor: Any) -> None:
    for _ in range(2):
        call.send_bytes(b"PI")
        call.send_bytes(b"NG\n")
        assert call.received() == ["PONG"]
        reactor.advance(50)
    call.send_bytes(b"PI")
    reactor.advance(9)
    assert call.received() == []
    reactor.advance(1)
    assert was_closed_with(call, UNFINISHED)


def test_skipped_line_has_a_timeout(call: LineConnection, reactor: Any) -> None:
    call.send_bytes(b"x" * 70_000)
    assert call.received()[0].startswith("ERR too-long ")
    reactor.advance(10)
    assert was_closed_with(call, UNFINISHED)


def test_paused_client_has_more_time(call: LineConnection, server: FakeServer, reactor: Any) -> None:
    """The end of its line may wait in the kernel."""
    server.clock = Ticking(TIME_SLICE_SECONDS)
    call.protocol.dataReceived(b"PING\n" * 3 + b"PI")
    assert not call.transport.is_reading
    reactor.advance(10)
    server.turn()
    call.received()
    assert not call.transport.half_closed
    reactor.advance(10)
    assert was_closed_with(call, UNFINISHED)


def test_closes_idle_client(call: LineConnection, reactor: Any) -> None:
    for _ in range(3):
        call.send_bytes(b"PING\n")
        reactor.advance(199)
    assert call.received() == ["PONG"] * 3
    reactor.advance(1)
    assert was_closed_with(call, IDLE)


def test_lost_connection_has_no_timers(call: LineConnection, reactor: Any) -> None:
    call.send_bytes(b"PI")
    call.disconnect()
    assert not reactor.getDelayedCalls()


def test_timeouts_of_zero_never_expire(reactor: Any, make_lines: MakeLinePort) -> None:
    make_lines(FakeServer(first_command_timeout=0, read_timeout=0, idle_timeout=0))().send_bytes(b"PI")
    assert not reactor.getDelayedCalls()


def test_closes_remote_client_that_floods_with_empty_lines(lines: LinePort) -> None:
    stranger = lines(there="192.0.2.1")
    for _ in range(20):
        stranger.send_bytes(b"\n" * 65_536)
    assert was_closed_with(stranger, "rate limit exceeded repeatedly")


# WebSocket.


def was_closed(client: WebSocketClient, words: str) -> bool:
    reason = words.encode()
    return client.frames()[-3:] == [(TEXT, b"NOTICE " + reason), (TEXT, b"BYE"), (CLOSE, POLICY + reason)]


FIRST_FRAGMENT = bytes([0x01]) + frame(TEXT, b"PING ")[1:]


@pytest.mark.parametrize(
    "begun",
    [frame(TEXT, b"PING 1")[:5], frame(TEXT, b"x" * 70)[:40], frame(PING, b"12")[:3], FIRST_FRAGMENT, b"\x01"],
    ids=["frame", "long frame", "ping", "message", "head"],
)
def test_closes_websocket_with_unfinished_input(client: WebSocketClient, clock: Clock, begun: bytes) -> None:
    client.send_bytes(begun)
    clock.advance(9)
    assert client.frames() == []
    clock.advance(1)
    assert was_closed(client, UNFINISHED)


def test_keeps_websocket_with_finished_input(client: WebSocketClient, clock: Clock) -> None:
    """Frames in pieces, fragments with a ping between them, and a ping in pieces."""
    for whole in (
        frame(TEXT, b"PING 1"),
        FIRST_FRAGMENT + frame(PING, b"") + bytes([0x80]) + frame(TEXT, b"1")[1:],
        frame(PING, b"12"),
    ):
        for cut in (1, 5):
            client.send_bytes(whole[:cut])
            clock.advance(1)
            client.send_bytes(whole[cut:])
    clock.advance(11)
    assert all(kind in (TEXT, PONG) and b"PING" not in payload for kind, payload in client.frames())


def test_closes_websocket_with_an_unfinished_message(client: WebSocketClient, clock: Clock) -> None:
    """Although each fragment is complete, and pings are sent between them."""
    client.send_bytes(FIRST_FRAGMENT)
    for _ in range(9):
        clock.advance(1)
        client.send_bytes(bytes([0x00]) + frame(TEXT, b"x")[1:] + frame(PING, b""))
    client.frames()
    clock.advance(1)
    assert was_closed(client, UNFINISHED)


def test_closes_idle_websocket(client: WebSocketClient, clock: Clock) -> None:
    """Browsers answer pings by themselves, so only commands count."""

    def answer_pings(times: int) -> None:
        for _ in range(times):
            clock.advance(9)
            for kind, payload in client.frames():
                if kind == PING:
                    client.send_bytes(frame(PONG, payload))

    answer_pings(21)
    client.send("PING")
    assert client.frames() == [(TEXT, b"PONG")]
    answer_pings(22)
    clock.advance(2)
    assert was_closed(client, IDLE)


def test_lost_websocket_has_no_timers(client: WebSocketClient, clock: Clock) -> None:
    client.send_bytes(FIRST_FRAGMENT)
    client.disconnect()
    assert not clock.getDelayedCalls()


def test_flood_of_pings_is_sliced(client: WebSocketClient, server: FakeServer) -> None:
    """Other clients are served between two parts, and the order is kept."""
    server.clock = Ticking(TIME_SLICE_SECONDS)
    count = 4 * PARSE_BYTES // 6
    pings = frame(PING, b"") * count
    client.send_bytes(pings[:-3])
    assert not client.transport.is_reading
    answered = len(client.frames())
    assert 0 < answered < count / 2
    client.server.dataReceived(pings[-3:] + frame(TEXT, b"PING 1"))
    server.turn()
    assert client.transport.is_reading
    assert client.frames() == [(PONG, b"")] * (count - answered) + [(TEXT, b"PONG 1")]


def test_resumes_reading_after_parsing_and_draining(client: WebSocketClient, server: FakeServer) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS)
    client.send_bytes(frame(PING, b"") * PARSE_BYTES)
    client.stall()
    server.turn()
    assert not client.transport.is_reading
    client.drain()
    server.turn()
    assert client.transport.is_reading and len(client.frames()) == PARSE_BYTES


def test_lost_websocket_is_not_parsed_further(client: WebSocketClient, server: FakeServer) -> None:
    server.clock = Ticking(TIME_SLICE_SECONDS)
    client.send_bytes(frame(PING, b"") * PARSE_BYTES + frame(TEXT, b"PUB a 1"))
    client.disconnect()
    server.turn()
    assert b"a" not in server.broker.channels


def test_messages_in_fragments_are_run_in_order(client: WebSocketClient, server: FakeServer) -> None:
    """Between pings, and before a close frame."""
    whole = [bytes([0x01]) + frame(TEXT, b"PI")[1:] + bytes([0x80]) + frame(TEXT, b"NG %d" % n)[1:] for n in range(3)]
    client.send_bytes(whole[0] + frame(PING, b"") + whole[1] + whole[2] + frame(CLOSE, b"\x03\xe8") + whole[0])
    kinds = [payload for _, payload in client.frames()]
    assert kinds == [b"PONG 0", b"", b"PONG 1", b"PONG 2", b"\x03\xe8"]


def metered(client: WebSocketClient, server: FakeServer, **limits: Any) -> None:
    limit_session(client.server.pipeline.session, server, **limits)


def test_closes_remote_client_that_floods(client: WebSocketClient, server: FakeServer) -> None:
    """Its answer to the close frame is still understood."""
    metered(client, server, bytes_per_second=1, bytes_burst=1000)
    for _ in range(3):
        client.send_bytes(frame(PONG, b"x" * 120) * 8)
    assert was_closed(client, "rate limit exceeded repeatedly")
    client.answer_close(1008)
    assert client.transport.is_closed and client.server.wasClean


def test_pings_of_a_remote_client_are_rate_limited(client: WebSocketClient, server: FakeServer) -> None:
    metered(client, server, commands_per_second=1, commands_burst=5)
    client.send_bytes(frame(PING, b"") * 9)
    assert client.frames() == [(PONG, b"")] * 5
    client.send_bytes(frame(PING, b"") * 9)
    assert was_closed(client, "rate limit exceeded repeatedly")
