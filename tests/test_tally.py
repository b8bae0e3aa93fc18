"""What is counted, and that it is counted once, whatever way an event takes to its reader."""

import pytest

from twistedsock.errors import ErrorCode
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads
from twistedsock.stats import SPANS, Histogram, Stats
from twistedsock.testing import FakeServer


@pytest.mark.parametrize("seconds, place", [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.1, 2), (99.0, 2)])
def test_a_time_counts_below_the_first_bound_that_it_does_not_exceed(seconds: float, place: int) -> None:
    spread = Histogram((1.0, 2.0))
    spread.note(seconds)
    assert spread.counts == [int(place == index) for index in range(3)]
    assert spread.total == seconds


def test_the_bounds_rise() -> None:
    assert list(SPANS) == sorted(set(SPANS))


def test_the_longest_turn_is_kept_until_it_is_set_back() -> None:
    stats = Stats()
    for seconds in (0.25, 1.5, 0.5):
        stats.turned(seconds)
    assert stats.longest == 1.5 and stats.turns.total == 2.25


def test_sessions_are_counted_by_their_dialect() -> None:
    hall = FakeServer()
    line, message, other = hall.line_peer(), hall.message_peer(), hall.json_peer()
    assert hall.context.stats.opened == {"line": 2, "json": 1}
    line.session.lost()
    other.session.speak(message.session._dialect)
    assert hall.context.stats.opened == {"line": 3, "json": 1}
    assert hall.context.stats.closed == {"line": 1, "json": 1}


def test_what_is_refused_is_counted_by_its_code() -> None:
    hall = FakeServer()
    line = hall.line_peer()
    line.says("FLY", "PUB a*b x", *["PUB c* x"] * 300)
    assert hall.context.stats.refused == {ErrorCode.UNKNOWN_COMMAND: 1, ErrorCode.BAD_CHANNEL: 301}


def test_an_event_is_published_once_and_delivered_to_each_reader() -> None:
    hall = FakeServer()
    readers = [hall.line_peer() for _ in range(3)]
    for reader in readers:
        reader.says("SUB a", "SUB b")
    publisher = hall.json_peer()
    publisher.says(*[{"type": "publish", "channel": channel, "data": 1} for channel in "aab"])
    hall.turn()
    assert hall.context.stats.published == 3
    assert hall.context.stats.delivered == 9


def test_what_a_reader_does_not_want_back_is_not_delivered() -> None:
    hall = FakeServer()
    reader, other = hall.line_peer(), hall.line_peer()
    reader.says("SUB a echo=off")
    reader.says("PUB a x", "PUB a y")
    other.says("PUB a z")
    hall.turn()
    assert hall.context.stats.delivered == 1


def test_a_slow_reader_gets_each_event_once() -> None:
    hall = FakeServer()
    slow, publisher = hall.line_peer(), hall.line_peer()
    slow.says("SUB a", "SUB b")
    hall.turn()
    slow.outlet.room = 30
    for _ in range(5):
        publisher.says("PUB a 0123456789", "PUB b 0123456789")
        hall.turn()
    slow.outlet.drain()
    hall.turn()
    assert len([line for line in slow.hears() if line.startswith("MSG")]) == 10
    assert hall.context.stats.delivered == 10


def test_events_that_the_log_has_lost_are_counted_for_their_reader() -> None:
    hall = FakeServer(history_events=3)
    slow, publisher = hall.line_peer(), hall.line_peer()
    slow.says("SUB a")
    hall.turn()
    slow.outlet.room = 0
    for number in range(10):
        publisher.says(f"PUB a {number}")
        hall.turn()
    slow.outlet.drain()
    hall.turn()
    assert "LOST a 2 7" in slow.hears()
    assert hall.context.stats.lost == 6
    assert hall.context.stats.delivered == 4


def test_bytes_that_sessions_write_are_counted() -> None:
    hall = FakeServer()
    peers = [hall.line_peer(), hall.json_peer(), hall.line_peer()]
    peers[0].says("SUB a", "SUB b", "WHO a")
    peers[1].says({"type": "subscribe", "id": 1, "channel": "a"})
    peers[2].says("PUB a 1", "PUB b 2", "HIST a")
    hall.turn()
    assert hall.context.stats.sent == sum(len(peer.outlet.sent) for peer in peers)


def test_turns_and_flushes_are_timed() -> None:
    hall = FakeServer()
    hall.line_peer().says("PUB a 1")
    hall.turn()
    assert sum(hall.context.stats.flushes.counts) == 1
    hall.broker.turn()
    assert sum(hall.context.stats.turns.counts) >= 1


def test_what_had_gone_before_a_reader_came_back_is_lost_to_it() -> None:
    hall = FakeServer(history_events=3)
    publisher, reader = hall.line_peer(), hall.line_peer()
    publisher.says(*[f"PUB a {number}" for number in range(10)])
    hall.turn()
    epoch = hall.broker.channels[b"a"].epoch.decode()
    reader.says(f"SUB a since=2 epoch={epoch}")
    hall.turn()
    assert "LOST a 3 7" in reader.hears()
    assert hall.context.stats.lost == 5


def test_a_peer_is_behind_from_its_first_channel_to_its_last() -> None:
    hall = FakeServer()
    slow, publisher = hall.line_peer(), hall.line_peer()
    slow.says("SUB a", "SUB b", "SUB c")
    hall.turn()
    slow.outlet.room = 0
    for channel in "cab":
        publisher.says(f"PUB {channel} x", f"PUB {channel} y")
        hall.turn()
    assert hall.context.stats.behind == 1 and len(slow.session.behind) == 2  # what was first waits in its transport
    slow.outlet.drain()
    hall.turn()
    assert hall.context.stats.behind == 0 and not slow.session.behind


@pytest.mark.parametrize("channels", [1, 3])
def test_who_goes_is_not_behind_any_longer(channels: int) -> None:
    hall = FakeServer()
    slow, other, publisher = hall.line_peer(), hall.line_peer(), hall.line_peer()
    for peer in (slow, other):
        peer.says(*[f"SUB {channel}" for channel in range(channels)])
        hall.turn()
        peer.outlet.room = 0
    for channel in range(channels):
        publisher.says(f"PUB {channel} x")
        hall.turn()
        publisher.says(f"PUB {channel} y")
        hall.turn()
    assert hall.context.stats.behind == 2
    slow.session.lost()
    assert hall.context.stats.behind == 1
    other.session.lost()
    assert hall.context.stats.behind == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_who_is_closed_for_being_too_slow_is_not_behind_any_longer(channels: int) -> None:
    hall = FakeServer(history_events=2, lag="close")
    slow, publisher = hall.line_peer(), hall.line_peer()
    slow.says(*[f"SUB {channel}" for channel in range(channels)])
    hall.turn()
    slow.outlet.room = 0
    for _ in range(5):
        for channel in range(channels):
            publisher.says(f"PUB {channel} x")
            hall.turn()
    assert hall.context.stats.behind == 1
    slow.outlet.drain()
    hall.turn()
    assert hall.context.stats.behind == 0
    slow.session.lost()
    assert hall.context.stats.behind == 0


def test_a_replay_is_a_way_to_be_behind() -> None:
    hall = FakeServer()
    publisher, reader = hall.line_peer(), hall.line_peer()
    publisher.says("PUB a x", "PUB a y")
    hall.turn()
    reader.says("SUB a last=2", "SUB a last=1")
    assert hall.context.stats.behind == 1
    hall.turn()
    assert hall.context.stats.behind == 0


def test_methods_that_clients_make_up_are_counted_together() -> None:
    stats = Stats()
    for method in (b"GET", b"GET", b"BREW", b"MELT"):
        stats.answer(method, 404)
    assert stats.requests == {(b"GET", 404): 2, (b"other", 404): 2}


def test_what_the_server_tells_of_itself_is_none_of_its_work() -> None:
    hall = FakeServer()
    hall.line_peer().says("SUB $sys/figures", "SUB a")
    for name in (b"$sys/figures", b"a"):
        hall.broker.publish(Client(b"$sys"), name, b"figures", Payloads([b"1"], 1))
    hall.turn()
    hall.line_peer().says("SUB $sys/figures last=1")
    hall.turn()
    assert (hall.context.stats.published, hall.context.stats.delivered) == (1, 1)
