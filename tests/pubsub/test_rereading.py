"""Batches that a node reads again, answers that wait for an epoch, and events that only the backplane has."""

from collections.abc import Sequence

import pytest

from tests.fakes import Ticking
from tests.pubsub.helpers import (
    batches,
    channel,
    deliver,
    msg,
    received,
    received_heads,
    reset,
    subscribed,
    subscriber,
)
from tests.pubsub.helpers import subscribe as subscribe_to
from twistedsock.codecs.line_encoder import LineEncoder
from twistedsock.errors import UNAVAILABLE
from twistedsock.limits.settings import CHUNK_BYTES, TIME_SLICE_SECONDS, Limits
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.history import History
from twistedsock.pubsub.rereading import MAX_HELD_BYTES, MAX_READS, OlderEvents
from twistedsock.pubsub.scheduler import Scheduler, do_nothing
from twistedsock.pubsub.subscription import Subscriber
from twistedsock.pubsub.values import Batch, ChannelState, Payloads, Position, Publication
from twistedsock.session.commands import Subscribe, resume_offset
from twistedsock.testing import FakeServer, LineClient

# Holes, which are read again.


def publish(server: FakeServer, *payloads: bytes, skipped: bool = False) -> None:
    """Publish events one by one. The backplane does not deliver those that are ``skipped``."""
    server.backplane.skipping = len(payloads) if skipped else 0
    publisher = server.line_client()
    for payload in payloads:
        publication = Publication(b"a", Payloads((payload,), len(payload)))
        server.backplane.publish(publisher.session.client, publication)
    while len(server.backplane):
        server.backplane.release(1)
    server.backplane.skipping = 0


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(late=True, keeps_history=True)


def subscribe(server: FakeServer, options: str = "") -> LineClient:
    client = server.line_client()
    client.send(f"SUB a {options}".rstrip())
    settle(server)
    return client


def settle(server: FakeServer) -> None:
    while len(server.backplane) or len(server.turns):
        server.backplane.release()
        server.turn()


def payloads(client: LineClient) -> str:
    return " ".join(line.rpartition(" ")[2] for line in client.received() if line.startswith("MSG"))


def test_skipped_events_are_read_again(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, b"one")
    publish(server, b"two", b"three", skipped=True)
    publish(server, b"four", b"five")
    settle(server)
    assert payloads(client) == "one two three four five"
    assert server.context.stats.lost == 0


def test_events_that_arrive_late_after_all_are_delivered_once(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 1, epoch=b"e1")
    deliver(server, 3, epoch=b"e1")
    deliver(server, 2, epoch=b"e1")
    settle(server)
    assert received_heads(client)[2:] == msg(1, 2, 3)


def test_what_cannot_be_read_again_is_lost(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 1)
    deliver(server, 4)
    deliver(server, 7)  # a second hole, while the first one is being read
    settle(server)
    assert received_heads(client)[2:] == [*msg(1), "LOST a 2 3", *msg(4), "LOST a 5 6", *msg(7)]


def test_failed_read_is_a_loss(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, b"one", skipped=True)
    server.backplane.skipping = 0
    deliver(server, 2)
    server.backplane.failing = 1
    settle(server)
    assert received_heads(client)[2:] == ["LOST a 1 1", *msg(2)]


def test_large_hole_is_read_in_parts(server: FakeServer) -> None:
    client = subscribe(server)
    large = b"x" * (CHUNK_BYTES // 2)
    publish(server, *[large] * 9, skipped=True)
    publish(server, b"end")
    settle(server)
    assert [line.split(" ")[2] for line in client.received()[2:]] == [str(offset) for offset in range(1, 11)]


def test_held_batches_have_a_limit(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not held is read afterwards."""
    monkeypatch.setattr("twistedsock.pubsub.rereading.MAX_HELD_BYTES", 1_000)
    assert MAX_HELD_BYTES > 1_000
    client = subscribe(server)
    publish(server, b"one", skipped=True)
    for number in range(20):
        publish_without_answers(server, b"%d" % number)
    settle(server)
    assert payloads(client) == " ".join(["one", *map(str, range(20))])


def publish_without_answers(server: FakeServer, payload: bytes) -> None:
    """The newest request is answered first, so that a read that is under way stays without an answer."""
    publication = Publication(b"a", Payloads((payload,), len(payload)))
    server.backplane.publish(server.line_client().session.client, publication)
    server.backplane.release(1, backwards=True)


def test_repair_ends_with_its_channel(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 2)
    client.send("UNSUB a")
    server.turn()
    assert not server.broker.channels
    settle(server)
    assert not server.broker.channels


def test_repair_of_a_large_hole_ends_with_its_channel(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, *[b"x" * CHUNK_BYTES] * 3, skipped=True)
    publish(server, b"end")
    server.backplane.release(1)  # the first part
    client.send("UNSUB a")
    server.broker.histories.clear(server.broker.channels[b"a"])
    settle(server)
    assert b"a" not in server.broker.channels


def test_opening_again_ends_with_the_channel(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 1, epoch=b"e2")
    client.send("UNSUB a")
    settle(server)
    assert not server.broker.channels and client.received()[-1] == "OK a"


def test_waiters_are_called_at_a_new_epoch() -> None:
    """So that long polls return its name."""
    server, calls = FakeServer(), list[bytes]()
    here = server.broker.channels.open(b"a")
    assert isinstance(here, Channel)
    here.notify_once(lambda: calls.append(here.epoch))
    reset(server, Position(b"e2", 0))
    assert calls == [b"e2"]


def test_reset_precedes_the_reply_with_an_offset_of_the_new_epoch(server: FakeServer) -> None:
    client = subscribe(server)
    server.restart_backplane()
    client.send("PUB a x")
    server.backplane.announce(b"a")
    server.backplane.release()
    settle(server)
    assert client.received()[2:] == ["RESET a epoch=e2 good=0 offset=0", "OK 1", "MSG a 1 p1 x"]


def test_event_of_a_new_epoch_opens_the_channel_again(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, b"one")
    server.restart_backplane()
    publish(server, b"two", b"three")
    settle(server)
    assert [line.rpartition(" MSG")[0] or line for line in client.received()[2:]] == [
        "MSG a 1 p2 one",
        "RESET a epoch=e2 good=0 offset=0",
        "MSG a 1 p3 two",
        "MSG a 2 p3 three",
    ]


def test_time_of_an_event_that_is_held_is_not_that_of_those_before(server: FakeServer) -> None:
    """The second event of the new epoch arrives first, and the backplane knows only its time."""
    subscribe(server)
    publish(server, b"one")
    server.restart_backplane()
    publish(server, b"two", skipped=True)
    server.wall += 3_600
    publish(server, b"three")
    settle(server)
    history = server.broker.channels[b"a"].history
    assert (history.first, history.dropped_time) == (2, 0)


def test_late_event_of_the_former_epoch_is_ignored(server: FakeServer) -> None:
    client = subscribe(server)
    server.restart_backplane()
    server.backplane.open(b"a")
    settle(server)
    server.backplane.announce(b"a", Position(b"e1", 0))
    settle(server)
    deliver(server, 1, epoch=b"e1")
    settle(server)
    assert client.received()[2:] == ["RESET a epoch=e2 good=0 offset=0"]


def test_new_epoch_that_cannot_be_opened_is_tried_again_at_the_next_event(server: FakeServer) -> None:
    client = subscribe(server)
    server.restart_backplane()
    server.broker.channels.open(b"b")  # the requests are answered in their order
    server.backplane.release()
    publication = Publication(b"a", Payloads((b"one",), 3))
    server.backplane.publish(client.session.client, publication)
    server.backplane.release()
    server.backplane.failing = 1
    settle(server)
    publish(server, b"two")
    settle(server)
    assert payloads(client) == "one two"


def test_newer_events_of_the_same_epoch_are_delivered(server: FakeServer) -> None:
    """After a connection of the backplane was interrupted."""
    client = subscribe(server)
    publish(server, b"one", b"two", b"three", skipped=True)
    state = ChannelState(Position(b"e1", 3), batches(1))
    server.broker.reset(b"a", state)
    server.broker.reset(b"a", state)
    settle(server)
    assert payloads(client) == "x two three"


def test_newer_events_that_cannot_be_read_are_lost() -> None:
    server = FakeServer()
    client = subscribed(server)
    server.broker.reset(b"a", ChannelState(Position(b"e1", 3), time=5))
    server.turn()
    assert client.received() == ["LOST a 1 3"]
    assert server.broker.channels[b"a"].history.dropped_time == 5


def test_newer_events_that_the_backplane_fails_to_read_are_lost(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, b"one", skipped=True)
    server.broker.reset(b"a", ChannelState(Position(b"e1", 1)))
    server.backplane.failing = 1
    settle(server)
    assert client.received()[2:] == ["LOST a 1 1"]


def test_event_of_a_new_epoch_that_arrives_while_a_hole_is_read_opens_the_channel_again(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 2)
    server.restart_backplane()
    publish_without_answers(server, b"one")
    settle(server)
    assert received_heads(client)[2:] == ["LOST a 1 1", "MSG a 2 p", "RESET a epoch=e2 good=0", "MSG a 1 p2"]


def test_event_of_a_new_epoch_need_not_be_held(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedsock.pubsub.rereading.MAX_HELD_BYTES", 1)
    client = subscribe(server)
    deliver(server, 2)
    server.restart_backplane()
    publish_without_answers(server, b"one")
    settle(server)
    assert received_heads(client)[2:] == ["RESET a epoch=e2 good=0", "MSG a 1 p2"]


def test_events_of_a_new_epoch_that_were_not_held_are_read(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They arrived after the backplane had looked at the newest one, and before its answer."""
    monkeypatch.setattr("twistedsock.pubsub.rereading.MAX_HELD_BYTES", 1)
    client, opening = subscribe(server), Future[ChannelState]()
    server.restart_backplane()
    monkeypatch.setattr(server.backplane, "open", lambda channel: opening)
    publish(server, b"one", b"two", b"three")
    opening.settle(ChannelState(Position(b"e2", 1), batches(1)))
    settle(server)
    assert payloads(client) == "x two three"


def test_events_of_a_new_epoch_that_begins_while_a_hole_is_read_are_read(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twistedsock.pubsub.rereading.MAX_HELD_BYTES", 1)
    client = subscribe(server)
    deliver(server, 2)
    server.restart_backplane()
    server.broker.reset(b"a", ChannelState(Position(b"e2", 0)))
    server.backplane.skipping = 1
    publish_without_answers(server, b"one")
    publish_without_answers(server, b"two")
    settle(server)
    assert payloads(client) == "one two"


def test_newer_events_are_read_although_a_hole_is_being_read(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, b"one", skipped=True)
    reading, read = Future[Sequence[Batch]](), server.backplane.read
    server.backplane.read = lambda *arguments: reading
    publish(server, b"two")
    server.backplane.read = read
    publish(server, b"three", skipped=True)
    server.broker.reset(b"a", ChannelState(Position(b"e1", 3)))
    reading.settle(batches(1))
    settle(server)
    assert payloads(client) == "x two three"


# Answers to publications, which can have an offset of a new epoch.


def publish_in_new_epoch(server: FakeServer, client: LineClient) -> None:
    """The backplane has stored an event and answered, and the node is asking for the new epoch."""
    server.restart_backplane()
    client.send("PUB a x")
    server.backplane.release()


def test_answer_follows_the_reset(server: FakeServer) -> None:
    client = subscribe(server)
    publish_in_new_epoch(server, client)
    assert client.received()[2:] == []
    settle(server)
    assert client.received() == ["RESET a epoch=e2 good=0 offset=0", "OK 1", "MSG a 1 p1 x"]


def test_answer_at_once_follows_the_reset(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = subscribe(server)
    publish_in_new_epoch(server, client)
    monkeypatch.setattr(server.backplane, "publish", lambda publisher, publication: 2)
    client.send("PUB a y")
    settle(server)
    assert client.received()[2:] == ["RESET a epoch=e2 good=0 offset=0", "OK 1", "OK 2", "MSG a 1 p1 x"]


def test_answer_is_an_error_if_the_epoch_is_not_known(server: FakeServer) -> None:
    client = subscribe(server)
    publish_in_new_epoch(server, client)
    server.backplane.failing = 1
    settle(server)
    assert client.received()[2:] == [f"ERR unavailable {UNAVAILABLE.message}"]


def test_answer_is_an_error_if_its_epoch_has_passed(server: FakeServer) -> None:
    """Its offset would be taken for one of the next epoch."""
    client = subscribe(server)
    publish_in_new_epoch(server, client)
    server.restart_backplane()
    settle(server)
    assert client.received()[2:] == ["RESET a epoch=e3 good=0 offset=0", f"ERR unavailable {UNAVAILABLE.message}"]


def test_answers_are_errors_until_the_epoch_is_known(server: FakeServer) -> None:
    client = subscribe(server)
    publish_in_new_epoch(server, client)
    server.backplane.failing = 1
    settle(server)
    server.backplane.skipping = 1
    client.send("PUB a y")
    server.backplane.release()
    assert client.received()[2:] == [f"ERR unavailable {UNAVAILABLE.message}"] * 2
    server.backplane.announce(b"a")
    client.send("PUB a z")
    settle(server)
    assert received_heads(client)[:2] == ["RESET a epoch=e2 good=0", "OK 3"]


@pytest.mark.parametrize("fails", [False, True])
def test_answer_precedes_its_event_although_an_event_of_another_epoch_is_looked_up(
    server: FakeServer, fails: bool
) -> None:
    """An event of a former epoch has arrived late. Those that follow are no reason to ask again."""
    client = subscribe(server)
    deliver(server, 1, epoch=b"e0")
    if fails:
        server.backplane.failing = 1
        settle(server)
    client.send("PUB a x")
    server.backplane.release(1, backwards=True)
    server.turn()
    assert client.received()[2:] == ["OK 1", "MSG a 1 p1 x"]


def test_new_epoch_is_not_forgotten_while_a_hole_is_read(server: FakeServer) -> None:
    """It could not be opened, and the next event of the former one comes after a hole."""
    client = subscribe(server)
    publish(server, b"one")
    publish_in_new_epoch(server, client)
    server.backplane.failing = 1
    settle(server)
    client.received()
    deliver(server, 3)
    settle(server)
    assert received_heads(client) == ["LOST a 2 2", "MSG a 3 p", "RESET a epoch=e2 good=0", "MSG a 1 p1"]


def test_newer_events_are_read_although_another_epoch_could_not_be_opened(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 1, epoch=b"e0")
    server.backplane.failing = 1
    settle(server)
    publish(server, b"one", skipped=True)
    server.broker.reset(b"a", ChannelState(Position(b"e1", 1)))
    settle(server)
    assert payloads(client) == "one"


def test_answer_waits_for_a_repair_no_longer_than_for_the_epoch(server: FakeServer) -> None:
    """The backplane itself reports the epoch for which the node asks."""
    client = subscribe(server)
    publish_in_new_epoch(server, client)
    server.backplane.announce(b"a")
    assert client.received()[2:] == ["RESET a epoch=e2 good=0 offset=0", "OK 1"]


def test_events_are_delivered_although_another_epoch_could_not_be_opened(server: FakeServer) -> None:
    client = subscribe(server)
    deliver(server, 1, epoch=b"e0")
    deliver(server, 3)
    deliver(server, 5)
    server.backplane.failing = 1
    settle(server)
    assert received_heads(client)[2:] == ["LOST a 1 2", *msg(3), "LOST a 4 4", *msg(5)]


def test_repair_delivers_what_it_holds_although_the_new_history_is_too_large() -> None:
    server = FakeServer(late=True, keeps_history=True, history_total_bytes=1_000)
    publish(server, b"one")
    server.turn()
    state = ChannelState(Position(b"e2", 3), batches(1, 2, 3, size=100_000))
    server.backplane.open = lambda channel: state
    deliver(server, 4, epoch=b"e2")
    server.turn()
    here = server.broker.channels[b"a"]
    assert (here.history.first, here.history.end) == (4, 5)


def test_channel_stays_open_while_missing_events_are_skipped() -> None:
    """What waits does not fit in the history, and the channel has nothing else, but a batch is being delivered."""
    server = FakeServer(history_total_bytes=1_000)
    deliver(server, 1, size=2_000)
    here = server.broker.channels[b"a"]
    deliver(server, 5)
    server.turn()
    assert server.broker.channels[b"a"] is here and here.history.first == 5


def test_history_of_a_new_epoch_is_counted_although_the_former_one_was_too_large() -> None:
    server = FakeServer(history_total_bytes=1_000)
    deliver(server, 1, size=2_000)
    reset(server, Position(b"e2", 2), tail=batches(1, 2))
    assert server.broker.histories.size == server.broker.channels[b"a"].history.size > 0


def test_channel_stays_open_while_an_answer_waits(server: FakeServer) -> None:
    client, publisher = subscribe(server), server.line_client()
    publish_in_new_epoch(server, publisher)
    client.send("UNSUB a")
    settle(server)
    assert publisher.received()[1:] == ["OK 1"]
    server.broker.histories.clear(server.broker.channels[b"a"])
    assert not server.broker.channels


def test_answer_does_not_wait_for_the_repair_of_a_hole(server: FakeServer) -> None:
    client = subscribe(server)
    publish(server, b"one", skipped=True)
    client.send("PUB a two")
    server.backplane.release(1)
    assert client.received()[2:] == ["OK 2"]
    settle(server)
    assert payloads(client) == "one two"


def test_reset_precedes_the_answer_also_on_a_full_socket(server: FakeServer) -> None:
    client = subscribe(server)
    client.outlet.room = 0
    publish_in_new_epoch(server, client)
    settle(server)
    client.outlet.drain()
    settle(server)
    assert client.received()[2:] == ["RESET a epoch=e2 good=0 offset=0", "OK 1", "MSG a 1 p1 x"]


def test_reset_precedes_an_answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()
    client = subscribed(server)
    monkeypatch.setattr(server.backplane, "publish", lambda publisher, publication: 1)
    client.outlet.room = 0
    client.send("PING")
    reset(server, Position(b"e2", 0))
    client.send("PUB a x")
    client.outlet.drain()
    server.turn()
    assert client.received() == ["PONG", "RESET a epoch=e2 good=0 offset=0", "OK 1"]


# Events that the history has dropped, but the backplane has not.


def fall_behind(server: FakeServer, client: LineClient, *payloads: bytes) -> None:
    """A client does not read until events that it needs have been dropped."""
    client.outlet.room = 0
    for payload in payloads:
        publish(server, payload)
        server.turn()
    server.broker.channels[b"a"].history.shrink(0)


def test_slow_subscriber_reads_dropped_events_from_the_backplane(server: FakeServer) -> None:
    client, other = subscribe(server), subscribe(server)
    for slow in (client, other):
        slow.outlet.room = 0
    fall_behind(server, client, b"one", b"two", b"three")
    publish(server, b"four")
    for slow in (client, other):
        slow.outlet.drain()
    settle(server)
    assert payloads(client) == payloads(other) == "one two three four"
    publish(server, b"five")
    settle(server)
    assert payloads(client) == "five" and server.context.stats.lost == 0


def test_dropped_events_that_the_backplane_lacks_are_lost(server: FakeServer) -> None:
    client = subscribe(server)
    client.outlet.room = 0
    deliver(server, 1, 2)
    server.turn()
    deliver(server, 3)
    server.turn()
    server.broker.channels[b"a"].history.shrink(0)
    client.outlet.drain()
    settle(server)
    assert received_heads(client)[2:] == [*msg(1, 2), "LOST a 3 3"]


def test_slow_subscriber_can_be_disconnected_instead() -> None:
    server = FakeServer(late=True, keeps_history=True, slow_consumer="disconnect")
    client = subscribe(server)
    client.outlet.room = 0
    for offset in (1, 2):
        deliver(server, offset)
        server.turn()
    server.broker.channels[b"a"].history.shrink(0)
    client.outlet.drain()
    settle(server)
    assert client.close_reason is not None and client.received()[-1].startswith("BYE")


def test_subscriber_can_end_or_stall_while_the_backplane_reads(server: FakeServer) -> None:
    ended, stalled, reader = subscribe(server), subscribe(server), subscribe(server)
    for client in (ended, stalled, reader):
        client.outlet.room = 0
    fall_behind(server, reader, b"one", b"two")
    for client in (ended, stalled, reader):
        client.outlet.drain()
    server.turn()
    ended.send("QUIT")
    stalled.outlet.room = 0
    stalled.send("PING")
    settle(server)
    assert payloads(reader) == "one two"
    stalled.outlet.drain()
    settle(server)
    assert payloads(stalled) == "one two" and payloads(ended) == "one"


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        pytest.param(0, ["OK a offset=3 epoch=e1 recovered=yes", *msg(1, 2, 3)], id="dropped here"),
        pytest.param(2, ["OK a offset=3 epoch=e1 recovered=yes", *msg(3)], id="in the history"),
    ],
)
def test_recovers_from_events_that_only_the_backplane_has(since: int, expected: list[str]) -> None:
    server = FakeServer(late=True, keeps_history=True, history_events=1)
    publish(server, b"one", b"two", b"three")
    server.turn()
    client = subscribe(server, f"since={since} epoch=e1")
    received = [line.rpartition(" p1 ")[0] or line for line in client.received()[1:]]
    assert received == [line.removesuffix(" p") for line in expected] and server.context.stats.lost == 0


@pytest.mark.parametrize("fails", [False, True])
def test_does_not_recover_from_events_that_the_backplane_lacks(fails: bool) -> None:
    server = FakeServer(late=True, keeps_history=True, history_events=1)
    other = subscribe(server)
    for offset in (1, 2, 3):
        deliver(server, offset)
        server.turn()
    client = server.line_client()
    server.backplane.failing = int(fails)
    client.send("SUB a since=1 epoch=e1")
    settle(server)
    assert client.received()[1:] == ["OK a offset=3 epoch=e1 recovered=no", "LOST a 2 2", "MSG a 3 p x"]
    assert other.close_reason is None


def test_gap_after_a_recovery_does_not_close_the_connection() -> None:
    """Otherwise the client would come back with the same position for ever."""
    server = FakeServer(late=True, keeps_history=True, history_events=1, slow_consumer="close")
    subscribe(server)
    for offset in (1, 2, 3):
        deliver(server, offset)
        server.turn()
    client = subscribe(server, "since=1 epoch=e1")
    assert client.received()[1:] == ["OK a offset=3 epoch=e1 recovered=no", "LOST a 2 2", "MSG a 3 p x"]


def test_history_is_up_to_date_when_a_client_recovers() -> None:
    """The events that it drops before the reply are asked of the backplane too."""
    server = FakeServer(late=True, keeps_history=True, history_events=1)
    subscribe(server)
    publish(server, b"one")
    server.turn()
    publish(server, b"two")  # in this turn, so that it is not in the history yet
    client = server.line_client()
    client.send("SUB a since=0 epoch=e1")
    settle(server)
    assert client.received()[1] == "OK a offset=2 epoch=e1 recovered=yes"


def test_channel_that_is_opened_again_can_have_older_events(server: FakeServer) -> None:
    """The backplane had no event after the position, but the new tail has all of them."""
    here = channel(3)
    here.history = History(Limits(), 2)
    here.history.extend(batches(2, 3), 0.0)
    assert resume_offset(Subscribe(b"c", since=1, epoch=b"e1"), here, oldest=3) == (2, True)


def test_epoch_can_change_while_the_backplane_reads() -> None:
    server = FakeServer(late=True, keeps_history=True, history_events=1)
    subscribe(server)
    publish(server, b"one", b"two")
    server.turn()
    client = server.line_client()
    client.send("SUB a since=0 epoch=e1")
    server.broker.reset(b"a", ChannelState(Position(b"e2", 0)))
    settle(server)
    assert client.received()[1:] == ["OK a offset=0 epoch=e2 recovered=no"]


def test_reads_for_slow_subscribers_have_a_limit(server: FakeServer) -> None:
    clients = [server.line_client() for _ in range(MAX_READS + 3)]
    for number, client in enumerate(clients):
        client.send(f"SUB c{number}")
        settle(server)
        client.outlet.room = 0
        for _ in range(2):
            publication = Publication(b"c%d" % number, Payloads((b"x",), 1))
            server.backplane.publish(client.session.client, publication)
            server.backplane.release()
            server.turn()
        server.broker.channels[b"c%d" % number].history.shrink(0)
    for client in clients:
        client.outlet.drain()
    server.turn()
    assert len(server.backplane) == MAX_READS
    settle(server)
    assert [payloads(client) for client in clients] == ["x x"] * len(clients)


def test_subscriptions_that_wait_for_the_same_events_share_them_in_time_slices(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [subscribe(server) for _ in range(4)]
    for client in clients:
        client.outlet.room = 0
    fall_behind(server, clients[0], b"one", b"two")
    for client in clients:
        client.outlet.drain()
        assert payloads(client) == "one"
    server.turn()
    encoded: list[int] = []
    encode = LineEncoder.batch

    def batch(self: LineEncoder, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        encoded.append(batch.first)
        return encode(self, channel, batch, epoch)

    monkeypatch.setattr(LineEncoder, "batch", batch)
    server.clock = Ticking(TIME_SLICE_SECONDS)
    server.backplane.release(1)
    assert [payloads(client) for client in clients] == ["two", "", "", ""]
    settle(server)
    assert [payloads(client) for client in clients] == ["", "two", "two", "two"]
    assert encoded == [2]


class LogInMemory:
    """Answers reads at once, with more than was asked for."""

    keeps_history = True

    def read(self, channel: bytes, after: Position, limit: int) -> list[Batch]:
        return batches(*range(1, 9))


def test_backplane_can_answer_at_once() -> None:
    here = channel(2)
    here.history = History(Limits(), 5)
    here.history.extend(batches(5, 6), 0.0)
    readers, resumed = [subscriber(b"p1"), subscriber(b"p2")], list[Subscriber]()
    scheduler = Scheduler(lambda: 0.0, do_nothing)
    older = OlderEvents(LogInMemory(), scheduler, resumed.append, do_nothing)  # type: ignore[arg-type]
    for reader, cursor in zip(readers, (3, 4), strict=True):
        subscribe_to(here, reader).fall_behind(cursor)
        assert not reader.catch_up({}, older)
    assert resumed == readers
    lines = [reader.outlet.sent.decode().replace(" x\n", "\n").splitlines() for reader in readers]  # type: ignore[attr-defined]
    assert lines == [[f"MSG c {offset} p" for offset in range(cursor, 7)] for cursor in (3, 4)]


def test_events_that_the_backplane_lacks_are_sent_from_the_history() -> None:
    """The backplane can keep fewer events than the history of the node."""
    here = channel(2)
    here.history = History(Limits(), 3)
    here.history.extend(batches(3, 4, 5), 0.0)
    reader = subscriber(b"p1")
    subscribe_to(here, reader).fall_behind(1)
    reader.send_older(next(iter(reader.behind)), batches(5), {})
    reader.catch_up({})
    assert received(reader) == ["LOST c 1 2", "MSG c 3 p x", "MSG c 4 p x", "MSG c 5 p x"]


def reads_older_events(server: FakeServer) -> LineClient:
    """A client that has received "one", and waits for "two" from the backplane."""
    client = subscribe(server)
    client.outlet.room = 0
    publish(server, b"one")
    server.turn()
    fall_behind(server, client, b"two")
    client.outlet.drain()
    server.turn()
    return client


def test_replies_precede_events_that_were_read_from_the_backplane(server: FakeServer) -> None:
    """A reply to SUB names the newest offset."""
    client = reads_older_events(server)
    publish_without_answers(server, b"three")
    client.send("SUB a")
    server.backplane.release(1)
    server.turn()
    assert received_heads(client)[2:] == ["MSG a 1 p2", "OK a offset=3 epoch=e1", "MSG a 2 p3", "MSG a 3 p4"]


def test_failing_backplane_is_a_loss_for_slow_subscribers(server: FakeServer) -> None:
    client = reads_older_events(server)
    server.backplane.failing = 1
    settle(server)
    assert [line.split(" ")[0] for line in client.received()[2:]] == ["MSG", "LOST"]
    assert UNAVAILABLE.message


# Publications to channels that are not open.


def test_publication_to_a_new_channel_opens_it_first(server: FakeServer) -> None:
    """So that it has its older events. The event has the nick that its publisher had."""
    client = server.line_client()
    client.send("NICK ann", "PUB a x", "PUB a y", "NICK anna", "HIST a")
    settle(server)
    assert client.received()[1:] == ["OK ann", "OK 1", "OK 2", "OK anna", "MSG a 1 ann x", "MSG a 2 ann y", "OK 2"]


def test_publication_opens_a_channel_again_that_a_client_before_it_did_not_keep_open(server: FakeServer) -> None:
    reader, publisher = server.line_client(), server.line_client()
    reader.send("HIST a")
    publisher.send("PUB a x")
    settle(server)
    assert reader.received()[1:] == ["OK 0"] and publisher.received()[1:] == ["OK 1"]
    assert [*server.broker.channels] == [b"a"]


def test_publication_to_a_channel_that_cannot_be_opened_fails(server: FakeServer) -> None:
    client = server.line_client()
    server.backplane.failing = 1
    client.send("PUB a x")
    settle(server)
    assert client.received()[1:] == [f"ERR unavailable {UNAVAILABLE.message}"] and not server.broker.channels
