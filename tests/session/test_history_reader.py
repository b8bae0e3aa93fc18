"""Histories that reach back further than the memory of the node: the rest is read from the backplane."""

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.properties import holds
from tests.session.clients import ask, settle, welcomed
from twistedsock.errors import UNAVAILABLE
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import complete, on_result
from twistedsock.pubsub.rereading import MAX_READS
from twistedsock.pubsub.subscription import NOT_READING
from twistedsock.pubsub.values import Event, Lost
from twistedsock.session.history_query import HistoryQuery, Moment
from twistedsock.session.history_reader import HistoryPart, read_part
from twistedsock.testing import FakePolicy, FakeServer, LineClient


def make_server(**options: Any) -> FakeServer:
    return FakeServer(late=True, keeps_history=True, **{"history_events": 3, **options})


def publish(server: FakeServer, count: int, payload: str = "x") -> None:
    """Publish events to channel a, a minute apart."""
    writer = server.line_client()
    for _ in range(count):
        writer.send(f"PUB a {payload}")
        settle(server)
        server.wall += 60
    writer.disconnect()


@pytest.fixture
def server() -> FakeServer:
    """Has published eight events, the last one a minute ago, and holds three of them."""
    server = make_server()
    publish(server, 8)
    return server


def release_all(server: FakeServer) -> None:
    while len(server.backplane) or len(server.turns):
        server.backplane.release()
        server.turn()


def in_mid_history(server: FakeServer) -> LineClient:
    """A client that has received a part of a long history."""
    reader = welcomed(server)
    reader.send("HIST a after=0")
    server.backplane.release()
    server.turn()
    return reader


def summary(lines: list[str]) -> str:
    """The offsets of events, the ranges that are lost, and the number of events in the reply."""
    found: list[str] = []
    for line in lines:
        kind, *words = line.split(" ")
        found.append(words[1] if kind == "MSG" else f"lost:{words[1]}-{words[2]}" if kind == "LOST" else line)
    return " ".join(found)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("", "6 7 8 OK 3"),
        ("last=2", "7 8 OK 2"),
        ("last=5", "4 5 6 7 8 OK 5"),
        ("last=99", "1 2 3 4 5 6 7 8 OK 8"),
        ("since=0", "1 2 3 4 5 6 7 8 OK 8"),
        ("after=2", "3 4 5 6 7 8 OK 6"),
        ("after=6", "7 8 OK 2"),
        ("after=8", "OK 0"),
        ("after=2 last=3", "6 7 8 OK 3"),
        ("after=2 before=5", "3 4 OK 2"),
        ("after=4 before=8", "5 6 7 OK 3"),
        ("before=4", "1 2 3 OK 3"),
        ("before=4 last=1", "3 OK 1"),
        ("before=0", "OK 0"),
        ("after=-4m", "6 7 8 OK 3"),
        ("after=-210s", "6 7 8 OK 3"),
        ("after=-6m", "4 5 6 7 8 OK 5"),
        ("after=-1h", "1 2 3 4 5 6 7 8 OK 8"),
        ("after=-1h before=-6m", "1 2 OK 2"),
        ("after=-7m before=-2m", "3 4 5 6 OK 4"),
        ("after=-7m before=-2m last=2", "5 6 OK 2"),
        ("before=-6m", "1 2 OK 2"),
        ("before=-1h", "OK 0"),
        ("after=-2h before=-1h", "OK 0"),
        ("after=-6m before=-6m", "OK 0"),
        ("after=-6m last=0", "OK 0"),
        ("after=-1m", "OK 0"),
    ],
)
def test_reads_what_the_history_has_dropped(server: FakeServer, bounds: str, expected: str) -> None:
    assert summary(ask(welcomed(server), f"HIST a {bounds}".rstrip())) == expected


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ("after=0", "lost:1-3 4 5 6 7 8 OK 5"),
        ("after=0 before=3", "lost:1-2 OK 0"),
        ("after=0 last=6", "lost:3-3 4 5 6 7 8 OK 5"),
        ("last=6", "4 5 6 7 8 OK 5"),
        ("before=6", "4 5 OK 2"),
        ("after=-1h", "lost:1-3 4 5 6 7 8 OK 5"),
        ("after=-4m", "6 7 8 OK 3"),
        ("after=-5m", "5 6 7 8 OK 4"),
        ("after=-1h before=-7m", "lost:1-3 OK 0"),
        ("before=-7m", "OK 0"),
        ("before=-7m last=2", "OK 0"),
    ],
)
def test_reports_what_the_backplane_has_deleted_too(server: FakeServer, bounds: str, expected: str) -> None:
    server.backplane.first_kept = 4
    assert summary(ask(welcomed(server), f"HIST a {bounds}")) == expected


@pytest.mark.parametrize(
    ("bounds", "successful", "expected"),
    [
        ("after=0", 0, "lost:1-5 6 7 8 OK 3"),
        ("last=5", 0, "lost:4-5 6 7 8 OK 3"),
        ("before=8", 0, "lost:1-5 6 7 OK 2"),
        ("after=-6m", 1, "lost:4-5 6 7 8 OK 3"),
        ("after=-6m", 0, f"ERR unavailable {UNAVAILABLE.message}"),
        ("before=-5m last=1", 0, f"ERR unavailable {UNAVAILABLE.message}"),
    ],
)
def test_failed_request_is_reported(server: FakeServer, bounds: str, successful: int, expected: str) -> None:
    """What could not be read is a loss. If a time could not be found, it is not known what was requested."""
    reader = welcomed(server)
    reader.send(f"HIST a {bounds}", "PING")
    server.backplane.release(successful)
    server.turn()
    server.backplane.failing = 1
    settle(server)
    assert summary(reader.received()) == expected + " PONG"


def test_reads_a_channel_that_is_not_open() -> None:
    server = make_server(history_age=30)
    publish(server, 4)
    server.now += 31
    server.broker.expire_histories()
    assert not server.broker.channels
    reader = welcomed(server)
    assert summary(ask(reader, "HIST a after=0")) == "1 2 3 4 OK 4"
    assert summary(ask(reader, "HIST a after=-150s")) == "3 4 OK 2"
    assert not server.broker.channels


def test_nothing_is_read_without_bounds(server: FakeServer) -> None:
    """A terminal shows what is recent, however much the backplane has."""
    reader = welcomed(server)
    reader.send("HIST a")
    assert len(server.backplane) == 0 and summary(reader.received()) == "6 7 8 OK 3"


def test_json_has_the_same_events_in_one_answer(server: FakeServer) -> None:
    client = server.json_client()
    client.received()
    server.backplane.first_kept = 2
    client.send({"type": "history", "id": 1, "channel": "a", "after": 0})
    release_all(server)
    (answer,) = client.received()
    assert [event["offset"] for event in answer["events"]] == [2, 3, 4, 5, 6, 7, 8]
    assert answer["lost"] == {"first": 1, "last": 1} and (answer["offset"], "gaps" in answer) == (8, False)


# The wait for the backplane.


LONG = "x" * 4_000


@pytest.fixture
def long_server() -> FakeServer:
    """Has published 40 events that fill three chunks, and holds three of them."""
    server = make_server()
    publish(server, 40, LONG)
    return server


def test_live_events_and_other_commands_wait_for_the_reply(long_server: FakeServer) -> None:
    reader = welcomed(long_server, "SUB a")
    reader.send("HIST a after=30", "PING")
    publish(long_server, 1)
    release_all(long_server)
    *history, pong, live = reader.received()
    assert summary(history) == " ".join(map(str, range(31, 41))) + " OK 10"
    assert (pong, live.split(" ")[2]) == ("PONG", "41")


def test_slow_client_costs_one_chunk(long_server: FakeServer) -> None:
    reader = welcomed(long_server)
    reader.outlet.room = 10
    reader.send("HIST a after=0")
    lines: list[str] = []
    used = long_server.broker.memory_budget.used
    for _ in range(20):
        assert len(long_server.backplane) <= 1
        release_all(long_server)
        assert len(reader.outlet.waiting) <= 1.2 * CHUNK_BYTES
        assert long_server.broker.memory_budget.used <= used + 1.2 * CHUNK_BYTES
        reader.outlet.drain(20_000)
    reader.outlet.drain()
    release_all(long_server)
    lines = reader.received()
    assert summary(lines) == " ".join(map(str, range(1, 41))) + " OK 40"
    assert long_server.broker.memory_budget.used == used


def test_socket_that_accepts_data_again_does_not_end_the_wait(long_server: FakeServer) -> None:
    reader = welcomed(long_server)
    reader.send("HIST a after=0")
    reader.session.resume_writing()
    assert len(long_server.backplane) == 1 and reader.received() == []
    release_all(long_server)
    assert summary(reader.received()).endswith(" OK 40")


def test_disconnection_ends_the_reading(long_server: FakeServer) -> None:
    reader = in_mid_history(long_server)
    assert len(long_server.backplane) == 1
    reader.disconnect()
    release_all(long_server)
    assert long_server.broker.memory_budget.used == 0 and reader.exceptions == 0


@pytest.mark.parametrize("releases", [0, 1, 2])
def test_nothing_more_is_read_for_a_client_that_no_longer_reads(long_server: FakeServer, releases: int) -> None:
    """The commands that it has sent before are still run."""
    reader = welcomed(long_server)
    if not releases:
        reader.outlet.blocked |= NOT_READING
    reader.send("HIST a after=0", "PUB a last")
    for _ in range(releases):
        long_server.backplane.release()
        long_server.turn()
    reader.outlet.blocked |= NOT_READING
    long_server.backplane.release()
    long_server.turn()
    settle(long_server)
    assert len(long_server.backplane) == 0 and long_server.broker.channels[b"a"].head == 41
    assert long_server.broker.memory_budget.used == 0


def test_failed_read_in_the_middle_is_a_loss(long_server: FakeServer) -> None:
    reader = in_mid_history(long_server)
    long_server.backplane.failing = 1
    release_all(long_server)
    received = summary(reader.received())
    assert "lost:" in received and received.endswith("-37 38 39 40 OK " + str(received.count(" ") - 2))


def test_events_that_are_deleted_meanwhile_are_lost(long_server: FakeServer) -> None:
    reader = in_mid_history(long_server)
    long_server.backplane.first_kept = 30
    release_all(long_server)
    received = summary(reader.received())
    assert "lost:" in received and "-29 30 31" in received


def test_new_epoch_ends_the_history(long_server: FakeServer) -> None:
    reader = in_mid_history(long_server)
    long_server.restart_backplane()
    long_server.backplane.announce(b"a")
    long_server.backplane.first_kept = 100
    release_all(long_server)
    assert "-40 OK " in summary(reader.received())


def test_loss_of_the_right_to_read_ends_the_history() -> None:
    anyone, nobody = (FakePolicy(anonymous=rights) for rights in ({"a": "rw"}, {"a": "w"}))
    server = make_server(policy=anyone)
    publish(server, 40, LONG)
    reader = in_mid_history(server)
    server.context.change_policy(nobody)
    release_all(server)
    assert "-40 OK " in summary(reader.received())


def test_reply_is_charged_as_it_is_written(long_server: FakeServer) -> None:
    """One command for each 4 KiB."""
    reader = welcomed(long_server)
    reader.limit(commands_per_second=1, commands_burst=60)
    reader.send("HIST a after=0")
    release_all(long_server)
    reader.received()
    assert 15 <= ask(reader, *["PING"] * 60).count("PONG") <= 25


def test_reads_have_a_limit(server: FakeServer) -> None:
    readers = [welcomed(server) for _ in range(MAX_READS + 5)]
    for reader in readers:
        reader.send("HIST a after=0")
    assert len(server.backplane) == MAX_READS
    server.backplane.release(7)
    assert len(server.backplane) == MAX_READS - 2
    release_all(server)
    assert {summary(reader.received()) for reader in readers} == {"1 2 3 4 5 6 7 8 OK 8"}


def test_reads_that_wait_are_answered_although_the_backplane_fails_at_once(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [welcomed(server) for _ in range(MAX_READS + 2_000)]
    for reader in readers:
        reader.send("HIST a after=0")
    monkeypatch.setattr(server.backplane, "read", lambda channel, after, limit: ())
    release_all(server)
    assert {summary(reader.received()) for reader in readers[MAX_READS:]} == {"lost:1-5 6 7 8 OK 3"}


# Against a model.


BOUNDS = st.none() | st.integers(0, 14) | st.integers(-3, 14).map(lambda second: Moment(second * 1_000))


def read(server: FakeServer, query: HistoryQuery) -> tuple[HistoryPart, list[Event | Lost]]:
    """A part of the history of channel a, and all that it has."""
    parts: list[Any] = []
    channel = server.broker.channels[b"a"]
    on_result(complete(read_part(server.broker, channel, query, server.wall, LOCAL)), parts.append)
    release_all(server)
    (part,) = parts
    items: list[Event | Lost] = []
    for item in part.events:
        if isinstance(item, Event | Lost):
            items.append(item)
        else:
            release_all(server)
    return part, items


@holds(
    examples=200,
    steps=st.lists(st.sampled_from([0, 0, 1, 1, 3]), min_size=1, max_size=12),
    held=st.integers(1, 8),
    first_kept=st.sampled_from([1, 1, 2, 4, 9]),
    last=st.none() | st.integers(0, 9),
    since=st.none() | st.integers(0, 14),
    after=BOUNDS,
    before=BOUNDS,
)
def test_each_requested_event_that_is_kept_is_returned_once(
    steps: list[int], held: int, first_kept: int, last: int | None, since: int | None, after: Any, before: Any
) -> None:
    """The events that match the query are returned if the history or the backplane has them, each once and in order.
    The remaining ones are reported as lost if the query has a lower bound."""
    server = make_server(history_events=held)
    server.wall = 0.0
    writer = welcomed(server)
    times = [sum(steps[: index + 1]) * 1_000 for index in range(len(steps))]
    for time in times:
        server.wall = time / 1_000
        writer.send("PUB a x")
        settle(server)
    server.backplane.first_kept = first_kept
    part, items = read(server, HistoryQuery(last, since, after, before))

    def is_between(offset: int, time: int) -> bool:
        return all(
            (time - bound.milliseconds if isinstance(bound, Moment) else offset - bound) * sign > 0
            for bound, sign in ((since, 1), (after, 1), (before, -1))
            if bound is not None
        )

    requested = [offset for offset, time in enumerate(times, 1) if is_between(offset, time)]
    if last is not None:
        requested = requested[-last:] if last else []
    in_memory = range(max(1, len(times) + 1 - held), len(times) + 1)
    kept = range(min(first_kept, in_memory.start), len(times) + 1)
    if last is since is after is before is None:
        kept = in_memory
    assert [item.offset for item in items if isinstance(item, Event)] == [one for one in requested if one in kept]
    lost = set() if part.lost is None else {*range(part.lost.first, part.lost.last + 1)}
    assert not lost & {*kept} and len(items) == len([one for one in requested if one in kept])
    if since is not None or after is not None:
        assert {*requested} - {*kept} <= lost
    else:
        assert not lost
