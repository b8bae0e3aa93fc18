"""Which events a webhook collects, and when a batch is due."""

import json
from collections.abc import Callable

import pytest

from tests.webhooks.conftest import Target, batch_of
from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.pubsub.values import Member
from twistedsock.webhooks.collector import EventCollector
from twistedsock.webhooks.config import EVENT_KINDS, WebhookTarget
from twistedsock.webhooks.payload import sign
from twistedsock.webhooks.queue import MAX_BATCH_BYTES

ANN = Member(b"id1", b"ann")


class CollectorUnderTest:
    """A collector, its clock, and how often it called ``wake``."""

    def __init__(self, target: WebhookTarget) -> None:
        self.now = 0.0
        self.woken = 0
        self.event_time = 1_000_000
        self.closed: set[bytes] = set()
        self.collector = EventCollector(
            target, lambda: self.now, lambda: 1_000 + self.now, lambda: "id", self._wake, self.owner_of
        )

    def owner_of(self, channel: bytes) -> Principal:
        """A channel counts for the principal that its name begins with, until it is closed."""
        return ELSEWHERE if channel in self.closed else channel.partition(b"/")[0]

    def _wake(self) -> None:
        self.woken += 1

    def publish(self, *payloads: str, channel: bytes = b"kitchen") -> None:
        self.collector.published(channel, b"5f2c1a", batch_of(*payloads, time=self.event_time))

    def next_types(self) -> list[str] | None:
        """The types of the events in the next batch. None if it is not due."""
        batch = self.collector.next_batch()
        return None if batch is None else [json.loads(event)["type"] for event in batch.events]


Start = Callable[..., CollectorUnderTest]


@pytest.fixture
def start(aim: Target) -> Start:
    return lambda **options: CollectorUnderTest(aim(**options))


def test_batch_is_due_after_the_delay(start: Start) -> None:
    webhook = start(delay=0.5)
    assert webhook.collector.next_due() is None
    webhook.publish("a")
    webhook.now = 0.25
    webhook.publish("b")
    assert (webhook.collector.next_due(), webhook.woken) == (0.5, 2)
    assert webhook.next_types() is None
    webhook.now = 0.5
    assert webhook.next_types() == ["event-published"] * 2
    assert webhook.collector.next_due() is None


def test_events_have_the_time_of_their_batch(start: Start) -> None:
    webhook = start(delay=0)
    webhook.event_time = 1_795_383_010_098
    webhook.publish("a")
    batch = webhook.collector.next_batch()
    assert batch is not None and [json.loads(event)["time"] for event in batch.events] == [1_795_383_010.098]


def test_full_batch_is_due_at_once(start: Start) -> None:
    webhook = start(batch_events=2)
    webhook.publish("a", "b", "c")
    assert webhook.collector.next_due() == 0.0
    assert webhook.next_types() == ["event-published"] * 2
    assert webhook.next_types() is None
    assert webhook.collector.next_due() == 0.25


def test_large_batch_is_due_at_once(start: Start) -> None:
    webhook = start()
    webhook.publish("x" * MAX_BATCH_BYTES)
    assert webhook.next_types() == ["event-published"]


def test_presence_changes_are_due_after_the_debounce_time(start: Start) -> None:
    webhook = start(delay=0)
    webhook.collector.joined(b"kitchen", ANN, 1)
    assert (webhook.collector.next_due(), webhook.woken) == (3.0, 1)
    webhook.publish("a")
    assert webhook.collector.next_due() == 0.0
    assert webhook.next_types() == ["event-published"]
    webhook.now = 3.0
    assert webhook.next_types() == ["channel-occupied", "member-joined"]
    webhook.collector.left(b"kitchen", ANN, 0)
    webhook.now = 6.0
    assert webhook.next_types() == ["member-left", "channel-vacated"]


def test_next_due_is_the_earlier_of_presence_and_batch(start: Start) -> None:
    webhook = start(delay=5)
    webhook.collector.joined(b"kitchen", ANN, 2)
    webhook.publish("a")
    assert webhook.collector.next_due() == 3.0


def test_change_after_the_debounce_time_is_not_undone_during_a_request(start: Start) -> None:
    webhook = start(debounce=3, delay=0)
    webhook.collector.joined(b"kitchen", ANN, 2)
    webhook.now = 3.0
    webhook.collector.left(b"kitchen", ANN, 1)
    webhook.now = 6.0
    webhook.collector.joined(b"kitchen", ANN, 2)
    webhook.now = 9.0
    assert webhook.next_types() == ["member-joined", "member-left", "member-joined"]


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_collects_only_configured_kinds(start: Start, kind: str) -> None:
    webhook = start(events=(kind,), debounce=0, delay=0)
    webhook.collector.joined(b"kitchen", ANN, 1)
    webhook.publish("a")
    webhook.collector.left(b"kitchen", ANN, 0)
    assert webhook.next_types() == [kind]


def test_collects_only_matching_channels(start: Start) -> None:
    webhook = start(channels=("kitchen.*",), debounce=0, delay=0)
    for channel in (b"cellar", b"$sys/figures"):
        webhook.collector.joined(channel, ANN, 1)
        webhook.publish("a", channel=channel)
        webhook.collector.left(channel, ANN, 0)
    assert webhook.next_types() is None
    assert webhook.woken == 0


def test_occupancy_depends_on_the_number_of_subscribers(start: Start) -> None:
    webhook = start(events=("channel-occupied", "channel-vacated"), debounce=0, delay=0)
    webhook.collector.joined(b"kitchen", ANN, 2)
    webhook.collector.left(b"kitchen", ANN, 1)
    assert webhook.next_types() is None


def test_attempt_is_signed_and_has_its_own_time(start: Start, aim: Target) -> None:
    webhook = start(delay=0, name="office")
    webhook.publish("a")
    batch = webhook.collector.next_batch()
    assert batch is not None
    webhook.now = 7.0
    body, headers = webhook.collector.encode(batch)
    body_json = json.loads(body)
    assert (body_json["webhook"], body_json["delivery"], body_json["sent"]) == ("office", "id", 1_007.0)
    assert body_json["events"][0]["time"] == 1_000.0
    assert headers == {"Sockbridge-Delivery": "id", "Sockbridge-Signature-256": sign(aim().secret, body)}


def test_dropped_events_are_reported_first(start: Start) -> None:
    webhook = start(delay=0, queue_events=2)
    webhook.publish("a", "b", "c")
    batch = webhook.collector.next_batch()
    assert batch is not None
    body, _ = webhook.collector.encode(batch)
    dropped, first, _ = json.loads(body)["events"]
    assert dropped == {"type": "dropped", "count": 1, "since": 1_000.0, "time": 1_000.0}
    assert first["data"] == "b"


def test_new_configuration_keeps_queued_events(start: Start, aim: Target) -> None:
    webhook = start(delay=0)
    webhook.publish("a")
    webhook.collector.joined(b"kitchen", ANN, 2)
    webhook.collector.reconfigure(aim(events=("event-published",), channels=("cellar",), secret="other-other-other"))
    webhook.publish("b")
    webhook.publish("c", channel=b"cellar")
    webhook.now = 10.0
    batch = webhook.collector.next_batch()
    assert batch is not None
    assert [json.loads(event)["data"] for event in batch.events] == ["a", "c"]


def test_new_limits_apply_to_queued_events(start: Start, aim: Target) -> None:
    webhook = start(delay=0)
    webhook.publish("a", "b", "c")
    webhook.collector.reconfigure(aim(queue_events=1))
    assert (len(webhook.collector.queue), webhook.collector.queue.dropped) == (1, 2)


def test_everything_is_due_at_once_while_draining(start: Start, aim: Target) -> None:
    webhook = start(delay=5, debounce=5)
    webhook.collector.joined(b"kitchen", ANN, 1)
    webhook.publish("a")
    webhook.collector.drain()
    assert webhook.collector.next_due() == 0.0
    webhook.collector.left(b"kitchen", ANN, 0)
    assert sorted(webhook.next_types()) == sorted(
        ["event-published", "channel-occupied", "member-joined", "member-left", "channel-vacated"]
    )
    webhook.collector.reconfigure(aim(delay=5, debounce=5))
    webhook.collector.joined(b"kitchen", ANN, 1)
    assert webhook.next_types() == ["channel-occupied", "member-joined"]


def test_principal_that_fills_the_queue_loses_its_own_events(start: Start) -> None:
    webhook = start(queue_events=20, batch_events=100)
    webhook.publish("a", "b", channel=b"modest/kitchen")
    webhook.collector.joined(b"modest/kitchen", ANN, 1)
    for number in range(100):
        webhook.publish("x", channel=b"greedy/%d" % number)
    webhook.now = 60.0
    batch = webhook.collector.next_batch()
    assert batch is not None
    channels = [json.loads(event)["channel"] for event in batch.events]
    assert channels.count("modest/kitchen") == 4 and len(channels) == 20 and webhook.collector.queue.dropped == 84


def test_change_counts_for_the_owner_of_a_channel_that_is_closed(start: Start) -> None:
    webhook = start(queue_events=100, events=["channel-vacated"], debounce=1)
    channels = [b"bob/1", *[b"ann/%d" % number for number in range(120)]]
    for now, some in ((0.0, channels[:60]), (2.0, channels[60:])):
        webhook.now = now
        for channel in some:
            webhook.collector.left(channel, ANN, 0)
            webhook.closed.add(channel)
    webhook.collector.drain()
    reported: list[str] = []
    while (batch := webhook.collector.next_batch()) is not None:
        reported += [json.loads(event)["channel"] for event in batch.events]
    assert len(reported) == 100 and reported[0] == "bob/1"
