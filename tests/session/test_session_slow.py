"""Tests of clients that do not read: their waiting output is limited, and lost events are reported."""

import pytest

from twistedsock.errors import MEMORY_LIMIT_REACHED, CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import REPLY_PENDING, SOCKET_FULL
from twistedsock.session.session import SessionState
from twistedsock.testing import FakeClient, FakeServer, LineClient

KILOBYTE = "x" * 1_000


def subscribed(server: FakeServer, options: str = "") -> LineClient:
    """A client that subscribes to channel a."""
    peer = server.line_client()
    peer.send(f"SUB a {options}".rstrip())
    server.turn()
    peer.received()
    return peer


def fill(server: FakeServer, count: int, payload: str = KILOBYTE) -> None:
    """Publish events to channel a, each in a turn of its own."""
    writer = server.line_client()
    for _ in range(count):
        writer.send(f"PUB a {payload}")
        server.turn()
    writer.disconnect()


def reads_on(server: FakeServer, peer: FakeClient, room: int | None = None) -> None:
    peer.outlet.drain(room)
    server.turn()


def offsets(lines: list[str]) -> list[int]:
    return [int(line.split()[2]) for line in lines if line.startswith("MSG")]


def test_slow_client_needs_one_chunk_and_loses_no_event() -> None:
    server = FakeServer()
    reader = subscribed(server)
    reader.outlet.room = 10
    fill(server, 500)
    assert len(reader.outlet.waiting) <= CHUNK_BYTES
    while reader.outlet.waiting:
        reads_on(server, reader, 70_000)
        assert len(reader.outlet.waiting) <= CHUNK_BYTES + 2_000
    reads_on(server, reader)
    assert offsets(reader.received()) == [*range(1, 501)]


def test_client_slower_than_the_history_gets_lost_ranges() -> None:
    server = FakeServer(history_events=3)
    reader = subscribed(server)
    reader.outlet.room = 10
    fill(server, 10, "y")
    reads_on(server, reader)
    lines = reader.received()
    assert lines == ["MSG a 1 p2 y", "LOST a 2 7", *(f"MSG a {offset} p2 y" for offset in (8, 9, 10))]
    fill(server, 1, "z")
    assert reader.received() == ["MSG a 11 p3 z"]


def test_closes_a_slow_client_if_configured() -> None:
    server = FakeServer(history_events=3, slow_consumer="close")
    reader, watcher = subscribed(server), subscribed(server, "presence=on")
    reader.outlet.room = 10
    fill(server, 10, "y")
    watcher.received()
    reads_on(server, reader)
    lines = reader.received()
    assert offsets(lines) == [1] and not any(line.startswith("LOST") for line in lines)
    assert lines[1].startswith("NOTICE client reads too slowly") and lines[2:] == ["BYE"]
    assert reader.close_reason is CloseReason.TRY_AGAIN and reader.session.state is SessionState.CLOSING
    assert watcher.received() == ["LEAVE a p1 p1"]


def test_does_not_close_a_client_that_is_less_behind() -> None:
    server = FakeServer(history_events=3, slow_consumer="close")
    reader = subscribed(server)
    reader.outlet.room = 10
    fill(server, 3, "y")
    reads_on(server, reader)
    assert offsets(reader.received()) == [1, 2, 3] and reader.close_reason is None


def test_does_not_read_a_client_that_does_not_read_its_replies() -> None:
    server = FakeServer()
    peer = subscribed(server)
    peer.outlet.room = 3
    peer.send("PING")
    assert peer.paused and peer.session.replies.input_paused
    peer.send("PING two", "PUB a x")
    assert b"two" not in peer.outlet.waiting
    reads_on(server, peer)
    assert peer.received() == ["PONG", "PONG two", "OK 1", "MSG a 1 p1 x"]
    assert not peer.paused and not peer.session.replies.input_paused


def test_writes_replies_when_they_fill_a_chunk() -> None:
    """Otherwise the replies to thousands of commands of one read would wait in memory."""
    server = FakeServer()
    peer = subscribed(server)
    peer.outlet.room = 0
    peer.send(*[f"PING {KILOBYTE}"] * 500)
    assert len(peer.outlet.waiting) <= CHUNK_BYTES + 2_000
    reads_on(server, peer)
    assert len(peer.received()) == 500


@pytest.mark.parametrize("late", [False, True], ids=["memory", "late"])
@pytest.mark.parametrize("kind", ["line_client", "message_client", "json_client"])
def test_writes_a_long_history_as_fast_as_it_is_read(kind: str, late: bool) -> None:
    server = FakeServer(late)
    release = server.backplane.release if late else lambda: None
    writer = server.line_client()
    writer.send(*[f"PUB a {KILOBYTE}"] * 500)
    release(), server.turn()
    peer: FakeClient = getattr(server, kind)()
    history = b'{"type":"history","id":1,"channel":"a"}' if kind == "json_client" else b"HIST a"
    ping = b'{"type":"ping"}' if kind == "json_client" else b"PING"
    peer.outlet.room = 0
    peer.pipeline.submit([history, ping])
    release()
    turns = 0
    while peer.outlet.waiting:
        assert len(peer.outlet.waiting) <= CHUNK_BYTES + 2_000
        assert peer.session.replies.input_paused and peer.paused
        reads_on(server, peer, 50_000)
        turns += 1
    assert turns > 8 and not peer.paused and not peer.outlet.blocked
    heard = peer.received()  # type: ignore[attr-defined]
    if kind == "json_client":
        assert [event["offset"] for event in heard[1]["events"]] == [*range(1, 501)]
        assert heard[2:] == [{"type": "pong"}]
    else:
        assert offsets(heard) == [*range(1, 501)] and heard[-2:] == ["OK 500", "PONG"]


def test_writes_a_long_member_list_as_fast_as_it_is_read() -> None:
    server = FakeServer()
    for _ in range(6_000):
        subscribed(server)
    peer = subscribed(server)
    peer.outlet.room = 0
    peer.send("WHO a")
    assert len(peer.outlet.waiting) <= CHUNK_BYTES + 20_000
    reads_on(server, peer)
    assert len(peer.received()) == 6_002


def test_sends_no_event_within_a_long_reply() -> None:
    server = FakeServer()
    peer = subscribed(server)
    fill(server, 200)
    reads_on(server, peer)
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a")
    assert peer.outlet.blocked == SOCKET_FULL | REPLY_PENDING
    reads_on(server, peer, 10)
    fill(server, 1, "live")
    reads_on(server, peer)
    lines = peer.received()
    assert lines[-2] == "OK 200" and lines[-1].endswith(" live")


def test_sends_no_notice_within_a_long_reply() -> None:
    server = FakeServer()
    peer = subscribed(server)
    fill(server, 200)
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a")
    peer.session.close(CloseReason.GOING_AWAY, b"enough")
    assert peer.close_reason is CloseReason.GOING_AWAY
    assert b"enough" not in peer.outlet.waiting and b"BYE" not in peer.outlet.waiting


@pytest.mark.parametrize("end", ["connection_lost", "mark_closing"])
def test_stops_a_long_reply_when_the_connection_closes(end: str) -> None:
    server = FakeServer()
    peer = subscribed(server)
    fill(server, 200)
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a")
    waiting = len(peer.outlet.waiting)
    getattr(peer.session, end)()
    reads_on(server, peer)
    assert len(peer.received_bytes()) == waiting


def test_completes_a_reply_that_fills_the_socket() -> None:
    server = FakeServer()
    peer = subscribed(server)
    fill(server, 70)
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a", "PING")
    reads_on(server, peer, len(peer.outlet.waiting))
    assert not peer.outlet.blocked & REPLY_PENDING or peer.outlet.waiting
    reads_on(server, peer)
    assert peer.received()[-2:] == ["OK 70", "PONG"]


def test_sends_events_after_a_waiting_reply() -> None:
    server = FakeServer()
    peer = subscribed(server)
    peer.outlet.room = 0
    peer.send("PING")
    fill(server, 3, "y")
    reads_on(server, peer)
    assert peer.received() == ["PONG", *(f"MSG a {offset} p2 y" for offset in (1, 2, 3))]


def test_reports_the_reason_of_a_rejection_once() -> None:
    server = FakeServer()
    peer = subscribed(server)
    peer.session.close_with_error(MEMORY_LIMIT_REACHED)
    peer.session.close_with_error(MEMORY_LIMIT_REACHED)
    assert [line[:10] for line in peer.received()] == ["ERR limit "]
    assert peer.close_reason is CloseReason.TRY_AGAIN


def test_sends_no_error_within_a_long_reply() -> None:
    server = FakeServer()
    fill(server, 500)
    peer = server.line_client()
    peer.received()
    peer.outlet.room = 100
    peer.send("HIST a")
    peer.session.close_with_error(MEMORY_LIMIT_REACHED)
    assert peer.close_reason is CloseReason.TRY_AGAIN
    peer.outlet.drain()
    assert all(line.startswith("MSG a ") for line in peer.received())
