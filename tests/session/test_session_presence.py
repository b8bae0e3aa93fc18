"""Tests of presence: subscribers that request it receive the joins and leaves of other clients, once."""

import pytest

from tests.session.clients import ask, welcomed
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub import broker
from twistedsock.testing import FakeServer, LateBackplane, LineClient


def joining(server: FakeServer, options: str = "") -> LineClient:
    """A client that subscribes to channel a. Its turn does not end."""
    peer = server.line_client()
    peer.send(f"SUB a {options}".rstrip())
    if isinstance(server.backplane, LateBackplane):
        server.backplane.release()
    peer.received()
    return peer


@pytest.fixture
def watcher(server: FakeServer) -> LineClient:
    """A client that requests presence, as p1."""
    return joining(server, "presence=on")


def told(server: FakeServer, peer: LineClient) -> list[str]:
    server.turn()
    return peer.received()


def stall(watcher: LineClient) -> None:
    """Its socket is full."""
    watcher.outlet.room = 1
    watcher.send("PING")


def read_on(server: FakeServer, watcher: LineClient) -> list[str]:
    watcher.outlet.drain()
    return told(server, watcher)


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def server(request: pytest.FixtureRequest) -> FakeServer:
    return FakeServer(late=request.param)


def test_reports_joins_and_leaves_of_other_clients(server: FakeServer, watcher: LineClient) -> None:
    other = joining(server)
    assert told(server, watcher) == ["JOIN a p2 p2"]
    other.send("UNSUB a")
    assert told(server, watcher) == ["LEAVE a p2 p2"]


@pytest.mark.parametrize("end", ["UNSUB a", "QUIT", "connection_lost", "mark_closing"])
def test_reports_leaves_for_every_kind_of_close(server: FakeServer, end: str, watcher: LineClient) -> None:
    other = joining(server)
    told(server, watcher)
    if end in ("connection_lost", "mark_closing"):
        getattr(other.session, end)()
        other.disconnect()
    else:
        other.send(end)
    assert told(server, watcher) == ["LEAVE a p2 p2"]


def test_does_not_report_own_joins_and_leaves(server: FakeServer, watcher: LineClient) -> None:
    assert told(server, watcher) == []
    watcher.send("UNSUB a")
    assert told(server, watcher) == ["OK a"]


def test_does_not_report_earlier_members_of_the_same_turn(server: FakeServer) -> None:
    first = joining(server, "presence=on")
    joining(server)
    watcher = joining(server, "presence=on")
    assert told(server, watcher) == []
    assert told(server, first) == ["JOIN a p2 p2", "JOIN a p3 p3"]


def test_does_not_report_presence_without_a_request(server: FakeServer) -> None:
    silent = joining(server)
    joining(server)
    assert told(server, silent) == []


def test_second_subscription_is_not_a_join(server: FakeServer, watcher: LineClient) -> None:
    other = joining(server)
    told(server, watcher)
    for options in ("", " presence=on", " echo=off", " last=3"):
        other.send("SUB a" + options)
        assert told(server, watcher) == []


def test_second_subscription_can_start_and_stop_presence(server: FakeServer) -> None:
    watcher = joining(server)
    joining(server)
    watcher.send("SUB a presence=on")
    assert told(server, watcher) == ["OK a offset=0 epoch=e1"]
    joining(server)
    assert told(server, watcher) == ["JOIN a p3 p3"]
    watcher.send("SUB a")
    joining(server)
    assert told(server, watcher) == ["OK a offset=0 epoch=e1"]


def test_reports_no_presence_after_it_was_stopped(server: FakeServer, watcher: LineClient) -> None:
    watcher.send("UNSUB a"), watcher.received()
    joining(server)
    assert told(server, watcher) == []


def test_reports_changes_of_one_turn_in_order(server: FakeServer, watcher: LineClient) -> None:
    other = joining(server)
    other.send("UNSUB a", "SUB a", "UNSUB a")
    assert told(server, watcher) == ["JOIN a p2 p2", "LEAVE a p2 p2", "JOIN a p2 p2", "LEAVE a p2 p2"]


def test_reports_the_present_nick(server: FakeServer, watcher: LineClient) -> None:
    other = joining(server)
    other.send("NICK ann"), told(server, watcher)
    other.disconnect()
    assert told(server, watcher) == ["LEAVE a p2 ann"]


@pytest.mark.parametrize(
    "count, expected",
    [
        (3, ["JOIN a p2 p2", "JOIN a p3 p3", "JOIN a p4 p4"]),
        (4, ["NOTICE joins and leaves on a were dropped because you read too slowly: send WHO a"]),
        (50, ["NOTICE joins and leaves on a were dropped because you read too slowly: send WHO a"]),
    ],
)
def test_slow_client_gets_presence_later_or_a_request_to_ask(count: int, expected: list[str]) -> None:
    server = FakeServer(max_pending_presence=3)
    watcher = joining(server, "presence=on")
    stall(watcher)
    for _ in range(count):
        joining(server)
        server.turn()
    missed = watcher.session.subscriptions[b"a"].missed
    assert missed is not None and len(missed) <= 4
    assert read_on(server, watcher) == ["PONG", *expected]
    joining(server)
    assert told(server, watcher) == [f"JOIN a p{count + 2} p{count + 2}"]


def test_slow_client_gets_no_presence_after_it_was_stopped() -> None:
    server = FakeServer()
    watcher = joining(server, "presence=on")
    stall(watcher)
    joining(server)
    server.turn()
    watcher.send("SUB a")
    assert read_on(server, watcher) == ["PONG", "OK a offset=0 epoch=e1"]
    watcher.send("PUB a x")
    assert told(server, watcher) == ["OK 1", "MSG a 1 p1 x"]


def test_reports_connections_lost_in_one_turn_together(server: FakeServer, watcher: LineClient) -> None:
    others = [joining(server), joining(server)]
    told(server, watcher)
    sends = watcher.outlet.sends
    for other in others:
        other.disconnect()
    assert told(server, watcher) == ["LEAVE a p2 p2", "LEAVE a p3 p3"]
    assert watcher.outlet.sends == sends + 1


def test_reports_presence_and_events_of_one_turn_in_order() -> None:
    """A publisher joins before its event, and leaves after it."""
    server = FakeServer()
    watcher, other = joining(server, "presence=on"), server.line_client()
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


def test_slow_client_loses_no_event_because_of_a_join() -> None:
    server = FakeServer()
    watcher, other = joining(server, "presence=on"), server.line_client()
    server.turn()
    watcher.outlet.room = 0
    other.send("PUB a 1")
    server.turn()
    other.send("SUB a", "PUB a 2")
    server.turn()
    assert sorted(read_on(server, watcher)) == ["JOIN a p2 p2", "MSG a 1 p2 1", "MSG a 2 p2 2"]


def test_keeps_at_most_one_chunk_of_presence_for_a_slow_client() -> None:
    server = FakeServer(max_pending_presence=CHUNK_BYTES)
    watcher, name = server.line_client(), "n" * 32
    watcher.send("SUB a presence=on")
    crowd = [joining(server) for _ in range(CHUNK_BYTES // 32)]
    for peer in crowd:
        peer.send(f"NICK {name}")
    told(server, watcher)
    watcher.outlet.room = 0
    for peer in crowd:
        peer.disconnect()
    server.turn()
    assert CHUNK_BYTES - 100 < len(watcher.outlet.waiting) <= CHUNK_BYTES
    assert read_on(server, watcher) == [f"LEAVE a {peer.id} {name}" for peer in crowd]


def test_limits_the_memory_of_all_unread_member_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members count while a reply contains them."""
    monkeypatch.setattr(broker, "MAX_MEMBERS_HELD", 600)
    server, channel = FakeServer(), "a" * 200
    for _ in range(400):
        server.line_client().send(f"SUB {channel}")
    slow, asking = welcomed(server), welcomed(server)
    slow.outlet.room = 0
    slow.send(f"WHO {channel}")
    assert server.broker.member_shares.total == 400
    assert ask(asking, f"WHO {channel}")[0].startswith("ERR limit ")
    slow.disconnect()
    assert server.broker.member_shares.total == 0
    assert ask(asking, f"WHO {channel}")[-1] == "OK 400" and server.broker.member_shares.total == 0
