"""Peers that do not read: what waits for them is bounded, and what they missed is named."""

import pytest

from twistedsock.errors import TOO_MUCH_HELD, CloseReason
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import REPLY_PENDING, SOCKET_FULL
from twistedsock.session.replies import SessionState
from twistedsock.testing import FakeClient, FakeServer, LineClient

KILOBYTE = "x" * 1_000


def subscribed(hall: FakeServer, options: str = "") -> LineClient:
    """A peer that reads channel a."""
    peer = hall.line_peer()
    peer.says(f"SUB a {options}".rstrip())
    hall.turn()
    peer.hears()
    return peer


def fill(hall: FakeServer, count: int, payload: str = KILOBYTE) -> None:
    """Somebody publishes so many events on channel a, each in a turn of its own."""
    writer = hall.line_peer()
    for _ in range(count):
        writer.says(f"PUB a {payload}")
        hall.turn()
    writer.leaves()


def reads_on(hall: FakeServer, peer: FakeClient, room: int | None = None) -> None:
    peer.outlet.drain(room)
    hall.turn()


def offsets(lines: list[str]) -> list[int]:
    return [int(line.split()[2]) for line in lines if line.startswith("MSG")]


def test_a_slow_reader_costs_one_chunk_and_misses_nothing() -> None:
    hall = FakeServer()
    reader = subscribed(hall)
    reader.outlet.room = 10
    fill(hall, 500)
    assert len(reader.outlet.waiting) <= CHUNK_BYTES
    while reader.outlet.waiting:
        reads_on(hall, reader, 70_000)
        assert len(reader.outlet.waiting) <= CHUNK_BYTES + 2_000
    reads_on(hall, reader)
    assert offsets(reader.hears()) == [*range(1, 501)]


def test_a_reader_that_the_log_has_passed_is_told_what_it_lost() -> None:
    hall = FakeServer(history_events=3)
    reader = subscribed(hall)
    reader.outlet.room = 10
    fill(hall, 10, "y")
    reads_on(hall, reader)
    lines = reader.hears()
    assert lines == ["MSG a 1 p2 y", "LOST a 2 7", *(f"MSG a {offset} p2 y" for offset in (8, 9, 10))]
    fill(hall, 1, "z")
    assert reader.hears() == ["MSG a 11 p3 z"]


def test_a_reader_that_may_not_lag_is_closed_instead() -> None:
    hall = FakeServer(history_events=3, lag="close")
    reader, watcher = subscribed(hall), subscribed(hall, "presence=on")
    reader.outlet.room = 10
    fill(hall, 10, "y")
    watcher.hears()
    reads_on(hall, reader)
    lines = reader.hears()
    assert offsets(lines) == [1] and not any(line.startswith("LOST") for line in lines)
    assert lines[1].startswith("NOTICE you read too slowly") and lines[2:] == ["BYE"]
    assert reader.ending is CloseReason.TRY_AGAIN and reader.session.state is SessionState.CLOSING
    assert watcher.hears() == ["LEAVE a p1 p1"]


def test_who_does_not_lag_that_far_is_not_closed() -> None:
    hall = FakeServer(history_events=3, lag="close")
    reader = subscribed(hall)
    reader.outlet.room = 10
    fill(hall, 3, "y")
    reads_on(hall, reader)
    assert offsets(reader.hears()) == [1, 2, 3] and reader.ending is None


def test_who_does_not_read_its_replies_is_not_read() -> None:
    hall = FakeServer()
    peer = subscribed(hall)
    peer.outlet.room = 3
    peer.says("PING")
    assert peer.paused and peer.session.stalled
    peer.says("PING two", "PUB a x")
    assert b"two" not in peer.outlet.waiting
    reads_on(hall, peer)
    assert peer.hears() == ["PONG", "PONG two", "OK 1", "MSG a 1 p1 x"]
    assert not peer.paused and not peer.session.stalled


def test_replies_that_gather_leave_when_they_are_a_chunk() -> None:
    """Thousands of commands in one read must not gather all their replies first."""
    hall = FakeServer()
    peer = subscribed(hall)
    peer.outlet.room = 0
    peer.says(*[f"PING {KILOBYTE}"] * 500)
    assert len(peer.outlet.waiting) <= CHUNK_BYTES + 2_000
    reads_on(hall, peer)
    assert len(peer.hears()) == 500


@pytest.mark.parametrize("late", [False, True], ids=["memory", "late"])
@pytest.mark.parametrize("kind", ["line_peer", "message_peer", "json_peer"])
def test_a_long_history_leaves_no_faster_than_it_is_read(kind: str, late: bool) -> None:
    hall = FakeServer(late)
    release = hall.backplane.release if late else lambda: None
    writer = hall.line_peer()
    writer.says(*[f"PUB a {KILOBYTE}"] * 500)
    release(), hall.turn()
    peer: FakeClient = getattr(hall, kind)()
    history = b'{"type":"history","id":1,"channel":"a"}' if kind == "json_peer" else b"HIST a"
    ping = b'{"type":"ping"}' if kind == "json_peer" else b"PING"
    peer.outlet.room = 0
    peer.conversation.receive([history, ping])
    release()
    turns = 0
    while peer.outlet.waiting:
        assert len(peer.outlet.waiting) <= CHUNK_BYTES + 2_000
        assert peer.session.stalled and peer.paused
        reads_on(hall, peer, 50_000)
        turns += 1
    assert turns > 8 and not peer.paused and not peer.outlet.blocked
    heard = peer.hears()  # type: ignore[attr-defined]
    if kind == "json_peer":
        assert [event["offset"] for event in heard[1]["events"]] == [*range(1, 501)]
        assert heard[2:] == [{"type": "pong"}]
    else:
        assert offsets(heard) == [*range(1, 501)] and heard[-2:] == ["OK 500", "PONG"]


def test_a_long_list_of_members_leaves_no_faster_than_it_is_read() -> None:
    hall = FakeServer()
    for _ in range(6_000):
        subscribed(hall)
    peer = subscribed(hall)
    peer.outlet.room = 0
    peer.says("WHO a")
    assert len(peer.outlet.waiting) <= CHUNK_BYTES + 20_000
    reads_on(hall, peer)
    assert len(peer.hears()) == 6_002


def test_events_do_not_come_into_the_midst_of_a_reply() -> None:
    hall = FakeServer()
    peer = subscribed(hall)
    fill(hall, 200)
    reads_on(hall, peer)
    peer.hears()
    peer.outlet.room = 0
    peer.says("HIST a")
    assert peer.outlet.blocked == SOCKET_FULL | REPLY_PENDING
    reads_on(hall, peer, 10)
    fill(hall, 1, "live")
    reads_on(hall, peer)
    lines = peer.hears()
    assert lines[-2] == "OK 200" and lines[-1].endswith(" live")


def test_who_is_dismissed_in_the_midst_of_a_reply_is_told_nothing_more() -> None:
    """A notice there would stand inside a message."""
    hall = FakeServer()
    peer = subscribed(hall)
    fill(hall, 200)
    peer.hears()
    peer.outlet.room = 0
    peer.says("HIST a")
    peer.session.dismiss(CloseReason.GOING_AWAY, b"enough")
    assert peer.ending is CloseReason.GOING_AWAY
    assert b"enough" not in peer.outlet.waiting and b"BYE" not in peer.outlet.waiting


@pytest.mark.parametrize("end", ["lost", "cease"])
def test_who_goes_in_the_midst_of_a_reply_is_sent_no_more_of_it(end: str) -> None:
    hall = FakeServer()
    peer = subscribed(hall)
    fill(hall, 200)
    peer.hears()
    peer.outlet.room = 0
    peer.says("HIST a")
    waiting = len(peer.outlet.waiting)
    getattr(peer.session, end)()
    reads_on(hall, peer)
    assert len(peer.raw()) == waiting


def test_a_reply_that_just_fits_ends_there() -> None:
    hall = FakeServer()
    peer = subscribed(hall)
    fill(hall, 70)
    peer.hears()
    peer.outlet.room = 0
    peer.says("HIST a", "PING")
    reads_on(hall, peer, len(peer.outlet.waiting))
    assert not peer.outlet.blocked & REPLY_PENDING or peer.outlet.waiting
    reads_on(hall, peer)
    assert peer.hears()[-2:] == ["OK 70", "PONG"]


def test_a_peer_can_read_nothing_but_what_it_missed_while_its_reply_waits() -> None:
    """The replies come first, then the events that had to wait for them."""
    hall = FakeServer()
    peer = subscribed(hall)
    peer.outlet.room = 0
    peer.says("PING")
    fill(hall, 3, "y")
    reads_on(hall, peer)
    assert peer.hears() == ["PONG", *(f"MSG a {offset} p2 y" for offset in (1, 2, 3))]


def test_who_is_turned_away_hears_why_once() -> None:
    hall = FakeServer()
    peer = subscribed(hall)
    peer.session.turn_away(TOO_MUCH_HELD)
    peer.session.turn_away(TOO_MUCH_HELD)
    assert [line[:10] for line in peer.hears()] == ["ERR limit "]
    assert peer.ending is CloseReason.TRY_AGAIN


def test_nothing_is_said_in_the_midst_of_a_reply_to_who_is_turned_away() -> None:
    hall = FakeServer()
    fill(hall, 500)
    peer = hall.line_peer()
    peer.hears()
    peer.outlet.room = 100
    peer.says("HIST a")
    peer.session.turn_away(TOO_MUCH_HELD)
    assert peer.ending is CloseReason.TRY_AGAIN
    peer.outlet.drain()
    assert all(line.startswith("MSG a ") for line in peer.hears())
