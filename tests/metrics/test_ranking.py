"""Sorting bit by bit gives what sorting at once gives."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.metrics import tables
from twistedsock.metrics.tables import sorted_in_slices


def run(work: Any) -> tuple[Any, int]:
    """What it gives, and in how many bits."""
    bits = 0
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value, bits
        bits += 1


@pytest.mark.parametrize("part", [1, 3, 10, 1000])
@given(keys=st.lists(st.integers(0, 9)) | st.lists(st.binary(max_size=2)))
def test_it_is_sorted_and_stable(part: int, keys: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SORTED_PER_STEP", part)
        order, _ = run(sorted_in_slices(keys))
    assert order == sorted(range(len(keys)), key=keys.__getitem__)


def test_others_may_have_their_turn_between() -> None:
    """Ten thousand in tens of bits."""
    keys = [number * 7919 % 10_007 for number in range(10_000)]
    order, bits = run(sorted_in_slices(keys))
    assert order == sorted(range(10_000), key=keys.__getitem__)
    assert 15 < bits < 40
