"""A bounded cache that keeps its worth when keys are used in a circle."""

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ADMITTED_ONE_IN = 8
"""How many values are refused for each that takes the place of the oldest one."""


class Cache(dict[K, V]):
    """At most ``limit`` values: look one up with ``get``, and add one that was missing with ``keep``. When the cache is
    full, only one in ``ADMITTED_ONE_IN`` new values takes the place of the oldest. A cache that admits all of them,
    such as LRU, misses each time when more keys than it holds are used in a circle. This one misses little more often
    than it has to, and follows a change of the keys more slowly."""

    __slots__ = ("_limit", "_refused")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._refused = 0

    def keep(self, key: K, value: V) -> None:
        """Add a value for a key that has none, unless there is no room for it."""
        if len(self) >= self._limit:
            if self._refused < ADMITTED_ONE_IN - 1:
                self._refused += 1
                return
            self._refused = 0
            del self[next(iter(self))]
        self[key] = value
