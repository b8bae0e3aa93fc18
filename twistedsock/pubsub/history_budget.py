"""The logs of all channels together: their sum, its limit, whose they are, and what is too old in them."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice

from twistedsock.limits.memory import Shares
from twistedsock.limits.principal import Principal
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.names import is_reserved

SWEPT_TOGETHER = 256
"""Silent channels between two looks at the clock."""

SEARCHED_TOGETHER = 64
"""Channels that are looked at for one that is not read: some microseconds."""


class HistoryBudget:
    """``most`` is the limit of what all logs cost, in bytes. Each log counts for the owner of its channel; when all of
    them are too large, the owner whose logs are largest gives way, with its least recently written channel first. So
    owners whose logs cost less than an equal part of the limit lose nothing to others. ``close_if_unused`` is called
    with channels whose logs may have become empty."""

    __slots__ = ("_clock", "_forget_unused", "_shares", "_unswept", "_written")

    def __init__(self, most: int, clock: Callable[[], float], close_if_unused: Callable[[Channel], None]) -> None:
        self._shares = Shares(most)
        self._clock = clock
        self._forget_unused = close_if_unused
        # The channels of each owner that have a log, the least recently written first.
        self._written: dict[Principal, OrderedDict[Channel, None]] = {}
        self._unswept: list[Channel] = []

    @property
    def size(self) -> int:
        """What all logs cost, in bytes."""
        return self._shares.total

    def note_written(self, channel: Channel) -> None:
        """A channel is being written."""
        written = self._written.get(channel.owner)
        if written is None:
            written = self._written[channel.owner] = OrderedDict()
        written[channel] = None
        written.move_to_end(channel)

    def account(self, channel: Channel, size_before: int) -> None:
        """A channel's log has changed; when all together are too large, others give way."""
        shares = self._shares
        shares.add(channel.owner, channel.history.size - size_before)
        if not channel.history:
            self._forget_written(channel)
        while shares.total > shares.limit:
            owner = shares.largest()
            victim = next(iter(self._written[owner]))
            # Not more than what it has beyond its share; then it is another's turn.
            excess = min(shares.total - shares.limit, shares.of(owner) - shares.fair_share)
            size = victim.history.size
            victim.history.shrink(max(0, size - excess))
            shares.add(owner, victim.history.size - size)
            if not victim.history:
                self._forget_written(victim)
                self._forget_unused(victim)

    def change_owner(self, channel: Channel, owner: Principal) -> None:
        """A channel and its log count for another principal from now on."""
        self._shares.add(channel.owner, -channel.history.size)
        self._forget_written(channel)
        channel.owner, channel.contested = owner, 0
        self._shares.add(owner, channel.history.size)
        if channel.history:
            self.note_written(channel)

    def find_unread(self, owner: Principal) -> Channel | None:
        """The least recently written channel of an owner that has nothing but history. Only a few are looked at; those
        among them that are read count as just written, so that the next search goes on behind them."""
        oldest: list[Channel] = list(islice(self._written.get(owner, ()), SEARCHED_TOGETHER))
        for channel in oldest:
            if channel.is_history_only and not is_reserved(channel.name):
                return channel
            self.note_written(channel)
        return None

    def _forget_written(self, channel: Channel) -> None:
        written = self._written.get(channel.owner)
        if written is not None and channel in written:
            del written[channel]
            if not written:
                del self._written[channel.owner]

    def expire(self, channel: Channel, now: float) -> None:
        """Let go what is too old in one log."""
        size = channel.history.size
        channel.history.expire(now)
        self.account(channel, size)

    def clear(self, channel: Channel) -> None:
        """Let go of all that a channel's log keeps."""
        size = channel.history.size
        channel.history.shrink(0)
        self.account(channel, size)
        self._forget_unused(channel)

    def sweep(self, channels: Iterable[Channel]) -> bool:
        """Begin to let go what is too old in all of them; whether that is done, else ``sweep_on`` must follow."""
        self._unswept = list(channels)
        return self.sweep_on()

    def sweep_on(self) -> bool:
        """As many as fit into a share of time; whether all have been looked at."""
        now = self._clock()
        enough = now + TIME_SLICE_SECONDS
        while self._unswept:
            for channel in self._unswept[-SWEPT_TOGETHER:]:
                self.expire(channel, now)
                self._forget_unused(channel)
            del self._unswept[-SWEPT_TOGETHER:]
            if self._unswept and self._clock() >= enough:
                return False
        return True
