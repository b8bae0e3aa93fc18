"""Events and presence changes of one channel that are waiting to be sent, in the order in which they happened.

Usually a channel needs no such queue: at the end of the turn its new events go to the log and to the lanes. It needs
one when its log is brought up to date before that, because a client asks for the history or subscribes, and when
presence changes wait for its watchers. A subscription that has been sent part of the queue, or that was made in the
middle of it, is in no lane until the queue is empty.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.encoder import EventEncoder
from twistedsock.pubsub.encoding_group import encode
from twistedsock.pubsub.subscription import Subscription
from twistedsock.pubsub.values import Batch, PresenceChange

Item = Batch | PresenceChange

Chunk = tuple[int, int, bytes]
"""The number of the first item in the data, the offset of its event (0: a presence change), and the data of a send."""

_number = itemgetter(0)

FEW_ITEMS = 64
"""What can be sent to all watchers at once: it takes little longer than one event."""

MAX_ROUNDS = 4
"""Rounds before events are delivered at once: subscriptions that are no watchers wait for them."""


class Undelivered:
    """``items`` is the queue; they are numbered, and numbers go on when its front is dropped. ``batches`` are the
    events among them, with their numbers. ``max_missed`` limits the presence changes that are kept for a subscription
    whose socket is full."""

    __slots__ = (
        "_encoded",
        "_first",
        "_last",
        "_reached",
        "_round",
        "_round_end",
        "_rounds",
        "_shared",
        "batches",
        "items",
    )

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.batches: list[tuple[int, Batch]] = []
        # The number of items[0].
        self._first = 0
        # For each subscription that is in no lane because of this queue: the number of the next item that it needs.
        self._reached: dict[Subscription, int] = {}
        # The number of the last item by or about a peer: some subscriptions do not get their own.
        self._last: dict[bytes, int] = {}
        # What all subscriptions with the same encoding share; and what those share that start at the same item.
        self._encoded: dict[EventEncoder, list[Chunk]] = {}
        self._shared: dict[EventEncoder, tuple[tuple[int, int, bool], Sequence[Chunk]]] = {}
        # The watchers that this round has still to reach, and the number of the first item that is not part of it.
        self._round: list[Subscription] = []
        self._round_end = 0
        # How many rounds there were since events are in the queue.
        self._rounds = 0

    @property
    def end(self) -> int:
        """The number that the next item gets."""
        return self._first + len(self.items)

    def add(self, item: Item) -> None:
        """Append an item."""
        if isinstance(item, Batch):
            self.batches.append((self.end, item))
            self._last[item.publisher] = self.end
        else:
            self._last[item.member.id] = self.end
        self.items.append(item)

    @property
    def has_changes(self) -> bool:
        """Whether there are presence changes in the queue."""
        return len(self.batches) < len(self.items)

    def holds(self, subscription: Subscription) -> bool:
        """Whether a subscription is in no lane because of this queue."""
        return subscription in self._reached

    def skip(self, subscription: Subscription) -> None:
        """A subscription needs nothing of what is in the queue now."""
        subscription.channel.leave_group(subscription)
        self._reached[subscription] = self.end

    def forget(self, subscription: Subscription) -> None:
        """A subscription has ended."""
        self._reached.pop(subscription, None)

    def send(self, subscription: Subscription, max_missed: int) -> None:
        """Send a subscription what it still needs of the queue. If its socket does not take all of it, the subscription
        falls behind, as it does in a lane."""
        start, end = self._reached.get(subscription, self._first), self.end
        if start == end or not (self.batches or subscription.presence):
            return
        self.skip(subscription)
        subscriber, channel = subscription.subscriber, subscription.channel
        cursor, untold = channel.history.end, end
        if subscription in subscriber.behind:
            cursor, untold = 0, start  # it reads the events from the log
        else:
            for number, offset, data in self._chunks(subscription, start):
                if not subscriber.outlet.try_write(data):
                    cursor, untold = offset or self._next_offset(number, cursor), number
                    subscription.fall_behind(cursor)
                    break
                channel.stats.sent += len(data)
        for _, batch in self._batches_from(start):
            if subscription.wants(batch):
                channel.stats.delivered += max(0, min(batch.end, cursor) - batch.first)
        missed = [
            item for item in self._from(untold) if isinstance(item, PresenceChange) and _wants(subscription, item)
        ]
        if missed:
            subscription.miss(missed, max_missed)

    def send_all(self, watchers: Collection[Subscription], max_missed: int) -> None:
        """Send all subscriptions that are not just as far as their lanes what they still need."""
        if self.has_changes:
            for subscription in list(watchers):
                self.send(subscription, max_missed)
        for subscription in list(self._reached):
            self.send(subscription, max_missed)

    def tell(self, watchers: Collection[Subscription], max_missed: int, is_enough: Callable[[], bool]) -> bool:
        """Send presence changes, no events being in the queue, to watchers until ``is_enough``; whether that is all.
        A round reaches each watcher once; what comes meanwhile is for those that follow and for the next round. So
        changes that come in quick succession cost a few sends for each watcher, however many they are."""
        while self.items and watchers:
            if not self._tell_round(watchers, max_missed, is_enough):
                return False
            self._drop_before(self._round_end)
        return True

    def tell_first(self, watchers: Collection[Subscription], max_missed: int, is_enough: Callable[[], bool]) -> bool:
        """Send watchers what they still need of the queue, until ``is_enough``; whether all of them have got so much of
        it that events can be delivered. What has come since then is sent with the events."""
        while self.has_changes and self._rounds < MAX_ROUNDS:
            if not self._round and self.end - self._round_end <= FEW_ITEMS:
                break
            if not self._tell_round(watchers, max_missed, is_enough):
                return False
            self._rounds += 1
        return True

    def _tell_round(self, watchers: Collection[Subscription], max_missed: int, is_enough: Callable[[], bool]) -> bool:
        """Reach watchers, until ``is_enough``; whether each has been reached once since the round began."""
        if not self._round:
            self._round, self._round_end = list(watchers), self.end
        while self._round:
            subscription = self._round.pop()
            if subscription in watchers:
                self.send(subscription, max_missed)
            if is_enough() and self._round:
                return False
        return True

    def end_all(self) -> None:
        """The queue is over: its subscriptions go back to their lanes, except those that are behind."""
        reached, self._reached = self._reached, {}
        for subscription in reached:
            if subscription not in subscription.subscriber.behind:
                subscription.channel.join_group(subscription)

    def _from(self, number: int) -> list[Item]:
        return self.items[number - self._first :]

    def _batches_from(self, number: int) -> list[tuple[int, Batch]]:
        return self.batches[bisect_left(self.batches, number, key=_number) :]

    def _drop_before(self, number: int) -> None:
        """All watchers have got the items before ``number``."""
        del self.items[: number - self._first]
        self._first = number
        self._last = {id: last for id, last in self._last.items() if last >= number}
        for chunks in self._encoded.values():
            del chunks[: bisect_left(chunks, number, key=_number)]
        for subscription in [one for one, reached in self._reached.items() if reached <= number]:
            del self._reached[subscription]
            if subscription not in subscription.subscriber.behind:
                subscription.channel.join_group(subscription)

    def _next_offset(self, number: int, end: int) -> int:
        """The offset of the first event from an item on; ``end`` if there is none."""
        return next((batch.first for _, batch in self._batches_from(number)), end)

    def _chunks(self, subscription: Subscription, start: int) -> Sequence[Chunk]:
        encoder, id = subscription.subscriber.encoder, subscription.subscriber.client.id
        if self._last.get(id, -1) >= start and (subscription.presence or not subscription.echo):
            return _join(self._pieces(subscription, start))
        key = (start, self.end, subscription.presence)
        known = self._shared.get(encoder)
        if known is None or known[0] != key:
            known = self._shared[encoder] = key, _join(self._pieces(subscription, start))
        return known[1]

    def _pieces(self, subscription: Subscription, start: int) -> list[Chunk]:
        """What a subscription is to get, item by item."""
        encoded = self._encode(subscription, start)
        pieces = encoded[bisect_left(encoded, start, key=_number) :]
        id = subscription.subscriber.client.id
        if self._last.get(id, -1) < start and subscription.presence:
            return pieces
        items, first = self.items, self._first
        return [piece for piece in pieces if _wants(subscription, items[piece[0] - first])]

    def _encode(self, subscription: Subscription, start: int) -> list[Chunk]:
        """Items from ``start`` on, and maybe some before, in the encoding of a subscription. Each is encoded once, and
        none before somebody needs it: some encodings keep account of what they have encoded."""
        encoder = subscription.subscriber.encoder
        encoded = self._encoded.setdefault(encoder, [])
        if encoded and start < encoded[0][0]:
            encoded[:0] = self._encode_part(subscription, start, encoded[0][0])
        start = encoded[-1][0] + 1 if encoded else start
        encoded += self._encode_part(subscription, start, self.end)
        return encoded

    def _encode_part(self, subscription: Subscription, start: int, end: int) -> list[Chunk]:
        encoder, channel = subscription.subscriber.encoder, subscription.channel
        encoded: list[Chunk] = []
        for number in range(start, end):
            item = self.items[number - self._first]
            if isinstance(item, Batch):
                pieces = encode(encoder, channel.name, item, channel.epoch)
                encoded += [(number, offset, data) for offset, data in pieces]
            else:
                encoded.append((number, 0, encoder.presence(channel.name, [item])))
        return encoded


def _wants(subscription: Subscription, item: Item) -> bool:
    if isinstance(item, Batch):
        return subscription.wants(item)
    return subscription.presence and item.member.id != subscription.subscriber.client.id


def _join(pieces: Sequence[Chunk]) -> Sequence[Chunk]:
    """Join pieces that follow each other as long as they stay within CHUNK_BYTES."""
    data = b"".join([data for _, _, data in pieces])
    if len(data) <= CHUNK_BYTES:
        return [(pieces[0][0], pieces[0][1], data)] if data else []
    joined: list[Chunk] = []
    gathered, size = list[Chunk](), 0
    for piece in pieces:
        if gathered and size + len(piece[2]) > CHUNK_BYTES:
            joined.append((gathered[0][0], gathered[0][1], b"".join([data for _, _, data in gathered])))
            gathered, size = [], 0
        gathered.append(piece)
        size += len(piece[2])
    joined.append((gathered[0][0], gathered[0][1], b"".join([data for _, _, data in gathered])))
    return joined
