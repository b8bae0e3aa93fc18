"""The channels of the server itself never reach a backplane that connects nodes."""

import pytest

from tests.backplanes.contract import ANN, BackplaneContract, FailingContract, KeepingContract, SharedContract
from tests.backplanes.late_stage import LateStage, late_backplane, memory_backplane
from twistedsock.backplanes.reserved import ReservedChannelsBackplane
from twistedsock.pubsub.values import DisconnectClient, Position
from twistedsock.testing import LateBackplane

OWN = b"$sys/figures"


@pytest.fixture
def shared() -> LateBackplane:
    return late_backplane(node_name=b"n1")


@pytest.fixture
def stage(shared: LateBackplane) -> LateStage:
    return LateStage(shared, ReservedChannelsBackplane(shared, memory_backplane()))


class TestContract(BackplaneContract, FailingContract, KeepingContract, SharedContract):
    """What every backplane must do."""


def test_reserved_channels_are_answered_at_once_by_the_own_backplane(stage: LateStage, shared: LateBackplane) -> None:
    position = stage.open(OWN)
    stage.publish(OWN, b"x", settle=False)
    stage.join(OWN, ANN)
    assert stage.offsets(OWN) == [1] and stage.members(OWN) == [ANN] and len(shared) == 0
    assert isinstance(position, Position) and stage.backplane.read(OWN, position, 1) == ()
    assert stage.backplane.offset_before(OWN, position.epoch, 10**13) == 0
    stage.rename(OWN, ANN)
    stage.leave(OWN, ANN)
    stage.close(OWN)
    assert len(stage.changes(OWN)) == 2 and stage.open(OWN) == Position(position.epoch, 1)


def test_everything_else_is_that_of_the_shared_backplane(stage: LateStage, shared: LateBackplane) -> None:
    assert (stage.backplane.node_name, stage.backplane.keeps_history, stage.backplane.is_ready) == (b"n1", True, True)
    shared.is_ready = False
    assert not stage.backplane.is_ready and stage.backplane.stop() is None
    command = DisconnectClient(b"n2-abc", b"bye", b"")
    stage.backplane.send(command)
    assert shared.sent == [command]
