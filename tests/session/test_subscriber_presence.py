"""Who comes and who goes: told to those who asked, of others only, once."""

import pytest

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub import broker
from twistedsock.testing import FakeServer, LineClient


def subscribed(server: FakeServer, options: str = "") -> LineClient:
    """A peer that reads channel a."""
    peer = server.line_client()
    peer.send(f"SUB a {options}".rstrip())
    if hasattr(server.backplane, "release"):
        server.backplane.release()
    peer.received()
    return peer


def told(server: FakeServer, peer: LineClient) -> list[str]:
    server.turn()
    return peer.received()


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def server(request: pytest.FixtureRequest) -> FakeServer:
    return FakeServer(late=request.param)


def test_others_who_come_and_go_are_told(server: FakeServer) -> None:
    watcher = subscribed(server, "presence=on")
    other = subscribed(server)
    assert told(server, watcher) == ["JOIN a p2 p2"]
    other.send("UNSUB a")
    assert told(server, watcher) == ["LEAVE a p2 p2"]


@pytest.mark.parametrize("end", ["UNSUB a", "QUIT", "connection_lost", "mark_closing"])
def test_a_member_goes_however_it_goes(server: FakeServer, end: str) -> None:
    watcher, other = subscribed(server, "presence=on"), subscribed(server)
    told(server, watcher)
    if end in ("connection_lost", "mark_closing"):
        getattr(other.session, end)()
        other.disconnect()
    else:
        other.send(end)
    assert told(server, watcher) == ["LEAVE a p2 p2"]


def test_ones_own_coming_and_going_is_not_told(server: FakeServer) -> None:
    watcher = subscribed(server, "presence=on")
    assert told(server, watcher) == []
    watcher.send("UNSUB a")
    assert told(server, watcher) == ["OK a"]


def test_those_already_there_are_not_told_even_if_they_came_in_the_same_turn(server: FakeServer) -> None:
    first = subscribed(server, "presence=on")
    subscribed(server)
    watcher = subscribed(server, "presence=on")
    assert told(server, watcher) == []
    assert told(server, first) == ["JOIN a p2 p2", "JOIN a p3 p3"]


def test_nobody_is_told_who_did_not_ask(server: FakeServer) -> None:
    silent = subscribed(server)
    subscribed(server)
    assert told(server, silent) == []


def test_a_second_subscription_is_no_coming(server: FakeServer) -> None:
    watcher, other = subscribed(server, "presence=on"), subscribed(server)
    told(server, watcher)
    for options in ("", " presence=on", " echo=off", " last=3"):
        other.send("SUB a" + options)
        assert told(server, watcher) == []


def test_a_second_subscription_may_begin_and_end_the_watching(server: FakeServer) -> None:
    watcher = subscribed(server)
    subscribed(server)
    watcher.send("SUB a presence=on")
    assert told(server, watcher) == ["OK a offset=0 epoch=e1"]
    subscribed(server)
    assert told(server, watcher) == ["JOIN a p3 p3"]
    watcher.send("SUB a")
    subscribed(server)
    assert told(server, watcher) == ["OK a offset=0 epoch=e1"]


def test_who_watches_no_longer_hears_of_nobody(server: FakeServer) -> None:
    watcher = subscribed(server, "presence=on")
    watcher.send("UNSUB a"), watcher.received()
    subscribed(server)
    assert told(server, watcher) == []


def test_coming_and_going_in_one_turn_are_told_in_their_order(server: FakeServer) -> None:
    watcher, other = subscribed(server, "presence=on"), subscribed(server)
    other.send("UNSUB a", "SUB a", "UNSUB a")
    assert told(server, watcher) == ["JOIN a p2 p2", "LEAVE a p2 p2", "JOIN a p2 p2", "LEAVE a p2 p2"]


def test_the_nick_of_now_is_told(server: FakeServer) -> None:
    watcher, other = subscribed(server, "presence=on"), subscribed(server)
    other.send("NICK ann"), told(server, watcher)
    other.disconnect()
    assert told(server, watcher) == ["LEAVE a p2 ann"]


@pytest.mark.parametrize(
    "count, told",
    [
        (3, ["JOIN a p2 p2", "JOIN a p3 p3", "JOIN a p4 p4"]),
        (4, ["NOTICE joins and leaves on a were dropped because you read too slowly: send WHO a"]),
        (50, ["NOTICE joins and leaves on a were dropped because you read too slowly: send WHO a"]),
    ],
)
def test_a_slow_watcher_is_told_later_or_told_to_ask(count: int, told: list[str]) -> None:
    server = FakeServer(max_pending_presence=3)
    watcher = subscribed(server, "presence=on")
    watcher.outlet.room = 1
    watcher.send("PING")
    for _ in range(count):
        subscribed(server)
        server.turn()
    missed = watcher.session.subscriptions[b"a"].missed
    assert missed is not None and len(missed) <= 4
    watcher.outlet.drain()
    server.turn()
    assert watcher.received() == ["PONG", *told]
    subscribed(server)
    server.turn()
    assert watcher.received() == [f"JOIN a p{count + 2} p{count + 2}"]


def test_who_stops_watching_while_it_is_behind_hears_of_nobody() -> None:
    server = FakeServer()
    watcher = subscribed(server, "presence=on")
    watcher.outlet.room = 1
    watcher.send("PING")
    subscribed(server)
    server.turn()
    watcher.send("SUB a")
    watcher.outlet.drain()
    server.turn()
    assert watcher.received() == ["PONG", "OK a offset=0 epoch=e1"]
    watcher.send("PUB a x")
    server.turn()
    assert watcher.received() == ["OK 1", "MSG a 1 p1 x"]


def test_those_who_are_lost_in_one_turn_are_told_together(server: FakeServer) -> None:
    watcher = subscribed(server, "presence=on")
    others = [subscribed(server), subscribed(server)]
    told(server, watcher)
    sends = watcher.outlet.sends
    for other in others:
        other.disconnect()
    assert told(server, watcher) == ["LEAVE a p2 p2", "LEAVE a p3 p3"]
    assert watcher.outlet.sends == sends + 1


def test_comings_goings_and_events_of_one_turn_are_told_in_their_order() -> None:
    """Who speaks has come before, and has not left yet."""
    server = FakeServer()
    watcher, other = subscribed(server, "presence=on"), server.line_client()
    other.send("PUB a outside", "SUB a", "PUB a inside", "UNSUB a", "PUB a gone")
    assert told(server, watcher) == [
        "MSG a 1 p2 outside",
        "JOIN a p2 p2",
        "MSG a 2 p2 inside",
        "LEAVE a p2 p2",
        "MSG a 3 p2 gone",
    ]
    other.send("SUB a", "PUB a last words")
    other.disconnect()
    assert told(server, watcher) == ["JOIN a p2 p2", "MSG a 4 p2 last words", "LEAVE a p2 p2"]


def test_a_slow_watcher_loses_no_event_to_a_coming_of_the_same_turn() -> None:
    server = FakeServer()
    watcher, other = subscribed(server, "presence=on"), server.line_client()
    server.turn()
    watcher.outlet.room = 0
    other.send("PUB a 1")
    server.turn()
    other.send("SUB a", "PUB a 2")
    server.turn()
    watcher.outlet.drain()
    assert sorted(told(server, watcher)) == ["JOIN a p2 p2", "MSG a 1 p2 1", "MSG a 2 p2 2"]


def test_a_watcher_that_does_not_read_holds_at_most_a_chunk_of_presence_changes() -> None:
    server = FakeServer(max_pending_presence=CHUNK_BYTES)
    watcher, name = server.line_client(), "n" * 32
    watcher.send("SUB a presence=on")
    crowd = []
    for _ in range(CHUNK_BYTES // 32):
        peer = subscribed(server)
        peer.send(f"NICK {name}")
        crowd.append(peer)
    server.turn()
    watcher.received()
    watcher.outlet.room = 0
    for peer in crowd:
        peer.disconnect()
    server.turn()
    assert CHUNK_BYTES - 100 < len(watcher.outlet.waiting) <= CHUNK_BYTES
    watcher.outlet.drain()
    server.turn()
    assert watcher.received() == [f"LEAVE a {peer.id} {name}" for peer in crowd]


def test_answers_that_nobody_reads_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The members in them are counted as long as they are held."""
    monkeypatch.setattr(broker, "MAX_MEMBERS_HELD", 600)
    server, channel = FakeServer(), "a" * 200
    for _ in range(400):
        server.line_client().send(f"SUB {channel}")
    slow, asking = server.line_client(), server.line_client()
    slow.received()
    asking.received()
    slow.outlet.room = 0
    slow.send(f"WHO {channel}")
    assert server.broker.member_shares.total == 400
    asking.send(f"WHO {channel}")
    assert asking.received()[0].startswith("ERR limit ")
    slow.disconnect()
    assert server.broker.member_shares.total == 0
    asking.send(f"WHO {channel}")
    assert asking.received()[-1] == "OK 400" and server.broker.member_shares.total == 0
