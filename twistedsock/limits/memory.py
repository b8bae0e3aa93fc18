"""What all connections of one bridge hold together: input that has not ended or waits to be run, and output that waits
to be read. Each of them may hold some; if all did, at once, no machine would have the memory."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Generic, TypeVar

from twistedsock.limits.principal import Principal

K = TypeVar("K", bound=Hashable)

T = TypeVar("T")

RESERVE_PARTS = 8
"""The reserve is one part in so many of the limit: with the default limits two subscriptions for each connection that
there may be."""

GUARANTEED_PARTS = 1_000
"""The guaranteed share is one part in so many of the limit. More than sixty principals can use it at the same time,
which is twice as many as it takes to open all connections of a server from addresses of one's own."""

GUARANTEED_LEAST = 8
"""The least guaranteed share, where the limit is small."""


class _Holder:
    """``place`` is its index in the heap."""

    __slots__ = ("place", "principal", "size")

    def __init__(self, principal: Principal, place: int) -> None:
        self.principal = principal
        self.size = 0
        self.place = place


class Shares:
    """One table. ``limit`` and ``total`` are in the table's own unit, for example channels or bytes."""

    __slots__ = ("_heap", "_holders", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._holders: dict[Principal, _Holder] = {}
        # Those that hold something, as a binary heap with the largest on top.
        self._heap: list[_Holder] = []

    def __len__(self) -> int:
        """How many principals hold something."""
        return len(self._heap)

    def of(self, principal: Principal) -> int:
        """What a principal holds."""
        holder = self._holders.get(principal)
        return 0 if holder is None else holder.size

    def add(self, principal: Principal, amount: int) -> None:
        """A principal holds ``amount`` more; less if that is negative."""
        if not amount:
            return
        self.total += amount
        holder = self._holders.get(principal)
        if holder is None:
            holder = self._holders[principal] = _Holder(principal, len(self._heap))
            self._heap.append(holder)
        holder.size += amount
        if amount > 0:
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
        """The same, as if a principal held something too."""
        return self.limit // (len(self._heap) + (principal not in self._holders))

    def admits(self, principal: Principal, amount: int = 1) -> bool:
        """Whether a principal can have ``amount`` more without anything being taken from others."""
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
        """The principals, the one that holds most first. Nothing must be added meanwhile."""
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


class Aging(Generic[K]):
    """Entries that can be taken back, of a table that all clients use: the oldest of the principal that holds most goes
    first. ``shares`` counts their sizes."""

    __slots__ = ("_entries", "shares")

    def __init__(self, limit: int) -> None:
        self.shares = Shares(limit)
        # Those of each principal, the oldest first.
        self._entries: dict[Principal, OrderedDict[K, None]] = {}

    def add(self, principal: Principal, entry: K, size: int = 1) -> None:
        """There is a new entry, the newest."""
        self._entries.setdefault(principal, OrderedDict())[entry] = None
        self.shares.add(principal, size)

    def remove(self, principal: Principal, entry: K, size: int = 1) -> None:
        """An entry is gone; ``size`` is what it counts for by now."""
        entries = self._entries[principal]
        del entries[entry]
        if not entries:
            del self._entries[principal]
        self.shares.add(principal, -size)

    @property
    def is_full(self) -> bool:
        """Whether there is more than the limit."""
        return self.shares.total > self.shares.limit

    def first_to_go(self) -> K:
        """The oldest entry of the principal that holds most; there must be one."""
        return self.oldest_of(self.shares.largest())

    def oldest_of(self, principal: Principal) -> K:
        """The oldest entry of a principal, which must have one."""
        return next(iter(self._entries[principal]))


def guaranteed_share(limit: int) -> int:
    """What each principal can have of a table with this limit although others have filled it."""
    return max(GUARANTEED_LEAST, limit // GUARANTEED_PARTS)


def with_reserve(limit: int) -> int:
    """The most that a table with this limit can hold."""
    return limit + limit // RESERVE_PARTS


UNCOUNTED_BYTES = 2 * 1024
"""Bytes that each place of a connection may hold without being counted: they are a part of what a connection costs
anyway. So who holds hardly anything is served whatever the others hold, and who counts has little to count."""


class MemoryBudget:
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
        now = size if size > UNCOUNTED_BYTES else 0
        self._shares.add(principal, now - counted)
        return now


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


# TODO-MERGED-DOC: Fair shares of a table that all clients use: how much each principal holds, who is refused
# and who gives way first. While a table has room, every client takes what it needs, so that a single client can
# use all of it. When the table is full, two rules hold (max-min fairness: Bertsekas and Gallager, Data
# Networks, section 6.5.2): - What can be taken back, such as history, is taken from the principal that holds
# most. - What cannot be taken back is refused to those that hold most. Beyond the limit there is a reserve for
# the others: half of it for principals that hold less than the average, half of it for those that hold less
# than the guaranteed share.

# TODO-MERGED-DOC: A bounded cache that keeps its worth when keys are used in a circle.
