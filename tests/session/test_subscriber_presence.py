"""Who comes and who goes: told to those who asked, of others only, once."""

import pytest

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub import broker
from twistedsock.testing import FakeServer, LineClient


def subscribed(hall: FakeServer, options: str = "") -> LineClient:
    """A peer that reads channel a."""
    peer = hall.line_peer()
    peer.says(f"SUB a {options}".rstrip())
    if hasattr(hall.backplane, "release"):
        hall.backplane.release()
    peer.hears()
    return peer


def told(hall: FakeServer, peer: LineClient) -> list[str]:
    hall.turn()
    return peer.hears()


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def hall(request: pytest.FixtureRequest) -> FakeServer:
    return FakeServer(late=request.param)


def test_others_who_come_and_go_are_told(hall: FakeServer) -> None:
    watcher = subscribed(hall, "presence=on")
    other = subscribed(hall)
    assert told(hall, watcher) == ["JOIN a p2 p2"]
    other.says("UNSUB a")
    assert told(hall, watcher) == ["LEAVE a p2 p2"]


@pytest.mark.parametrize("end", ["UNSUB a", "QUIT", "lost", "cease"])
def test_a_member_goes_however_it_goes(hall: FakeServer, end: str) -> None:
    watcher, other = subscribed(hall, "presence=on"), subscribed(hall)
    told(hall, watcher)
    if end in ("lost", "cease"):
        getattr(other.session, end)()
        other.leaves()
    else:
        other.says(end)
    assert told(hall, watcher) == ["LEAVE a p2 p2"]


def test_ones_own_coming_and_going_is_not_told(hall: FakeServer) -> None:
    watcher = subscribed(hall, "presence=on")
    assert told(hall, watcher) == []
    watcher.says("UNSUB a")
    assert told(hall, watcher) == ["OK a"]


def test_those_already_there_are_not_told_even_if_they_came_in_the_same_turn(hall: FakeServer) -> None:
    first = subscribed(hall, "presence=on")
    subscribed(hall)
    watcher = subscribed(hall, "presence=on")
    assert told(hall, watcher) == []
    assert told(hall, first) == ["JOIN a p2 p2", "JOIN a p3 p3"]


def test_nobody_is_told_who_did_not_ask(hall: FakeServer) -> None:
    silent = subscribed(hall)
    subscribed(hall)
    assert told(hall, silent) == []


def test_a_second_subscription_is_no_coming(hall: FakeServer) -> None:
    watcher, other = subscribed(hall, "presence=on"), subscribed(hall)
    told(hall, watcher)
    for options in ("", " presence=on", " echo=off", " last=3"):
        other.says("SUB a" + options)
        assert told(hall, watcher) == []


def test_a_second_subscription_may_begin_and_end_the_watching(hall: FakeServer) -> None:
    watcher = subscribed(hall)
    subscribed(hall)
    watcher.says("SUB a presence=on")
    assert told(hall, watcher) == ["OK a offset=0 epoch=e1"]
    subscribed(hall)
    assert told(hall, watcher) == ["JOIN a p3 p3"]
    watcher.says("SUB a")
    subscribed(hall)
    assert told(hall, watcher) == ["OK a offset=0 epoch=e1"]


def test_who_watches_no_longer_hears_of_nobody(hall: FakeServer) -> None:
    watcher = subscribed(hall, "presence=on")
    watcher.says("UNSUB a"), watcher.hears()
    subscribed(hall)
    assert told(hall, watcher) == []


def test_coming_and_going_in_one_turn_are_told_in_their_order(hall: FakeServer) -> None:
    watcher, other = subscribed(hall, "presence=on"), subscribed(hall)
    other.says("UNSUB a", "SUB a", "UNSUB a")
    assert told(hall, watcher) == ["JOIN a p2 p2", "LEAVE a p2 p2", "JOIN a p2 p2", "LEAVE a p2 p2"]


def test_the_nick_of_now_is_told(hall: FakeServer) -> None:
    watcher, other = subscribed(hall, "presence=on"), subscribed(hall)
    other.says("NICK ann"), told(hall, watcher)
    other.leaves()
    assert told(hall, watcher) == ["LEAVE a p2 ann"]


@pytest.mark.parametrize(
    "count, told",
    [
        (3, ["JOIN a p2 p2", "JOIN a p3 p3", "JOIN a p4 p4"]),
        (4, ["NOTICE joins and leaves of a were more than could be kept for you; ask WHO a"]),
        (50, ["NOTICE joins and leaves of a were more than could be kept for you; ask WHO a"]),
    ],
)
def test_a_slow_watcher_is_told_later_or_told_to_ask(count: int, told: list[str]) -> None:
    hall = FakeServer(max_members_told=3)
    watcher = subscribed(hall, "presence=on")
    watcher.outlet.room = 1
    watcher.says("PING")
    for _ in range(count):
        subscribed(hall)
        hall.turn()
    missed = watcher.session.subscriptions[b"a"].missed
    assert missed is not None and len(missed) <= 4
    watcher.outlet.drain()
    hall.turn()
    assert watcher.hears() == ["PONG", *told]
    subscribed(hall)
    hall.turn()
    assert watcher.hears() == [f"JOIN a p{count + 2} p{count + 2}"]


def test_who_stops_watching_while_it_is_behind_hears_of_nobody() -> None:
    hall = FakeServer()
    watcher = subscribed(hall, "presence=on")
    watcher.outlet.room = 1
    watcher.says("PING")
    subscribed(hall)
    hall.turn()
    watcher.says("SUB a")
    watcher.outlet.drain()
    hall.turn()
    assert watcher.hears() == ["PONG", "OK a offset=0 epoch=e1"]
    watcher.says("PUB a x")
    hall.turn()
    assert watcher.hears() == ["OK 1", "MSG a 1 p1 x"]


def test_those_who_are_lost_in_one_turn_are_told_together(hall: FakeServer) -> None:
    watcher = subscribed(hall, "presence=on")
    others = [subscribed(hall), subscribed(hall)]
    told(hall, watcher)
    sends = watcher.outlet.sends
    for other in others:
        other.leaves()
    assert told(hall, watcher) == ["LEAVE a p2 p2", "LEAVE a p3 p3"]
    assert watcher.outlet.sends == sends + 1


def test_comings_goings_and_events_of_one_turn_are_told_in_their_order() -> None:
    """Who speaks has come before, and has not left yet."""
    hall = FakeServer()
    watcher, other = subscribed(hall, "presence=on"), hall.line_peer()
    other.says("PUB a outside", "SUB a", "PUB a inside", "UNSUB a", "PUB a gone")
    assert told(hall, watcher) == [
        "MSG a 1 p2 outside",
        "JOIN a p2 p2",
        "MSG a 2 p2 inside",
        "LEAVE a p2 p2",
        "MSG a 3 p2 gone",
    ]
    other.says("SUB a", "PUB a last words")
    other.leaves()
    assert told(hall, watcher) == ["JOIN a p2 p2", "MSG a 4 p2 last words", "LEAVE a p2 p2"]


def test_a_slow_watcher_loses_no_event_to_a_coming_of_the_same_turn() -> None:
    hall = FakeServer()
    watcher, other = subscribed(hall, "presence=on"), hall.line_peer()
    hall.turn()
    watcher.outlet.room = 0
    other.says("PUB a 1")
    hall.turn()
    other.says("SUB a", "PUB a 2")
    hall.turn()
    watcher.outlet.drain()
    assert sorted(told(hall, watcher)) == ["JOIN a p2 p2", "MSG a 1 p2 1", "MSG a 2 p2 2"]


def test_a_watcher_that_does_not_read_holds_at_most_a_chunk_of_presence_changes() -> None:
    hall = FakeServer(max_members_told=CHUNK_BYTES)
    watcher, name = hall.line_peer(), "n" * 32
    watcher.says("SUB a presence=on")
    crowd = []
    for _ in range(CHUNK_BYTES // 32):
        peer = subscribed(hall)
        peer.says(f"NICK {name}")
        crowd.append(peer)
    hall.turn()
    watcher.hears()
    watcher.outlet.room = 0
    for peer in crowd:
        peer.leaves()
    hall.turn()
    assert CHUNK_BYTES - 100 < len(watcher.outlet.waiting) <= CHUNK_BYTES
    watcher.outlet.drain()
    hall.turn()
    assert watcher.hears() == [f"LEAVE a {peer.id} {name}" for peer in crowd]


def test_answers_that_nobody_reads_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The members in them are counted as long as they are held."""
    monkeypatch.setattr(broker, "MAX_MEMBERS_HELD", 600)
    hall, channel = FakeServer(), "a" * 200
    for _ in range(400):
        hall.line_peer().says(f"SUB {channel}")
    slow, asking = hall.line_peer(), hall.line_peer()
    slow.hears()
    asking.hears()
    slow.outlet.room = 0
    slow.says(f"WHO {channel}")
    assert hall.broker.members_held == 400
    asking.says(f"WHO {channel}")
    assert asking.hears()[0].startswith("ERR limit ")
    slow.leaves()
    assert hall.broker.members_held == 0
    asking.says(f"WHO {channel}")
    assert asking.hears()[-1] == "OK 400" and hall.broker.members_held == 0
