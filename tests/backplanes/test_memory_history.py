"""The memory backplane of a hub: the contract, and what it keeps."""

from itertools import count
from typing import Any

import pytest

from tests.backplanes.contract import BackplaneContract, KeepingContract, Stage
from twistedsock.backplanes.memory_history import MemoryHistoryBackplane
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Position, Publication


class HistoryStage(Stage):
    """``now`` is the time in seconds, on both clocks."""

    backplane: MemoryHistoryBackplane

    def __init__(self, **limits: Any) -> None:
        self.now = 1_000.0
        epochs = count(1)
        super().__init__(
            MemoryHistoryBackplane(lambda: b"e%d" % next(epochs), lambda: self.now, lambda: self.now, Limits(**limits))
        )

    def publish_as(self, principal: bytes, channel: bytes, size: int) -> None:
        self.backplane.publish(Client(b"p1", principal), Publication(channel, Payloads((b"x" * size,), size)))

    def kept(self, channel: bytes) -> list[int]:
        """The offsets of the events that are kept."""
        return [event.offset for batch in self.state(channel).tail for event in batch.events()]


@pytest.fixture
def stage() -> HistoryStage:
    return HistoryStage()


class TestContract(BackplaneContract, KeepingContract):
    """What every backplane must do that keeps the history."""


def test_opened_channel_has_its_history(stage: HistoryStage) -> None:
    for payload in (b"v", b"w", b"x"):
        stage.publish(b"a", payload)
    assert stage.kept(b"a") == [1, 2, 3]


def test_history_of_a_channel_has_limits() -> None:
    by_events, by_bytes = HistoryStage(history_events=2), HistoryStage(history_bytes=1_500)
    for stage in (by_events, by_bytes):
        for _ in range(4):
            stage.publish(b"a", b"x" * 1_000)
            stage.now += 1
    assert (by_events.kept(b"a"), by_bytes.kept(b"a")) == ([3, 4], [4])
    assert by_events.state(b"a").time == 1_001_000, "of the newest event that is not kept"
    assert [batch.first for batch in by_events.backplane.read(b"a", Position(b"e1", 0), 10_000)] == [3, 4]


def test_old_events_are_dropped_and_channels_without_any_are_closed(stage: HistoryStage) -> None:
    position = stage.open(b"a")
    stage.publish(b"a", b"x"), stage.publish(b"b", b"x")
    stage.close(b"a")
    assert stage.kept(b"a") == [1]
    stage.close(b"a")
    stage.now += 400
    stage.backplane.expire()
    assert stage.backplane.history_bytes == 0
    assert isinstance(position, Position) and stage.open(b"a") == Position(position.epoch, 1)
    assert stage.kept(b"a") == []
    stage.publish(b"a", b"y")
    assert stage.kept(b"a") == [2]


def test_client_with_most_history_loses_it_first() -> None:
    stage = HistoryStage(history_total_bytes=20_000)
    stage.publish_as(b"small", b"a", 1_000)
    for _ in range(100):
        stage.publish_as(b"large", b"b", 1_000)
    assert stage.kept(b"a") == [1] and stage.backplane.history_bytes <= 20_000
    assert stage.kept(b"b")[-1] == 100 and len(stage.kept(b"b")) > 5


def test_channel_counts_for_the_client_that_uses_it_again(stage: HistoryStage) -> None:
    stage = HistoryStage(history_total_bytes=20_000)
    stage.publish_as(b"former", b"a", 1_000)
    stage.now += 400
    for _ in range(12):
        stage.publish_as(b"next", b"a", 1_000)
    stage.publish_as(b"former", b"b", 1_000)
    for _ in range(20):
        stage.publish_as(b"third", b"c", 100)
    assert stage.kept(b"b") == [1] and len(stage.kept(b"a")) < 12
