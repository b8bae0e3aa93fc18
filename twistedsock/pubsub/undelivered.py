"""The events and presence changes of one channel that wait to be sent, in the order in which they happened.

Usually a channel needs no such queue: at the end of the turn, its new events go to the history and to the encoding
groups. It needs one when its history is updated before that, because a client asks for the history or subscribes, and
when presence changes wait for its watchers. A subscription that has been sent a part of the queue, or that was made in
the middle of it, is ahead of its encoding group: it is in none until the queue ends.

The items of the queue are numbered, and numbers go on when its front is dropped.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter

from twistedsock.pubsub.encoding_group import encode, join_chunks
from twistedsock.pubsub.subscription import EventEncoder, Subscription
from twistedsock.pubsub.values import Batch, PresenceChange

Item = Batch | PresenceChange

Start = tuple[int, int]
"""The number of the first item in a chunk, and the offset of its event (0: a presence change)."""

Chunk = tuple[Start, bytes]

_number = itemgetter(0)

FEW_ITEMS = 64
"""So many items can be sent to all watchers at once: this takes little longer than one event."""

MAX_ROUNDS = 4
"""Rounds before events are delivered, because subscriptions that are no watchers wait for these."""


def never() -> bool:
    return False


def _number_of(chunk: Chunk) -> int:
    return chunk[0][0]


class Undelivered:
    """``items`` is the queue, ``batches`` the events in it with their numbers. ``max_pending_presence`` limits the
    presence changes that are kept for a subscription whose socket does not accept them."""

    __slots__ = (
        "_chunks",
        "_first",
        "_joined",
        "_last_by_client",
        "_max_pending_presence",
        "_next",
        "_round",
        "_round_end",
        "_rounds",
        "batches",
        "items",
    )

    def __init__(self, max_pending_presence: int) -> None:
        self.items: list[Item] = []
        self.batches: list[tuple[int, Batch]] = []
        self._max_pending_presence = max_pending_presence
        # The number of items[0].
        self._first = 0
        # For each subscription that is ahead of its group: the number of the next item that it needs.
        self._next: dict[Subscription, int] = {}
        # The number of the last item that was published by, or is about, a client: some do not get their own.
        self._last_by_client: dict[bytes, int] = {}
        # The encoded items, and what subscriptions with the same encoder, options and next item are sent.
        self._chunks: dict[EventEncoder, list[Chunk]] = {}
        self._joined: dict[EventEncoder, tuple[tuple[int, int, bool], Sequence[Chunk]]] = {}
        # The watchers that this round has still to reach, the number of the first item that is not part of the round,
        # and how many rounds there were since there are events in the queue.
        self._round: list[Subscription] = []
        self._round_end = 0
        self._rounds = 0

    @property
    def end(self) -> int:
        """The number that the next item gets."""
        return self._first + len(self.items)

    @property
    def has_changes(self) -> bool:
        """Whether there are presence changes in the queue."""
        return len(self.batches) < len(self.items)

    def add(self, item: Item) -> None:
        if isinstance(item, Batch):
            self.batches.append((self.end, item))
            self._last_by_client[item.publisher] = self.end
        else:
            self._last_by_client[item.member.id] = self.end
        self.items.append(item)

    # Subscriptions that are ahead of their group.

    def tracks(self, subscription: Subscription) -> bool:
        """Whether a subscription is in no group because of this queue."""
        return subscription in self._next

    def skip(self, subscription: Subscription) -> None:
        """A subscription needs none of the items in the queue."""
        subscription.channel.leave_group(subscription)
        self._next[subscription] = self.end

    def remove(self, subscription: Subscription) -> None:
        """A subscription has ended."""
        self._next.pop(subscription, None)

    def close(self) -> None:
        """All has been sent: the subscriptions go back to their groups, except those that are behind."""
        tracked, self._next = self._next, {}
        for subscription in tracked:
            if subscription not in subscription.subscriber.behind:
                subscription.channel.join_group(subscription)

    # Sending.

    def send(self, subscription: Subscription) -> None:
        """Send a subscription the items in the queue that it still needs. If its socket does not accept all of them,
        the subscription falls behind, and keeps the unsent presence changes."""
        start, end = self._next.get(subscription, self._first), self.end
        if start == end or not (self.batches or subscription.presence):
            return
        self.skip(subscription)
        subscriber, channel = subscription.subscriber, subscription.channel
        cursor, unsent = channel.history.end, end
        if subscription in subscriber.behind:
            cursor, unsent = 0, start  # it reads the events from the history
        else:
            for (number, offset), data in self._chunks_for(subscription, start):
                if not subscriber.outlet.try_write(data):
                    cursor, unsent = offset or self._next_offset(number, cursor), number
                    subscription.fall_behind(cursor)
                    break
                channel.stats.sent += len(data)
        for _, batch in self._batches_from(start):
            if subscription.wants(batch):
                channel.stats.delivered += max(0, min(batch.end, cursor) - batch.first)
        missed = [
            item
            for item in self.items[unsent - self._first :]
            if isinstance(item, PresenceChange) and _wants(subscription, item)
        ]
        if missed:
            subscription.keep_missed(missed, self._max_pending_presence)

    def send_all(self, watchers: Collection[Subscription]) -> None:
        """Send watchers, and all subscriptions that are ahead of their group, the items that they still need."""
        if self.has_changes:
            for subscription in list(watchers):
                self.send(subscription)
        for subscription in list(self._next):
            self.send(subscription)

    def send_changes(self, watchers: Collection[Subscription], is_over: Callable[[], bool]) -> bool:
        """Send presence changes to watchers until ``is_over``. There must be no events in the queue. Returns whether
        all were sent. A round reaches each watcher once. Items that are added meanwhile are sent to the watchers that
        follow, and to the rest in the next round. So many changes in quick succession cost only a few sends for each
        watcher."""
        while self.items and watchers:
            if not self._send_round(watchers, is_over):
                return False
            self._drop_before(self._round_end)
        return True

    def send_changes_before_events(self, watchers: Collection[Subscription], is_over: Callable[[], bool]) -> bool:
        """Send watchers the items in the queue that they still need, until ``is_over``. Returns whether so few are left
        that they can be sent with the events."""
        while self.has_changes and self._rounds < MAX_ROUNDS:
            if not self._round and self.end - self._round_end <= FEW_ITEMS:
                break
            if not self._send_round(watchers, is_over):
                return False
            self._rounds += 1
        return True

    def _send_round(self, watchers: Collection[Subscription], is_over: Callable[[], bool]) -> bool:
        """Returns whether each watcher has been reached once since the round began."""
        if not self._round:
            self._round, self._round_end = list(watchers), self.end
        while self._round:
            subscription = self._round.pop()
            if subscription in watchers:
                self.send(subscription)
            if is_over() and self._round:
                return False
        return True

    def _drop_before(self, number: int) -> None:
        """All watchers have been sent the items before ``number``."""
        del self.items[: number - self._first]
        self._first = number
        self._last_by_client = {id: last for id, last in self._last_by_client.items() if last >= number}
        for chunks in self._chunks.values():
            del chunks[: bisect_left(chunks, number, key=_number_of)]
        for subscription in [one for one, next_item in self._next.items() if next_item <= number]:
            del self._next[subscription]
            if subscription not in subscription.subscriber.behind:
                subscription.channel.join_group(subscription)

    def _batches_from(self, number: int) -> list[tuple[int, Batch]]:
        return self.batches[bisect_left(self.batches, number, key=_number) :]

    def _next_offset(self, number: int, end: int) -> int:
        """The offset of the first event from an item on, or ``end``."""
        return next((batch.first for _, batch in self._batches_from(number)), end)

    # Encoding.

    def _chunks_for(self, subscription: Subscription, start: int) -> Sequence[Chunk]:
        """The chunks that a subscription needs, from an item on. Subscriptions share it unless it leaves out their
        own."""
        encoder, id = subscription.encoder, subscription.subscriber.client.id
        if self._last_by_client.get(id, -1) >= start and (subscription.presence or not subscription.echo):
            return join_chunks(self._wanted_chunks(subscription, start))
        key = (start, self.end, subscription.presence)
        known = self._joined.get(encoder)
        if known is None or known[0] != key:
            known = self._joined[encoder] = key, join_chunks(self._wanted_chunks(subscription, start))
        return known[1]

    def _wanted_chunks(self, subscription: Subscription, start: int) -> list[Chunk]:
        chunks, items, first = self._encode(subscription, start), self.items, self._first
        chunks = chunks[bisect_left(chunks, start, key=_number_of) :]
        id = subscription.subscriber.client.id
        if self._last_by_client.get(id, -1) < start and subscription.presence:
            return [chunk for chunk in chunks if chunk[1]]
        return [chunk for chunk in chunks if chunk[1] and _wants(subscription, items[_number_of(chunk) - first])]

    def _encode(self, subscription: Subscription, start: int) -> list[Chunk]:
        """The items from ``start`` on, and maybe some before. Each is encoded once, and none before it is needed,
        because some encoders remember what they have encoded."""
        chunks = self._chunks.setdefault(subscription.encoder, [])
        if chunks and start < _number_of(chunks[0]):
            chunks[:0] = self._encode_part(subscription, start, _number_of(chunks[0]))
        start = _number_of(chunks[-1]) + 1 if chunks else start
        chunks += self._encode_part(subscription, start, self.end)
        return chunks

    def _encode_part(self, subscription: Subscription, start: int, end: int) -> list[Chunk]:
        encoder, channel = subscription.encoder, subscription.channel
        chunks: list[Chunk] = []
        for number in range(start, end):
            item = self.items[number - self._first]
            if isinstance(item, Batch):
                encoded = encode(encoder, channel.name, item, channel.epoch)
                chunks += [((number, offset), data) for offset, data in encoded]
            else:
                chunks.append(((number, 0), encoder.presence(channel.name, [item])))
        return chunks


def _wants(subscription: Subscription, item: Item) -> bool:
    if isinstance(item, Batch):
        return subscription.wants(item)
    return subscription.presence and item.member.id != subscription.subscriber.client.id
