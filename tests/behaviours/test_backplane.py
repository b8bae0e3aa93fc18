"""A backplane that breaks its promise: subscribers are told the truth in every protocol, and get what there is."""

from collections.abc import Callable

import pytest

from tests.behaviours.voices import Voice
from twistedsock.errors import CloseReason
from twistedsock.testing import FakeServer


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(late=True)


def publish(publisher: Voice, *payloads: str) -> None:
    for payload in payloads:
        publisher.asks("publish", channel="kitchen", data=payload)


def test_a_batch_that_is_skipped_is_reported_as_lost(server: FakeServer, publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    publish(publisher, "one")
    server.backplane.skipping = 2
    publish(publisher, "two", "three", "four")
    heard = [(message["type"], message.get("offset")) for message in reader.received()]
    assert heard == [("event", 1), ("lost", None), ("event", 4)]
    answer = reader.asks("history", channel="kitchen", since=1)
    assert answer["lost"] == [{"first": 2, "last": 3}]
    assert [event["data"] for event in answer["events"]] == ["four"]


def test_a_batch_that_is_repeated_is_heard_once(server: FakeServer, publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    server.backplane.repeating = 2
    publish(publisher, "one", "two", "three")
    assert [message["offset"] for message in reader.received()] == [1, 2, 3]


def test_after_another_epoch_clients_come_back_and_learn_it(
    server: FakeServer, publisher: Voice, reader: Voice, reader_meets: Callable[[FakeServer], Voice]
) -> None:
    place = reader.asks("subscribe", channel="kitchen")
    publish(publisher, "one", "two")
    assert [message["offset"] for message in reader.received()] == [1, 2]
    server.restart_backplane()
    publish(publisher, "three")
    assert [message["type"] for message in reader.received()] == ["notice"]
    assert reader.client.close_reason is CloseReason.TRY_AGAIN and publisher.client.close_reason is None
    again = reader_meets(server)
    answer = again.asks("subscribe", channel="kitchen", since=2, epoch=place["epoch"])
    assert answer["recovered"] is False and answer["epoch"] != place["epoch"] and answer["offset"] == 1
    publish(publisher, "four")
    assert [(message["offset"], message["data"]) for message in again.received()] == [(2, "four")]
