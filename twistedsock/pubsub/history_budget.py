"""The histories of all channels together: their total cost and its limit, and which events are dropped when it is
exceeded."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from twistedsock.limits.principal import Principal
from twistedsock.limits.shares import Shares
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.values import Batch

CHANNELS_PER_STEP = 256
"""Channels that are checked for events that are too old between two looks at the clock."""

MAX_SEARCHED_CHANNELS = 64
"""Channels of an owner that are searched for one without subscriptions: this takes some microseconds."""


class HistoryBudget:
    """The cost of each history counts for the owner of its channel. When the total exceeds ``limit`` bytes, the owner
    whose histories cost most gives way, with its least recently written channel first. So owners whose histories cost
    less than an equal part of the limit lose nothing. ``history_emptied`` is called with channels whose history may
    have become empty."""

    __slots__ = ("_clock", "_history_emptied", "_shares", "_written")

    def __init__(self, limit: int, clock: Callable[[], float], history_emptied: Callable[[Channel], None]) -> None:
        self._shares = Shares(limit)
        self._clock = clock
        self._history_emptied = history_emptied
        # The channels of each owner that have a history, the least recently written first.
        self._written: dict[Principal, OrderedDict[Channel, None]] = {}

    @property
    def size(self) -> int:
        """The cost of all histories in bytes."""
        return self._shares.total

    def update(self, channel: Channel) -> None:
        """Append the events that wait in a channel to its history, and drop those that are too old. The new ones are
        delivered at the end of the turn."""
        if channel.pending:
            size = channel.history.size
            self._note_written(channel)
            channel.append_pending(self._clock())
            self.account(channel, size)
        else:
            self.expire(channel, self._clock())

    def load(self, channel: Channel, batches: Sequence[Batch], ages: Iterable[float]) -> None:
        """Add events that were published some time ago, each batch with its age in seconds, to an empty history."""
        now = self._clock()
        for batch, age in zip(batches, ages, strict=True):
            channel.history.extend([batch], now - age)
        channel.history.expire(now)
        self._note_written(channel)
        self.account(channel, 0)

    def prepare_delivery(self, channel: Channel, now: float) -> list[Batch]:
        """``Channel.prepare_delivery``, which appends events to its history."""
        size = channel.history.size
        if channel.pending:
            try:
                self._written[channel.owner].move_to_end(channel)
            except KeyError:
                self._note_written(channel)
        batches = channel.prepare_delivery(now)
        self.account(channel, size)
        return batches

    def account(self, channel: Channel, size_before: int) -> None:
        """A history has changed its size. If all together are too large now, the largest give way."""
        shares, history = self._shares, channel.history
        if history.size != size_before:
            shares.add(channel.owner, history.size - size_before)
        if history.first == history.end:
            self._forget_written(channel)
        while shares.total > shares.limit:
            owner = shares.largest()
            victim = next(iter(self._written[owner]))
            # Not more than what this owner has beyond its share: then another one is the largest.
            excess = min(shares.total - shares.limit, shares.of(owner) - shares.fair_share)
            size = victim.history.size
            victim.history.shrink(max(0, size - excess))
            shares.add(owner, victim.history.size - size)
            if not victim.history:
                self._forget_written(victim)
                self._history_emptied(victim)

    def change_owner(self, channel: Channel, owner: Principal) -> None:
        """A channel and its history count for another principal from now on."""
        self._shares.add(channel.owner, -channel.history.size)
        self._forget_written(channel)
        channel.owner, channel.foreign_bytes = owner, 0
        self._shares.add(owner, channel.history.size)
        if channel.history:
            self._note_written(channel)

    def find_history_only(self, owner: Principal) -> Channel | None:
        """The least recently written channel of an owner that has only its history. Only a few are searched.
        Those of them that have more count as just written, so that the next search continues behind them."""
        oldest: list[Channel] = list(islice(self._written.get(owner, ()), MAX_SEARCHED_CHANNELS))
        for channel in oldest:
            if channel.is_history_only and not is_reserved(channel.name):
                return channel
            self._note_written(channel)
        return None

    def clear(self, channel: Channel) -> None:
        """Drop the history of a channel."""
        size = channel.history.size
        channel.history.shrink(0)
        self.account(channel, size)
        self._history_emptied(channel)

    def expire(self, channel: Channel, now: float) -> None:
        """Drop the events of a channel that are too old."""
        size = channel.history.size
        channel.history.expire(now)
        self.account(channel, size)

    def expire_all(self, channels: list[Channel]) -> Iterator[None]:
        """Drop the events of these channels that are too old, step by step. The list is emptied."""
        now = self._clock()
        while channels:
            for channel in channels[-CHANNELS_PER_STEP:]:
                self.expire(channel, now)
                self._history_emptied(channel)
            del channels[-CHANNELS_PER_STEP:]
            if channels:
                yield

    def _note_written(self, channel: Channel) -> None:
        written = self._written.get(channel.owner)
        if written is None:
            written = self._written[channel.owner] = OrderedDict()
        written[channel] = None
        written.move_to_end(channel)

    def _forget_written(self, channel: Channel) -> None:
        written = self._written.get(channel.owner)
        if written is not None and channel in written:
            del written[channel]
            if not written:
                del self._written[channel.owner]
