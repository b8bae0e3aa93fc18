"""Fair shares of a table that all clients use: how much each principal holds, and which one gives way when the
table is full.

While a table has room, every client gets what it needs, so that a single client can use all of it. When the table is
full, two rules hold (max-min fairness: Bertsekas and Gallager, Data Networks, section 6.5.2):

- Entries that can be dropped, such as history, are dropped from the principal that holds most.
- Entries that cannot be dropped are refused to the principals that hold most. Beyond the limit there is a reserve: half
  of it for principals that hold less than the average, half of it for those that hold less than the guaranteed share.

``MemoryBudget`` shares memory in the same way: each connection can use some for input that has not been handled and
output that has not been sent, but if all of them did so at once, no machine would have the memory.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Generic, TypeVar

from twistedsock.limits.principal import Principal

K = TypeVar("K", bound=Hashable)

T = TypeVar("T")

RESERVE_PARTS = 8
"""The reserve is the limit divided by this: with the default limits two subscriptions for each possible connection."""

GUARANTEED_PARTS = 1_000
"""The guaranteed share is the limit divided by this. More than sixty principals can use it at the same time, which is
twice as many as an attacker needs to open all connections of a server."""

MIN_GUARANTEED_SHARE = 8
"""The guaranteed share if the limit is small."""

UNCOUNTED_BYTES = 2 * 1024
"""Bytes that each buffer of a connection can hold without being counted: they are part of what a connection costs
anyway. So clients that use hardly any memory are always served, and most buffers are never counted."""


class _Holder:
    """``place`` is its index in the heap."""

    __slots__ = ("place", "principal", "size")

    def __init__(self, principal: Principal, place: int) -> None:
        self.principal = principal
        self.size = 0
        self.place = place


class Shares:
    """The shares of one table. ``limit`` and ``total`` are in the unit of the table, for example channels or bytes."""

    __slots__ = ("_heap", "_holders", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._holders: dict[Principal, _Holder] = {}
        # A binary heap of the principals that hold something. The largest is on top.
        self._heap: list[_Holder] = []

    def __len__(self) -> int:
        """The number of principals that hold something."""
        return len(self._heap)

    def of(self, principal: Principal) -> int:
        """The amount that a principal holds."""
        holder = self._holders.get(principal)
        return 0 if holder is None else holder.size

    def add(self, principal: Principal, amount: int) -> None:
        """A principal holds ``amount`` more, or less if that is negative."""
        if not amount:
            return
        self.total += amount
        holder = self._holders.get(principal)
        if holder is None:
            holder = self._holders[principal] = _Holder(principal, len(self._heap))
            self._heap.append(holder)
        holder.size += amount
        if amount > 0:
            if holder.place:
                self._rise(holder)
        elif holder.size:
            self._sink(holder)
        else:
            self._remove(holder)

    def count_while_iterated(self, items: Sequence[T], principal: Principal) -> Iterator[T]:
        """Iterate over items that count for a principal until the iterator is exhausted or closed."""
        self.add(principal, len(items))
        try:
            yield from items
        finally:
            self.add(principal, -len(items))

    @property
    def fair_share(self) -> int:
        """The limit, divided among the principals that hold something. Principals that hold less do not give way."""
        return self.limit // max(1, len(self._heap))

    def fair_share_with(self, principal: Principal) -> int:
        """The fair share if this principal held something too."""
        return self.limit // (len(self._heap) + (principal not in self._holders))

    def admits(self, principal: Principal, amount: int = 1) -> bool:
        """Whether a principal can have ``amount`` more without taking it from another principal."""
        over = self.total + amount - self.limit
        if over <= 0:
            return True
        held, reserve = self.of(principal), self.limit // RESERVE_PARTS
        if held + amount <= guaranteed_share(self.limit):
            return over <= reserve
        return held < self.fair_share_with(principal) and over <= reserve // 2

    def largest(self) -> Principal:
        """The principal that holds most; there must be one."""
        return self._heap[0].principal

    def largest_first(self) -> Iterator[Principal]:
        """Iterate over the principals, the one that holds most first. Do not add anything meanwhile."""
        heap = self._heap
        found = [(-heap[0].size, 0)] if heap else []
        while found:
            _, place = heappop(found)
            yield heap[place].principal
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heappush(found, (-heap[child].size, child))

    def _rise(self, holder: _Holder) -> None:
        heap, place, size = self._heap, holder.place, holder.size
        while place:
            above = (place - 1) >> 1
            if heap[above].size >= size:
                break
            heap[place] = heap[above]
            heap[place].place = place
            place = above
        heap[place] = holder
        holder.place = place

    def _sink(self, holder: _Holder) -> None:
        heap, place, size = self._heap, holder.place, holder.size
        while (child := 2 * place + 1) < len(heap):
            if child + 1 < len(heap) and heap[child + 1].size > heap[child].size:
                child += 1
            if heap[child].size <= size:
                break
            heap[place] = heap[child]
            heap[place].place = place
            place = child
        heap[place] = holder
        holder.place = place

    def _remove(self, holder: _Holder) -> None:
        del self._holders[holder.principal]
        last = self._heap.pop()
        if last is not holder:
            last.place = holder.place
            self._rise(last)
            self._sink(last)


class EvictionQueue(Generic[K]):
    """The entries of a table that all clients use, in the order in which they are dropped when it is full: the oldest
    of the principal that holds most is the next one. ``shares`` counts their sizes."""

    __slots__ = ("_entries", "shares")

    def __init__(self, limit: int) -> None:
        self.shares = Shares(limit)
        # Those of each principal, the oldest first.
        self._entries: dict[Principal, OrderedDict[K, None]] = {}

    def add(self, principal: Principal, entry: K, size: int = 1) -> None:
        """Add the newest entry."""
        self._entries.setdefault(principal, OrderedDict())[entry] = None
        self.shares.add(principal, size)

    def remove(self, principal: Principal, entry: K, size: int = 1) -> None:
        """Remove an entry, whose size is ``size`` by now."""
        entries = self._entries[principal]
        del entries[entry]
        if not entries:
            del self._entries[principal]
        self.shares.add(principal, -size)

    @property
    def is_full(self) -> bool:
        """Whether the entries exceed the limit."""
        return self.shares.total > self.shares.limit

    def next_victim(self) -> K:
        """The oldest entry of the principal that holds most; there must be one."""
        return self.oldest_of(self.shares.largest())

    def oldest_of(self, principal: Principal) -> K:
        """The oldest entry of a principal, which must have one."""
        return next(iter(self._entries[principal]))


def guaranteed_share(limit: int) -> int:
    """The amount that each principal can have of a table with this limit even if it is full."""
    return max(MIN_GUARANTEED_SHARE, limit // GUARANTEED_PARTS)


def with_reserve(limit: int) -> int:
    """The maximum that a table with this limit can hold."""
    return limit + limit // RESERVE_PARTS


class MemoryBudget:
    """The total and its limit in bytes. The owner of each buffer reports its size here as it changes, for the principal
    of the client, and releases the buffer if the budget is exceeded. A full budget refuses more memory only to the
    clients that use most."""

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
