"""The channels under $sys/: their content, timing and cost."""

import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from twistedsock.errors import TOO_FAST
from twistedsock.metrics import sys_channels
from twistedsock.metrics.pages import CLOSED_ROWS_PER_PAGE, MAX_CLOSED_KEPT, MAX_PAGE_BYTES
from twistedsock.metrics.sys_channels import (
    MAX_CLOSED_PER_TICK,
    MAX_CPU_SHARE,
    SLICE_SECONDS,
    SNAPSHOT_INTERVAL_SECONDS,
    TICK_SECONDS,
    Monitor,
)
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import Step
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy, FakeServer, JsonClient


class MonitoredServer(FakeServer):
    """A server with a monitor. Each reading of the CPU time is ``work_cpu_seconds`` higher than the one before."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.cpu_seconds = 0.5
        self.work_cpu_seconds = 0.0
        self.monitor = Monitor(self.context, lambda: 5_000, self.use_cpu)
        self.monitor.attach()

    def use_cpu(self) -> float:
        self.cpu_seconds += self.work_cpu_seconds
        return self.cpu_seconds

    def pass_seconds(self, count: int) -> None:
        for _ in range(count):
            self.now += TICK_SECONDS
            self.wall += TICK_SECONDS
            self.monitor.tick()
            self.turn()

    def admin(self, *channels: str) -> JsonClient:
        client = self.json_client()
        for channel in channels:
            client.send({"type": "subscribe", "channel": channel})
        client.received()
        return client


def events(client: JsonClient) -> list[dict[str, Any]]:
    return [message for message in client.received() if message["type"] == "event"]


@pytest.fixture
def server() -> MonitoredServer:
    return MonitoredServer()


def test_publishes_statistics_each_second(server: MonitoredServer) -> None:
    admin = server.admin("$sys/figures")
    server.turn()
    assert events(admin) == []
    server.context.stats.count_turn(0.5)
    server.pass_seconds(2)
    first, second = events(admin)
    assert (first["name"], first["from"], first["channel"]) == ("figures", "$sys", "$sys/figures")
    assert second["data"]["time"] - first["data"]["time"] == 1.0
    assert first["data"]["turn_longest"] == 0.5 and second["data"]["turn_longest"] < 0.5
    assert (first["data"]["channels"], first["data"]["memory_bytes"]) == (0, 5_000)


def test_keeps_statistics_of_five_minutes_without_subscribers(server: MonitoredServer) -> None:
    server.pass_seconds(310)
    admin = server.json_client()
    admin.send({"type": "subscribe", "channel": "$sys/figures", "last": 1000})
    server.turn()
    assert len(events(admin)) == 300


def test_publishes_a_page_at_once_and_then_every_two_seconds(server: MonitoredServer) -> None:
    admin = server.admin("$sys/channels/name/0", "$sys/peers/newest/0")
    server.turn()
    assert [event["name"] for event in events(admin)] == ["channels", "peers"]
    server.pass_seconds(10)
    assert [event["name"] for event in events(admin)] == ["channels", "peers"] * 5


def test_later_subscriber_gets_a_page_of_the_same_snapshot(server: MonitoredServer) -> None:
    server.admin("$sys/channels/name/0")
    server.turn()
    server.line_client().send("PUB new x")
    server.turn()
    second = server.admin("$sys/channels/rate/0")
    server.turn()
    assert events(second)[0]["data"]["total"] == 0
    server.pass_seconds(2)
    assert events(second)[-1]["data"]["total"] == 1


def test_all_pages_of_connections_belong_to_one_snapshot(server: MonitoredServer) -> None:
    admin = server.admin("$sys/peers/newest/0", "$sys/peers/id/0")
    server.turn()
    server.line_client()
    admin.send({"type": "subscribe", "channel": "$sys/peers/lag/0"})
    server.turn()
    assert [event["data"]["total"] for event in events(admin)] == [1, 1, 1]
    server.pass_seconds(2)
    assert [event["data"]["total"] for event in events(admin)[-3:]] == [2, 2, 2]


def test_pages_without_subscribers_have_no_history_and_no_table(
    server: MonitoredServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[weakref.ref[object]] = []

    def recording(build: Callable[..., Any]) -> Callable[..., Any]:
        def build_and_record(*arguments: Any) -> Any:
            table = build(*arguments)
            tables.append(weakref.ref(table))
            return table

        return build_and_record

    for name in ("ChannelTable", "ConnectionTable"):
        monkeypatch.setattr(sys_channels, name, recording(getattr(sys_channels, name)))
    admin = server.admin("$sys/channels/name/0", "$sys/peers/id/0", "$sys/peer/p1")
    server.turn()
    assert len(tables) == 2 and None not in [table() for table in tables]
    admin.session.connection_lost()
    server.pass_seconds(1)
    gc.collect()
    assert [table() for table in tables] == [None, None]
    channels = server.broker.channels
    assert [name for name in channels if channels[name].history] == [b"$sys/peer/p1", b"$sys/figures"]


def test_does_not_publish_a_page_whose_subscriber_has_left(server: MonitoredServer) -> None:
    admin = server.admin("$sys/channels/name/0", "$sys/peers/id/0")
    admin.send({"type": "unsubscribe", "channel": "$sys/channels/name/0"})
    server.turn()
    assert [event["name"] for event in events(admin)] == ["peers"]


def test_page_that_is_subscribed_again_keeps_its_history(server: MonitoredServer) -> None:
    admin = server.admin("$sys/channels/name/0")
    server.turn()
    admin.send({"type": "unsubscribe", "channel": "$sys/channels/name/0"})
    admin.send({"type": "subscribe", "channel": "$sys/channels/name/0"})
    server.turn()
    assert server.broker.channels[b"$sys/channels/name/0"].history


def test_publishes_nothing_on_unknown_channels(server: MonitoredServer) -> None:
    admin = server.admin("$sys/peers/foo", "$sys/", "$sys/closed/x", "$sys/channels/name/x")
    server.pass_seconds(5)
    assert events(admin) == []
    assert server.broker.channels.keys() >= {b"$sys/peers/foo", b"$sys/closed/x"}


def test_publishes_an_empty_timeline_once_for_an_unknown_id(server: MonitoredServer) -> None:
    admin = server.admin("$sys/peer/nobody")
    server.pass_seconds(5)
    assert [event["data"] for event in events(admin)] == [{"peer": None, "steps": []}]


def test_keeps_the_timeline_of_a_session_that_ended_without_subscribers(server: MonitoredServer) -> None:
    client = server.line_client()
    client.send("SUB k", "QUIT")
    client.pipeline.connection_lost("cleanly")
    server.pass_seconds(10)
    for _ in range(2):
        admin = server.admin("$sys/peer/p1")
        server.pass_seconds(5)
        (event,) = events(admin)
        assert (event["data"]["peer"]["state"], event["data"]["peer"]["channels"]) == ("closed", 1)
        assert [step["step"] for step in event["data"]["steps"]] == ["accepted", "open", "closing", "closed"]
        admin.disconnect()


def test_timeline_subscribed_again_after_the_close_is_complete(server: MonitoredServer) -> None:
    client = server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    server.now += 1
    client.send("QUIT")
    server.turn()
    assert events(admin)[-1]["data"]["peer"]["state"] == "closing"
    admin.send({"type": "unsubscribe", "channel": "$sys/peer/p1"})
    client.pipeline.connection_lost("cleanly")
    server.pass_seconds(1)
    admin.send({"type": "subscribe", "channel": "$sys/peer/p1", "last": 1})
    server.turn()
    assert [event["data"]["peer"]["state"] for event in events(admin)] == ["closing", "closed"]


def test_publishes_pages_of_closed_connections_when_there_are_new_ones(server: MonitoredServer) -> None:
    for _ in range(3):
        server.line_client().disconnect()
    admin = server.admin("$sys/closed/0", "$sys/closed/1")
    server.turn()
    first, second = events(admin)
    assert (first["name"], first["data"]["page"], first["data"]["pages"], first["data"]["total"]) == ("closed", 0, 1, 3)
    assert [end["id"] for end in first["data"]["closed"]] == ["p3", "p2", "p1"]
    assert first["data"]["closed"][0]["at"] == server.wall
    assert second["data"]["closed"] == []
    server.pass_seconds(1)
    events(admin)
    server.pass_seconds(10)
    assert events(admin) == []
    for _ in range(MAX_CLOSED_KEPT):
        server.line_client().disconnect()
    server.pass_seconds(3)
    first, second = events(admin)
    assert (first["data"]["pages"], first["data"]["total"]) == (
        MAX_CLOSED_KEPT // CLOSED_ROWS_PER_PAGE,
        MAX_CLOSED_KEPT,
    )
    ids = [end["id"] for page in (first, second) for end in page["data"]["closed"]]
    assert ids == [
        f"p{number}" for number in range(4 + MAX_CLOSED_KEPT, 4 + MAX_CLOSED_KEPT - 2 * CLOSED_ROWS_PER_PAGE, -1)
    ]


def test_page_of_closed_connections_with_the_longest_names_is_not_too_long(server: MonitoredServer) -> None:
    for _ in range(CLOSED_ROWS_PER_PAGE):
        client = server.line_client()
        client.session.client.nick = b"\xc3\xa9" * 16
        client.session.endpoints = Endpoints(
            b"[2001:db8:1111:2222:3333:4444:5555:6666%interface0]:50000", b"unix:" + b"/run" * 27
        )
        client.session.mark_closing("\x1f" * 100, "peer")
        client.disconnect()
    admin = server.admin("$sys/closed/0")
    server.turn()
    (event,) = events(admin)
    assert len(json.dumps(event["data"], ensure_ascii=False).encode()) < MAX_PAGE_BYTES


def test_publishes_new_steps_of_a_timeline_at_most_every_quarter_second(server: MonitoredServer) -> None:
    client = server.line_client()
    client.outlet.stats = TcpStats(1, 2, 3, 0.004)
    admin = server.admin("$sys/peer/p1")
    server.turn()
    (first,) = events(admin)
    assert first["name"] == "steps" and first["data"]["peer"]["rtt_ms"] == 4.0
    assert [step["step"] for step in first["data"]["steps"]] == ["accepted", "open"]
    assert first["data"]["steps"][0]["at"] == server.wall
    server.now += 0.3
    client.session.fell_behind(b"k", 17)
    server.turn()
    assert events(admin)[-1]["data"]["steps"][-1]["step"] == "behind"
    client.session.caught_up(b"k")
    server.turn()
    assert events(admin) == []  # so soon
    server.pass_seconds(1)
    assert events(admin)[-1]["data"]["steps"][-1]["step"] == "caught-up"


def test_drops_a_changed_timeline_whose_subscriber_has_left(server: MonitoredServer) -> None:
    client = server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    client.session.fell_behind(b"k", 17)
    admin.session.connection_lost()
    server.pass_seconds(2)
    late = server.json_client()
    late.send({"type": "subscribe", "channel": "$sys/peer/p1", "last": 10})
    server.turn()
    steps = [[step["step"] for step in event["data"]["steps"]] for event in events(late)]
    assert steps == [["accepted", "open"], ["accepted", "open", "behind"]]


def test_last_timeline_of_a_closed_connection_stays_in_history(server: MonitoredServer) -> None:
    client = server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    client.send("QUIT")
    client.pipeline.connection_lost("cleanly")
    server.turn()
    last = events(admin)[-1]["data"]
    assert last["peer"]["state"] == "closed"
    assert [step["step"] for step in last["steps"]] == ["accepted", "open", "closing", "closed"]
    server.pass_seconds(4)
    assert events(admin) == []
    late = server.json_client()
    late.send({"type": "subscribe", "channel": "$sys/peer/p1", "last": 1})
    server.turn()
    assert events(late)[0]["data"] == last


def test_publishes_a_limited_number_of_closed_connections_per_second(server: MonitoredServer) -> None:
    server.line_client().disconnect()
    admin = server.admin("$sys/closed")
    for _ in range(MAX_CLOSED_PER_TICK + 7):
        server.line_client().disconnect()
    server.turn()
    ends = events(admin)
    assert len(ends) == MAX_CLOSED_PER_TICK
    assert {(end["name"], end["data"]["by"]) for end in ends} == {("closed", "peer")}
    server.pass_seconds(1)
    server.line_client().disconnect()
    server.turn()
    assert len(events(admin)) == 1
    admin.disconnect()
    server.line_client().disconnect()
    server.turn()
    assert events(admin) == []


class SlowServer(MonitoredServer):
    """A server whose clock advances with each call."""

    pace = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.slow_clock

    def slow_clock(self) -> float:
        self.now += self.pace
        return self.now


def test_divides_long_work_into_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedsock.metrics.tables.CHANNELS_PER_STEP", 1)
    server = SlowServer()
    server.line_client().send(*[f"PUB c{number} x" for number in range(20)])
    server.turn()
    admin = server.admin("$sys/channels/name/0")
    server.pace = 2 * SLICE_SECONDS
    turns = 0
    while not server.broker.channels[b"$sys/channels/name/0"].history:
        server.turns.step()
        turns += 1
    assert turns > 20
    server.pace = 0.0
    server.turn()
    assert events(admin)[0]["data"]["total"] == 20


def test_expensive_snapshots_become_less_frequent(server: MonitoredServer) -> None:
    admin = server.admin("$sys/channels/name/0")
    server.turn()
    events(admin)
    server.work_cpu_seconds = 10 * MAX_CPU_SHARE
    server.pass_seconds(2)
    server.work_cpu_seconds = 0.0
    server.pass_seconds(18)
    assert len(events(admin)) == 1 + 5  # the first snapshot, then after ten seconds as before


def test_does_not_start_a_snapshot_before_the_previous_one_is_complete(
    server: MonitoredServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twistedsock.metrics.tables.CHANNELS_PER_STEP", 1)
    monkeypatch.setattr(sys_channels, "SLICE_SECONDS", -1.0)
    server.line_client().send("PUB a x", "PUB b x", "PUB c x")
    server.turn()
    admin = server.admin("$sys/channels/name/0")
    for _ in range(3):
        server.turns.step()
        server.now += SNAPSHOT_INTERVAL_SECONDS
        server.monitor.tick()
    server.turn()
    assert len(events(admin)) == 1


def test_publishes_the_connection_log_once_a_second_while_it_changes(server: MonitoredServer) -> None:
    admin = server.admin("$sys/log/all/0", "$sys/log/refused/0")
    server.turn()
    first, refused = events(admin)
    assert (first["name"], refused["name"], refused["data"]["total"]) == ("log", "log", 0)
    assert [entry["kind"] for entry in first["data"]["log"]] == ["connect"]
    server.pass_seconds(5)
    assert len(events(admin)) == 2, "at the first tick"
    for _ in range(3):
        endpoints = Endpoints(b"198.51.100.9:5", b"10.0.0.1:8081")
        server.context.connection_events.refused(endpoints, "line", TOO_FAST)
    server.pass_seconds(3)
    pages = [event["data"] for event in events(admin)]
    assert [(page["total"], page["log"][0]["times"]) for page in pages] == [(2, 3), (1, 3)]


def test_summary_has_the_busiest_channels_and_the_slowest_clients(server: MonitoredServer) -> None:
    admin = server.admin("$sys/top")
    server.turn()
    assert [event["data"] for event in events(admin)] == [{"channels": [], "peers": []}]
    slow, publisher = server.line_client(), server.line_client()
    slow.send("NICK tablet", "SUB c3")
    slow.outlet.room = 0
    for number in range(10):
        publisher.send(*[f"PUB c{number} x"])
        server.turn()
    server.pass_seconds(2)
    for _ in range(4):
        publisher.send("PUB c3 x")
        server.turn()
    server.pass_seconds(2)
    summary = events(admin)[-1]["data"]
    names = [(row["channel"], row["rate"]) for row in summary["channels"]]
    assert names == [("c3", 2.0), ("c0", 0.0), ("c1", 0.0), ("c2", 0.0), ("c4", 0.0), ("c5", 0.0)]
    assert [(peer["nick"], peer["behind"]) for peer in summary["peers"]] == [("tablet", 1)]


def test_ignores_steps_of_connections_without_subscribers(server: MonitoredServer) -> None:
    client = server.line_client()
    server.turn()
    server.context.connection_events.stepped(client.session, Step(1.0, "behind"))
    assert not server.turns


def test_time_of_a_step_changes_only_if_the_clock_is_set(server: MonitoredServer) -> None:
    server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    first = events(admin)[0]["data"]["steps"]
    server.wall += 0.01
    server.pass_seconds(2)
    assert events(admin)[-1]["data"]["steps"] == first
    server.wall += 3600
    server.pass_seconds(2)
    assert events(admin)[-1]["data"]["steps"][0]["at"] == first[0]["at"] + 3600.01


def test_longer_names_make_shorter_pages() -> None:
    subject = "s" * 200
    server = MonitoredServer(
        policy=FakePolicy(tokens={"t": (subject, {}, None), "root": ("root", {}, None)}, admins=["root"])
    )
    clients = [server.line_client() for _ in range(80)]
    admin = server.json_client()
    admin.send({"type": "auth", "token": "root"}, {"type": "subscribe", "channel": "$sys/peers/id/0"})
    server.turn()
    assert events(admin)[0]["data"]["pages"] == 1
    clients[0].send("AUTH t")
    server.pass_seconds(2)
    page = events(admin)[-1]["data"]
    assert (page["pages"], page["total"]) == (2, 81)
