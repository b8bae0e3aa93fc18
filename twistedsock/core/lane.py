"""The readers of one channel that share one encoding: here one event becomes one piece of bytes for all of them."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from twistedsock.core.dialect import Dialect
from twistedsock.core.events import Event
from twistedsock.core.limits import CHUNK_BYTES
from twistedsock.core.reader import Subscription


def chunks(frames: list[bytes]) -> list[tuple[int, bytes]]:
    """Join messages into pieces of at most CHUNK_BYTES (or one message, if that is longer), each with the index of
    its first message."""
    joined = b"".join(frames)
    if len(joined) <= CHUNK_BYTES:
        return [(0, joined)]
    pieces: list[tuple[int, bytes]] = []
    ends = list(accumulate(map(len, frames)))
    start = done = 0
    while start < len(frames):
        stop = max(start + 1, bisect_right(ends, done + CHUNK_BYTES))
        pieces.append((start, b"".join(frames[start:stop])))
        start, done = stop, ends[stop - 1]
    return pieces


class Lane:
    """Caught-up readers only. ``live`` keeps each reader's bound ``offer``, so that none is looked up for a
    delivery; ``selective`` are those who do not want their own events back."""

    __slots__ = ("encoding", "live", "selective")

    def __init__(self, encoding: Dialect) -> None:
        self.encoding = encoding
        self.live: dict[Subscription, Callable[[bytes], bool]] = {}
        self.selective: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self.live) + len(self.selective)

    def join(self, subscription: Subscription) -> None:
        if subscription.echo:
            self.live[subscription] = subscription.reader.outlet.offer
        else:
            self.selective[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        self.live.pop(subscription, None)
        self.selective.pop(subscription, None)

    def deliver(self, channel: bytes, events: Sequence[Event]) -> None:
        """Offer new events, which are in the log already, to every reader; who does not take them falls behind."""
        if not self.live and not self.selective:
            return
        first = events[0].offset
        frames = self.encoding.events(channel, events)
        pieces = chunks(frames)
        for index, data in pieces:
            refused = [subscription for subscription, offer in self.live.items() if not offer(data)]
            for subscription in refused:
                subscription.fall_behind(first + index)
        if self.selective:
            publishers = {event.publisher for event in events}
            for subscription in list(self.selective):
                if subscription.reader.peer.id in publishers:
                    self._deliver_selected(subscription, events, frames)
                else:
                    self._offer(subscription, first, pieces)

    def _deliver_selected(self, subscription: Subscription, events: Sequence[Event], frames: list[bytes]) -> None:
        """Leave out the reader's own events; what others published is not encoded again."""
        offsets = [event.offset for event in events if subscription.wants(event)]
        wanted = [frame for event, frame in zip(events, frames, strict=True) if subscription.wants(event)]
        for index, data in chunks(wanted) if wanted else ():
            if not subscription.reader.outlet.offer(data):
                subscription.fall_behind(offsets[index])
                return

    @staticmethod
    def _offer(subscription: Subscription, first: int, pieces: list[tuple[int, bytes]]) -> None:
        for index, data in pieces:
            if not subscription.reader.outlet.offer(data):
                subscription.fall_behind(first + index)
                return
