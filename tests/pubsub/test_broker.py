"""The table of channels: what is delivered waits for the turn's end, and what nobody needs vanishes."""

from typing import Any

import pytest

from twistedsock import errors
from twistedsock.errors import UNAVAILABLE
from twistedsock.limits.settings import CHUNK_BYTES, RESERVED_EVENTS
from twistedsock.pubsub.broker import IDLE_FLUSH_AFTER_SECONDS
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Member, Payloads, Position
from twistedsock.testing import FakeServer

NOBODY = Client(b"p0")
ALONE = BATCH_COST + EVENT_COST
"""What an event costs that was published by itself, beyond its payload."""


def publish(hall: FakeServer, channel: str, payload: bytes = b"x", name: bytes = b"message") -> Any:
    return hall.broker.publish(NOBODY, channel.encode(), name, Payloads((payload,), len(payload)))


def names(hall: FakeServer) -> str:
    return " ".join(sorted(name.decode() for name in hall.broker.channels))


def logged(hall: FakeServer) -> dict[str, int]:
    return {name.decode(): len(channel.log) for name, channel in hall.broker.channels.items()}


def test_a_publish_is_answered_with_its_offset() -> None:
    hall = FakeServer()
    assert [publish(hall, "a"), publish(hall, "b"), publish(hall, "a")] == [1, 1, 2]


@pytest.mark.parametrize("channel", ["", "a b", "a*", "x" * 201])
def test_a_bad_channel_is_refused_wherever_it_is_named(channel: str) -> None:
    hall = FakeServer()
    assert publish(hall, channel) == errors.BAD_CHANNEL
    assert hall.broker.open(channel.encode()) == errors.BAD_CHANNEL
    assert hall.broker.members(channel.encode()) == errors.BAD_CHANNEL
    assert hall.broker.members_here(channel.encode()) == []


def test_a_bad_event_name_is_refused() -> None:
    hall = FakeServer()
    assert publish(hall, "a", name=b"") == errors.BAD_EVENT_NAME
    assert names(hall) == ""


def test_a_channel_is_made_by_its_first_event_and_goes_with_its_last() -> None:
    hall = FakeServer(history_age=10)
    publish(hall, "a")
    hall.turn()
    assert names(hall) == "a"
    hall.now += 11
    hall.broker.sweep()
    assert names(hall) == "" and hall.broker.log_bytes == 0


def test_a_channel_without_a_log_goes_at_the_turns_end() -> None:
    hall = FakeServer(history_events=0)
    publish(hall, "a")
    assert names(hall) == "a"
    hall.turn()
    assert names(hall) == ""
    assert publish(hall, "a") == 2


def test_a_channel_goes_with_its_last_reader() -> None:
    hall = FakeServer()
    first, second = hall.line_peer(), hall.line_peer()
    first.says("SUB a"), second.says("SUB a")
    first.leaves()
    assert names(hall) == "a"
    second.says("UNSUB a")
    assert names(hall) == ""


def test_a_silent_channel_that_is_read_stays() -> None:
    hall = FakeServer(history_age=10)
    peer = hall.line_peer()
    peer.says("SUB a", "PUB a x")
    hall.turn()
    hall.now += 11
    hall.broker.sweep()
    assert logged(hall) == {"a": 0}


def test_looking_at_history_makes_no_channel() -> None:
    hall = FakeServer()
    peer = hall.line_peer()
    peer.says("HIST a", "WHO b")
    assert names(hall) == ""


def test_channels_in_all_are_bounded() -> None:
    hall = FakeServer(max_channels=2)
    publish(hall, "a")
    peer = hall.line_peer()
    peer.says("SUB b", "SUB c", "PUB c x", "HIST c", "PUB a x", "SUB a")
    assert [line.split()[:2] for line in peer.hears()[2:5]] == [["ERR", "limit"]] * 3
    assert names(hall) == "a b"


def test_channels_that_are_being_opened_are_counted_too() -> None:
    hall = FakeServer(late=True, max_channels=2)
    peers = [hall.line_peer() for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.says(f"SUB c{number}")
    hall.backplane.release()
    assert [peer.hears()[-1].split()[0] for peer in peers] == ["OK", "OK", "ERR"]


def test_opening_is_asked_once_for_all_who_wait() -> None:
    hall = FakeServer(late=True)
    opening = hall.broker.open(b"a")
    assert isinstance(opening, Future) and hall.broker.open(b"a") is opening
    assert len(hall.backplane) == 1
    heard: list[object] = []
    opening.then(heard.append)
    hall.backplane.release()
    assert heard == [hall.broker.channels[b"a"]] and hall.broker.open(b"a") is heard[0]


def test_an_opening_that_fails_is_told_and_can_be_tried_again() -> None:
    hall = FakeServer(late=True)
    heard: list[object] = []
    for failing in (1, 0):
        opening = hall.broker.open(b"a")
        assert isinstance(opening, Future)
        opening.then(heard.append)
        hall.backplane.failing = failing
        hall.backplane.release()
    assert heard[0] == UNAVAILABLE and isinstance(heard[1], Channel)


def test_an_event_may_come_before_the_answer_to_opening() -> None:
    hall = FakeServer(late=True)
    opening = hall.broker.open(b"a")
    assert isinstance(opening, Future)
    hall.broker.deliver(b"a", b"e1", Batch(1, 2, b"p", b"p", b"message", Payloads((b"x",), 1)))
    made = hall.broker.channels[b"a"]
    hall.backplane.release()
    heard: list[object] = []
    opening.then(heard.append)
    assert heard == [made] and hall.broker.channels[b"a"] is made


def test_a_channel_first_heard_of_by_an_event_goes_on_there() -> None:
    hall = FakeServer()
    hall.broker.deliver(b"a", b"e7", Batch(5, 7, b"p", b"p", b"message", Payloads((b"x", b"y"), 2)))
    channel = hall.broker.channels[b"a"]
    assert channel.position == Position(b"e7", 6)
    hall.turn()
    assert (channel.log.first, channel.log.end) == (5, 7)


def test_one_turn_is_asked_for_however_much_happens() -> None:
    hall = FakeServer()
    for number in range(3):
        publish(hall, f"c{number}")
        publish(hall, f"c{number}")
    assert len(hall.turns) == 1
    hall.turn()
    assert logged(hall) == {"c0": 2, "c1": 2, "c2": 2} and len(hall.turns) == 0


def test_a_chunk_of_events_is_urgent() -> None:
    hall = FakeServer()
    publish(hall, "a", b"x" * (CHUNK_BYTES // 2 - 50))
    assert not hall.broker.urgent
    publish(hall, "b", b"x" * (CHUNK_BYTES // 2))
    assert hall.broker.urgent
    hall.broker.flush()
    assert not hall.broker.urgent and logged(hall) == {"a": 1, "b": 1}
    publish(hall, "a")
    assert not hall.broker.urgent


def test_the_logs_together_are_bounded_and_the_least_recently_written_gives_way() -> None:
    hall = FakeServer(log_bytes=4 * (ALONE + 1))
    for channel in ("a", "b", "a", "c"):
        publish(hall, channel)
        hall.turn()
    publish(hall, "c")
    hall.turn()
    assert logged(hall) == {"a": 2, "c": 2}  # b had been silent for longest
    publish(hall, "c")
    hall.turn()
    assert logged(hall) == {"a": 1, "c": 3}
    assert hall.broker.log_bytes == 4 * (ALONE + 1)


def test_a_log_alone_above_the_bound_of_all_gives_way_itself() -> None:
    hall = FakeServer(log_bytes=2 * (ALONE + 1))
    for _ in range(3):
        publish(hall, "a")
    hall.turn()
    assert logged(hall) == {"a": 2}


def test_one_event_may_push_out_many_logs() -> None:
    hall = FakeServer(log_bytes=4 * (ALONE + 1))
    for channel in ("a", "b", "c"):
        publish(hall, channel)
        hall.turn()
    publish(hall, "d", b"x" * (2 * ALONE))
    hall.turn()
    assert logged(hall) == {"c": 1, "d": 1}


def test_a_reader_comes_to_a_channel_whose_log_vanishes_at_that_moment() -> None:
    """Subscribing flushes what was published; where no log is kept, the channel must not go with it."""
    hall = FakeServer(log_bytes=0)
    peer = hall.line_peer()
    peer.says("PUB a x", "SUB a", "PUB a y")
    hall.turn()
    assert peer.hears()[1:] == ["OK 1", "OK a offset=1 epoch=e1", "OK 2", "MSG a 2 p1 y"]


@pytest.mark.parametrize("bound", [{"history_events": 0}, {"history_bytes": 0}, {"history_age": 0}, {"log_bytes": 0}])
def test_a_bridge_that_keeps_nothing_still_delivers(bound: dict[str, int]) -> None:
    hall = FakeServer(**bound)
    reader, writer = hall.line_peer(), hall.line_peer()
    reader.says("SUB a"), reader.hears()
    writer.says("PUB a x", "PUB a y", "HIST a")
    hall.turn()
    assert reader.hears() == ["MSG a 1 p2 x", "MSG a 2 p2 y"]
    assert writer.hears()[-1] == "OK 0"
    assert hall.broker.log_bytes == 0


def test_the_sum_of_the_logs_is_kept_whatever_lets_go() -> None:
    hall = FakeServer(history_age=10, history_events=3)
    peer = hall.line_peer()
    for _ in range(5):
        publish(hall, "a")
    hall.turn()
    assert hall.broker.log_bytes == 3 * (ALONE + 1)
    hall.now += 11
    peer.says("HIST a")
    assert hall.broker.log_bytes == 0 and names(hall) == ""


def test_a_reader_that_is_behind_reads_on_in_the_next_turns() -> None:
    hall = FakeServer()
    peer = hall.line_peer()
    for _ in range(3):
        publish(hall, "a", b"x" * CHUNK_BYTES)
    hall.turn()
    peer.says("SUB a last=3"), peer.hears()
    hall.turns.run()
    assert len(peer.hears()) == 3 and len(hall.turns) == 0


def test_who_has_nothing_to_catch_up_with_is_not_woken() -> None:
    hall = FakeServer()
    peer = hall.line_peer()
    hall.broker.wake(peer.session._reader)
    assert len(hall.turns) == 0


def test_who_goes_is_not_woken() -> None:
    hall = FakeServer()
    peer = hall.line_peer()
    publish(hall, "a")
    peer.says("SUB a last=1"), peer.hears()
    peer.leaves()
    hall.turn()
    assert peer.hears() == []


def test_changes_of_a_channel_that_nobody_watches_are_not_kept() -> None:
    hall = FakeServer()
    peer = hall.line_peer()
    peer.says("SUB a")
    assert len(hall.turns) == 0
    hall.broker.unsubscribe(peer.session.subscriptions.pop(b"a"))
    assert hall.broker.members_here(b"a") == []


def test_members_are_those_of_all_nodes_or_of_this_one() -> None:
    hall = FakeServer()
    hall.line_peer().says("SUB a")
    assert hall.broker.members(b"a") == hall.broker.members_here(b"a") == [Member(b"p1", b"p1")]


def test_at_rest_an_event_leaves_at_once() -> None:
    """Who publishes after a while is alone, most likely: no turn is awaited, nor asked for."""
    hall = FakeServer()
    reader, publisher = hall.line_peer(), hall.line_peer()
    reader.says("SUB k")
    hall.turn()
    reader.raw()
    hall.now += 2 * IDLE_FLUSH_AFTER_SECONDS
    publisher.says("PUB k x")
    assert bytes(reader.outlet.sent).endswith(b"MSG k 1 p2 x\n") and not len(hall.turns)
    publisher.says("PUB k y")
    assert bytes(reader.outlet.sent).endswith(b"MSG k 1 p2 x\n") and len(hall.turns) == 1
    hall.turn()
    assert reader.hears() == ["MSG k 1 p2 x", "MSG k 2 p2 y"]


def test_an_event_waits_for_its_turn_behind_readers_that_catch_up() -> None:
    """They need the turn anyway."""
    hall = FakeServer()
    reader, publisher = hall.line_peer(), hall.line_peer()
    publisher.says("PUB k x")
    hall.turn()
    hall.now += 2 * IDLE_FLUSH_AFTER_SECONDS
    reader.says("SUB k last=1")
    publisher.says("PUB k y")
    assert len(hall.turns) == 1
    hall.turn()
    assert reader.hears()[-2:] == ["MSG k 1 p2 x", "MSG k 2 p2 y"]


def test_a_fault_in_one_read_does_not_stop_the_turns() -> None:
    """What others publish afterwards comes out."""
    hall = FakeServer()
    reader, publisher, faulty = hall.line_peer(), hall.line_peer(), hall.line_peer()
    reader.says("SUB k")
    hall.turn()
    with pytest.raises(TypeError):
        faulty.conversation.receive(None)  # type: ignore[arg-type]
    publisher.says("PUB k x")
    hall.turn()
    assert reader.hears()[-1] == "MSG k 1 p2 x"


def test_what_left_in_the_midst_of_a_read_asks_for_no_turn() -> None:
    """So much was published that it was flushed at once; nothing waits any more."""
    hall = FakeServer()
    reader, publisher = hall.line_peer(), hall.line_peer()
    reader.says("SUB k")
    hall.turn()
    publisher.says(*["PUB k " + "x" * 1000] * 100)
    assert bytes(reader.outlet.sent).count(b"MSG k ") == 100
    assert bytes(publisher.outlet.sent).count(b"OK ") == 100
    assert not len(hall.turns)


def test_who_awaits_an_event_is_called_once_when_it_is_in_the_log() -> None:
    hall = FakeServer()
    rung: list[int] = []
    channel = hall.broker.open(b"k")
    assert isinstance(channel, Channel)
    hall.broker.await_event(channel, lambda: rung.append(channel.log.end))
    hall.turn()
    assert hall.broker.channels and not rung
    publisher = hall.line_peer()
    publisher.says("PUB k x", "PUB k y")
    hall.turn()
    publisher.says("PUB k z")
    hall.turn()
    assert rung == [3]


def test_who_waits_no_longer_is_not_called_and_the_channel_goes() -> None:
    hall = FakeServer()
    rung: list[str] = []
    channel = hall.broker.open(b"k")
    assert isinstance(channel, Channel)
    rings = [lambda: rung.append("a"), lambda: rung.append("b")]
    for ring in rings:
        hall.broker.await_event(channel, ring)
    hall.broker.stop_awaiting(channel, rings[0])
    assert b"k" in hall.broker.channels
    hall.line_peer().says("PUB k x")
    hall.turn()
    assert rung == ["b"]
    hall.broker.stop_awaiting(channel, rings[1])
    quiet = hall.broker.open(b"q")
    assert isinstance(quiet, Channel)
    hall.broker.await_event(quiet, rings[0])
    hall.broker.stop_awaiting(quiet, rings[0])
    assert b"q" not in hall.broker.channels


def test_the_servers_own_channels_keep_little() -> None:
    hall = FakeServer()
    for name in (b"$sys/figures", b"figures"):
        hall.broker.publish(Client(b"$sys"), name, b"figures", Payloads([b"x"] * 1_000, 1_000))
    hall.turn()
    assert len(hall.broker.channels[b"$sys/figures"].log) == RESERVED_EVENTS
    assert len(hall.broker.channels[b"figures"].log) == 1_000


def test_a_channel_can_be_emptied() -> None:
    """Then it is as if nothing had been published, but for the numbers; and it is gone if nobody reads it."""
    hall = FakeServer()
    reader = hall.line_peer()
    reader.says("SUB a", "PUB a x", "PUB b y")
    hall.turn()
    for name in (b"a", b"b"):
        hall.broker.empty(hall.broker.channels[name])
    assert hall.broker.log_bytes == 0
    assert list(hall.broker.channels) == [b"a"] and hall.broker.channels[b"a"].head == 1


def test_the_servers_own_channels_take_no_room_from_others() -> None:
    hall = FakeServer(max_channels=1, max_channels_per_peer=5_000)
    peer = hall.line_peer()
    peer.says(*[f"SUB $sys/{number}" for number in range(999)], "SUB a", "SUB b")
    hall.turn()
    refused = "ERR limit this server has no room for another channel"
    assert peer.hears()[-2:] == ["OK a offset=0 epoch=e1000", refused]
    other = hall.line_peer()
    other.says("SUB $sys/999", "SUB $sys/1000")
    hall.turn()
    assert other.hears()[-2:] == ["OK $sys/999 offset=0 epoch=e1001", refused]
