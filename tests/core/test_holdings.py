"""What is counted is given back, and what is little is not counted."""

from hypothesis import given
from hypothesis import strategies as st

from twistedsock.core.holdings import LITTLE, Holdings


def test_what_is_little_is_not_counted() -> None:
    holdings = Holdings(10)
    assert holdings.recount(0, LITTLE) == 0
    assert holdings.held == 0 and not holdings.too_much


def test_what_is_more_is_counted_whole() -> None:
    holdings = Holdings(2 * LITTLE)
    counted = holdings.recount(0, 2 * LITTLE)
    assert counted == holdings.held == 2 * LITTLE and not holdings.too_much
    counted = holdings.recount(counted, 2 * LITTLE + 1)
    assert holdings.too_much
    assert holdings.recount(counted, LITTLE) == holdings.held == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3 * LITTLE))))
def test_the_sum_is_that_of_all_places(steps: list[tuple[int, int]]) -> None:
    holdings, counted = Holdings(LITTLE), dict.fromkeys(range(5), 0)
    for place, size in steps:
        counted[place] = holdings.recount(counted[place], size)
        assert holdings.held == sum(counted.values())
    for place in counted:
        assert holdings.recount(counted[place], 0) == 0
    assert holdings.held == 0
