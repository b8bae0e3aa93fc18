"""What the broker does with deliveries that do not follow each other: a backplane may fail in any way."""

import pytest

from tests.event_streams import Stream
from twistedsock.errors import CloseReason
from twistedsock.pubsub.values import Batch, Lost, Payloads
from twistedsock.session.session import SessionState
from twistedsock.testing import FakeServer, LineClient


def deliver(server: FakeServer, first: int, count: int = 1, epoch: bytes = b"e1", size: int = 1) -> None:
    payloads = [b"x" * size] * count
    content = Payloads(payloads, size * count)
    server.broker.deliver(b"a", epoch, Batch(first, first + count, b"p", b"p", b"message", content))


def subscribed(server: FakeServer, options: str = "") -> LineClient:
    peer = server.line_client()
    peer.send(f"SUB a {options}".rstrip())
    server.turn()
    peer.received()
    return peer


def told(peer: LineClient) -> list[str]:
    """Without payloads."""
    return [" ".join(line.split(" ")[:4]) for line in peer.received()]


def reported(server: FakeServer) -> list[tuple[bytes, Lost | None]]:
    breaks: list[tuple[bytes, Lost | None]] = []
    server.broker.report_gap = lambda channel, lost: breaks.append((channel, lost))
    return breaks


def msg(*offsets: int) -> list[str]:
    return [f"MSG a {offset} p" for offset in offsets]


def test_a_batch_that_was_delivered_before_is_ignored() -> None:
    server = FakeServer()
    peer, breaks = subscribed(server), reported(server)
    deliver(server, 1, 3)
    deliver(server, 1, 3)
    server.turn()
    deliver(server, 2)
    server.turn()
    deliver(server, 4)
    server.turn()
    assert told(peer) == msg(1, 2, 3, 4) and breaks == []
    assert server.context.stats.published == 4


def test_of_a_batch_that_was_delivered_in_part_the_rest_is_new() -> None:
    server = FakeServer()
    peer, breaks = subscribed(server), reported(server)
    deliver(server, 1, 3)
    deliver(server, 2, 4)
    server.turn()
    assert told(peer) == msg(1, 2, 3, 4, 5) and breaks == []


def test_a_gap_is_reported_once_and_to_each_subscriber_in_its_place() -> None:
    server = FakeServer()
    caught_up, quiet, slow = subscribed(server), subscribed(server, "echo=off"), subscribed(server)
    breaks = reported(server)
    slow.outlet.room = 5
    deliver(server, 1, 2)
    deliver(server, 5, 2)
    server.turn()
    deliver(server, 7)
    server.turn()
    assert breaks == [(b"a", Lost(3, 4))]
    expected = [*msg(1, 2), "LOST a 3 4", *msg(5, 6, 7)]
    assert told(caught_up) == told(quiet) == expected
    slow.outlet.drain()
    server.turn()
    assert told(slow) == expected
    assert server.context.stats.lost == 6


def test_the_id_of_a_stream_does_not_run_ahead_of_a_gap_that_it_has_not_come_to() -> None:
    server = FakeServer()
    stream, publisher = Stream(server, ["a", "b"]), server.line_client()
    deliver(server, 1, 2)
    server.turn()
    stream.received()
    stream.outlet.room = 0
    for act in (lambda: publisher.send("PUB b x"), lambda: publisher.send("PUB b y"), lambda: deliver(server, 3)):
        act()
        server.turn()
    deliver(server, 6)
    server.turn()
    stream.outlet.drain()
    server.turn()
    assert [(event.kind, event.message["channel"], event.id) for event in stream.received()] == [
        ("message", "b", "e1:2,e2:1"),
        ("message", "b", "e1:2,e2:2"),
        ("lost", "a", "e1:2,e2:2"),
        ("message", "a", "e1:6,e2:2"),
    ]


def test_a_slow_reader_that_has_not_come_to_a_gap_loses_what_the_log_gave_up_for_it() -> None:
    server = FakeServer()
    slow = subscribed(server)
    slow.outlet.room = 5
    for offset in (1, 2, 3):
        deliver(server, offset)
        server.turn()
    deliver(server, 6)
    server.turn()
    slow.outlet.drain()
    server.turn()
    assert told(slow) == [*msg(1), "LOST a 2 5", *msg(6)]


def test_history_does_not_reach_over_a_gap_and_says_so() -> None:
    server = FakeServer()
    peer = subscribed(server)
    deliver(server, 1, 4, size=60_000)
    server.turn()
    subscriber = server.line_client()
    subscriber.received()
    subscriber.outlet.room = 0
    subscriber.send("HIST a")
    deliver(server, 7)
    server.turn()
    subscriber.outlet.drain()
    server.turn()
    lines = told(subscriber)
    (lost,) = [line for line in lines if line.startswith("LOST")]
    assert lines == [*msg(*range(1, lines.index(lost) + 1)), lost, f"OK {lines.index(lost)}"]
    assert lost == f"LOST a {lines.index(lost) + 1} 4"
    peer.received()
    peer.send("HIST a since=2")
    assert told(peer) == ["LOST a 3 6", *msg(7), "OK 1"]
    peer.send("SUB a since=4 epoch=e1")
    server.turn()
    assert told(peer) == ["OK a offset=7 epoch=e1", "LOST a 5 6", *msg(7)]
    assert server.broker.histories.size == server.broker.channels[b"a"].history.size


def test_another_epoch_ends_the_sessions_of_the_readers_who_come_back_and_are_told() -> None:
    server = FakeServer()
    caught_up, slow, other = subscribed(server), subscribed(server), server.line_client()
    breaks = reported(server)
    slow.outlet.room = 5
    deliver(server, 1, 3)
    deliver(server, 1, 2, b"e2")
    deliver(server, 3, 1, b"e2")
    server.turn()
    assert breaks == [(b"a", None)]
    assert told(caught_up)[:4] == [*msg(1, 2, 3), "NOTICE the events of"]
    assert (caught_up.close_reason, slow.close_reason, other.close_reason) == (
        CloseReason.TRY_AGAIN,
        CloseReason.TRY_AGAIN,
        None,
    )
    slow.outlet.drain()
    assert "MSG a 1 p" in told(slow)[0] and slow.session.state is SessionState.CLOSING
    other.received()
    other.send("SUB a since=3 epoch=e1")
    server.turn()
    assert told(other) == ["OK a offset=3 epoch=e2"]
    other.send("SUB a since=1 epoch=e2")
    server.turn()
    assert told(other) == ["OK a offset=3 epoch=e2", *msg(2, 3)]
    assert server.broker.histories.size == server.broker.channels[b"a"].history.size


def test_a_history_of_the_former_epoch_ends_with_what_it_could_not_send() -> None:
    server = FakeServer()
    deliver(server, 1, 4, size=60_000)
    server.turn()
    subscriber = server.line_client()
    subscriber.received()
    subscriber.outlet.room = 0
    subscriber.send("HIST a")
    deliver(server, 1, 4, b"e2", size=60_000)
    server.turn()
    subscriber.outlet.drain()
    server.turn()
    *events, lost, counted = told(subscriber)
    assert events == msg(*range(1, len(events) + 1)) and 0 < len(events) < 4
    assert (lost, counted) == (f"LOST a {len(events) + 1} 4", f"OK {len(events)}")


def test_many_readers_of_a_channel_with_another_epoch_are_dismissed_in_time_slices() -> None:
    server = FakeServer()
    peers = [subscribed(server) for _ in range(50)]
    deliver(server, 1)
    deliver(server, 1, 1, b"e2")
    clock = iter(range(10_000))
    server.clock = lambda: float(next(clock))  # each look at the clock is a second later
    ended: list[int] = []
    while len(server.turns):
        server.turns.step()
        ended.append(sum(peer.close_reason is not None for peer in peers))
    assert ended[-1] == 50 and 1 in ended and 25 in ended


@pytest.mark.parametrize("line, reply", [("SUB a", "OK a offset=2 epoch=e2"), ("HIST a last=0", "OK 0")])
def test_a_client_of_a_former_epoch_gets_nothing_of_the_new_one_before_it_knows_it(line: str, reply: str) -> None:
    server = FakeServer()
    peer = subscribed(server)
    deliver(server, 1)
    deliver(server, 1, 2, b"e2")
    peer.send(line)
    server.turn()
    assert told(peer)[:2] == [*msg(1), reply]


def test_a_client_of_a_former_epoch_gets_no_event_that_waits_when_it_is_dismissed() -> None:
    server = FakeServer()
    peer = subscribed(server)
    deliver(server, 1)
    server.broker.scheduler.defer(lambda: deliver(server, 2, 1, b"e2"))  # in the turn in which it is dismissed
    deliver(server, 1, 1, b"e2")
    server.turn()
    assert (
        not any(line.startswith("MSG a 2") for line in peer.received()) and peer.close_reason is CloseReason.TRY_AGAIN
    )


def test_an_error_in_one_session_keeps_no_other_of_a_former_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    peers = [subscribed(server) for _ in range(3)]
    deliver(server, 1)
    deliver(server, 1, 1, b"e2")
    monkeypatch.setattr(peers[2].outlet, "write", lambda data: 1 / 0)
    with pytest.raises(ExceptionGroup, match="former epoch"):
        server.turn()
    assert [peer.close_reason for peer in peers[:2]] == [CloseReason.TRY_AGAIN] * 2


def test_a_client_that_has_subscribed_to_the_new_epoch_stays() -> None:
    server = FakeServer()
    peer = subscribed(server)
    deliver(server, 1)
    deliver(server, 1, 2, b"e2")
    peer.send("SUB a since=1 epoch=e1")
    server.turn()
    deliver(server, 3, 1, b"e2")
    server.turn()
    assert told(peer) == [*msg(1), "OK a offset=2 epoch=e2", *msg(3)] and peer.close_reason is None


def test_a_reader_that_has_gone_before_its_turn_is_no_trouble() -> None:
    server = FakeServer()
    left, unsubscribed = subscribed(server), subscribed(server, "presence=on")
    deliver(server, 1)
    deliver(server, 1, 1, b"e2")
    left.disconnect()
    unsubscribed.send("UNSUB a")
    server.turn()
    assert left.close_reason is None and unsubscribed.close_reason is None
    assert not server.broker.channels[b"a"].subscriptions


def test_a_reader_that_subscribes_again_while_others_are_dismissed_stays() -> None:
    server = FakeServer()
    peers = [subscribed(server) for _ in range(5)]
    deliver(server, 1)
    deliver(server, 1, 1, b"e2")
    clock = iter(range(10_000))
    server.clock = lambda: float(next(clock))  # each look at the clock is a second later
    while peers[0].close_reason is None:
        server.turns.step()
    peers[4].send("SUB a")
    server.turn()
    assert [peer.close_reason for peer in peers] == [CloseReason.TRY_AGAIN] * 4 + [None]
