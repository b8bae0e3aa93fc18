"""The late backplane of ``twistedsock.testing`` on the stage of the contract."""

from itertools import count
from typing import Any

from tests.backplanes.contract import Stage
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.testing import LateBackplane


def memory_backplane(first_epoch: int = 1) -> MemoryBackplane:
    epochs = count(first_epoch)
    return MemoryBackplane(lambda: b"e%d" % next(epochs), lambda: 5.0)


def late_backplane(node_name: bytes = b"") -> LateBackplane:
    return LateBackplane(memory_backplane(), keeps_history=True, node_name=node_name)


class LateStage(Stage):
    """Releases the answers of a late backplane, which is ``backplane``, or is behind that."""

    def __init__(self, late: LateBackplane, backplane: Any) -> None:
        super().__init__(backplane)
        self._late = late

    def step(self) -> bool:
        self._late.release(1)
        return len(self._late) > 0

    def fail_next(self) -> None:
        self._late.failing = 1


def late_stage() -> LateStage:
    late = late_backplane()
    return LateStage(late, late)
