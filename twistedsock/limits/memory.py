"""The memory that all connections use together for input that has not been handled and output that has not been sent.

Each connection can use some; if all of them did so at once, no machine would have the memory.
"""

from twistedsock.limits.principal import Principal
from twistedsock.limits.shares import Shares

UNCOUNTED_BYTES = 2 * 1024
"""Bytes that each buffer of a connection can hold without being counted: they are part of what a connection costs
anyway. So clients that use hardly any memory are always served, and most buffers are never counted."""


class MemoryBudget:
    """The total and its limit in bytes. The owner of each buffer reports its size here as it changes, for the principal
    of the client, and releases the buffer if the budget is exceeded. So the clients that use most give way when they
    need more, and only these."""

    __slots__ = ("_shares",)

    def __init__(self, limit: int) -> None:
        self._shares = Shares(limit)

    @property
    def used(self) -> int:
        return self._shares.total

    @property
    def limit(self) -> int:
        return self._shares.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._shares.limit = limit

    def add(self, size: int, principal: Principal) -> None:
        """A principal uses ``size`` bytes more, or less if that is negative."""
        self._shares.add(principal, size)

    def is_exceeded_by(self, principal: Principal, more: int = 0) -> bool:
        """Whether a principal must give way, if it uses ``more`` bytes beside what has been counted."""
        return not self._shares.admits(principal, more)

    def adjust(self, counted: int, size: int, principal: Principal) -> int:
        """A buffer has ``size`` bytes now. ``counted`` is what the last call for this buffer returned, at first 0;
        returns how many bytes are counted from now on. The last ``size`` of a buffer must be 0, and the principal the
        same until then."""
        now = size if size > UNCOUNTED_BYTES else 0
        self._shares.add(principal, now - counted)
        return now
