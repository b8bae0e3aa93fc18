"""What is counted is given back, and what is little is not counted."""

from hypothesis import given
from hypothesis import strategies as st

from twistedsock.limits.memory import UNCOUNTED_BYTES, MemoryBudget

A, B = b"@192.0.2.1", b"@192.0.2.2"


def test_what_is_little_is_not_counted() -> None:
    holdings = MemoryBudget(10)
    assert holdings.recount(0, UNCOUNTED_BYTES, A) == 0
    assert holdings.held == 0 and not holdings.is_too_much_for(A)


def test_what_is_more_is_counted_whole() -> None:
    holdings = MemoryBudget(2 * UNCOUNTED_BYTES)
    counted = holdings.recount(0, 2 * UNCOUNTED_BYTES, A)
    assert counted == holdings.held == 2 * UNCOUNTED_BYTES and not holdings.is_too_much_for(A)
    counted = holdings.recount(counted, 2 * UNCOUNTED_BYTES + 1, A)
    assert holdings.is_too_much_for(A)
    assert holdings.recount(counted, UNCOUNTED_BYTES, A) == holdings.held == 0


def test_a_principal_that_holds_little_is_served_when_another_holds_all_that_may_be_held() -> None:
    holdings = MemoryBudget(1024 * UNCOUNTED_BYTES)
    holdings.add(1024 * UNCOUNTED_BYTES, A)
    assert not holdings.is_too_much_for(A) and holdings.is_too_much_for(A, 1)
    assert holdings.recount(0, 8 * UNCOUNTED_BYTES, B) == 8 * UNCOUNTED_BYTES
    assert not holdings.is_too_much_for(B), "there is a reserve"
    holdings.recount(0, 2 * UNCOUNTED_BYTES, A)
    assert holdings.is_too_much_for(A) and not holdings.is_too_much_for(B)


def test_the_limit_can_be_read_and_changed() -> None:
    holdings = MemoryBudget(1024 * UNCOUNTED_BYTES)
    holdings.add(UNCOUNTED_BYTES, A)
    holdings.most = 10
    assert holdings.most == 10 and holdings.is_too_much_for(A)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3 * UNCOUNTED_BYTES))))
def test_the_sum_is_that_of_all_places(steps: list[tuple[int, int]]) -> None:
    holdings, counted = MemoryBudget(UNCOUNTED_BYTES), dict.fromkeys(range(5), 0)
    for place, size in steps:
        counted[place] = holdings.recount(counted[place], size, b"@%d" % place)
        assert holdings.held == sum(counted.values())
    for place in counted:
        assert holdings.recount(counted[place], 0, b"@%d" % place) == 0
    assert holdings.held == 0
