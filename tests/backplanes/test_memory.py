"""The memory backplane: the contract, and what is its own."""

import pytest

from tests.backplanes.contract import BackplaneContract, Stage
from twistedsock.backplanes.memory import MAX_REMEMBERED, MemoryBackplane
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import TEXT, ChannelState, Event, Payloads, Position, Publication


class Epochs:
    """Draws e1, e2 …"""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> bytes:
        self.drawn += 1
        return b"e%d" % self.drawn


@pytest.fixture
def stage() -> Stage:
    return Stage(MemoryBackplane(Epochs(), lambda: 5.0))


class TestContract(BackplaneContract):
    """What every backplane must do."""


def test_times_never_decrease_within_a_channel() -> None:
    now = [1000.0005]
    stage = Stage(MemoryBackplane(Epochs(), lambda: now[0]))
    times = []
    for now[0] in (1000.0005, 990.0, 1000.25, 1000.1, 1000.2519):
        stage.publish(b"a", b"x", b"y")
        times.append({event.time for event in stage.events(b"a")[-2:]})
    assert times == [{1_000_000}, {1_000_000}, {1_000_250}, {1_000_250}, {1_000_251}]


def test_answers_at_once(stage: Stage) -> None:
    assert stage.backplane.open(b"a") == ChannelState(Position(b"e1", 0))
    stage.publish(b"a", b"x")
    assert stage.story == [
        ("delivered", b"a", b"e1", Event(1, b"p1", b"p1", b"message", b"x", TEXT, 5_000)),
        ("answered", b"a", 1),
    ]
    assert stage.backplane.members(b"a") == []


def test_delivers_events_of_channels_that_are_not_open(stage: Stage) -> None:
    """There is no other node that would keep their events."""
    stage.publish(b"a", b"x")
    assert stage.offsets(b"a") == [1]


def test_each_channel_has_its_own_epoch(stage: Stage) -> None:
    stage.publish(b"a", b"x"), stage.publish(b"b", b"x")
    assert (stage.epochs(b"a"), stage.epochs(b"b")) == ({b"e1"}, {b"e2"})


def test_channel_closed_first_is_forgotten(stage: Stage) -> None:
    for number in range(MAX_REMEMBERED + 1):
        stage.publish(b"c%d" % number, b"x")
    for number in range(MAX_REMEMBERED):
        stage.close(b"c%d" % number)
    assert stage.open(b"c0") == Position(b"e1", 1)
    stage.close(b"c0")
    stage.close(b"c%d" % MAX_REMEMBERED)
    # c1 had been closed for longest, as c0 was open in between.
    assert stage.open(b"c0") == Position(b"e1", 1)
    assert stage.open(b"c2") == Position(b"e3", 1)
    assert stage.open(b"c1") == Position(b"e%d" % (MAX_REMEMBERED + 2), 0)


def test_forgets_channels_of_the_client_with_most(stage: Stage) -> None:
    backplane = stage.backplane

    def publish(channel: bytes, principal: bytes) -> None:
        backplane.publish(Client(b"p1", principal), Publication(channel, Payloads((b"x",), 1)))
        backplane.close(channel)

    for number in range(100):
        publish(b"modest%d" % number, b"@192.0.2.1")
    for number in range(MAX_REMEMBERED + 100):
        publish(b"greedy%d" % number, b"@198.51.100.7")
    assert [stage.open(b"modest%d" % number).offset for number in range(100)] == [1] * 100
    assert stage.open(b"greedy199").offset == 0 and stage.open(b"greedy200").offset == 1


def test_forgets_the_epochs_of_all_but_the_newest_closed_channels(stage: Stage) -> None:
    names = [b"c%d" % number for number in range(MAX_REMEMBERED + 100)]
    epochs = {}
    for name in names:
        epochs[name] = stage.open(name)
        stage.close(name)
    newest = names[100:]
    assert [stage.open(name) for name in newest] == [epochs[name] for name in newest]
    assert all(stage.open(name) != epochs[name] for name in names[:100])


def test_open_channels_are_never_forgotten(stage: Stage) -> None:
    stage.publish(b"a", b"x")
    for number in range(MAX_REMEMBERED + 1):
        stage.open(b"c%d" % number)
        stage.close(b"c%d" % number)
    stage.publish(b"a", b"y")
    assert stage.offsets(b"a") == [1, 2] and stage.epochs(b"a") == {b"e1"}
