"""The backplane of a node, with a connection that the test plays."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from twistedsock.limits.settings import Limits
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, ChannelState, Payloads, Position, Publication
from twistedsock.redis import event_scripts, wire
from twistedsock.redis.backplane import RedisBackplane
from twistedsock.redis.connection import Timing
from twistedsock.redis.resp import Call, ConnectionLost, Item, RedisError
from twistedsock.redis.scripts import Script
from twistedsock.redis.server import Server
from twistedsock.redis.shard import Shard
from twistedsock.redis.shards import RETRY_SECONDS, OneShard, Redirect


class FakeLink:
    """``calls`` are those that have no reply."""

    def __init__(self) -> None:
        self.user: Any
        self.calls: list[Call] = []
        self.turn: list[Callable[[], None]] = []

    def start(self, user: Any) -> None:
        self.user = user

    def stop(self) -> None: ...

    def fail(self, reason: str) -> None: ...

    def send(self, items: Sequence[Item]) -> None:
        self.calls += [item for item in items if isinstance(item, Call)]

    def schedule(self, seconds: float, call: Callable[[], None]) -> None:
        if not seconds:
            self.turn.append(call)

    def take(self, script: Script) -> Call:
        """End the turn, and return the oldest call of a script."""
        while self.turn:
            self.turn.pop(0)()
        call = next(call for call in self.calls if script.sha in call.parts)
        self.calls.remove(call)
        return call

    def connect(self, time: int = 0) -> None:
        """Connect to a server with this time, in milliseconds."""
        self.user.connected(Server("Redis", b"f" * 40, b"p"), time, True)

    def lose_connection(self) -> None:
        self.user.disconnected()


class FakeNode:
    def __init__(self) -> None:
        self.delivered: list[tuple[bytes, int]] = []

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        self.delivered.append((epoch, batch.first))


@pytest.fixture
def link() -> FakeLink:
    return FakeLink()


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def backplane(link: FakeLink, node: FakeNode) -> RedisBackplane:
    shards = OneShard(link, link.schedule, str)
    backplane = RedisBackplane(shards, b"n1", wire.Names(0), Limits(), link.schedule, str, lambda: b"r", Timing())
    backplane.start(node)  # type: ignore[arg-type]
    return backplane


def test_event_of_another_epoch_does_not_hide_what_is_valid_of_the_known_one(
    link: FakeLink, node: FakeNode, backplane: RedisBackplane
) -> None:
    """The node opens the channel when it receives the event, and there is a third epoch already."""
    link.connect()
    backplane.open(b"a")
    link.take(event_scripts.OPEN).done([b"5", 3, b"", b"0", []])
    events = wire.encode_events([wire.store(b"n2-p1", b"", Publication(b"a", Payloads([b"x"], 1)))])
    link.user.received(wire.Names(0).topic(b"a"), b"E7 3 0 n2\n" + events)
    assert node.delivered == [(b"7", 3)]
    opened = backplane.open(b"a")
    link.take(event_scripts.OPEN).done([b"9", 3, b"7-3,5-2", b"0", []])
    assert isinstance(opened, Future) and isinstance(opened.outcome, ChannelState)
    assert opened.outcome.previous == Position(b"5", 2) and opened.outcome.begin == 2


def test_publication_is_looked_up_since_the_time_of_the_server_whose_clock_is_behind(
    link: FakeLink, backplane: RedisBackplane
) -> None:
    """Otherwise the second attempt could not find the first one on that server, and would publish it again."""
    link.connect(10_000)
    backplane.publish(Client(b"n1-p1"), Publication(b"a", Payloads([b"x"], 1)))
    for time, since in ((6_000, b"6000"), (9_000, b"6000")):
        call = link.take(event_scripts.PUBLISH)
        link.lose_connection()
        call.done(ConnectionLost())
        link.connect(time)
        repeated = link.take(event_scripts.PUBLISH)
        assert repeated.parts[-3] == since
        link.calls.append(repeated)


def test_messages_to_nodes_need_a_connection(link: FakeLink, backplane: RedisBackplane) -> None:
    assert not backplane.send_to(b"n2", b"secret")
    link.connect()
    assert backplane.send_to(b"n2", b"secret")
    while link.turn:
        link.turn.pop(0)()
    (call,) = [call for call in link.calls if call.parts[0] == b"PUBLISH"]
    assert call.parts == (b"PUBLISH", b"sockbridge:0:node:n2", b"Mn1 secret")


class MovingShards(OneShard):
    """A Cluster whose server answers that another one is to take its place. ``repeats`` is how often it was asked."""

    repeats = 0

    def redirect(self, shard: Shard, error: RedisError) -> Redirect:  # type: ignore[override]
        return Redirect(None, False)

    def of(self, channel: bytes) -> Shard:
        self.repeats += 1
        return super().of(channel)


def test_publications_on_a_channel_that_moves_are_held_until_those_before_are_answered(link: FakeLink) -> None:
    answers: list[object] = []
    shards = MovingShards(link, link.schedule, str)
    later: list[Callable[[], None]] = []

    def schedule(seconds: float, call: Callable[[], None]) -> None:
        later.append(call) if seconds == RETRY_SECONDS else link.schedule(seconds, call)

    backplane = RedisBackplane(shards, b"n1", wire.Names(0), Limits(), schedule, str, lambda: b"r", Timing())
    backplane.start(FakeNode())  # type: ignore[arg-type]
    link.connect()
    calls = []
    for channel in (b"a", b"a", b"b"):
        on_result(backplane.publish(Client(b"n1-p1"), Publication(channel, Payloads([b"x"], 1))), answers.append)
        calls.append(link.take(event_scripts.PUBLISH))
    calls[0].done(RedisError("CLUSTERDOWN"))
    assert later == [], "the second one on the channel has no answer yet"
    calls[1].done(RedisError("CLUSTERDOWN"))
    assert len(later) == 1
    later.pop()()
    for offset in (1, 2):
        link.take(event_scripts.PUBLISH).done([offset, b"5", b"0", b"", b"0"])
    calls[2].done([1, b"5", b"0", b"", b"0"])
    assert answers == [1, 2, 1]


def test_publication_that_was_redirected_is_looked_up_since_the_time_of_the_server_that_got_it(link: FakeLink) -> None:
    """Its clock can be behind that of the first one, whose time would be too late to find it."""
    shards, other = MovingShards(link, link.schedule, str), FakeLink()
    target = Shard(other, link.schedule, str)
    shards.redirect = lambda shard, error: Redirect(target, is_ask=True)  # type: ignore[method-assign]
    backplane = RedisBackplane(shards, b"n1", wire.Names(0), Limits(), link.schedule, str, lambda: b"r", Timing())
    backplane.start(FakeNode())  # type: ignore[arg-type]
    target.start(backplane)
    link.connect(time=9_000)
    other.connect(time=5_000)
    backplane.publish(Client(b"n1-p1"), Publication(b"a", Payloads([b"x"], 1)))
    link.take(event_scripts.PUBLISH).done(RedisError("ASK 1 10.0.0.2:6379"))
    while link.turn:
        link.turn.pop(0)()
    other.lose_connection()
    other.take(event_scripts.PUBLISH).done(ConnectionLost())
    other.connect(time=7_000)
    backplane.slots_changed()
    assert link.take(event_scripts.PUBLISH).parts[-3] == b"5000"
