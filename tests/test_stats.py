"""Counters and histograms of the server."""

import pytest

from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.errors import ErrorCode
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication
from twistedsock.stats import SPANS, Histogram, Stats
from twistedsock.testing import FakeServer


@pytest.mark.parametrize("seconds, place", [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.1, 2), (99.0, 2)])
def test_duration_counts_in_its_bucket(seconds: float, place: int) -> None:
    spread = Histogram((1.0, 2.0))
    spread.observe(seconds)
    assert spread.counts == [int(place == index) for index in range(3)]
    assert spread.total == seconds


def test_bounds_are_ascending() -> None:
    assert list(SPANS) == sorted(set(SPANS))


def test_longest_turn_is_kept_until_reset() -> None:
    stats = Stats()
    for seconds in (0.25, 1.5, 0.5):
        stats.count_turn(seconds)
    assert stats.longest_turn == 1.5 and stats.turns.total == 2.25


def test_counts_sessions_by_encoder() -> None:
    server = FakeServer()
    line, _, other = server.line_client(), server.message_client(), server.json_client()
    assert server.context.stats.opened == {"line": 2, "json": 1}
    line.session.connection_lost()
    other.session.set_encoder(LINE_ENCODER)
    assert server.context.stats.opened == {"line": 3, "json": 1}
    assert server.context.stats.closed == {"line": 1, "json": 1}


def test_counts_errors_by_code() -> None:
    server = FakeServer()
    line = server.line_client()
    line.send("FLY", "PUB a*b x", *["PUB c* x"] * 300)
    assert server.context.stats.errors == {ErrorCode.UNKNOWN_COMMAND: 1, ErrorCode.BAD_CHANNEL: 301}


def test_counts_deliveries_per_subscription() -> None:
    server = FakeServer()
    readers = [server.line_client() for _ in range(3)]
    for reader in readers:
        reader.send("SUB a", "SUB b")
    publisher = server.json_client()
    publisher.send(*[{"type": "publish", "channel": channel, "data": 1} for channel in "aab"])
    server.turn()
    assert server.context.stats.published == 3
    assert server.context.stats.delivered == 9


def test_own_events_without_echo_are_not_counted() -> None:
    server = FakeServer()
    reader, other = server.line_client(), server.line_client()
    reader.send("SUB a echo=off")
    reader.send("PUB a x", "PUB a y")
    other.send("PUB a z")
    server.turn()
    assert server.context.stats.delivered == 1


def test_slow_subscription_counts_each_event_once() -> None:
    server = FakeServer()
    slow, publisher = server.line_client(), server.line_client()
    slow.send("SUB a", "SUB b")
    server.turn()
    slow.outlet.room = 30
    for _ in range(5):
        publisher.send("PUB a 0123456789", "PUB b 0123456789")
        server.turn()
    slow.outlet.drain()
    server.turn()
    assert len([line for line in slow.received() if line.startswith("MSG")]) == 10
    assert server.context.stats.delivered == 10


def test_counts_lost_events_per_subscription() -> None:
    server = FakeServer(history_events=3)
    slow, publisher = server.line_client(), server.line_client()
    slow.send("SUB a")
    server.turn()
    slow.outlet.room = 0
    for number in range(10):
        publisher.send(f"PUB a {number}")
        server.turn()
    slow.outlet.drain()
    server.turn()
    assert "LOST a 2 7" in slow.received()
    assert server.context.stats.lost == 6
    assert server.context.stats.delivered == 4


def test_counts_sent_bytes() -> None:
    server = FakeServer()
    peers = [server.line_client(), server.json_client(), server.line_client()]
    peers[0].send("SUB a", "SUB b", "WHO a")
    peers[1].send({"type": "subscribe", "id": 1, "channel": "a"})
    peers[2].send("PUB a 1", "PUB b 2", "HIST a")
    server.turn()
    assert server.context.stats.sent == sum(len(peer.outlet.sent) for peer in peers)


def test_measures_turns_and_flushes() -> None:
    server = FakeServer()
    server.line_client().send("PUB a 1")
    server.turn()
    assert sum(server.context.stats.flushes.counts) == 1
    server.broker.run_turn()
    assert sum(server.context.stats.turns.counts) >= 1


def test_counts_events_lost_before_resuming() -> None:
    server = FakeServer(history_events=3)
    publisher, reader = server.line_client(), server.line_client()
    publisher.send(*[f"PUB a {number}" for number in range(10)])
    server.turn()
    epoch = server.broker.channels[b"a"].epoch.decode()
    reader.send(f"SUB a since=2 epoch={epoch}")
    server.turn()
    assert "LOST a 3 7" in reader.received()
    assert server.context.stats.lost == 5


def test_counts_a_client_as_behind_once() -> None:
    server = FakeServer()
    slow, publisher = server.line_client(), server.line_client()
    slow.send("SUB a", "SUB b", "SUB c")
    server.turn()
    slow.outlet.room = 0
    for channel in "cab":
        publisher.send(f"PUB {channel} x", f"PUB {channel} y")
        server.turn()
    assert server.context.stats.behind == 1 and len(slow.session.behind) == 2  # the first event waits in its transport
    slow.outlet.drain()
    server.turn()
    assert server.context.stats.behind == 0 and not slow.session.behind


@pytest.mark.parametrize("channels", [1, 3])
def test_closed_session_is_not_behind(channels: int) -> None:
    server = FakeServer()
    slow, other, publisher = server.line_client(), server.line_client(), server.line_client()
    for peer in (slow, other):
        peer.send(*[f"SUB {channel}" for channel in range(channels)])
        server.turn()
        peer.outlet.room = 0
    for channel in range(channels):
        publisher.send(f"PUB {channel} x")
        server.turn()
        publisher.send(f"PUB {channel} y")
        server.turn()
    assert server.context.stats.behind == 2
    slow.session.connection_lost()
    assert server.context.stats.behind == 1
    other.session.connection_lost()
    assert server.context.stats.behind == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_session_closed_as_too_slow_is_not_behind(channels: int) -> None:
    server = FakeServer(history_events=2, slow_consumer="close")
    slow, publisher = server.line_client(), server.line_client()
    slow.send(*[f"SUB {channel}" for channel in range(channels)])
    server.turn()
    slow.outlet.room = 0
    for _ in range(5):
        for channel in range(channels):
            publisher.send(f"PUB {channel} x")
            server.turn()
    assert server.context.stats.behind == 1
    slow.outlet.drain()
    server.turn()
    assert server.context.stats.behind == 0
    slow.session.connection_lost()
    assert server.context.stats.behind == 0


def test_replay_counts_as_behind() -> None:
    server = FakeServer()
    publisher, reader = server.line_client(), server.line_client()
    publisher.send("PUB a x", "PUB a y")
    server.turn()
    reader.send("SUB a last=2", "SUB a last=1")
    assert server.context.stats.behind == 1
    server.turn()
    assert server.context.stats.behind == 0


def test_unknown_methods_are_counted_together() -> None:
    stats = Stats()
    for method in (b"GET", b"GET", b"BREW", b"MELT"):
        stats.count_response(method, 404)
    assert stats.requests == {(b"GET", 404): 2, (b"other", 404): 2}


def test_reserved_channels_are_not_counted() -> None:
    server = FakeServer()
    server.line_client().send("SUB $sys/figures", "SUB a")
    for name in (b"$sys/figures", b"a"):
        server.broker.publish(Client(b"$sys"), Publication(name, Payloads([b"1"], 1), b"figures"))
    server.turn()
    server.line_client().send("SUB $sys/figures last=1")
    server.turn()
    assert (server.context.stats.published, server.context.stats.delivered) == (1, 1)
