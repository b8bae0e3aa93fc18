"""All channels by name, a page at a time.

Looking through a hundred thousand channels takes longer than others may be kept waiting, so it is done in time slices.
Each turn of the reactor has one slice, and the searches of several clients take turns in using it, so that a search
with a few steps waits for one slice of each of the others, and not for their end. A client has one search at a time;
its next ones wait for it.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.values import Position

SEEN_TOGETHER = 100
"""Names between two looks at the clock: a tenth of a millisecond, or two with a token that has many patterns."""

MAX_STARTED = 32
"""Searches that have begun at a time, because each holds a list of all channels: 26 MB with the most channels that
there are by default."""


class ChannelInfo(msgspec.Struct, frozen=True, gc=False):
    """A channel in a list. ``size`` is what its log counts against its bound, in bytes."""

    channel: bytes
    readers: int
    position: Position
    events: int
    size: int


class Page(msgspec.Struct, frozen=True):
    """``total`` is how many there are on all pages. ``following`` is what the next page is behind; None where there is
    none."""

    channels: list[ChannelInfo]
    total: int
    following: bytes | None


class Selection(Protocol):
    """Which channels a client may read."""

    def compile_some(self) -> bool:
        """Prepare for ``select``, for a part of a time slice; whether that is done."""

    def select(self, channels: list[bytes]) -> list[bytes]:
        """Those of some channels that may be read."""


class ChannelQuery:
    """``prefix`` is how the names begin, ``after`` the name behind which the page begins, ``most`` how many are on it.
    ``readable`` selects the channels that the client may read, None for all; ``is_wanted`` is whether it still waits.
    """

    __slots__ = (
        "_after",
        "_found",
        "_is_compiled",
        "_most",
        "_names",
        "_prefix",
        "_readable",
        "_total",
        "is_wanted",
        "page",
        "principal",
    )

    def __init__(
        self,
        prefix: bytes,
        after: bytes,
        most: int,
        principal: Principal = LOCAL,
        readable: Selection | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._prefix = prefix
        self._after = after
        self._most = most
        self._readable = readable
        self._is_compiled = readable is None
        self.principal = principal
        self.is_wanted = is_wanted
        self.page = Future[Page]()
        self._names: list[bytes] | None = None
        # The first ones by name, and one more.
        self._found: list[bytes] = []
        self._total = 0

    def go_on(self, broker: Broker, enough: float) -> bool:
        """Look on until it is ``enough``; whether all has been seen."""
        if self._names is None:
            self._names = list(broker.channels)
        names = self._names
        while self._readable is not None and not self._is_compiled:
            self._is_compiled = self._readable.compile_some()
            if broker.clock() >= enough:
                return False
        while names:
            self._see(names[-SEEN_TOGETHER:])
            del names[-SEEN_TOGETHER:]
            if names and broker.clock() >= enough:
                return False
        return True

    def _see(self, names: list[bytes]) -> None:
        if self._prefix:
            names = [name for name in names if name.startswith(self._prefix)]
        names = [name for name in names if not is_reserved(name)]
        if self._readable is not None:
            names = self._readable.select(names)
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


class ChannelIndex:
    """Runs the searches of all clients; there is one for a server."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        # Of each client that searches, the search that is run, or will be next, and those that wait for it.
        self._searches: dict[Principal, deque[ChannelQuery]] = {}
        # Clients whose search has begun, in the order of their turns, and those that wait until it may.
        self._started: deque[Principal] = deque()
        self._waiting: deque[Principal] = deque()
        self._is_running = False

    def look(self, search: ChannelQuery) -> Future[Page]:
        """What a search finds, of the channels that are not the server's own."""
        if search.principal in self._searches:
            self._searches[search.principal].append(search)
        else:
            self._searches[search.principal] = deque([search])
            self._waiting.append(search.principal)
        if not self._started and not self._is_running:
            self._go_on()
        return search.page

    def _go_on(self) -> None:
        self._is_running = True
        try:
            self._use_slice(self._broker.clock() + TIME_SLICE_SECONDS)
        finally:
            self._is_running = False
            if self._started:
                self._broker.postpone(self._go_on)

    def _use_slice(self, enough: float) -> None:
        """Run the first search in turn, and the next ones if it ends early."""
        broker = self._broker
        while self._start():
            principal = self._started.popleft()
            search = self._searches[principal][0]
            is_wanted, is_over = search.is_wanted(), True
            try:
                is_over = not is_wanted or search.go_on(broker, enough)
            finally:
                if is_over:  # or it has failed: the next searches of its client must not wait for it
                    self._end(principal)
                else:
                    self._started.append(principal)
            if is_over and is_wanted:
                search.settle(broker.channels)
            if broker.clock() >= enough:
                self._start()
                return

    def _start(self) -> bool:
        """Begin the searches that may; whether there is any."""
        while self._waiting and len(self._started) < MAX_STARTED:
            self._started.append(self._waiting.popleft())
        return bool(self._started)

    def _end(self, principal: Principal) -> None:
        searches = self._searches[principal]
        searches.popleft()
        if searches:
            self._waiting.append(principal)
        else:
            del self._searches[principal]


def listed(channel: Channel) -> ChannelInfo:
    """A channel as a list shows it."""
    history = channel.history
    return ChannelInfo(channel.name, len(channel.subscriptions), channel.position, len(history), history.size)
