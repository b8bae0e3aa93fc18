"""Sorting that can be interrupted, so that nobody waits for it."""

from bisect import bisect_right
from collections.abc import Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Work = Generator[None, None, T]
"""Done bit by bit; wherever it yields, others may have their turn. A bit takes a millisecond or two at most."""

PART = 1_000
"""What is looked at, or sorted, in one bit, about."""


def rank(keys: Sequence[float] | Sequence[bytes]) -> Work[list[int]]:
    """The places of ``keys``, the smallest first; those that are equal stay in their order. They are put into boxes,
    by borders that a sample gives, and each box is sorted by itself."""
    count, key = len(keys), keys.__getitem__
    borders = sorted(map(key, range(0, count, max(1, count // 256))))  # type: ignore[type-var]
    borders = borders[:: max(1, len(borders) * PART // max(1, count))] if count > PART else []
    boxes: list[list[int]] = [[] for _ in range(len(borders) + 1)]
    add = [box.append for box in boxes]
    for start in range(0, count, PART):
        for place in range(start, min(start + PART, count)):
            add[bisect_right(borders, key(place))](place)  # type: ignore[type-var]
        yield
    ranked: list[int] = []
    for box in boxes:
        box.sort(key=key)
        ranked += box
        yield
    return ranked
