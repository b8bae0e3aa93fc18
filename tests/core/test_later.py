"""An answer that comes later comes once, to everybody who asked, in the order in which they asked."""

import pytest

from twistedsock.core.errors import UNAVAILABLE, Refusal
from twistedsock.core.later import Later, and_then, when_known


def test_listeners_hear_the_answer_in_their_order() -> None:
    later, heard = Later[int](), []
    later.then(lambda outcome: heard.append(("first", outcome)))
    later.then(lambda outcome: heard.append(("second", outcome)))
    assert heard == []
    later.settle(7)
    assert heard == [("first", 7), ("second", 7)]


def test_who_asks_afterwards_hears_it_at_once() -> None:
    later, heard = Later[int](), []
    later.settle(7)
    later.then(heard.append)
    assert heard == [7]


@pytest.mark.parametrize("outcome", [0, [], b"", UNAVAILABLE], ids=repr)
def test_an_answer_may_be_nothing_much(outcome: object) -> None:
    """Zero and emptiness are answers too."""
    later, heard = Later[object](), []
    later.settle(outcome)
    later.then(heard.append)
    assert heard == [outcome]
    with pytest.raises(RuntimeError):
        later.settle(1)


def test_a_second_answer_is_a_bug_and_heard_by_nobody() -> None:
    later, heard = Later[int](), []
    later.then(heard.append)
    later.settle(1)
    with pytest.raises(RuntimeError):
        later.settle(2)
    assert heard == [1]


def test_an_answer_known_at_once_is_told_at_once() -> None:
    heard: list[int | Refusal] = []
    when_known(7, heard.append)
    when_known(UNAVAILABLE, heard.append)
    assert heard == [7, UNAVAILABLE]


def test_an_answer_known_later_is_told_later() -> None:
    later, heard = Later[int](), []
    when_known(later, heard.append)
    assert heard == []
    later.settle(7)
    assert heard == [7]


def test_a_step_is_taken_when_the_answer_is_there() -> None:
    assert and_then(2, lambda value: value + 1) == 3
    assert and_then(UNAVAILABLE, lambda value: value) is UNAVAILABLE
    first, second = Later[int](), Later[int]()
    following = and_then(first, lambda value: second)
    assert isinstance(following, Later)
    told: list[object] = []
    following.then(told.append)
    first.settle(1)
    assert told == []
    second.settle(7)
    assert told == [7]


def test_no_step_is_taken_behind_a_refusal() -> None:
    first, told = Later[int](), list[object]()
    following = and_then(first, lambda value: value + 1)
    assert isinstance(following, Later)
    following.then(told.append)
    first.settle(UNAVAILABLE)
    assert told == [UNAVAILABLE]
