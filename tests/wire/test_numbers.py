"""Numbers in a row are the digits of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.wire.numbers import in_thousands

EDGES = [0, 1, 8, 9, 10, 11, 98, 99, 100, 998, 999, 1000, 1001, 1999, 2000, 9_999, 10_000, 999_999, 10**6]
MOST = 2**53 - 1


@pytest.mark.parametrize("first", [*EDGES, MOST - 1_500])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 12, 1_000, 1_001])
def test_at_each_edge(first: int, count: int) -> None:
    check(first, count)


@given(first=st.integers(0, 2_000) | st.integers(0, MOST), count=st.integers(0, 3_000))
def test_anywhere(first: int, count: int) -> None:
    check(first, count)


def check(first: int, count: int) -> None:
    numbers: list[bytes] = []
    for begin, ends in in_thousands(first, count):
        some = [begin + end for end in ends]
        # All of one time have the same length, so that one head of a frame may fit all.
        assert len(some) <= 1_000 and len({len(number) for number in some}) == 1
        numbers += some
    assert numbers == [b"%d" % number for number in range(first, first + count)]
