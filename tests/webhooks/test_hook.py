"""A webhook without its reactor: what it tells of, and when."""

import json

import pytest

from twistedsock.limits.principal import ELSEWHERE
from twistedsock.pubsub.values import Batch, Member, Payloads
from twistedsock.webhooks.collector import EventCollector
from twistedsock.webhooks.payload import sign
from twistedsock.webhooks.queue import BATCH_BYTES

ANN = Member(b"id1", b"ann")


class Watched:
    """A hook, its time, and how often it has asked to be looked at."""

    def __init__(self, target):
        self.now = 0.0
        self.woken = 0
        self.gone = set()
        self.hook = EventCollector(
            target, lambda: self.now, lambda: 1_000 + self.now, lambda: "id", self._wake, self.owner_of
        )

    def owner_of(self, channel):
        """Channels belong to the client whose name they begin with."""
        return ELSEWHERE if channel in self.gone else channel.partition(b"/")[0]

    def _wake(self):
        self.woken += 1

    def publish(self, *payloads, channel=b"kitchen"):
        content = Payloads([payload.encode() for payload in payloads], sum(map(len, payloads)))
        self.hook.published(channel, b"5f2c1a", Batch(1, 1 + len(payloads), b"id1", b"ann", b"message", content))

    def told(self):
        """The types of what is to be delivered now; None if nothing is."""
        batch = self.hook.take()
        return None if batch is None else [json.loads(event)["type"] for event in batch.events]


@pytest.fixture
def watch(aim):
    return lambda **said: Watched(aim(**said))


def test_events_wait_for_others_for_a_moment(watch):
    watched = watch(delay=0.5)
    assert watched.hook.due() is None
    watched.publish("a")
    watched.now = 0.25
    watched.publish("b")
    assert (watched.hook.due(), watched.woken) == (0.5, 2)
    assert watched.told() is None
    watched.now = 0.5
    assert watched.told() == ["event-published"] * 2
    assert watched.hook.due() is None


def test_a_full_batch_waits_for_nothing(watch):
    watched = watch(batch_events=2)
    watched.publish("a", "b", "c")
    assert watched.hook.due() == 0.0
    assert watched.told() == ["event-published"] * 2
    assert watched.told() is None
    assert watched.hook.due() == 0.25


def test_a_large_one_is_full(watch):
    watched = watch()
    watched.publish("x" * BATCH_BYTES)
    assert watched.told() == ["event-published"]


def test_presence_is_told_when_it_has_lasted(watch):
    watched = watch(delay=0)
    watched.hook.joined(b"kitchen", ANN, 1)
    assert (watched.hook.due(), watched.woken) == (3.0, 1)
    watched.publish("a")
    assert watched.hook.due() == 0.0
    assert watched.told() == ["event-published"]
    watched.now = 3.0
    assert watched.told() == ["channel-occupied", "member-joined"]
    watched.hook.left(b"kitchen", ANN, 0)
    watched.now = 6.0
    assert watched.told() == ["member-left", "channel-vacated"]


def test_presence_comes_before_what_waits_longer(watch):
    watched = watch(delay=5)
    watched.hook.joined(b"kitchen", ANN, 2)
    watched.publish("a")
    assert watched.hook.due() == 3.0


def test_what_has_lasted_is_not_undone_though_nobody_looked(watch):
    """While a request is under way, nobody does."""
    watched = watch(debounce=3, delay=0)
    watched.hook.joined(b"kitchen", ANN, 2)
    watched.now = 3.0
    watched.hook.left(b"kitchen", ANN, 1)
    watched.now = 6.0
    watched.hook.joined(b"kitchen", ANN, 2)
    watched.now = 9.0
    assert watched.told() == ["member-joined", "member-left", "member-joined"]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (("channel-occupied",), ["channel-occupied"]),
        (("channel-vacated",), ["channel-vacated"]),
        (("member-joined",), ["member-joined"]),
        (("member-left",), ["member-left"]),
        (("event-published",), ["event-published"]),
    ],
)
def test_only_what_was_asked_for_is_told(watch, events, told):
    watched = watch(events=events, debounce=0, delay=0)
    watched.hook.joined(b"kitchen", ANN, 1)
    watched.publish("a")
    watched.hook.left(b"kitchen", ANN, 0)
    assert watched.told() == told


def test_only_of_channels_that_were_asked_for(watch):
    watched = watch(channels=("kitchen.*",), debounce=0, delay=0)
    for channel in (b"cellar", b"$sys/figures"):
        watched.hook.joined(channel, ANN, 1)
        watched.publish("a", channel=channel)
        watched.hook.left(channel, ANN, 0)
    assert watched.told() is None
    assert watched.woken == 0


def test_occupied_is_the_first_and_vacated_the_last(watch):
    watched = watch(events=("channel-occupied", "channel-vacated"), debounce=0, delay=0)
    watched.hook.joined(b"kitchen", ANN, 2)
    watched.hook.left(b"kitchen", ANN, 1)
    assert watched.told() is None


def test_an_attempt_is_signed_and_has_the_time_at_which_it_is_made(watch, aim):
    watched = watch(delay=0, name="office")
    watched.publish("a")
    batch = watched.hook.take()
    watched.now = 7.0
    body, headers = watched.hook.write(batch)
    said = json.loads(body)
    assert (said["webhook"], said["delivery"], said["sent"]) == ("office", "id", 1_007.0)
    assert said["events"][0]["time"] == 1_000.0
    assert headers == {"Sockbridge-Delivery": "id", "Sockbridge-Signature-256": sign(aim().secret, body)}


def test_what_was_dropped_is_told_first(watch):
    watched = watch(delay=0, queue_events=2)
    watched.publish("a", "b", "c")
    body, _ = watched.hook.write(watched.hook.take())
    dropped, first, _ = json.loads(body)["events"]
    assert dropped == {"type": "dropped", "count": 1, "since": 1_000.0, "time": 1_000.0}
    assert first["data"] == "b"


def test_other_words_hold_at_once_and_the_queue_stays(watch, aim):
    watched = watch(delay=0)
    watched.publish("a")
    watched.hook.joined(b"kitchen", ANN, 2)
    watched.hook.use(aim(events=("event-published",), channels=("cellar",), secret="other-other-other"))
    watched.publish("b")
    watched.publish("c", channel=b"cellar")
    watched.now = 10.0
    batch = watched.hook.take()
    assert [json.loads(event)["data"] for event in batch.events] == ["a", "c"]


def test_other_bounds_hold_at_once(watch, aim):
    watched = watch(delay=0)
    watched.publish("a", "b", "c")
    watched.hook.use(aim(queue_events=1))
    assert (len(watched.hook.queue), watched.hook.queue.dropped) == (1, 2)


def test_at_the_end_nothing_waits(watch, aim):
    watched = watch(delay=5, debounce=5)
    watched.hook.joined(b"kitchen", ANN, 1)
    watched.publish("a")
    watched.hook.hasten()
    assert watched.hook.due() == 0.0
    watched.hook.left(b"kitchen", ANN, 0)
    assert sorted(watched.told()) == sorted(
        ["event-published", "channel-occupied", "member-joined", "member-left", "channel-vacated"]
    )
    watched.hook.use(aim(delay=5, debounce=5))
    watched.hook.joined(b"kitchen", ANN, 1)
    assert watched.told() == ["channel-occupied", "member-joined"]


def test_a_client_that_fills_the_queue_loses_its_own_events(watch):
    watched = watch(queue_events=20, batch_events=100)
    watched.publish("a", "b", channel=b"modest/kitchen")
    watched.hook.joined(b"modest/kitchen", ANN, 1)
    for number in range(100):
        watched.publish("x", channel=b"greedy/%d" % number)
    watched.now = 60.0
    batch = watched.hook.take()
    channels = [json.loads(event)["channel"] for event in batch.events]
    assert channels.count("modest/kitchen") == 4 and len(channels) == 20 and watched.hook.queue.dropped == 84


def test_a_change_counts_for_the_client_whose_channel_it_was(watch):
    """Although the channel may be gone when it is told: clients that come and go must not push out what others do."""
    watched = watch(queue_events=100, events=["channel-vacated"], debounce=1)
    channels = [b"bob/1", *[b"ann/%d" % number for number in range(120)]]
    for now, some in ((0.0, channels[:60]), (2.0, channels[60:])):
        watched.now = now
        for channel in some:
            watched.hook.left(channel, ANN, 0)
            watched.gone.add(channel)
    watched.hook.hasten()
    told = []
    while (batch := watched.hook.take()) is not None:
        told += [json.loads(event)["channel"] for event in batch.events]
    assert len(told) == 100 and told[0] == "bob/1"
