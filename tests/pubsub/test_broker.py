"""Channels, deliveries, gaps and epochs."""

from typing import Any

import pytest

from tests.event_streams import Stream
from tests.pubsub.helpers import deliver, msg, received_heads, reported, subscribed
from twistedsock import errors
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import UNAVAILABLE
from twistedsock.limits.settings import CHUNK_BYTES, RESERVED_EVENTS
from twistedsock.pubsub.broker import IDLE_FLUSH_AFTER_SECONDS
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    BATCH_COST,
    EVENT_COST,
    Batch,
    Lost,
    Member,
    Payloads,
    Position,
    PresenceChange,
    Publication,
)
from twistedsock.testing import FakeServer

NOBODY = Client(b"p0")
ALONE = BATCH_COST + EVENT_COST
"""What an event costs that was published by itself, beyond its payload."""


def publish(server: FakeServer, channel: str, payload: bytes = b"x", name: bytes = b"message") -> Any:
    return server.broker.publish(NOBODY, Publication(channel.encode(), Payloads((payload,), len(payload)), name))


def names(server: FakeServer) -> str:
    return " ".join(sorted(name.decode() for name in server.broker.channels))


def logged(server: FakeServer) -> dict[str, int]:
    return {name.decode(): len(channel.history) for name, channel in server.broker.channels.items()}


def test_publish_returns_the_offset() -> None:
    server = FakeServer()
    assert [publish(server, "a"), publish(server, "b"), publish(server, "a")] == [1, 1, 2]


def test_finds_the_time_of_an_event_while_its_channel_is_open() -> None:
    server = FakeServer(history_events=0)
    publish(server, "a")
    assert server.broker.time_of(b"a", 1) == 1_800_000_000_000
    server.turn()
    assert server.broker.time_of(b"a", 1) is None


@pytest.mark.parametrize("channel", ["", "a b", "a*", "x" * 201])
def test_rejects_invalid_channel_name_in_all_calls(channel: str) -> None:
    server = FakeServer()
    assert publish(server, channel) == errors.BAD_CHANNEL
    assert server.broker.channels.open(channel.encode()) == errors.BAD_CHANNEL
    assert server.broker.members(channel.encode()) == errors.BAD_CHANNEL
    assert server.broker.local_members(channel.encode()) == []


def test_rejects_invalid_event_name() -> None:
    server = FakeServer()
    assert publish(server, "a", name=b"") == errors.BAD_EVENT_NAME
    assert names(server) == ""


def test_channel_exists_while_its_history_has_events() -> None:
    server = FakeServer(history_age=10)
    publish(server, "a")
    server.turn()
    assert names(server) == "a"
    server.now += 11
    server.broker.expire_histories()
    assert names(server) == "" and server.broker.histories.size == 0


def test_channel_without_history_is_closed_at_the_end_of_the_turn() -> None:
    server = FakeServer(history_events=0)
    publish(server, "a")
    assert names(server) == "a"
    server.turn()
    assert names(server) == ""
    assert publish(server, "a") == 2


def test_channel_is_closed_with_its_last_subscription() -> None:
    server = FakeServer()
    first, second = server.line_client(), server.line_client()
    first.send("SUB a"), second.send("SUB a")
    first.disconnect()
    assert names(server) == "a"
    second.send("UNSUB a")
    assert names(server) == ""


def test_channel_with_subscription_stays_open_without_events() -> None:
    server = FakeServer(history_age=10)
    peer = server.line_client()
    peer.send("SUB a", "PUB a x")
    server.turn()
    server.now += 11
    server.broker.expire_histories()
    assert logged(server) == {"a": 0}


def test_reading_history_leaves_no_channel_open() -> None:
    server = FakeServer()
    peer = server.line_client()
    peer.send("HIST a", "WHO b")
    assert names(server) == ""


def test_rejects_channels_over_the_limit() -> None:
    server = FakeServer(max_channels=2)
    publish(server, "a")
    peer = server.line_client()
    peer.send("SUB b", "SUB c", "PUB c x", "HIST c", "PUB a x", "SUB a")
    assert [line.split()[:2] for line in peer.received()[2:5]] == [["ERR", "limit"]] * 3
    assert names(server) == "a b"


def test_counts_channels_that_are_being_opened() -> None:
    server = FakeServer(late=True, max_channels=2)
    peers = [server.line_client() for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.send(f"SUB c{number}")
    server.backplane.release()
    assert [peer.received()[-1].split()[0] for peer in peers] == ["OK", "OK", "ERR"]


def test_opens_a_channel_once_for_all_waiting_callers() -> None:
    server = FakeServer(late=True)
    opening = server.broker.channels.open(b"a")
    assert isinstance(opening, Future) and server.broker.channels.open(b"a") is opening
    assert len(server.backplane) == 1
    outcomes: list[object] = []
    opening.then(outcomes.append)
    server.backplane.release()
    assert outcomes == [server.broker.channels[b"a"]] and server.broker.channels.open(b"a") is outcomes[0]


def test_failed_open_returns_the_error_and_can_be_repeated() -> None:
    server = FakeServer(late=True)
    outcomes: list[object] = []
    for failing in (1, 0):
        opening = server.broker.channels.open(b"a")
        assert isinstance(opening, Future)
        opening.then(outcomes.append)
        server.backplane.failing = failing
        server.backplane.release()
    assert outcomes[0] == UNAVAILABLE and isinstance(outcomes[1], Channel)


def test_accepts_an_event_before_the_answer_to_open() -> None:
    server = FakeServer(late=True)
    opening = server.broker.channels.open(b"a")
    assert isinstance(opening, Future)
    server.broker.deliver(b"a", b"e1", Batch(1, 2, b"p", b"p", b"message", Payloads((b"x",), 1)))
    made = server.broker.channels[b"a"]
    server.backplane.release()
    outcomes: list[object] = []
    opening.then(outcomes.append)
    assert outcomes == [made] and server.broker.channels[b"a"] is made


def test_delivery_opens_a_channel_at_its_offset() -> None:
    server = FakeServer()
    server.broker.deliver(b"a", b"e7", Batch(5, 7, b"p", b"p", b"message", Payloads((b"x", b"y"), 2)))
    channel = server.broker.channels[b"a"]
    assert channel.position == Position(b"e7", 6)
    server.turn()
    assert (channel.history.first, channel.history.end) == (5, 7)


def test_requests_one_turn_for_many_publications() -> None:
    server = FakeServer()
    for number in range(3):
        publish(server, f"c{number}")
        publish(server, f"c{number}")
    assert len(server.turns) == 1
    server.turn()
    assert logged(server) == {"c0": 2, "c1": 2, "c2": 2} and len(server.turns) == 0


def test_a_chunk_of_events_needs_a_flush() -> None:
    server = FakeServer()
    publish(server, "a", b"x" * (CHUNK_BYTES // 2 - 50))
    assert not server.broker.needs_flush
    publish(server, "b", b"x" * (CHUNK_BYTES // 2))
    assert server.broker.needs_flush
    server.broker.flush()
    assert not server.broker.needs_flush and logged(server) == {"a": 1, "b": 1}
    publish(server, "a")
    assert not server.broker.needs_flush


def test_least_recently_written_history_is_dropped_over_the_total_limit() -> None:
    server = FakeServer(history_total_bytes=4 * (ALONE + 1))
    for channel in ("a", "b", "a", "c"):
        publish(server, channel)
        server.turn()
    publish(server, "c")
    server.turn()
    assert logged(server) == {"a": 2, "c": 2}  # b had been silent for longest
    publish(server, "c")
    server.turn()
    assert logged(server) == {"a": 1, "c": 3}
    assert server.broker.histories.size == 4 * (ALONE + 1)


def test_a_single_history_over_the_total_limit_is_shortened() -> None:
    server = FakeServer(history_total_bytes=2 * (ALONE + 1))
    for _ in range(3):
        publish(server, "a")
    server.turn()
    assert logged(server) == {"a": 2}


def test_one_large_event_can_drop_many_histories() -> None:
    server = FakeServer(history_total_bytes=4 * (ALONE + 1))
    for channel in ("a", "b", "c"):
        publish(server, channel)
        server.turn()
    publish(server, "d", b"x" * (2 * ALONE))
    server.turn()
    assert logged(server) == {"c": 1, "d": 1}


def test_subscribing_keeps_a_channel_whose_history_is_dropped() -> None:
    server = FakeServer(history_total_bytes=0)
    peer = server.line_client()
    peer.send("PUB a x", "SUB a", "PUB a y")
    server.turn()
    assert peer.received()[1:] == ["OK 1", "OK a offset=1 epoch=e1", "OK 2", "MSG a 2 p1 y"]


@pytest.mark.parametrize(
    "bound", [{"history_events": 0}, {"history_bytes": 0}, {"history_age": 0}, {"history_total_bytes": 0}]
)
def test_delivers_events_without_history(bound: dict[str, int]) -> None:
    server = FakeServer(**bound)
    subscriber, writer = server.line_client(), server.line_client()
    subscriber.send("SUB a"), subscriber.received()
    writer.send("PUB a x", "PUB a y", "HIST a")
    server.turn()
    assert subscriber.received() == ["MSG a 1 p2 x", "MSG a 2 p2 y"]
    assert writer.received()[-1] == "OK 0"
    assert server.broker.histories.size == 0


def test_total_history_size_follows_every_change() -> None:
    server = FakeServer(history_age=10, history_events=3)
    peer = server.line_client()
    for _ in range(5):
        publish(server, "a")
    server.turn()
    assert server.broker.histories.size == 3 * (ALONE + 1)
    server.now += 11
    peer.send("HIST a")
    assert server.broker.histories.size == 0 and names(server) == ""


def test_subscriber_catches_up_over_several_turns() -> None:
    server = FakeServer()
    peer = server.line_client()
    for _ in range(3):
        publish(server, "a", b"x" * CHUNK_BYTES)
    server.turn()
    peer.send("SUB a last=3"), peer.received()
    server.turns.run()
    assert len(peer.received()) == 3 and len(server.turns) == 0


def test_resume_ignores_a_subscriber_that_is_caught_up() -> None:
    server = FakeServer()
    peer = server.line_client()
    server.broker.resume(peer.session.replies.subscriber)
    assert len(server.turns) == 0


def test_removed_subscriber_does_not_catch_up() -> None:
    server = FakeServer()
    peer = server.line_client()
    publish(server, "a")
    peer.send("SUB a last=1"), peer.received()
    peer.disconnect()
    server.turn()
    assert peer.received() == []


def test_keeps_no_presence_changes_without_watchers() -> None:
    server = FakeServer()
    peer = server.line_client()
    peer.send("SUB a")
    assert len(server.turns) == 0
    server.broker.unsubscribe(peer.session.subscriptions.pop(b"a"))
    assert server.broker.local_members(b"a") == []


def test_lists_members_of_all_nodes_and_of_this_one() -> None:
    server = FakeServer()
    server.line_client().send("SUB a")
    assert server.broker.members(b"a") == server.broker.local_members(b"a") == [Member(b"p1", b"p1")]


def test_idle_server_flushes_at_the_end_of_the_input() -> None:
    server = FakeServer()
    subscriber, publisher = server.line_client(), server.line_client()
    subscriber.send("SUB k")
    server.turn()
    subscriber.received_bytes()
    server.now += 2 * IDLE_FLUSH_AFTER_SECONDS
    publisher.send("PUB k x")
    assert bytes(subscriber.outlet.sent).endswith(b"MSG k 1 p2 x\n") and not len(server.turns)
    publisher.send("PUB k y")
    assert bytes(subscriber.outlet.sent).endswith(b"MSG k 1 p2 x\n") and len(server.turns) == 1
    server.turn()
    assert subscriber.received() == ["MSG k 1 p2 x", "MSG k 2 p2 y"]


def test_flush_waits_for_the_turn_while_subscribers_catch_up() -> None:
    """They need the turn anyway."""
    server = FakeServer()
    subscriber, publisher = server.line_client(), server.line_client()
    publisher.send("PUB k x")
    server.turn()
    server.now += 2 * IDLE_FLUSH_AFTER_SECONDS
    subscriber.send("SUB k last=1")
    publisher.send("PUB k y")
    assert len(server.turns) == 1
    server.turn()
    assert subscriber.received()[-2:] == ["MSG k 1 p2 x", "MSG k 2 p2 y"]


def test_exception_in_input_does_not_stop_later_turns() -> None:
    server = FakeServer()
    subscriber, publisher, faulty = server.line_client(), server.line_client(), server.line_client()
    subscriber.send("SUB k")
    server.turn()
    with pytest.raises(TypeError):
        faulty.pipeline.submit(None)  # type: ignore[arg-type]
    publisher.send("PUB k x")
    server.turn()
    assert subscriber.received()[-1] == "MSG k 1 p2 x"


def test_flush_during_input_requests_no_turn() -> None:
    """So much was published that it was flushed at once; nothing waits any more."""
    server = FakeServer()
    subscriber, publisher = server.line_client(), server.line_client()
    subscriber.send("SUB k")
    server.turn()
    publisher.send(*["PUB k " + "x" * 1000] * 100)
    assert bytes(subscriber.outlet.sent).count(b"MSG k ") == 100
    assert bytes(publisher.outlet.sent).count(b"OK ") == 100
    assert not len(server.turns)


def test_notify_once_calls_back_when_events_are_in_the_history() -> None:
    server = FakeServer()
    rung: list[int] = []
    channel = server.broker.channels.open(b"k")
    assert isinstance(channel, Channel)
    channel.notify_once(lambda: rung.append(channel.history.end))
    server.turn()
    assert server.broker.channels and not rung
    publisher = server.line_client()
    publisher.send("PUB k x", "PUB k y")
    server.turn()
    publisher.send("PUB k z")
    server.turn()
    assert rung == [3]


def test_cancel_notify_closes_an_unused_channel() -> None:
    server = FakeServer()
    rung: list[str] = []
    channel = server.broker.channels.open(b"k")
    assert isinstance(channel, Channel)
    rings = [lambda: rung.append("a"), lambda: rung.append("b")]
    for ring in rings:
        channel.notify_once(ring)
    server.broker.channels.cancel_notify(channel, rings[0])
    assert b"k" in server.broker.channels
    server.line_client().send("PUB k x")
    server.turn()
    assert rung == ["b"]
    server.broker.channels.cancel_notify(channel, rings[1])
    quiet = server.broker.channels.open(b"q")
    assert isinstance(quiet, Channel)
    quiet.notify_once(rings[0])
    server.broker.channels.cancel_notify(quiet, rings[0])
    assert b"q" not in server.broker.channels


def test_reserved_channels_have_smaller_histories() -> None:
    server = FakeServer()
    for name in (b"$sys/figures", b"figures"):
        server.broker.publish(Client(b"$sys"), Publication(name, Payloads([b"x"] * 1_000, 1_000), b"figures"))
    server.turn()
    assert len(server.broker.channels[b"$sys/figures"].history) == RESERVED_EVENTS
    assert len(server.broker.channels[b"figures"].history) == 1_000


def test_clears_the_history_of_a_channel() -> None:
    server = FakeServer()
    subscriber = server.line_client()
    subscriber.send("SUB a", "PUB a x", "PUB b y")
    server.turn()
    for name in (b"a", b"b"):
        server.broker.histories.clear(server.broker.channels[name])
    assert server.broker.histories.size == 0
    assert list(server.broker.channels) == [b"a"] and server.broker.channels[b"a"].head == 1


def test_reserved_channels_do_not_count_for_the_limit() -> None:
    server = FakeServer(max_channels=1, max_subscriptions_per_client=5_000)
    peer = server.line_client()
    peer.send(*[f"SUB $sys/{number}" for number in range(999)], "SUB a", "SUB b")
    server.turn()
    refused = "ERR limit too many channels on this server: try again later"
    assert peer.received()[-2:] == ["OK a offset=0 epoch=e1000", refused]
    other = server.line_client()
    other.send("SUB $sys/999", "SUB $sys/1000")
    server.turn()
    assert other.received()[-2:] == ["OK $sys/999 offset=0 epoch=e1001", refused]


def test_ignores_a_repeated_batch() -> None:
    server = FakeServer()
    peer, breaks = subscribed(server), reported(server)
    deliver(server, 1, 3)
    deliver(server, 1, 3)
    server.turn()
    deliver(server, 2)
    server.turn()
    deliver(server, 4)
    server.turn()
    assert received_heads(peer) == msg(1, 2, 3, 4) and breaks == []
    assert server.context.stats.published == 4


def test_delivers_the_new_part_of_a_repeated_batch() -> None:
    server = FakeServer()
    peer, breaks = subscribed(server), reported(server)
    deliver(server, 1, 3)
    deliver(server, 2, 4)
    server.turn()
    assert received_heads(peer) == msg(1, 2, 3, 4, 5) and breaks == []


def test_reports_a_gap_once_to_each_subscription() -> None:
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
    assert received_heads(caught_up) == received_heads(quiet) == expected
    slow.outlet.drain()
    server.turn()
    assert received_heads(slow) == expected
    assert server.context.stats.lost == 6


def test_stream_id_stays_before_a_gap_until_it_is_sent() -> None:
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


def test_slow_subscription_loses_events_dropped_for_a_gap() -> None:
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
    assert received_heads(slow) == [*msg(1), "LOST a 2 5", *msg(6)]


def test_history_ends_before_a_gap_and_reports_it() -> None:
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
    lines = received_heads(subscriber)
    (lost,) = [line for line in lines if line.startswith("LOST")]
    assert lines == [*msg(*range(1, lines.index(lost) + 1)), lost, f"OK {lines.index(lost)}"]
    assert lost == f"LOST a {lines.index(lost) + 1} 4"
    peer.received()
    peer.send("HIST a since=2")
    assert received_heads(peer) == ["LOST a 3 6", *msg(7), "OK 1"]
    peer.send("SUB a since=4 epoch=e1")
    server.turn()
    assert received_heads(peer) == ["OK a offset=7 epoch=e1", "LOST a 5 6", *msg(7)]
    assert server.broker.histories.size == server.broker.channels[b"a"].history.size


class Onlooker:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        self.seen.append(f"{channel.decode()} {epoch.decode()} {batch.first}-{batch.end - 1}")

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        self.seen.append(f"{channel.decode()} +{member.id.decode()} {readers}")

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        self.seen.append(f"{channel.decode()} -{member.id.decode()} {readers}")


def test_observer_sees_events_and_presence_in_order() -> None:
    server, onlooker = FakeServer(), Onlooker()
    server.broker.observers.append(onlooker)
    first, second = server.line_client(), server.json_client()
    first.send("SUB a")
    second.send({"type": "subscribe", "channel": "a"})
    first.send("PUB a x", "PUB a y")
    first.send("UNSUB a")
    second.session.connection_lost()
    server.turn()
    assert onlooker.seen == ["a +p1 1", "a +p2 2", "a e1 1-2", "a -p1 1", "a -p2 0"]


def test_presence_observer_sees_no_events() -> None:
    server, onlooker = FakeServer(), Onlooker()
    server.broker.presence_observers.append(onlooker)
    peer = server.line_client()
    peer.send("SUB a", "PUB a x", "UNSUB a")
    assert onlooker.seen == ["a +p1 1", "a -p1 0"]


def test_presence_changes_of_one_channel_precede_its_events_and_not_those_of_another() -> None:
    server = FakeServer()
    watcher, member, publisher = server.line_client(), server.line_client(), server.line_client()
    watcher.send("SUB a presence=on", "SUB b")
    server.turn()
    watcher.received()
    member.send("SUB a")
    publisher.send("PUB b x", "PUB a x")
    server.turn()
    received = watcher.received()
    assert sorted(received) == ["JOIN a p2 p2", "MSG a 1 p3 x", "MSG b 1 p3 x"]
    assert received.index("JOIN a p2 p2") < received.index("MSG a 1 p3 x")


def test_closing_a_closed_channel_does_not_close_its_successor() -> None:
    server = FakeServer()
    client = server.line_client()
    client.send("SUB a")
    closed = server.broker.channels[b"a"]
    client.send("UNSUB a", "SUB a")
    server.broker.channels.close_if_unused(closed)
    assert server.broker.channels[b"a"] is not closed


class CountingBackplane(MemoryBackplane):
    """One of several nodes that are connected by a backplane that counts members."""

    counts_members = True
    node_name = b"1"


def test_backplane_that_counts_members_chooses_the_node_that_notifies_observers() -> None:
    counting = CountingBackplane(lambda: b"e1", lambda: 5.0)
    server, onlooker, local = FakeServer(backplane=counting), Onlooker(), Onlooker()
    server.broker.observers.append(onlooker)
    server.broker.presence_observers.append(local)
    peer = server.line_client()
    peer.send("SUB a", "UNSUB a", "SUB $sys/figures")
    assert onlooker.seen == ["$sys/figures +1-p1 1"], "those of the server itself are local"
    assert local.seen == ["a +1-p1 1", "a -1-p1 0", "$sys/figures +1-p1 1"]
    other = Member(b"2-p1", b"bob")
    server.broker.members_changed(b"b", PresenceChange(other, True), 3)
    server.broker.members_changed(b"b", PresenceChange(other, False), 2)
    assert onlooker.seen[1:] == ["b +2-p1 3", "b -2-p1 2"]


def test_events_of_other_nodes_are_neither_counted_nor_observed() -> None:
    server, onlooker = FakeServer(backplane=CountingBackplane(lambda: b"e1", lambda: 5.0)), Onlooker()
    server.broker.observers.append(onlooker)
    peer = server.line_client()
    peer.send("SUB a", "PUB a x")
    deliver(server, 2)
    server.turn()
    assert onlooker.seen == ["a e1 1-1"] and server.broker.stats.published == 1
    assert peer.received()[-2:] == ["MSG a 1 1-p1 x", "MSG a 2 p x"]
