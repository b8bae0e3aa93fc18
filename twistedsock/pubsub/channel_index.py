"""The list of all channels, a page at a time.

A search examines all channels, which takes too long for one turn of the reactor if there are a hundred thousand.
Therefore each turn has one time slice for searches, and the clients that search get it in rotation: a short search
waits for one slice of each other search, not for its end. A client has one search at a time. Its next searches wait.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.scheduler import TimeSlice
from twistedsock.pubsub.values import ChannelInfo, Page

NAMES_PER_STEP = 100
"""Names between two looks at the clock: 0.1 ms, or 0.2 ms with a token that has many patterns."""

MAX_STARTED_SEARCHES = 32
"""Each search that has started holds a list of all channels: together 26 MB with the default limit of channels."""


class Selection(Protocol):
    """Which channels a client may read."""

    def compile_some(self) -> bool:
        """Prepare for ``select``, for a part of a time slice. Returns whether that is done."""

    def select(self, channels: list[bytes]) -> list[bytes]:
        """Returns those of some channels that the client may read."""


class ChannelQuery:
    """A search for the channels whose names start with ``prefix``: those that follow ``after``, at most ``limit`` of
    them. ``readable`` selects the channels that the client may read, None for all. ``is_wanted`` returns whether the
    client still waits. The result is ``page``."""

    __slots__ = (
        "_after",
        "_found",
        "_is_compiled",
        "_limit",
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
        limit: int,
        principal: Principal = LOCAL,
        readable: Selection | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._prefix = prefix
        self._after = after
        self._limit = limit
        self._readable = readable
        self._is_compiled = readable is None
        self.principal = principal
        self.is_wanted = is_wanted
        self.page = Future[Page]()
        self._names: list[bytes] | None = None
        # The first ones by name, and one more to know whether there is another page.
        self._found: list[bytes] = []
        self._total = 0

    def advance(self, channels: dict[bytes, Channel], time_slice: TimeSlice) -> bool:
        """Search until the time slice is over. Returns whether all channels have been searched."""
        if self._names is None:
            self._names = list(channels)
        names = self._names
        while self._readable is not None and not self._is_compiled:
            self._is_compiled = self._readable.compile_some()
            if time_slice.is_over():
                return False
        while names:
            self._search(names[-NAMES_PER_STEP:])
            del names[-NAMES_PER_STEP:]
            if names and time_slice.is_over():
                return False
        return True

    def _search(self, names: list[bytes]) -> None:
        if self._prefix:
            names = [name for name in names if name.startswith(self._prefix)]
        names = [name for name in names if not is_reserved(name)]
        if self._readable is not None:
            names = self._readable.select(names)
        self._total += len(names)
        names = [name for name in names if name > self._after]
        if len(self._found) > self._limit:
            last = self._found[-1]
            names = [name for name in names if name < last]
        if names:
            self._found = sorted(self._found + names)[: self._limit + 1]

    def settle(self, channels: dict[bytes, Channel]) -> None:
        """All channels have been searched. Those that were closed meanwhile are left out."""
        names = self._found[: self._limit]
        following = names[-1] if len(self._found) > self._limit else None
        page = [channel_info(channels[name]) for name in names if name in channels]
        self.page.settle(Page(page, self._total, following))


class ChannelIndex:
    """Runs the searches of all clients."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        # The searches of each client. The first one runs, or will be the next to run; the rest wait for it.
        self._searches: dict[Principal, deque[ChannelQuery]] = {}
        # Clients whose search has started, in the order of their turns, and clients whose search has not.
        self._started: deque[Principal] = deque()
        self._waiting: deque[Principal] = deque()
        self._is_running = False

    def find(
        self,
        prefix: bytes,
        after: bytes,
        limit: int,
        principal: Principal = LOCAL,
        readable: Selection | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Future[Page]:
        """Search for channels: see ChannelQuery."""
        return self.search(ChannelQuery(prefix, after, limit, principal, readable, is_wanted))

    def search(self, query: ChannelQuery) -> Future[Page]:
        """Find channels, except the server's own."""
        if query.principal in self._searches:
            self._searches[query.principal].append(query)
        else:
            self._searches[query.principal] = deque([query])
            self._waiting.append(query.principal)
        if not self._started and not self._is_running:
            self._run()
        return query.page

    def _run(self) -> None:
        scheduler = self._broker.scheduler
        self._is_running = True
        try:
            self._run_for(scheduler.time_slice())
        finally:
            self._is_running = False
            if self._started:
                scheduler.defer(self._run)

    def _run_for(self, time_slice: TimeSlice) -> None:
        """Run the first search in turn, and the next ones if it ends early."""
        channels = self._broker.channels
        while self._start():
            principal = self._started.popleft()
            query = self._searches[principal][0]
            is_wanted, is_done = query.is_wanted(), True
            try:
                is_done = not is_wanted or query.advance(channels, time_slice)
            finally:
                if is_done:  # or it has failed: the next searches of its client must not wait for it
                    self._end(principal)
                else:
                    self._started.append(principal)
            if is_done and is_wanted:
                query.settle(channels)
            if time_slice.is_over():
                self._start()
                return

    def _start(self) -> bool:
        """Start searches that wait, if there is room. Returns whether any has been started."""
        while self._waiting and len(self._started) < MAX_STARTED_SEARCHES:
            self._started.append(self._waiting.popleft())
        return bool(self._started)

    def _end(self, principal: Principal) -> None:
        searches = self._searches[principal]
        searches.popleft()
        if searches:
            self._waiting.append(principal)
        else:
            del self._searches[principal]


def channel_info(channel: Channel) -> ChannelInfo:
    history = channel.history
    readers, newest = len(channel.subscriptions), history.newest
    return ChannelInfo(channel.name, readers, channel.position, len(history), history.size, newest)
