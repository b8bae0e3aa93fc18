"""All channels by name, a page at a time. To look through a hundred thousand takes longer than one may keep others
waiting, so it is spread over turns; and as who looks holds a list of them all, one looks after the other."""

from collections import deque
from collections.abc import Callable

import msgspec

from twistedsock.core.broker import Broker
from twistedsock.core.channel import Channel
from twistedsock.core.dialect import Position
from twistedsock.core.errors import Refusal
from twistedsock.core.later import Later
from twistedsock.core.limits import SHARE
from twistedsock.core.names import is_reserved

SEEN_TOGETHER = 100
"""Names between two looks at the clock: with a token that has several patterns, half a millisecond."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    """A channel in a list. ``size`` is what its log counts against its bound, in bytes."""

    channel: bytes
    readers: int
    position: Position
    events: int
    size: int


class Page(msgspec.Struct, frozen=True):
    """``total`` is how many there are on all pages. ``following`` is what the next page is behind; None where there is
    none."""

    channels: list[Listed]
    total: int
    following: bytes | None


class Search:
    """``prefix`` is how the names begin, ``after`` the name behind which the page begins, ``most`` how many are on it.
    ``forbids`` says why a channel may not be read; ``is_wanted`` is whether somebody still waits."""

    __slots__ = ("_after", "_forbids", "_found", "_most", "_names", "_prefix", "_total", "is_wanted", "page")

    def __init__(
        self,
        prefix: bytes,
        after: bytes,
        most: int,
        forbids: Callable[[bytes], Refusal | None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._prefix = prefix
        self._after = after
        self._most = most
        self._forbids = forbids
        self.is_wanted = is_wanted
        self.page = Later[Page]()
        self._names: list[bytes] | None = None
        # The first ones by name, and one more.
        self._found: list[bytes] = []
        self._total = 0

    def go_on(self, broker: Broker, enough: float) -> bool:
        """Look on until it is ``enough``; whether all has been seen."""
        if self._names is None:
            self._names = list(broker.channels)
        names = self._names
        while names:
            self._see(names[-SEEN_TOGETHER:])
            del names[-SEEN_TOGETHER:]
            if names and broker.clock() >= enough:
                return False
        return True

    def _see(self, names: list[bytes]) -> None:
        if self._prefix:
            names = [name for name in names if name.startswith(self._prefix)]
        names = [name for name in names if not is_reserved(name) and self._forbids(name) is None]
        self._total += len(names)
        names = [name for name in names if name > self._after]
        if len(self._found) > self._most:
            last = self._found[-1]
            names = [name for name in names if name < last]
        if names:
            self._found = sorted(self._found + names)[: self._most + 1]

    def settle(self, channels: dict[bytes, Channel]) -> None:
        """All has been seen; what has gone meanwhile is not shown."""
        shown = self._found[: self._most]
        following = shown[-1] if len(self._found) > self._most else None
        page = [listed(channels[name]) for name in shown if name in channels]
        self.page.settle(Page(page, self._total, following))


class Directory:
    """To be asked, one for a server."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._searches: deque[Search] = deque()

    def look(self, search: Search) -> Later[Page]:
        """What a search finds, of the channels that are not the server's own."""
        self._searches.append(search)
        if len(self._searches) == 1:
            self._go_on()
        return search.page

    def _go_on(self) -> None:
        broker = self._broker
        enough = broker.clock() + SHARE
        while self._searches:
            search = self._searches[0]
            if search.is_wanted():
                if not search.go_on(broker, enough):
                    broker.postpone(self._go_on)
                    return
                search.settle(broker.channels)
            self._searches.popleft()
            if self._searches and broker.clock() >= enough:
                broker.postpone(self._go_on)
                return


def listed(channel: Channel) -> Listed:
    """A channel as a list shows it."""
    return Listed(channel.name, len(channel.readers), channel.position, len(channel.log), channel.log.size)
