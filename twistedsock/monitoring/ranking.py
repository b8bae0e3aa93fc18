"""Sorting that can be interrupted, so that nobody waits for it."""

from collections.abc import Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Work = Generator[None, None, T]
"""Done bit by bit; wherever it yields, others may have their turn. A bit takes a millisecond or two at most."""

RUN = 4096
"""What is sorted in one bit."""


def rank(keys: Sequence[float] | Sequence[bytes]) -> Work[list[int]]:
    """The places of ``keys``, the smallest first; those that are equal stay in their order."""
    key = keys.__getitem__
    runs = []
    for start in range(0, len(keys), RUN):
        runs.append(sorted(range(start, min(start + RUN, len(keys))), key=key))
        yield
    while len(runs) > 1:
        # Python's sort finds that there are two runs, and merges them.
        merged = []
        for place in range(0, len(runs), 2):
            merged.append(sorted([index for run in runs[place : place + 2] for index in run], key=key))
            yield
        runs = merged
    return runs[0] if runs else []
