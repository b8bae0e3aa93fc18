"""The late backplane of ``testing`` fulfils the contract."""

import pytest

from tests.backplanes.contract import ANN, BackplaneContract, FailingContract, KeepingContract, SharedContract
from tests.backplanes.late_stage import LateStage, late_stage, memory_backplane
from twistedsock.errors import UNAVAILABLE
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Position


@pytest.fixture
def stage() -> LateStage:
    return late_stage()


class TestContract(BackplaneContract, FailingContract, KeepingContract, SharedContract):
    """What every backplane must do, those that can fail included."""


def test_answers_nothing_before_release(stage: LateStage) -> None:
    answers = [stage.backplane.open(b"a"), stage.backplane.members(b"a")]
    assert all(isinstance(answer, Future) for answer in answers)
    stage.publish(b"a", b"x", settle=False)
    assert stage.story == [] and len(stage.backplane) == 3


def test_releases_the_requested_number(stage: LateStage) -> None:
    for payload in (b"x", b"y", b"z"):
        stage.publish(b"a", payload, settle=False)
    stage.backplane.release(2)
    assert stage.answers(b"a") == [1, 2] and len(stage.backplane) == 1
    stage.backplane.release(9)
    assert stage.answers(b"a") == [1, 2, 3]


def test_releases_the_newest_first_backwards(stage: LateStage) -> None:
    for payload in (b"x", b"y", b"z"):
        stage.publish(b"a", payload, settle=False)
    stage.backplane.release(backwards=True)
    assert [event.payload for event in stage.events(b"a")] == [b"z", b"y", b"x"]
    assert stage.offsets(b"a") == [1, 2, 3]


def test_delivers_before_answering(stage: LateStage) -> None:
    stage.publish(b"a", b"x")
    assert [entry[0] for entry in stage.story] == ["delivered", "answered"]


def test_fails_the_requested_number(stage: LateStage) -> None:
    for payload in (b"x", b"y", b"z"):
        stage.publish(b"a", payload, settle=False)
    stage.backplane.failing = 2
    stage.settle()
    assert stage.answers(b"a") == [UNAVAILABLE, UNAVAILABLE, 1]
    assert [event.payload for event in stage.events(b"a")] == [b"z"]


def test_presence_changes_are_delivered_at_once(stage: LateStage) -> None:
    stage.backplane.join(b"a", ANN)
    assert len(stage.changes(b"a")) == 1


def fails(stage: LateStage, name: str) -> bool:
    """Whether a test of the contract finds a fault in a backplane."""
    try:
        getattr(BackplaneContract(), name)(stage)
    except AssertionError:
        return True
    return bool(stage.breaks)


MAY_SKIP = (
    "test_a_channel_that_is_not_open_can_be_published_to",
    "test_closed_channel_continues_with_the_next_event",
)
"""Tests in which a channel is not open: nothing needs to be delivered then."""

TESTS = [
    name
    for name, test in vars(BackplaneContract).items()
    if name.startswith("test_") and "publish" in test.__code__.co_names and test.__code__.co_argcount == 2
]


@pytest.mark.parametrize(
    "name, fault",
    [(name, "skipping") for name in TESTS if name not in MAY_SKIP] + [(name, "repeating") for name in TESTS],
)
def test_contract_detects_skipped_and_repeated_batches(name: str, fault: str) -> None:
    stage = late_stage()
    assert not fails(stage, name)
    stage = late_stage()
    setattr(stage.backplane, fault, 1)
    assert fails(stage, name)


def test_contract_detects_a_changed_epoch(stage: LateStage) -> None:
    stage.open(b"a")
    stage.publish(b"a", b"x")
    stage.backplane.restart(memory_backplane(2))
    stage.publish(b"a", b"y")
    assert stage.offsets(b"a") == [1, 1] and stage.epochs(b"a") == {b"e1", b"e2"} and len(stage.breaks) == 1


def test_channel_opened_before_a_restart_can_be_closed(stage: LateStage) -> None:
    stage.open(b"a")
    stage.backplane.restart(memory_backplane())
    stage.close(b"a")
    assert stage.open(b"a") == Position(b"e1", 0)
