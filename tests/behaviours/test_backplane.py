"""Faults of the backplane: every protocol reports lost events, and delivers the events that are available."""

import pytest

from tests.behaviours.protocol_clients import Connect, ProtocolClient
from twistedsock.errors import CloseReason
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


def test_clients_reconnect_after_a_change_of_epoch(
    server: FakeServer,
    publisher: ProtocolClient,
    reader: ProtocolClient,
    connect_reader: Connect,
) -> None:
    place = reader.request("subscribe", channel="kitchen")
    publish(publisher, "one", "two")
    assert [message["offset"] for message in reader.received()] == [1, 2]
    server.restart_backplane()
    publish(publisher, "three")
    assert [message["type"] for message in reader.received()] == ["notice"]
    assert reader.client.close_reason is CloseReason.TRY_AGAIN and publisher.client.close_reason is None
    again = connect_reader(server)
    answer = again.request("subscribe", channel="kitchen", since=2, epoch=place["epoch"])
    assert answer["recovered"] is False and answer["epoch"] != place["epoch"] and answer["offset"] == 1
    publish(publisher, "four")
    assert [(message["offset"], message["data"]) for message in again.received()] == [(2, "four")]
