"""The open channels: how one is opened, whom it counts for, and when it is closed."""

from collections.abc import Callable

from twistedsock.errors import Error
from twistedsock.limits.principal import ELSEWHERE, LOCAL, Principal
from twistedsock.limits.settings import Limits, reserved_limits
from twistedsock.pubsub.backplane import Backplane
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.channel_shares import ChannelShares
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.history_budget import HistoryBudget
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.values import ChannelState
from twistedsock.stats import Stats


class Channels(dict[bytes, Channel]):
    """All open channels by their names. ``wall_clock`` returns the seconds since 1970. ``closed`` is called with the
    name of each channel that has been closed."""

    def __init__(
        self,
        backplane: Backplane,
        limits: Limits,
        stats: Stats,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        closed: Callable[[bytes], object],
    ) -> None:
        self.histories = HistoryBudget(limits.history_total_bytes, clock, self._history_emptied)
        self.shares = ChannelShares(limits.max_channels, self.histories)
        self.own = 0
        """How many of the channels are the server's own."""
        self._backplane = backplane
        self._limits = limits
        self._stats = stats
        # For the server's own channels: events that it publishes there are not counted as its work.
        self._reserved_limits = reserved_limits(limits)
        self._reserved_stats = Stats()
        self._wall_clock = wall_clock
        self._closed = closed
        self._opening: dict[bytes, Future[Channel]] = {}

    def open(self, name: bytes, principal: Principal = LOCAL) -> Channel | Error | Future[Channel]:
        """The channel of that name. A new one counts for ``principal``. A caller that does not subscribe to it must
        call ``close_if_unused``."""
        channel = self.get(name)
        if channel is not None:
            return channel
        if name in self._opening:
            return self._opening[name]
        error = self.shares.check(name, principal)
        if error is not None:
            return error
        answer = self._backplane.open(name)
        if not isinstance(answer, Future):
            return self._opened(name, answer, principal)
        release = self.shares.claim(name, principal)
        self._opening[name] = opening = Future[Channel]()

        def opened(outcome: ChannelState | Error) -> None:
            release(outcome)
            self._opening.pop(name).settle(self._opened(name, outcome, principal))

        answer.then(opened)
        return opening

    def _opened(self, name: bytes, outcome: ChannelState | Error, principal: Principal) -> Channel | Error:
        if isinstance(outcome, Error):
            return outcome
        # An event may have been delivered before the answer arrived.
        return self.get(name) or self.add(name, outcome, principal)

    def add(self, name: bytes, state: ChannelState, owner: Principal) -> Channel:
        """A new channel in the state that the backplane has reported."""
        limits, stats = self._limits, self._stats
        if is_reserved(name):
            limits, stats = self._reserved_limits, self._reserved_stats
            self.own += 1
        channel = self[name] = Channel(name, state, limits, stats, owner)
        self.shares.add(channel)
        self.load(channel, state)
        return channel

    def load(self, channel: Channel, state: ChannelState) -> None:
        """Add the newest events that the backplane has kept to an empty history. They are as old as their times say."""
        if state.tail:
            now = self._wall_clock()
            ages = [max(0.0, now - batch.time / 1000) if batch.time else 0.0 for batch in state.tail]
            self.histories.load(channel, state.tail, ages)

    def close_if_unused(self, channel: Channel) -> None:
        """Remove a channel that has neither subscriptions nor history, and that nothing else needs."""
        if channel.subscriptions or channel.history or channel.pending or channel.waiters or channel.uses:
            return
        if self.get(channel.name) is channel:
            del self[channel.name]
            self.own -= is_reserved(channel.name)
            self.shares.remove(channel)
            self._closed(channel.name)
            self._backplane.close(channel.name)

    def owner_of(self, name: bytes) -> Principal:
        """The principal that a channel counts for."""
        channel = self.get(name)
        return ELSEWHERE if channel is None else channel.owner

    def cancel_notify(self, channel: Channel, callback: Callable[[], None]) -> None:
        """A callback that ``Channel.notify_once`` was given must not be called any more."""
        channel.cancel_notify(callback)
        self.close_if_unused(channel)

    def _history_emptied(self, channel: Channel) -> None:
        self.shares.give_to_subscriber(channel)
        self.close_if_unused(channel)
