"""The memory budget of all connections."""

from hypothesis import given
from hypothesis import strategies as st

from twistedsock.limits.shares import UNCOUNTED_BYTES, MemoryBudget

A, B = b"@192.0.2.1", b"@192.0.2.2"


def test_small_buffers_are_not_counted() -> None:
    memory_budget = MemoryBudget(10)
    assert memory_budget.adjust(0, UNCOUNTED_BYTES, A) == 0
    assert memory_budget.used == 0 and not memory_budget.is_exceeded_by(A)


def test_large_buffers_are_counted_whole() -> None:
    memory_budget = MemoryBudget(2 * UNCOUNTED_BYTES)
    counted = memory_budget.adjust(0, 2 * UNCOUNTED_BYTES, A)
    assert counted == memory_budget.used == 2 * UNCOUNTED_BYTES and not memory_budget.is_exceeded_by(A)
    counted = memory_budget.adjust(counted, 2 * UNCOUNTED_BYTES + 1, A)
    assert memory_budget.is_exceeded_by(A)
    assert memory_budget.adjust(counted, UNCOUNTED_BYTES, A) == memory_budget.used == 0


def test_principal_below_its_share_is_served_when_the_budget_is_used() -> None:
    memory_budget = MemoryBudget(1024 * UNCOUNTED_BYTES)
    memory_budget.add(1024 * UNCOUNTED_BYTES, A)
    assert not memory_budget.is_exceeded_by(A) and memory_budget.is_exceeded_by(A, 1)
    assert memory_budget.adjust(0, 8 * UNCOUNTED_BYTES, B) == 8 * UNCOUNTED_BYTES
    assert not memory_budget.is_exceeded_by(B), "there is a reserve"
    memory_budget.adjust(0, 2 * UNCOUNTED_BYTES, A)
    assert memory_budget.is_exceeded_by(A) and not memory_budget.is_exceeded_by(B)


def test_the_limit_can_be_read_and_changed() -> None:
    memory_budget = MemoryBudget(1024 * UNCOUNTED_BYTES)
    memory_budget.add(UNCOUNTED_BYTES, A)
    memory_budget.limit = 10
    assert memory_budget.limit == 10 and memory_budget.is_exceeded_by(A)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3 * UNCOUNTED_BYTES))))
def test_used_is_the_sum_of_all_buffers(steps: list[tuple[int, int]]) -> None:
    memory_budget, counted = MemoryBudget(UNCOUNTED_BYTES), dict.fromkeys(range(5), 0)
    for place, size in steps:
        counted[place] = memory_budget.adjust(counted[place], size, b"@%d" % place)
        assert memory_budget.used == sum(counted.values())
    for place in counted:
        assert memory_budget.adjust(counted[place], 0, b"@%d" % place) == 0
    assert memory_budget.used == 0
