"""Histories that are read slowly: every protocol reports the events that are dropped meanwhile."""

from typing import Any

from tests.behaviours.protocol_clients import Connect
from tests.session.clients import settle
from twistedsock.testing import FakeServer

PAYLOAD = "x" * 20_000


def offsets(answer: dict[str, Any]) -> list[int]:
    return [event["offset"] for event in answer["events"]]


def missing(answer: dict[str, Any]) -> list[int]:
    return [offset for gap in answer.get("lost", []) for offset in range(gap["first"], gap["last"] + 1)]


def publish(server: FakeServer, channel: str, count: int, payload: str = PAYLOAD) -> None:
    writer = server.line_client()
    for _ in range(count):
        writer.send(f"PUB {channel} {payload}")
    settle(server)
    writer.disconnect()


def test_reports_events_that_are_dropped_while_a_history_is_sent(late: bool, connect_reader: Connect) -> None:
    server = FakeServer(late, history_events=20)
    publish(server, "kitchen", 20)
    reader = connect_reader(server)
    reader.client.outlet.room = 0
    reader.send("history", channel="kitchen", since=0)
    settle(server)
    publish(server, "kitchen", 10)
    reader.client.outlet.drain(100_000)
    settle(server)
    publish(server, "kitchen", 6)
    reader.client.outlet.drain()
    (answer,) = reader.received()
    assert sorted(offsets(answer) + missing(answer)) == [*range(1, 21)]
    assert len(answer["lost"]) == 2 and set(range(17, 21)) <= {*offsets(answer)}


def test_reports_requested_events_that_were_dropped_before(late: bool, connect_reader: Connect) -> None:
    server = FakeServer(late, history_events=5)
    publish(server, "kitchen", 9, "x")
    reader = connect_reader(server)
    answer = reader.request("history", channel="kitchen", since=2)
    assert (answer["lost"], offsets(answer)) == ([{"first": 3, "last": 4}], [5, 6, 7, 8, 9])
    assert "lost" not in reader.request("history", channel="kitchen", since=4)
    assert "lost" not in reader.request("history", channel="kitchen")
    assert "lost" not in reader.request("history", channel="kitchen", last=7)


def test_reports_lost_events_of_a_channel_that_closes_meanwhile(late: bool, connect_reader: Connect) -> None:
    server = FakeServer(late, history_age=300.0)
    publish(server, "kitchen", 20)
    reader = connect_reader(server)
    reader.client.outlet.room = 0
    reader.send("history", channel="kitchen")
    settle(server)
    server.now += 310
    server.broker.expire_histories()
    settle(server)
    assert b"kitchen" not in server.broker.channels
    publish(server, "kitchen", 3)
    reader.client.outlet.drain()
    (answer,) = reader.received()
    sent = len(offsets(answer))
    assert 0 < sent < 20 and offsets(answer) == [*range(1, sent + 1)] and missing(answer) == [*range(sent + 1, 21)]
