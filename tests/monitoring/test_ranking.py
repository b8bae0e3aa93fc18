"""Sorting bit by bit gives what sorting at once gives."""

from typing import Any

import pytest

from twistedsock.monitoring import ranking
from twistedsock.monitoring.ranking import rank


def run(work: Any) -> tuple[Any, int]:
    """What it gives, and in how many bits."""
    bits = 0
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value, bits
        bits += 1


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35, 101])
def test_it_is_sorted_and_stable(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "RUN", 10)
    keys = [place * 7 % 5 for place in range(count)]
    order, _ = run(rank(keys))
    assert order == sorted(range(count), key=keys.__getitem__)


def test_others_may_have_their_turn_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "RUN", 10)
    assert run(rank([b"x"] * 40))[1] == 4 + 2 + 1
