"""The readers of one channel that share one encoding: here one event becomes one piece of bytes for all of them."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.encoder import EventEncoder
from twistedsock.pubsub.subscription import Subscriber, Subscription
from twistedsock.pubsub.values import Batch, Lost
from twistedsock.stats import Stats

Chunk = tuple[int, bytes]
"""Messages in a row, with the offset of the first of them."""

PendingChunk = tuple[Subscription, int, bytes]
"""A piece that a reader is to get."""

GatheredChunks = defaultdict[Subscriber, list[PendingChunk]]
"""What several channels have for each reader, to leave in one send."""


def encode(encoder: EventEncoder, channel: bytes, batch: Batch, epoch: bytes = b"") -> list[Chunk]:
    """A batch in pieces of at most CHUNK_BYTES, or of one message if that is longer."""
    count = batch.end - batch.first
    size = batch.payloads.size + (encoder.overhead + len(channel) + len(batch.sender)) * count
    if size <= CHUNK_BYTES or count == 1:
        data = encoder.batch(channel, batch, epoch)
        size = len(data)
        if size <= CHUNK_BYTES or count == 1:
            return [(batch.first, data)]
    # Into parts of as many events, which are as large only if the payloads are: else they are parted again.
    each = -(-count // max(2, -(-size // CHUNK_BYTES)))
    parts = [batch.part(start, start + each) for start in range(batch.first, batch.end, each)]
    return [piece for part in parts for piece in encode(encoder, channel, part, epoch)]


def join(pieces: Sequence[Chunk]) -> Sequence[Chunk]:
    """Join pieces that follow each other as long as they stay within CHUNK_BYTES."""
    if len(pieces) == 1:
        return pieces
    joined: list[Chunk] = []
    first, gathered, size = 0, list[bytes](), 0
    for offset, data in pieces:
        if gathered and size + len(data) > CHUNK_BYTES:
            joined.append((first, b"".join(gathered)))
            gathered, size = [], 0
        if not gathered:
            first = offset
        gathered.append(data)
        size += len(data)
    joined.append((first, b"".join(gathered)))
    return joined


class EncodingGroup:
    """Caught-up readers only. ``live`` keeps each reader's bound ``try_write``, so that none is looked up for a
    delivery; ``selective`` are those who do not want their own events back."""

    __slots__ = ("_epoch", "_stats", "encoder", "live", "selective")

    def __init__(self, encoder: EventEncoder, stats: Stats, epoch: bytes = b"") -> None:
        self.encoder = encoder
        self._epoch = epoch
        self._stats = stats
        self.live: dict[Subscription, Callable[[bytes], bool]] = {}
        self.selective: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self.live) + len(self.selective)

    def join(self, subscription: Subscription) -> None:
        if subscription.echo:
            self.live[subscription] = subscription.subscriber.outlet.try_write
        else:
            self.selective[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        self.live.pop(subscription, None)
        self.selective.pop(subscription, None)

    def deliver(self, channel: bytes, batches: Sequence[Batch], gathered: GatheredChunks | None = None) -> None:
        """Offer new events, which are in the log already, to every reader; who does not take them falls behind. Or
        only note them in ``gathered``, for whoever will ``send_gathered`` what several channels have for a reader."""
        if not self.live and not self.selective:
            return
        encoded = [(batch.publisher, encode(self.encoder, channel, batch, self._epoch)) for batch in batches]
        pieces = join([piece for _, pieces in encoded for piece in pieces])
        stats, end = self._stats, batches[-1].end
        stats.delivered += len(self.live) * (end - batches[0].first)
        if gathered is not None:
            for offset, data in pieces:
                for subscription in self.live:
                    gathered[subscription.subscriber].append((subscription, offset, data))
        else:
            for offset, data in pieces:
                refused = [subscription for subscription, try_write in self.live.items() if not try_write(data)]
                stats.sent += len(data) * (len(self.live) - len(refused))
                for subscription in refused:
                    stats.delivered -= end - offset
                    subscription.fall_behind(offset)
        if self.selective:
            publishers = {publisher for publisher, _ in encoded}
            for subscription in list(self.selective):
                own, wanted = subscription.subscriber.client.id, pieces
                if own in publishers:
                    # What others published is not encoded again.
                    wanted = [piece for publisher, pieces in encoded if publisher != own for piece in pieces]
                    stats.delivered += sum([len(batch) for batch in batches if batch.publisher != own])
                else:
                    stats.delivered += end - batches[0].first
                due = [(subscription, offset, data) for offset, data in wanted]
                if gathered is not None:
                    gathered[subscription.subscriber] += due
                else:
                    send_gathered(subscription.subscriber, due)

    def skip(self, channel: bytes, lost: Lost) -> None:
        """Tell every reader that events will never come; one that does not take that falls behind, and is told then."""
        if not self:
            return  # a dialect that remembers what it has written must not hear of what its reader has not come to
        data = self.encoder.lost(channel, lost.first, lost.last)
        stats = self._stats
        for subscription in [*self.live, *self.selective]:
            if subscription.subscriber.outlet.try_write(data):
                stats.sent += len(data)
                stats.lost += lost.last + 1 - lost.first
            else:
                subscription.fall_behind(lost.first)


def send_gathered(subscriber: Subscriber, due: Sequence[PendingChunk]) -> None:
    """Offer a reader all that is due to it, in as few pieces as it may; from what it does not take it falls behind."""
    try_write, stats = subscriber.outlet.try_write, subscriber.stats
    start, count = 0, len(due)
    while start < count:
        size, stop = 0, start
        while stop < count and (stop == start or size + len(due[stop][2]) <= CHUNK_BYTES):
            size += len(due[stop][2])
            stop += 1
        if not try_write(b"".join([data for _, _, data in due[start:stop]])):
            for subscription, offset, _ in due[start:]:
                if subscription not in subscriber.behind:
                    subscription.channel.stats.delivered -= subscription.channel.history.end - offset
                    subscription.fall_behind(offset)
            return
        stats.sent += size
        start = stop
