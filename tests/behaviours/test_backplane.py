"""Faults of the backplane: every protocol reports lost events, and delivers the events that are available."""

import pytest

from tests.behaviours.protocol_clients import Connect, ProtocolClient, settle
from twistedsock.pubsub.values import Position
from twistedsock.testing import FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(late=True)


def publish(publisher: ProtocolClient, *payloads: str) -> None:
    for payload in payloads:
        publisher.request("publish", channel="kitchen", data=payload)


def test_reports_a_skipped_batch_as_lost(server: FakeServer, publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    publish(publisher, "one")
    server.backplane.skipping = 2
    publish(publisher, "two", "three", "four")
    message = [(message["type"], message.get("offset")) for message in reader.received()]
    assert message == [("event", 1), ("lost", None), ("event", 4)]
    answer = reader.request("history", channel="kitchen", since=1)
    assert answer["lost"] == [{"first": 2, "last": 3}]
    assert [event["data"] for event in answer["events"]] == ["four"]


def test_delivers_a_repeated_batch_once(server: FakeServer, publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    server.backplane.repeating = 2
    publish(publisher, "one", "two", "three")
    assert [message["offset"] for message in reader.received()] == [1, 2, 3]


def test_a_new_epoch_is_reported_and_its_events_follow(
    server: FakeServer,
    publisher: ProtocolClient,
    reader: ProtocolClient,
    connect_reader: Connect,
) -> None:
    before = reader.request("subscribe", channel="kitchen")
    publish(publisher, "one", "two")
    assert [message["offset"] for message in reader.received()] == [1, 2]
    server.restart_backplane()
    server.backplane.announce(b"kitchen", Position(before["epoch"].encode(), 1))
    publish(publisher, "three")
    reset, event = reader.received()
    assert reset == {"type": "reset", "channel": "kitchen", "epoch": reset["epoch"], "good": 1, "offset": 0}
    assert reset["epoch"] != before["epoch"] and (event["offset"], event["data"]) == (1, "three")
    again = connect_reader(server)
    answer = again.request("subscribe", channel="kitchen", since=1, epoch=before["epoch"])
    assert answer["recovered"] is True and answer["epoch"] == reset["epoch"] and answer["offset"] == 1
    assert [message["data"] for message in again.received()] == ["three"]


def test_a_new_epoch_without_an_announcement_is_reported_at_its_first_event(
    server: FakeServer, publisher: ProtocolClient, reader: ProtocolClient
) -> None:
    reader.request("subscribe", channel="kitchen")
    publish(publisher, "one")
    server.restart_backplane()
    publish(publisher, "two")
    settle(server)
    messages = [(message["type"], message.get("good"), message.get("data")) for message in reader.received()]
    assert messages == [("event", None, "one"), ("reset", 0, None), ("event", None, "two")]


def test_the_reset_precedes_the_reply_with_an_offset_of_the_new_epoch(
    server: FakeServer, reader: ProtocolClient
) -> None:
    reader.request("subscribe", channel="kitchen")
    publish(reader, "one")
    server.restart_backplane()
    assert reader.request("publish", channel="kitchen", data="two")["offset"] == 1
    assert [message["type"] for message in reader.received()] == ["event", "reset", "event"]


def test_skipped_events_are_read_again_from_a_backplane_that_keeps_them(connect_reader: Connect) -> None:
    server = FakeServer(late=True, keeps_history=True)
    reader = connect_reader(server)
    reader.request("subscribe", channel="kitchen")
    publish(reader, "one")
    server.backplane.skipping = 2
    publish(reader, "two", "three", "four")
    settle(server)
    assert [message["data"] for message in reader.received()] == ["one", "two", "three", "four"]
