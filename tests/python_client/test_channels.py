"""Subscriptions of the Python client: nothing is lost without a report, and nothing arrives twice."""

import random

import pytest

from sockbridge.errors import SockbridgeError
from sockbridge.values import Event, Lost, Member, Position, Presence, Reset
from tests.python_client.link import Followed, Link
from twistedsock.pubsub.values import Position as ServerPosition
from twistedsock.testing import FakeServer, JsonClient


@pytest.fixture
def meter(server: FakeServer) -> JsonClient:
    """Another client, which publishes."""
    return server.json_client()


def publish(meter: JsonClient, *values: int) -> None:
    for value in values:
        meter.send({"type": "publish", "channel": "kitchen", "data": value})
    meter.server.turn()


def test_receives_the_newest_events_and_later_ones(link: Link, meter: JsonClient) -> None:
    publish(meter, 1, 2, 3)
    followed = link.follow("kitchen", last=2)
    publish(meter, 4)
    link.run()
    assert followed.take_data() == [2, 3, 4] and followed.readies == 1


def test_starts_after_a_position(link: Link, meter: JsonClient) -> None:
    publish(meter, 1, 2, 3)
    assert link.follow("kitchen", since=Position("e1", 1)).take_data() == [2, 3]


def test_own_events_are_left_out_without_echo(link: Link, meter: JsonClient) -> None:
    followed = link.follow("kitchen", echo=False)
    link.publish("kitchen", 1)
    publish(meter, 2)
    link.run()
    assert followed.take_data() == [2]
    link.publish("kitchen", 3)
    link.disconnect()
    publish(meter, 4)
    link.connect()
    assert followed.take_data() == [4], "the server no longer knows that event 3 is the client's"


def test_members_are_reported(link: Link, server: FakeServer) -> None:
    followed = link.follow("kitchen", presence=True)
    other = server.json_client()
    other.send({"type": "subscribe", "channel": "kitchen"}, {"type": "unsubscribe", "channel": "kitchen"})
    link.run()
    member = Member(other.id, other.id)
    assert followed.take() == [Presence("kitchen", member, True), Presence("kitchen", member, False)]


def test_second_subscription_to_a_channel_is_an_error(link: Link) -> None:
    link.follow("kitchen")
    with pytest.raises(SockbridgeError, match="already subscribed"):
        link.follow("kitchen")


def test_refused_subscription_ends(link: Link) -> None:
    assert [error.code for error in link.follow("kit*chen").ends] == ["bad-channel"]


def test_ended_subscription_receives_nothing(link: Link, meter: JsonClient) -> None:
    followed = link.follow("kitchen")
    link.core.channels.unsubscribe(followed.subscription)
    publish(meter, 1)
    link.run()
    assert followed.take() == [] and link.call(lambda out: link.core.members("kitchen", out)).result == []
    assert link.follow("kitchen", last=1).take_data() == [1]


def test_subscription_that_ends_before_the_answer_is_withdrawn(link: Link) -> None:
    followed = Followed("kitchen")
    link.core.channels.subscribe(followed.subscription)
    link.core.channels.unsubscribe(followed.subscription)
    link.run()
    assert followed.readies == 0 and link.call(lambda out: link.core.members("kitchen", out)).result == []


def test_subscription_after_one_without_an_answer_receives_events(link: Link, meter: JsonClient) -> None:
    first, second = Followed("kitchen"), Followed("kitchen")
    link.core.channels.subscribe(first.subscription)
    link.core.channels.unsubscribe(first.subscription)
    link.core.channels.subscribe(second.subscription)
    link.run()
    publish(meter, 1)
    link.run()
    assert (first.take_data(), second.take_data()) == ([], [1])


class TestAfterAReconnection:
    def test_continues_at_the_position(self, link: Link, meter: JsonClient) -> None:
        followed = link.follow("kitchen")
        publish(meter, 1)
        link.run()
        link.disconnect()
        publish(meter, 2, 3)
        link.connect()
        assert followed.take_data() == [1, 2, 3] and followed.readies == 2

    def test_newest_events_that_did_not_arrive_are_not_skipped(self, link: Link, meter: JsonClient) -> None:
        publish(meter, 1, 2)
        followed = Followed("kitchen", last=1)
        link.core.channels.subscribe(followed.subscription)
        assert link.socket is not None
        link.socket.send_messages(*link.core.output().split(b"\n")[:-1])
        answer, _, _ = link.socket.received_bytes().partition(b"\n")
        link.core.receive(answer + b"\n", link.now)
        link.disconnect()
        publish(meter, 3, 4)
        link.connect()
        assert followed.take_data() == [2, 3, 4]

    def test_deleted_events_are_reported(self) -> None:
        server = FakeServer(history_events=2)
        link, meter = Link(server), server.json_client()
        link.connect()
        followed = link.follow("kitchen")
        publish(meter, 1)
        link.run()
        link.disconnect()
        publish(meter, 2, 3, 4, 5)
        link.connect()
        assert followed.take_data() == [1, Lost("kitchen", 2, 3, "e1"), 4, 5]

    def test_events_before_the_subscription_are_not_reported_as_lost(self) -> None:
        server = FakeServer(history_events=2)
        link, meter = Link(server), server.json_client()
        publish(meter, 1, 2, 3, 4)
        link.connect()
        assert link.follow("kitchen", last=4).take_data() == [3, 4]
        followed = link.follow("garden", last=3)
        link.disconnect()
        link.connect()
        assert followed.take() == []

    def test_new_epoch_is_reported_and_read_from_its_start(self, link: Link, server: FakeServer) -> None:
        followed = link.follow("kitchen", since=Position("before", 7))
        assert followed.take() == [Lost("kitchen", 8, None, "before")] and followed.readies == 1
        link.disconnect()
        publish(server.json_client(), 1)
        link.connect()
        assert followed.take_data() == [1]

    def test_events_of_a_new_epoch_are_not_skipped(self, link: Link, meter: JsonClient) -> None:
        publish(meter, 1, 2)
        followed = link.follow("kitchen", since=Position("before", 1))
        assert followed.take_data() == [Lost("kitchen", 2, None, "before"), 1, 2] and followed.readies == 1

    def test_position_after_the_newest_event_is_that_of_the_newest(self, link: Link, meter: JsonClient) -> None:
        publish(meter, 1)
        followed = link.follow("kitchen", since=Position("e1", 5))
        publish(meter, 2)
        link.run()
        assert followed.take_data() == [2]


class TestReset:
    @pytest.fixture
    def server(self) -> FakeServer:
        return FakeServer(late=True)

    def settle(self, link: Link) -> None:
        link.run()
        while len(link.server.backplane):
            link.server.backplane.release()
            link.run()

    def test_new_epoch_while_connected(self, link: Link, server: FakeServer) -> None:
        meter = server.json_client()
        followed = link.follow("kitchen")
        publish(meter, 1, 2)
        self.settle(link)
        server.restart_backplane()
        server.backplane.announce(b"kitchen", ServerPosition(b"e1", 1))
        self.settle(link)
        publish(meter, 3)
        self.settle(link)
        *before, reset, event = followed.take_data()
        assert before == [1, 2] and event == 3
        assert reset == Reset("kitchen", "e2", 1, 0)
        assert followed.subscription.position == Position("e2", 1)

    def test_temporary_error_is_tried_again(self, link: Link, server: FakeServer) -> None:
        server.backplane.failing = 1
        followed = link.follow("kitchen")
        self.settle(link)
        assert followed.readies == 0 and followed.ends == []
        deadline = link.core.deadline()
        assert deadline is not None and deadline == link.now + 5
        link.now += 5
        link.core.tick(link.now)
        self.settle(link)
        assert followed.readies == 1


class TestPause:
    def test_events_wait_on_the_server(self, link: Link, meter: JsonClient) -> None:
        followed = link.follow("kitchen")
        publish(meter, 1)
        link.run()
        link.core.channels.pause(followed.subscription)
        publish(meter, 2)
        link.run()
        assert followed.take_data() == [1]
        link.core.channels.resume(followed.subscription)
        link.run()
        publish(meter, 3)
        link.run()
        assert followed.take_data() == [2, 3]

    def test_pause_outlives_a_reconnection(self, link: Link, meter: JsonClient) -> None:
        followed = link.follow("kitchen")
        link.core.channels.pause(followed.subscription)
        link.disconnect()
        publish(meter, 1)
        link.connect()
        assert followed.take() == []
        link.core.channels.resume(followed.subscription)
        link.run()
        assert followed.take_data() == [1]

    def test_pause_before_the_answer(self, link: Link, meter: JsonClient) -> None:
        followed = Followed("kitchen", last=5)
        link.core.channels.subscribe(followed.subscription)
        link.core.channels.pause(followed.subscription)
        publish(meter, 1)
        link.run()
        assert followed.take() == []
        link.core.channels.resume(followed.subscription)
        link.run()
        assert followed.take_data() == [1]


@pytest.mark.parametrize("cut", range(0, 260, 3))
def test_input_can_be_cut_at_any_byte(server: FakeServer, cut: int) -> None:
    link = Link(server)
    link.cut = cut
    link.connect()
    followed = link.follow("kitchen")
    assert [link.publish("kitchen", value).result for value in ("é", {"a": [1]}, b"\x00")] == [1, 2, 3]
    assert followed.take_data() == ["é", {"a": [1]}, b"\x00"]


@pytest.mark.parametrize("seed", range(50))
def test_each_event_arrives_once_and_in_order_or_is_reported(seed: int) -> None:
    """Broken connections, pauses, cuts, and a history that is too short for some of them."""
    choose = random.Random(seed)
    server = FakeServer(history_events=choose.choice([3, 10, 1000]))
    link, meter = Link(server), server.json_client()
    link.connect()
    followed = link.follow("kitchen")
    published = 0
    for _ in range(choose.randrange(10, 60)):
        action = choose.choice(["publish", "publish", "break", "pause", "resume", "cut", "run"])
        if action == "publish":
            count = choose.randrange(1, 6)
            publish(meter, *range(published + 1, published + count + 1))
            published += count
        elif action == "break" and link.socket is not None:
            link.disconnect()
            if choose.random() < 0.8:
                link.connect()
        elif action == "pause":
            link.core.channels.pause(followed.subscription)
        elif action == "resume":
            link.core.channels.resume(followed.subscription)
        elif action == "cut":
            link.cut = choose.choice([None, choose.randrange(300)])
        if choose.random() < 0.5:
            link.run()
        if link.socket is None:
            link.connect()
    link.core.channels.resume(followed.subscription)
    link.run()
    seen = 0
    for report in followed.take():
        if isinstance(report, Lost):
            assert report.first == seen + 1 and report.last is not None and report.last > seen
            seen = report.last
        else:
            assert isinstance(report, Event) and report.offset == seen + 1 == report.data
            seen = report.offset
    assert seen == published
