"""Tests of subscriptions that resume, with a row for each rule of the protocol, and of second subscriptions."""

import pytest

from tests.session.clients import ask, welcomed
from twistedsock.testing import FakeServer, LineClient


def published(count: int, late: bool = False, **limits: object) -> tuple[FakeServer, LineClient]:
    """A server with so many events on channel a, of epoch e1, and the client that has published them."""
    server = FakeServer(late, **limits)
    return server, welcomed(server, *[f"PUB a {number}" for number in range(1, count + 1)])


def replayed(*offsets: int) -> list[str]:
    return [f"MSG a {offset} p1 {offset}" for offset in offsets]


YES, NO = " recovered=yes", " recovered=no"


# Ten events, of which the log still has 6 to 10.
@pytest.mark.parametrize("late", [False, True], ids=["memory", "late"])
@pytest.mark.parametrize(
    "options, position, replies",
    [
        pytest.param("", "", [], id="live only"),
        pytest.param("last=0", "", [], id="last none"),
        pytest.param("last=2", "", replayed(9, 10), id="last"),
        pytest.param("last=5", "", replayed(6, 7, 8, 9, 10), id="last all"),
        pytest.param("last=99", "", replayed(6, 7, 8, 9, 10), id="last more than there are"),
        pytest.param("since=7 epoch=e1", YES, replayed(8, 9, 10), id="since is exclusive"),
        pytest.param("since=5 epoch=e1", YES, replayed(6, 7, 8, 9, 10), id="the log reaches back just so far"),
        pytest.param("since=9 epoch=e1", YES, replayed(10), id="one missed"),
        pytest.param("since=10 epoch=e1", YES, [], id="nothing missed"),
        pytest.param("since=4 epoch=e1", NO, ["LOST a 5 5", *replayed(6, 7, 8, 9, 10)], id="a gap of one"),
        pytest.param("since=0 epoch=e1", NO, ["LOST a 1 5", *replayed(6, 7, 8, 9, 10)], id="a gap from the start"),
        pytest.param("since=7 epoch=e9", NO, [], id="another epoch"),
        pytest.param("since=10 epoch=e9", NO, [], id="another epoch, the same head"),
        pytest.param("since=11 epoch=e1", NO, [], id="beyond the head"),
        pytest.param("since=7 epoch=e1 last=1", YES, replayed(8, 9, 10), id="recovered: last does not count"),
        pytest.param("since=10 epoch=e1 last=2", YES, [], id="nothing missed: last does not count"),
        pytest.param("since=7 epoch=e9 last=1", NO, replayed(10), id="another epoch, but last asks"),
        pytest.param("since=99 epoch=e1 last=2", NO, replayed(9, 10), id="beyond the head, but last asks"),
        pytest.param(
            "since=4 epoch=e1 last=1",
            NO,
            ["LOST a 5 5", *replayed(6, 7, 8, 9, 10)],
            id="some was recovered: last does not count",
        ),
    ],
)
def test_resumes_from_a_position(late: bool, options: str, position: str, replies: list[str]) -> None:
    server, _ = published(10, late, history_events=5)
    reply, *events = ask(welcomed(server), f"SUB a {options}".rstrip())
    assert reply == f"OK a offset=10 epoch=e1{position}" and events == replies


# The history is empty, but the channel has a subscriber.
@pytest.mark.parametrize(
    "options, position, replies",
    [
        ("since=10 epoch=e1", YES, []),
        ("since=9 epoch=e1", NO, ["LOST a 10 10"]),
        ("since=0 epoch=e1", NO, ["LOST a 1 10"]),
        ("since=0 epoch=e1 last=5", NO, ["LOST a 1 10"]),
        ("since=11 epoch=e1 last=5", NO, []),
        ("since=3 epoch=e9 last=5", NO, []),
        ("last=5", "", []),
    ],
)
def test_resumes_when_the_history_is_empty(options: str, position: str, replies: list[str]) -> None:
    server, peer = published(10)
    peer.send("SUB a")
    server.now += 1_000
    heard = ask(welcomed(server), f"SUB a {options}", "PUB a live")
    assert heard == [f"OK a offset=10 epoch=e1{position}", *replies, "OK 11", "MSG a 11 p2 live"]


@pytest.mark.parametrize("epoch, position", [("e1", YES), ("e9", NO)])
def test_recovers_a_closed_channel_without_new_events(epoch: str, position: str) -> None:
    """The server remembers its last offset."""
    server, _ = published(10)
    server.now += 1_000
    server.broker.expire_histories()
    assert server.broker.channels == {}
    assert ask(welcomed(server), f"SUB a since=10 epoch={epoch}") == [f"OK a offset=10 epoch=e1{position}"]


@pytest.mark.parametrize("options, position", [("since=0 epoch=e1", YES), ("since=1 epoch=e1", NO)])
def test_recovers_a_channel_without_events(server: FakeServer, options: str, position: str) -> None:
    welcomed(server, "SUB a")
    assert ask(welcomed(server), f"SUB a {options}") == [f"OK a offset=0 epoch=e1{position}"]


def test_delivers_events_between_two_subscriptions_once() -> None:
    server, peer = published(3)
    reader = welcomed(server)
    reader.send("SUB a since=1 epoch=e1")
    ask(peer, "PUB a 4")
    ask(peer, "PUB a 5")
    assert reader.received()[1:] == replayed(2, 3, 4, 5)


def test_reports_events_that_are_dropped_during_a_replay() -> None:
    server, peer = published(5, history_events=5)
    reader = welcomed(server)
    reader.send("SUB a since=2 epoch=e1")
    ask(peer, "PUB a 6", "PUB a 7", "PUB a 8")
    assert reader.received() == ["OK a offset=5 epoch=e1 recovered=yes", "LOST a 3 3", *replayed(4, 5, 6, 7, 8)]


def test_second_subscription_replays_the_requested_events() -> None:
    _, peer = published(3)
    assert ask(peer, "SUB a last=1", "PUB a 4") == ["OK a offset=3 epoch=e1", "OK 4", *replayed(3, 4)]
    replies = ask(peer, "SUB a since=2 epoch=e1", "PUB a 5")
    assert replies == ["OK a offset=4 epoch=e1 recovered=yes", "OK 5", *replayed(3, 4, 5)]


def test_second_subscription_without_options_replays_no_events() -> None:
    _, peer = published(3)
    peer.send("SUB a"), peer.received()
    replies = ask(peer, "PUB a 4", "SUB a", "PUB a 5")
    assert replies == ["OK 4", *replayed(4), "OK a offset=4 epoch=e1", "OK 5", *replayed(5)]


@pytest.mark.parametrize(
    "options, replies",
    [
        pytest.param("", replayed(6, 7, 8), id="continues at the cursor"),
        pytest.param("last=1", replayed(6, 7, 8), id="keeps the cursor"),
        pytest.param("since=4 epoch=e1", replayed(5, 6, 7, 8), id="replays requested events"),
        pytest.param("since=7 epoch=e1", replayed(6, 7, 8), id="no gap"),
    ],
)
def test_second_subscription_of_a_slow_client(options: str, replies: list[str]) -> None:
    server, writer = published(4)
    reader = welcomed(server, "SUB a last=1")
    reader.outlet.room = 3
    ask(writer, "PUB a 5")  # three bytes of it leave, the rest waits in the transport
    ask(writer, "PUB a 6", "PUB a 7", "PUB a 8")
    reader.send(f"SUB a {options}".rstrip())
    reader.outlet.drain()
    server.turn()
    lines = reader.received()
    assert lines[0] == replayed(5)[0] and lines[1].startswith("OK a offset=8 epoch=e1")
    assert lines[2:] == replies


@pytest.mark.parametrize(
    "options, replies",
    [
        pytest.param("", ["LOST a 6 8", *replayed(9, 10)], id="continues at the cursor"),
        pytest.param("since=5 epoch=e1", ["LOST a 6 8", *replayed(9, 10)], id="asks for the same"),
        pytest.param("since=3 epoch=e1", ["LOST a 4 8", *replayed(9, 10)], id="asks for more"),
        pytest.param("since=7 epoch=e1", ["LOST a 6 8", *replayed(9, 10)], id="asks for less"),
    ],
)
def test_reports_lost_events_of_a_slow_client_once(options: str, replies: list[str]) -> None:
    server, writer = published(4, history_events=2)
    reader = welcomed(server, "SUB a last=1")
    reader.outlet.room = 3
    for number in range(5, 11):
        ask(writer, f"PUB a {number}")
    reader.send(f"SUB a {options}".rstrip())
    reader.outlet.drain()
    server.turn()
    assert reader.received()[2:] == replies
