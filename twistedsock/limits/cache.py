"""A bounded cache that stays useful when more keys than it holds are used in turn."""

from collections.abc import Hashable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

V = TypeVar("V")

ADMITTED_ONE_IN = 8
"""When the cache is full, one new value in this many replaces the oldest one; the rest are not added."""


class Cache(dict[K, V]):
    """At most ``limit`` values: look one up with ``get``, and ``add`` it if it was missing.

    A cache that admits every value, such as an LRU cache, misses each time if one key more than it holds is used in
    turn. This one misses little more often than it has to, and adapts to other keys more slowly.
    """

    __slots__ = ("_limit", "_refused")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._refused = 0

    def add(self, key: K, value: V) -> None:
        """Add a value for a key that has none, unless there is no room for it."""
        if len(self) >= self._limit:
            if self._refused < ADMITTED_ONE_IN - 1:
                self._refused += 1
                return
            self._refused = 0
            del self[next(iter(self))]
        self[key] = value
