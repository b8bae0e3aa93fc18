"""Futures."""

import pytest

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import Future, Steps, complete, map_result, on_result, wait_for


def test_callbacks_run_in_order() -> None:
    later, outcomes = Future[int](), []
    later.then(lambda outcome: outcomes.append(("first", outcome)))
    later.then(lambda outcome: outcomes.append(("second", outcome)))
    assert outcomes == []
    later.settle(7)
    assert outcomes == [("first", 7), ("second", 7)]


def test_callback_added_later_runs_at_once() -> None:
    later, outcomes = Future[int](), []
    later.settle(7)
    later.then(outcomes.append)
    assert outcomes == [7]


@pytest.mark.parametrize("outcome", [0, [], b"", UNAVAILABLE], ids=repr)
def test_result_can_be_falsy(outcome: object) -> None:
    """Zero and emptiness are answers too."""
    later, outcomes = Future[object](), []
    later.settle(outcome)
    later.then(outcomes.append)
    assert outcomes == [outcome]
    with pytest.raises(RuntimeError):
        later.settle(1)


def test_second_outcome_raises() -> None:
    later, outcomes = Future[int](), []
    later.then(outcomes.append)
    later.settle(1)
    with pytest.raises(RuntimeError):
        later.settle(2)
    assert outcomes == [1]


def test_on_result_calls_back_at_once_with_a_value() -> None:
    outcomes: list[int | Error] = []
    on_result(7, outcomes.append)
    on_result(UNAVAILABLE, outcomes.append)
    assert outcomes == [7, UNAVAILABLE]


def test_on_result_calls_back_when_the_future_is_settled() -> None:
    later, outcomes = Future[int](), []
    on_result(later, outcomes.append)
    assert outcomes == []
    later.settle(7)
    assert outcomes == [7]


def test_map_result_runs_the_step_on_the_value() -> None:
    assert map_result(2, lambda value: value + 1) == 3
    assert map_result(UNAVAILABLE, lambda value: value) is UNAVAILABLE
    first, second = Future[int](), Future[int]()
    following = map_result(first, lambda value: second)
    assert isinstance(following, Future)
    outcomes: list[object] = []
    following.then(outcomes.append)
    first.settle(1)
    assert outcomes == []
    second.settle(7)
    assert outcomes == [7]


def test_map_result_passes_errors_through() -> None:
    first, outcomes = Future[int](), list[object]()
    following = map_result(first, lambda value: value + 1)
    assert isinstance(following, Future)
    following.then(outcomes.append)
    first.settle(UNAVAILABLE)
    assert outcomes == [UNAVAILABLE]


# Steps.


def add(*answers: int | Error | Future[int]) -> Steps[int | Error]:
    total = 0
    for answer in answers:
        outcome = yield from wait_for(answer)
        if isinstance(outcome, Error):
            return outcome
        total += outcome
    return total


def test_steps_that_need_not_wait_are_complete_at_once() -> None:
    settled = Future[int]()
    settled.settle(3)
    assert complete(add(1, settled)) == 4
    assert complete(add(1, UNAVAILABLE)) is UNAVAILABLE


@pytest.mark.parametrize(("second", "expected"), [(2, 3), (UNAVAILABLE, UNAVAILABLE)], ids=["value", "error"])
def test_steps_continue_when_their_futures_are_settled(second: int | Error, expected: int | Error) -> None:
    answers, outcomes = (Future[int](), Future[int]()), []
    result = complete(add(*answers))
    on_result(result, outcomes.append)
    answers[0].settle(1)
    assert outcomes == []
    answers[1].settle(second)
    assert outcomes == [expected]


def test_steps_that_continue_too_early_wait_again() -> None:
    answer = Future[int]()
    steps = wait_for(answer)
    assert next(steps) is next(steps) is answer
    answer.settle(5)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 5
