"""What all connections of one bridge hold together: input that has not ended or waits to be run, and output that waits
to be read. Each of them may hold some; if all did, at once, no machine would have the memory."""

from twistedsock.core.principal import Principal
from twistedsock.core.shares import Shares

LITTLE = 2 * 1024
"""Bytes that each place of a connection may hold without being counted: they are a part of what a connection costs
anyway. So who holds hardly anything is served whatever the others hold, and who counts has little to count."""


class Holdings:
    """The sum, and its limit. Each place that holds something counts it here as it grows and shrinks, for the principal
    of its client. When that is too much, it lets go of it: clients that hold most give way when they ask for more, and
    others are not disturbed."""

    __slots__ = ("_shares",)

    def __init__(self, most: int) -> None:
        self._shares = Shares(most)

    @property
    def held(self) -> int:
        """Bytes that all hold together."""
        return self._shares.total

    @property
    def most(self) -> int:
        """The limit."""
        return self._shares.limit

    @most.setter
    def most(self, most: int) -> None:
        self._shares.limit = most

    def add(self, size: int, principal: Principal) -> None:
        """A principal holds ``size`` bytes more; less if that is negative."""
        self._shares.add(principal, size)

    def is_too_much_for(self, principal: Principal, more: int = 0) -> bool:
        """Whether a principal must give way, if it holds ``more`` bytes beside what has been counted."""
        return not self._shares.admits(principal, more)

    def recount(self, counted: int, size: int, principal: Principal) -> int:
        """A place holds ``size`` bytes now, and ``counted`` was given before, first 0; gives how many are counted from
        now on. The last ``size`` of a place must be 0, and the ``principal`` the same until then."""
        now = size if size > LITTLE else 0
        self._shares.add(principal, now - counted)
        return now
