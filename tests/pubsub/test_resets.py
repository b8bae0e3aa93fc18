"""New epochs of channels, and the batches that a node has to read again."""

import pytest

from tests.pubsub.helpers import (
    batches,
    deliver,
    msg,
    received_heads,
    reported,
    reset,
    subscribed,
)
from twistedsock.pubsub.channel import MAX_RESETS
from twistedsock.pubsub.values import ChannelState, Position
from twistedsock.testing import FakeServer


def test_new_epoch_is_reported_to_subscribers_and_not_to_others() -> None:
    server = FakeServer()
    subscriber, other = subscribed(server), server.line_client()
    other.received()
    gaps = reported(server)
    deliver(server, 1, 3)
    reset(server, Position(b"e2", 0), Position(b"e1", 3))
    deliver(server, 1, 2, b"e2")
    server.turn()
    assert received_heads(subscriber) == [*msg(1, 2, 3), "RESET a epoch=e2 good=3", *msg(1, 2)]
    assert other.received() == [] and gaps == [(b"a", None)]
    assert server.broker.histories.size == server.broker.channels[b"a"].history.size


@pytest.mark.parametrize(
    ("previous", "begin", "expected"),
    [
        pytest.param(Position(b"e1", 3), 0, ["RESET a epoch=e2 good=3 offset=0", *msg(1, 2)], id="nothing is lost"),
        pytest.param(Position(b"e1", 2), 0, ["RESET a epoch=e2 good=2 offset=0", *msg(1, 2)], id="one was rolled back"),
        pytest.param(
            Position(b"e1", 5), 0, ["LOST a 4 5", "RESET a epoch=e2 good=3 offset=0", *msg(1, 2)], id="two never came"
        ),
        pytest.param(None, 0, ["RESET a epoch=e2 good=0 offset=0", *msg(1, 2)], id="unknown"),
        pytest.param(Position(b"e0", 3), 0, ["RESET a epoch=e2 good=0 offset=0", *msg(1, 2)], id="two epochs later"),
        pytest.param(Position(b"e1", 3), 3, ["RESET a epoch=e2 good=3 offset=3", *msg(4, 5)], id="continued"),
        pytest.param(Position(b"e1", 2), 2, ["RESET a epoch=e2 good=2 offset=2", *msg(3, 4)], id="continued earlier"),
        pytest.param(Position(b"e1", 5), 5, ["RESET a epoch=e2 good=3 offset=3", *msg(4, 5, 6)], id="continued later"),
    ],
)
def test_caught_up_subscriber_continues_after_the_reset(
    previous: Position | None, begin: int, expected: list[str]
) -> None:
    server = FakeServer()
    subscriber = subscribed(server)
    deliver(server, 1, 3)
    server.turn()
    subscriber.received()
    last = int(expected[-1].split(" ")[2])
    tail = batches(*range(begin + 1 if begin < 5 else 1, last + 1))
    reset(server, Position(b"e2", last), previous, begin, tail)
    assert [line.removesuffix(" x") for line in subscriber.received()] == expected
    deliver(server, last + 1, 1, b"e2")
    server.turn()
    assert received_heads(subscriber) == msg(last + 1)


@pytest.mark.parametrize(
    ("previous", "begin", "expected"),
    [
        pytest.param(Position(b"e1", 4), 0, ["LOST a 3 4", "RESET a epoch=e2 good=2 offset=0"], id="restarted"),
        pytest.param(None, 0, ["LOST a 3 4", "RESET a epoch=e2 good=0 offset=0"], id="unknown"),
        pytest.param(Position(b"e1", 1), 0, ["RESET a epoch=e2 good=1 offset=0"], id="rolled back before its cursor"),
        pytest.param(Position(b"e1", 4), 4, ["RESET a epoch=e2 good=2 offset=2", *msg(3, 4)], id="continued"),
    ],
)
def test_subscriber_that_is_behind_continues_after_the_reset(
    previous: Position | None, begin: int, expected: list[str]
) -> None:
    server = FakeServer()
    slow = subscribed(server)
    slow.outlet.room = 3
    deliver(server, 1, 2)
    server.turn()
    deliver(server, 3, 2)
    server.turn()
    reset(server, Position(b"e2", begin), previous, begin, batches(*range(1, begin + 1)))
    slow.outlet.drain()
    server.turn()
    assert [line.removesuffix(" x") for line in slow.received()] == [*msg(1, 2), *expected]


def test_every_new_epoch_is_reported_to_a_subscriber_that_is_behind() -> None:
    server = FakeServer()
    slow = subscribed(server)
    slow.outlet.room = 0
    deliver(server, 1)
    server.turn()
    for number in range(2, MAX_RESETS + 4):
        reset(server, Position(b"e%d" % number, 1), Position(b"e%d" % (number - 1), 1), tail=batches(1))
    slow.outlet.drain()
    server.turn()
    received = slow.received()
    assert received[0] == "MSG a 1 p x" and received[-1] == "MSG a 1 p x"
    assert received[1] == "RESET a epoch=e4 good=0 offset=0"  # nothing is known of e1, the epoch of the subscriber
    assert [line.split(" ")[2] for line in received if line.startswith("RESET")] == [
        f"epoch=e{number}" for number in range(4, MAX_RESETS + 4)
    ]


def test_reset_follows_the_events_and_presence_changes_before_it() -> None:
    server = FakeServer()
    watcher = subscribed(server, "presence=on")
    deliver(server, 1)
    server.line_client().send("SUB a")
    reset(server, Position(b"e2", 0), Position(b"e1", 1))
    assert watcher.received() == ["MSG a 1 p x", "JOIN a p2 p2", "RESET a epoch=e2 good=1 offset=0"]


def test_subscribing_again_replaces_the_report_of_the_epoch() -> None:
    server = FakeServer()
    subscriber = subscribed(server)
    server.broker.reset(b"a", ChannelState(Position(b"e2", 2), batches(1, 2), previous=Position(b"e1", 0)))
    subscriber.send("SUB a")
    server.turn()
    deliver(server, 3, epoch=b"e2")
    server.turn()
    assert received_heads(subscriber) == ["OK a offset=2 epoch=e2", *msg(3)]


def test_subscription_can_end_before_it_is_told() -> None:
    server = FakeServer()
    subscriber = subscribed(server)
    server.broker.reset(b"a", ChannelState(Position(b"e2", 0)))
    subscriber.send("UNSUB a", "SUB a")
    server.turn()
    assert subscriber.received() == ["OK a", "OK a offset=0 epoch=e1"]


def test_reset_of_a_channel_that_is_not_open_is_ignored() -> None:
    server = FakeServer()
    reset(server, Position(b"e2", 0))
    assert not server.broker.channels


def test_channel_that_had_only_history_is_closed_after_its_reset() -> None:
    server = FakeServer()
    deliver(server, 1)
    server.turn()
    reset(server, Position(b"e2", 0))
    server.broker.expire_histories()
    assert not server.broker.channels and server.broker.histories.size == 0


def test_tail_of_an_opened_channel_is_its_history_and_as_old_as_its_times() -> None:
    server = FakeServer(history_age=60)
    subscribed(server)
    now = int(server.wall * 1000)
    tail = [*batches(5, time=now - 61_000), *batches(6, time=now - 30_000), *batches(7, time=now + 5_000)]
    reset(server, Position(b"e2", 7), tail=tail)
    history = server.broker.channels[b"a"].history
    assert (history.first, history.end, history.dropped_time) == (6, 8, now - 61_000)
    server.now += 31
    server.broker.expire_histories()
    assert history.first == 7


def test_reply_with_old_history_reports_unsent_events_after_an_epoch_change() -> None:
    server = FakeServer()
    deliver(server, 1, 4, size=60_000)
    server.turn()
    subscriber = server.line_client()
    subscriber.received()
    subscriber.outlet.room = 0
    subscriber.send("HIST a")
    reset(server, Position(b"e2", 0))
    server.turn()
    subscriber.outlet.drain()
    server.turn()
    *events, lost, counted = received_heads(subscriber)
    assert events == msg(*range(1, len(events) + 1)) and 0 < len(events) < 4
    assert (lost, counted) == (f"LOST a {len(events) + 1} 4", f"OK {len(events)}")


# Recovery over a new epoch.


@pytest.mark.parametrize(
    ("begin", "since", "expected"),
    [
        pytest.param(3, 2, ["OK a offset=4 epoch=e2 recovered=yes since=2", *msg(3, 4)], id="continued"),
        pytest.param(3, 3, ["OK a offset=4 epoch=e2 recovered=yes since=3", *msg(4)], id="continued, all of it"),
        pytest.param(3, 4, ["OK a offset=4 epoch=e2 recovered=no"], id="continued, rolled back"),
        pytest.param(
            0, 3, ["OK a offset=4 epoch=e2 recovered=yes since=0", *msg(1, 2, 3, 4)], id="restarted, all of it"
        ),
        pytest.param(0, 2, ["OK a offset=4 epoch=e2 recovered=no"], id="restarted, a part of it"),
        pytest.param(0, 4, ["OK a offset=4 epoch=e2 recovered=no"], id="restarted, rolled back"),
    ],
)
def test_recovers_a_position_of_the_former_epoch(begin: int, since: int, expected: list[str]) -> None:
    server = FakeServer()
    subscribed(server)
    reset(server, Position(b"e2", 4), Position(b"e1", 3), begin, batches(1, 2, 3, 4))
    client = server.line_client()
    client.received()
    client.send(f"SUB a since={since} epoch=e1")
    server.turn()
    assert [line.removesuffix(" x") for line in client.received()] == expected
