"""Futures."""

import pytest

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import Future, map_result, on_result


def test_callbacks_run_in_order() -> None:
    later, heard = Future[int](), []
    later.then(lambda outcome: heard.append(("first", outcome)))
    later.then(lambda outcome: heard.append(("second", outcome)))
    assert heard == []
    later.settle(7)
    assert heard == [("first", 7), ("second", 7)]


def test_callback_added_later_runs_at_once() -> None:
    later, heard = Future[int](), []
    later.settle(7)
    later.then(heard.append)
    assert heard == [7]


@pytest.mark.parametrize("outcome", [0, [], b"", UNAVAILABLE], ids=repr)
def test_result_can_be_falsy(outcome: object) -> None:
    """Zero and emptiness are answers too."""
    later, heard = Future[object](), []
    later.settle(outcome)
    later.then(heard.append)
    assert heard == [outcome]
    with pytest.raises(RuntimeError):
        later.settle(1)


def test_second_outcome_raises() -> None:
    later, heard = Future[int](), []
    later.then(heard.append)
    later.settle(1)
    with pytest.raises(RuntimeError):
        later.settle(2)
    assert heard == [1]


def test_on_result_calls_back_at_once_with_a_value() -> None:
    heard: list[int | Error] = []
    on_result(7, heard.append)
    on_result(UNAVAILABLE, heard.append)
    assert heard == [7, UNAVAILABLE]


def test_on_result_calls_back_when_the_future_is_settled() -> None:
    later, heard = Future[int](), []
    on_result(later, heard.append)
    assert heard == []
    later.settle(7)
    assert heard == [7]


def test_map_result_runs_the_step_on_the_value() -> None:
    assert map_result(2, lambda value: value + 1) == 3
    assert map_result(UNAVAILABLE, lambda value: value) is UNAVAILABLE
    first, second = Future[int](), Future[int]()
    following = map_result(first, lambda value: second)
    assert isinstance(following, Future)
    told: list[object] = []
    following.then(told.append)
    first.settle(1)
    assert told == []
    second.settle(7)
    assert told == [7]


def test_map_result_passes_errors_through() -> None:
    first, told = Future[int](), list[object]()
    following = map_result(first, lambda value: value + 1)
    assert isinstance(following, Future)
    following.then(told.append)
    first.settle(UNAVAILABLE)
    assert told == [UNAVAILABLE]
