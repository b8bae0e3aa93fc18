"""Numbers in a row are the digits of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.framing import decimal_runs

EDGES = [0, 1, 8, 9, 10, 11, 98, 99, 100, 998, 999, 1000, 1001, 1999, 2000, 9_999, 10_000, 999_999, 10**6]
MAX_OFFSET = 2**53 - 1


@pytest.mark.parametrize("first", [*EDGES, MAX_OFFSET - 1_500])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 12, 1_000, 1_001])
def test_at_each_edge(first: int, count: int) -> None:
    check(first, count)


@given(first=st.integers(0, 2_000) | st.integers(0, MAX_OFFSET), count=st.integers(0, 3_000))
def test_anywhere(first: int, count: int) -> None:
    check(first, count)


def check(first: int, count: int) -> None:
    numbers: list[bytes] = []
    for begin, ends in decimal_runs(first, count):
        some = [begin + end for end in ends]
        # All of one time have the same length, so that one head of a frame may fit all.
        assert len(some) <= 1_000 and len({len(number) for number in some}) == 1
        numbers += some
    assert numbers == [b"%d" % number for number in range(first, first + count)]
