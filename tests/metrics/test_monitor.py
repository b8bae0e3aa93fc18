"""What the bridge tells about itself: when, to whom, and at what cost."""

import json
from typing import Any

import pytest

from twistedsock.metrics import sys_channels as module
from twistedsock.metrics.sys_channels import BIT, CLOSED_EACH_TICK, PART_OF_TIME, PERIOD, TICK, Monitor
from twistedsock.metrics.tables import ENDS, ENDS_ROWS, MAX_PAGE
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import Step
from twistedsock.stats import TcpStats
from twistedsock.testing import FakePolicy, FakeServer, JsonClient


class Watched(FakeServer):
    """A bridge with a monitor. ``seconds(n)`` lets time pass."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.monitor = Monitor(self.context, lambda: 5_000, lambda: 0.5)
        self.monitor.attach()

    def seconds(self, count: int) -> None:
        for _ in range(count):
            self.now += TICK
            self.wall += TICK
            self.monitor.tick()
            self.turn()

    def admin(self, *channels: str) -> JsonClient:
        peer = self.json_client()
        for channel in channels:
            peer.send({"type": "subscribe", "channel": channel})
        peer.received()
        return peer


def events(peer: JsonClient) -> list[dict[str, Any]]:
    return [message for message in peer.received() if message["type"] == "event"]


@pytest.fixture
def server() -> Watched:
    return Watched()


def test_the_figures_come_each_second(server: Watched) -> None:
    admin = server.admin("$sys/figures")
    server.turn()
    assert events(admin) == []
    server.context.stats.count_turn(0.5)
    server.seconds(2)
    first, second = events(admin)
    assert (first["name"], first["from"], first["channel"]) == ("figures", "$sys", "$sys/figures")
    assert second["data"]["time"] - first["data"]["time"] == 1.0
    assert first["data"]["turn_longest"] == 0.5 and second["data"]["turn_longest"] < 0.5
    assert (first["data"]["channels"], first["data"]["memory_bytes"]) == (0, 5_000)


def test_the_figures_are_kept_for_five_minutes(server: Watched) -> None:
    """Also while nobody reads them, so that a chart has a past."""
    server.seconds(310)
    admin = server.json_client()
    admin.send({"type": "subscribe", "channel": "$sys/figures", "last": 1000})
    server.turn()
    assert len(events(admin)) == 300


def test_a_page_comes_at_once_and_then_every_two_seconds(server: Watched) -> None:
    admin = server.admin("$sys/channels/name/0", "$sys/peers/newest/0")
    server.turn()
    assert [event["name"] for event in events(admin)] == ["channels", "peers"]
    server.seconds(10)
    assert [event["name"] for event in events(admin)] == ["channels", "peers"] * 5


def test_who_comes_later_gets_the_same_look(server: Watched) -> None:
    server.admin("$sys/channels/name/0")
    server.turn()
    server.line_client().send("PUB new x")
    server.turn()
    second = server.admin("$sys/channels/rate/0")
    server.turn()
    assert events(second)[0]["data"]["total"] == 0
    server.seconds(2)
    assert events(second)[-1]["data"]["total"] == 1


def test_all_pages_of_peers_are_of_one_look(server: Watched) -> None:
    admin = server.admin("$sys/peers/newest/0", "$sys/peers/id/0")
    server.turn()
    server.line_client()
    admin.send({"type": "subscribe", "channel": "$sys/peers/lag/0"})
    server.turn()
    assert [event["data"]["total"] for event in events(admin)] == [1, 1, 1]
    server.seconds(2)
    assert [event["data"]["total"] for event in events(admin)[-3:]] == [2, 2, 2]


def test_what_nobody_reads_costs_nothing(server: Watched) -> None:
    admin = server.admin("$sys/channels/name/0", "$sys/peers/id/0", "$sys/peer/p1")
    server.turn()
    assert server.monitor._channels is not None and server.monitor._peers is not None
    admin.session.connection_lost()
    server.seconds(1)
    assert server.monitor._channels is server.monitor._peers is None
    assert not server.monitor._topics and not server.monitor._told
    assert [name for name in server.broker.channels if server.broker.channels[name].history] == [
        b"$sys/peer/p1",
        b"$sys/figures",
    ]


def test_who_left_before_the_answer_gets_none(server: Watched) -> None:
    admin = server.admin("$sys/channels/name/0", "$sys/peers/id/0")
    admin.send({"type": "unsubscribe", "channel": "$sys/channels/name/0"})
    server.turn()
    assert [event["name"] for event in events(admin)] == ["peers"]


def test_a_page_that_is_read_again_is_not_emptied(server: Watched) -> None:
    admin = server.admin("$sys/channels/name/0")
    server.turn()
    admin.send({"type": "unsubscribe", "channel": "$sys/channels/name/0"})
    admin.send({"type": "subscribe", "channel": "$sys/channels/name/0"})
    server.turn()
    assert server.broker.channels[b"$sys/channels/name/0"].history


def test_names_that_are_no_page_stay_silent(server: Watched) -> None:
    admin = server.admin("$sys/peers/foo", "$sys/", "$sys/closed/x", "$sys/channels/name/x")
    server.seconds(5)
    assert events(admin) == []
    assert server.broker.channels.keys() >= {b"$sys/peers/foo", b"$sys/closed/x"}


def test_an_id_that_no_session_has_is_told_once(server: Watched) -> None:
    admin = server.admin("$sys/peer/nobody")
    server.seconds(5)
    assert [event["data"] for event in events(admin)] == [{"peer": None, "steps": []}]


def test_the_timeline_of_a_session_that_ended_is_kept_though_nobody_read_it(server: Watched) -> None:
    peer = server.line_client()
    peer.send("SUB k", "QUIT")
    peer.pipeline.connection_lost("cleanly")
    server.seconds(10)
    for _ in range(2):
        admin = server.admin("$sys/peer/p1")
        server.seconds(5)
        (event,) = events(admin)
        assert (event["data"]["peer"]["state"], event["data"]["peer"]["channels"]) == ("closed", 1)
        assert [step["step"] for step in event["data"]["steps"]] == ["accepted", "open", "closing", "closed"]
        admin.leaves()


def test_a_timeline_that_is_opened_again_does_not_stay_at_an_old_step(server: Watched) -> None:
    """It was left while its session was closing."""
    peer = server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    server.now += 1
    peer.send("QUIT")
    server.turn()
    assert events(admin)[-1]["data"]["peer"]["state"] == "closing"
    admin.send({"type": "unsubscribe", "channel": "$sys/peer/p1"})
    peer.pipeline.connection_lost("cleanly")
    server.seconds(1)
    admin.send({"type": "subscribe", "channel": "$sys/peer/p1", "last": 1})
    server.turn()
    assert [event["data"]["peer"]["state"] for event in events(admin)] == ["closing", "closed"]


def test_the_last_ends_are_kept_and_told_in_pages_when_there_are_new_ones(server: Watched) -> None:
    for _ in range(3):
        server.line_client().leaves()
    admin = server.admin("$sys/closed/0", "$sys/closed/1")
    server.turn()
    first, second = events(admin)
    assert (first["name"], first["data"]["page"], first["data"]["pages"], first["data"]["total"]) == ("closed", 0, 1, 3)
    assert [end["id"] for end in first["data"]["closed"]] == ["p3", "p2", "p1"]
    assert first["data"]["closed"][0]["at"] == server.wall
    assert second["data"]["closed"] == []
    server.seconds(1)
    events(admin)
    server.seconds(10)
    assert events(admin) == []
    for _ in range(ENDS):
        server.line_client().leaves()
    server.seconds(3)
    first, second = events(admin)
    assert (first["data"]["pages"], first["data"]["total"]) == (ENDS // ENDS_ROWS, ENDS)
    ids = [end["id"] for page in (first, second) for end in page["data"]["closed"]]
    assert ids == [f"p{number}" for number in range(4 + ENDS, 4 + ENDS - 2 * ENDS_ROWS, -1)]


def test_a_page_of_ends_with_the_longest_names_fits_into_a_page(server: Watched) -> None:
    for _ in range(ENDS_ROWS):
        peer = server.line_client()
        peer.session.client.nick = b"\xc3\xa9" * 16
        peer.session.endpoints = Endpoints(
            b"[2001:db8:1111:2222:3333:4444:5555:6666%interface0]:50000", b"unix:" + b"/run" * 27
        )
        peer.session.mark_closing("\x1f" * 100, "peer")
        peer.leaves()
    admin = server.admin("$sys/closed/0")
    server.turn()
    (event,) = events(admin)
    assert len(json.dumps(event["data"], ensure_ascii=False).encode()) < MAX_PAGE


def test_a_peers_page_tells_its_steps_as_they_come(server: Watched) -> None:
    peer = server.line_client()
    peer.outlet.told = TcpStats(1, 2, 3, 0.004)
    admin = server.admin("$sys/peer/p1")
    server.turn()
    (first,) = events(admin)
    assert first["name"] == "steps" and first["data"]["peer"]["rtt_ms"] == 4.0
    assert [step["step"] for step in first["data"]["steps"]] == ["accepted", "open"]
    assert first["data"]["steps"][0]["at"] == server.wall
    server.now += 0.3
    peer.session.fell_behind(b"k", 17)
    server.turn()
    assert events(admin)[-1]["data"]["steps"][-1]["step"] == "behind"
    peer.session.caught_up(b"k")
    server.turn()
    assert events(admin) == []  # so soon
    server.seconds(1)
    assert events(admin)[-1]["data"]["steps"][-1]["step"] == "caught-up"


def test_a_step_of_who_is_not_read_any_longer_is_forgotten(server: Watched) -> None:
    peer = server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    peer.session.fell_behind(b"k", 17)
    admin.session.connection_lost()
    server.seconds(2)
    assert server.monitor._changed == set() and not server.monitor._due


def test_the_last_words_about_a_peer_stay(server: Watched) -> None:
    peer = server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    peer.send("QUIT")
    peer.pipeline.connection_lost("cleanly")
    server.turn()
    last = events(admin)[-1]["data"]
    assert last["peer"]["state"] == "closed"
    assert [step["step"] for step in last["steps"]] == ["accepted", "open", "closing", "closed"]
    server.seconds(4)
    assert events(admin) == []
    late = server.json_client()
    late.send({"type": "subscribe", "channel": "$sys/peer/p1", "last": 1})
    server.turn()
    assert events(late)[0]["data"] == last


def test_ends_are_told_while_somebody_reads_them_and_thinned(server: Watched) -> None:
    server.line_client().leaves()
    admin = server.admin("$sys/closed")
    for _ in range(CLOSED_EACH_TICK + 7):
        server.line_client().leaves()
    server.turn()
    ends = events(admin)
    assert len(ends) == CLOSED_EACH_TICK
    assert {(end["name"], end["data"]["by"]) for end in ends} == {("closed", "peer")}
    server.seconds(1)
    server.line_client().leaves()
    server.turn()
    assert len(events(admin)) == 1
    admin.leaves()
    server.line_client().leaves()
    server.turn()
    assert not server.monitor._closed


class SlowHall(Watched):
    """Each look at the clock takes a while."""

    pace = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.broker.clock = self.slow_clock

    def slow_clock(self) -> float:
        self.now += self.pace
        return self.now


def test_long_work_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedsock.metrics.tables.CHANNELS_PER_STEP", 1)
    server = SlowHall()
    server.line_client().send(*[f"PUB c{number} x" for number in range(20)])
    server.turn()
    admin = server.admin("$sys/channels/name/0")
    server.pace = 2 * BIT
    turns = 0
    while not server.broker.channels[b"$sys/channels/name/0"].history:
        server.turns.step()
        turns += 1
    assert turns > 20
    server.pace = 0.0
    server.turn()
    assert events(admin)[0]["data"]["total"] == 20


def test_who_has_much_to_look_at_looks_more_seldom(server: Watched) -> None:
    """So that it never takes more than a small part of the time."""
    admin = server.admin("$sys/channels/name/0")
    server.turn()
    events(admin)
    server.monitor._spent = 10 * PART_OF_TIME
    server.seconds(20)
    assert len(events(admin)) == 1 + 5  # at once, then after ten seconds as before
    assert PERIOD == 2.0


def test_a_look_that_takes_longer_than_a_period_is_not_begun_again(
    server: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twistedsock.metrics.tables.CHANNELS_PER_STEP", 1)
    monkeypatch.setattr(module, "BIT", -1.0)
    server.line_client().send("PUB a x", "PUB b x", "PUB c x")
    server.turn()
    admin = server.admin("$sys/channels/name/0")
    for _ in range(3):
        server.turns.step()
        server.now += PERIOD
        server.monitor.tick()
    server.turn()
    assert len(events(admin)) == 1


def test_the_monitor_needs_no_peer_to_have_a_name(server: Watched) -> None:
    """A step of somebody whom nobody reads about is nothing to it."""
    peer = server.line_client()
    server.context.connection_events.stepped(peer.session, Step(1.0, "behind"))
    assert not server.monitor._due


def test_a_step_has_the_same_time_whenever_it_is_told(server: Watched) -> None:
    """Though the clock on the wall drifts; unless somebody has set it."""
    server.line_client()
    admin = server.admin("$sys/peer/p1")
    server.turn()
    first = events(admin)[0]["data"]["steps"]
    server.wall += 0.01
    server.seconds(2)
    assert events(admin)[-1]["data"]["steps"] == first
    server.wall += 3600
    server.seconds(2)
    assert events(admin)[-1]["data"]["steps"][0]["at"] == first[0]["at"] + 3600.01


def test_long_names_make_short_pages() -> None:
    """As those who come, and those who prove to be somebody, show."""
    subject = "s" * 200
    server = Watched(policy=FakePolicy(tokens={"t": (subject, {}, None), "root": ("root", {}, None)}, admins=["root"]))
    peers = [server.line_client() for _ in range(80)]
    admin = server.json_client()
    admin.send({"type": "auth", "token": "root"}, {"type": "subscribe", "channel": "$sys/peers/id/0"})
    server.turn()
    assert events(admin)[0]["data"]["pages"] == 1
    peers[0].send("AUTH t")
    server.seconds(2)
    page = events(admin)[-1]["data"]
    assert (page["pages"], page["total"]) == (2, 81)
