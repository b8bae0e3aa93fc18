"""What is asked of a backplane is there in each of ours, under the same names. What they do is tested by a contract."""

import inspect

import pytest

from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.pubsub.backplane import Backplane
from twistedsock.testing import LateBackplane

ASKED = [name for name, _ in inspect.getmembers(Backplane, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("kind", [MemoryBackplane, LateBackplane])
@pytest.mark.parametrize("name", ASKED)
def test_a_backplane_can_be_asked_all_that_the_broker_asks(kind: type, name: str) -> None:
    asked, answers = getattr(Backplane, name), getattr(kind, name)
    assert list(inspect.signature(asked).parameters) == list(inspect.signature(answers).parameters)


def test_the_questions_are_known() -> None:
    assert set(ASKED) == {"publish", "open", "close", "enter", "rename", "leave", "members"}
