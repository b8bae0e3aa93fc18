"""Tests of clients that do not read: their waiting output is limited, and lost events are reported."""

import pytest

from tests.session.clients import subscribed, welcomed
from twistedsock.errors import MEMORY_LIMIT_REACHED, CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import REPLY_PENDING, SOCKET_FULL
from twistedsock.session.session import SessionState
from twistedsock.testing import FakeClient, FakeServer, LineClient

KILOBYTE = "x" * 1_000


@pytest.fixture
def peer(server: FakeServer) -> LineClient:
    return subscribed(server)


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


def test_slow_client_needs_one_chunk_and_loses_no_event(server: FakeServer) -> None:
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


@pytest.mark.parametrize("late", [False, True], ids=["memory", "late"])
@pytest.mark.parametrize("kind", ["line_client", "message_client", "json_client"])
def test_writes_a_long_history_as_fast_as_it_is_read(kind: str, late: bool) -> None:
    server = FakeServer(late)
    welcomed(server, *[f"PUB a {KILOBYTE}"] * 500)
    peer: FakeClient = getattr(server, kind)()
    peer.outlet.room = 0
    if kind == "json_client":
        peer.send_messages(b'{"type":"history","id":1,"channel":"a"}', b'{"type":"ping"}')
    else:
        peer.send_messages(b"HIST a", b"PING")
    if late:
        server.backplane.release()
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


def test_writes_a_long_member_list_as_fast_as_it_is_read(server: FakeServer) -> None:
    for _ in range(6_000):
        subscribed(server)
    peer = subscribed(server)
    peer.outlet.room = 0
    peer.send("WHO a")
    assert len(peer.outlet.waiting) <= CHUNK_BYTES + 20_000
    reads_on(server, peer)
    assert len(peer.received()) == 6_002


@pytest.fixture
def slow(server: FakeServer, peer: LineClient) -> LineClient:
    """A subscriber that does not read a history of 200 events."""
    fill(server, 200)
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a")
    return peer


def test_sends_no_event_within_a_long_reply(server: FakeServer, slow: LineClient) -> None:
    assert slow.outlet.blocked == SOCKET_FULL | REPLY_PENDING
    reads_on(server, slow, 10)
    fill(server, 1, "live")
    reads_on(server, slow)
    lines = slow.received()
    assert lines[-2] == "OK 200" and lines[-1].endswith(" live")


def test_sends_no_notice_within_a_long_reply(slow: LineClient) -> None:
    slow.session.close(CloseReason.GOING_AWAY, b"enough")
    assert slow.close_reason is CloseReason.GOING_AWAY
    assert b"enough" not in slow.outlet.waiting and b"BYE" not in slow.outlet.waiting


def test_sends_no_error_within_a_long_reply(slow: LineClient) -> None:
    slow.session.close_with_error(MEMORY_LIMIT_REACHED)
    assert slow.close_reason is CloseReason.TRY_AGAIN
    slow.outlet.drain()
    assert all(line.startswith("MSG a ") for line in slow.received())


@pytest.mark.parametrize("end", ["connection_lost", "mark_closing"])
def test_stops_a_long_reply_when_the_connection_closes(server: FakeServer, slow: LineClient, end: str) -> None:
    waiting = len(slow.outlet.waiting)
    getattr(slow.session, end)()
    reads_on(server, slow)
    assert len(slow.received_bytes()) == waiting


def test_completes_a_reply_that_fills_the_socket(server: FakeServer, peer: LineClient) -> None:
    fill(server, 70)
    peer.received()
    peer.outlet.room = 0
    peer.send("HIST a", "PING")
    reads_on(server, peer, len(peer.outlet.waiting))
    assert not peer.outlet.blocked & REPLY_PENDING or peer.outlet.waiting
    reads_on(server, peer)
    assert peer.received()[-2:] == ["OK 70", "PONG"]


def test_sends_events_after_a_waiting_reply(server: FakeServer, peer: LineClient) -> None:
    peer.outlet.room = 0
    peer.send("PING")
    fill(server, 3, "y")
    reads_on(server, peer)
    assert peer.received() == ["PONG", *(f"MSG a {offset} p2 y" for offset in (1, 2, 3))]


def test_reports_the_reason_of_a_rejection_once(peer: LineClient) -> None:
    peer.session.close_with_error(MEMORY_LIMIT_REACHED)
    peer.session.close_with_error(MEMORY_LIMIT_REACHED)
    assert [line[:10] for line in peer.received()] == ["ERR limit "]
    assert peer.close_reason is CloseReason.TRY_AGAIN
