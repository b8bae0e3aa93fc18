"""Encoding groups: the subscriptions of one channel that are caught up and share an encoder.

An event is encoded once for each group, and the same bytes object is offered to each of its members.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import EventEncoder, Outlet, Subscriber, Subscription
from twistedsock.pubsub.values import Batch, Lost
from twistedsock.stats import Stats

Chunk = tuple[int, bytes]
"""Encoded events in a row, and the offset of the first of them."""

PendingChunk = tuple[Subscription, int, bytes]
"""A chunk for a subscription, with the offset of its first event."""

GatheredChunks = defaultdict[Subscriber, list[PendingChunk]]
"""The chunks of several channels for each subscriber, which go out in one send."""

S = TypeVar("S")


def encode(encoder: EventEncoder, channel: bytes, batch: Batch, epoch: bytes = b"") -> list[Chunk]:
    """A batch in chunks of at most CHUNK_BYTES, or of one event if that is longer."""
    count = batch.end - batch.first
    size = batch.payloads.size + (encoder.overhead + len(channel) + len(batch.sender)) * count
    if size <= CHUNK_BYTES or count == 1:
        data = encoder.batch(channel, batch, epoch)
        size = len(data)
        if size <= CHUNK_BYTES or count == 1:
            return [(batch.first, data)]
    # Parts of equally many events. If the payloads have different sizes, a part may have to be divided again.
    each = -(-count // max(2, -(-size // CHUNK_BYTES)))
    parts = [batch.part(start, start + each) for start in range(batch.first, batch.end, each)]
    return [chunk for part in parts for chunk in encode(encoder, channel, part, epoch)]


def join_chunks(chunks: Sequence[tuple[S, bytes]]) -> Sequence[tuple[S, bytes]]:
    """Join chunks that follow each other as long as they stay within CHUNK_BYTES. Each has the start of its first."""
    if len(chunks) <= 1:
        return chunks
    data = b"".join([data for _, data in chunks])
    if len(data) <= CHUNK_BYTES:  # nearly always, and this is several times as fast as the loop
        return [(chunks[0][0], data)]
    joined: list[tuple[S, bytes]] = []
    start, parts, size = chunks[0][0], list[bytes](), 0
    for next_start, data in chunks:
        if parts and size + len(data) > CHUNK_BYTES:
            joined.append((start, b"".join(parts)))
            start, parts, size = next_start, [], 0
        parts.append(data)
        size += len(data)
    joined.append((start, b"".join(parts)))
    return joined


class EncodingGroup:
    """``outlets`` has the outlet of each member, so that a delivery does not look it up. ``without_echo`` are the
    members that do not want their own events."""

    __slots__ = ("_epoch", "_stats", "encoder", "outlets", "without_echo")

    def __init__(self, encoder: EventEncoder, stats: Stats, epoch: bytes = b"") -> None:
        self.encoder = encoder
        self._epoch = epoch
        self._stats = stats
        self.outlets: dict[Subscription, Outlet] = {}
        self.without_echo: dict[Subscription, None] = {}

    def __len__(self) -> int:
        return len(self.outlets) + len(self.without_echo)

    def add(self, subscription: Subscription) -> None:
        if subscription.echo:
            self.outlets[subscription] = subscription.subscriber.outlet
        else:
            self.without_echo[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        self.outlets.pop(subscription, None)
        self.without_echo.pop(subscription, None)

    def broadcast(self, channel: bytes, batches: Sequence[Batch], gathered: GatheredChunks | None = None) -> None:
        """Offer new events, which are in the history already, to every member. A member whose socket does not accept
        them falls behind. With ``gathered``, nothing is sent: each member's chunks are added to that."""
        if not self.outlets and not self.without_echo:
            return
        if len(batches) == 1:
            encoded = [encode(self.encoder, channel, batches[0], self._epoch)]
            chunks: Sequence[Chunk] = encoded[0]
        else:
            encoded = [encode(self.encoder, channel, batch, self._epoch) for batch in batches]
            chunks = join_chunks([chunk for parts in encoded for chunk in parts])
        stats, end = self._stats, batches[-1].end
        stats.delivered += len(self.outlets) * (end - batches[0].first)
        if gathered is not None:
            for offset, data in chunks:
                for subscription in self.outlets:
                    gathered[subscription.subscriber].append((subscription, offset, data))
        else:
            for offset, data in chunks:
                refused: list[Subscription] = []
                for subscription, outlet in self.outlets.items():
                    if not outlet.try_write(data):
                        refused.append(subscription)
                stats.sent += len(data) * (len(self.outlets) - len(refused))
                for subscription in refused:
                    stats.delivered -= end - offset
                    subscription.fall_behind(offset)
        if self.without_echo:
            publishers = {batch.publisher for batch in batches}
            for subscription in list(self.without_echo):
                own, wanted = subscription.subscriber.client.id, chunks
                if own in publishers:
                    # The events of other publishers are not encoded again.
                    others = [parts for batch, parts in zip(batches, encoded, strict=True) if batch.publisher != own]
                    wanted = [chunk for parts in others for chunk in parts]
                    stats.delivered += sum([len(batch) for batch in batches if batch.publisher != own])
                else:
                    stats.delivered += end - batches[0].first
                due = [(subscription, offset, data) for offset, data in wanted]
                if gathered is not None:
                    gathered[subscription.subscriber] += due
                else:
                    send_gathered(subscription.subscriber, due)

    def report_lost(self, channel: bytes, lost: Lost) -> None:
        """Tell every member that these events will never come. A member whose socket does not accept that falls behind,
        and gets the report when it catches up."""
        if not self:
            return  # an encoder that remembers what it encoded must not encode what its subscriber does not get
        data = self.encoder.lost(channel, lost.first, lost.last)
        stats = self._stats
        for subscription in [*self.outlets, *self.without_echo]:
            if subscription.subscriber.outlet.try_write(data):
                stats.sent += len(data)
                stats.lost += lost.last + 1 - lost.first
            else:
                subscription.fall_behind(lost.first)


def send_gathered(subscriber: Subscriber, due: Sequence[PendingChunk]) -> None:
    """Offer a subscriber its chunks in as few sends as possible. If its socket does not accept one, the subscriptions
    of this and the following chunks fall behind."""
    chunks = join_chunks([(index, data) for index, (_, _, data) in enumerate(due)])
    for index, data in chunks:
        if not subscriber.outlet.try_write(data):
            for subscription, offset, _ in due[index:]:
                if subscription not in subscriber.behind:
                    subscription.channel.stats.delivered -= subscription.channel.history.end - offset
                    subscription.fall_behind(offset)
            return
        subscriber.stats.sent += len(data)
