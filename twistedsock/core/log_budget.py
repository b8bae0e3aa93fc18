"""The logs of all channels together: their sum, its bound, and what is too old in them."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from twistedsock.core.channel import Channel
from twistedsock.core.limits import SHARE

SWEPT_TOGETHER = 256
"""Silent channels between two looks at the clock."""


class LogBudget:
    """``size`` is what all logs cost, in bytes, and ``most`` its bound. ``forget_unused`` is told of channels whose
    logs may have become empty."""

    __slots__ = ("_clock", "_forget_unused", "_most", "_unswept", "_written", "size")

    def __init__(self, most: int, clock: Callable[[], float], forget_unused: Callable[[Channel], None]) -> None:
        self.size = 0
        self._most = most
        self._clock = clock
        self._forget_unused = forget_unused
        # Channels with a log, the least recently written first.
        self._written: OrderedDict[Channel, None] = OrderedDict()
        self._unswept: list[Channel] = []

    def note_written(self, channel: Channel) -> None:
        """A channel is being written."""
        self._written[channel] = None
        self._written.move_to_end(channel)

    def account(self, channel: Channel, size_before: int) -> None:
        """A channel's log has changed; where all together are too much, the least recently written gives way."""
        self.size += channel.log.size - size_before
        if not channel.log:
            self._written.pop(channel, None)
        while self.size > self._most:
            victim = next(iter(self._written))
            size = victim.log.size
            victim.log.shrink(max(0, size - (self.size - self._most)))
            self.size += victim.log.size - size
            if not victim.log:
                del self._written[victim]
                self._forget_unused(victim)

    def expire(self, channel: Channel, now: float) -> None:
        """Let go what is too old in one log."""
        size = channel.log.size
        channel.log.expire(now)
        self.account(channel, size)

    def empty(self, channel: Channel) -> None:
        """Let go of all that a channel's log keeps."""
        size = channel.log.size
        channel.log.shrink(0)
        self.account(channel, size)
        self._forget_unused(channel)

    def sweep(self, channels: Iterable[Channel]) -> bool:
        """Begin to let go what is too old in all of them; whether that is done, else ``sweep_on`` must follow."""
        self._unswept = list(channels)
        return self.sweep_on()

    def sweep_on(self) -> bool:
        """As many as fit into a share of time; whether all have been looked at."""
        now = self._clock()
        enough = now + SHARE
        while self._unswept:
            for channel in self._unswept[-SWEPT_TOGETHER:]:
                self.expire(channel, now)
                self._forget_unused(channel)
            del self._unswept[-SWEPT_TOGETHER:]
            if self._unswept and self._clock() >= enough:
                return False
        return True
