"""A peer's reading end: caught up, behind, or closed.

A reader that is caught up hangs on the lanes of its channels and is offered the bytes that all of them share. One
whose socket does not take them keeps nothing but a cursor into the log of each channel that it missed something of,
and reads on from there, a chunk at a time, once its socket has drained.
"""

from typing import Protocol

from twistedsock.limits.memory import MemoryBudget
from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.encoder import EventEncoder
from twistedsock.pubsub.history import History
from twistedsock.pubsub.values import CHANGE_COST, Batch, Member, PresenceChange
from twistedsock.stats import Stats, TcpStats

SOCKET_FULL = 1
"""A bit of ``Outlet.blocked``: bytes wait in user space for the socket."""

RIGHTS_UNCHECKED = 8
"""A bit of ``Outlet.blocked``: what the client may read has changed, and its subscriptions are still to be checked."""

REPLY_PENDING = 2
"""A bit of ``Outlet.blocked``: the session keeps events back, as something else must be said first."""


class Outlet(Protocol):
    """Where the bytes of one peer leave. The shells have one for each kind of transport."""

    blocked: int
    """WRITING and HELD, or 0: what is offered now goes straight to the socket."""

    principal: Principal
    """What bytes that wait are counted for."""

    def try_write(self, data: bytes) -> bool:
        """Take all of ``data``, or nothing and say False because something is blocked. What the socket does not take
        at once waits in the transport, so that one chunk at most waits there."""

    def write(self, data: bytes) -> None:
        """Take ``data`` in any case."""

    def tcp_stats(self) -> TcpStats | None:
        """What has gone through the connection, where that is known; a system call."""


class ChannelView(Protocol):
    """What a reader needs of the channel that it reads."""

    name: bytes
    epoch: bytes
    history: History
    stats: Stats

    @property
    def has_undelivered_events(self) -> bool:
        """Whether the log holds events that its lanes have not been sent yet."""

    def join_group(self, subscription: "Subscription") -> None:
        """The reader has caught up."""

    def leave_group(self, subscription: "Subscription") -> None:
        """The reader has fallen behind."""


class Client:
    """Who is connected. The nick may change, so lanes and logs hold what it was. The principal changes when the client
    proves another identity."""

    __slots__ = ("_member", "id", "nick", "principal", "source")

    def __init__(self, id: bytes, principal: Principal = LOCAL) -> None:
        self.id = id
        self.nick = id
        self.principal = principal
        self.source = principal
        """The principal of its address, which does not change: what its connection holds is counted for that."""
        self._member: Member | None = None

    def member(self) -> Member:
        """The same object until the nick changes: who asks WHO for thousands holds no thousands of copies."""
        if self._member is None or self._member.nick != self.nick:
            self._member = Member(self.id, self.nick)
        return self._member


class Subscription:
    """One reader on one channel. ``cursor`` is the next offset it needs; it counts only while the reader is behind."""

    __slots__ = ("channel", "cursor", "echo", "missed", "presence", "principal", "subscriber")

    def __init__(self, subscriber: "Subscriber", channel: ChannelView, echo: bool, presence: bool) -> None:
        self.subscriber = subscriber
        self.channel = channel
        self.echo = echo
        self.presence = presence
        self.principal = subscriber.client.principal
        """The one that the subscription is counted for, although its client may prove another identity later."""
        self.cursor = 0
        self.missed: list[PresenceChange] | None = None

    def wants(self, batch: Batch) -> bool:
        return self.echo or batch.publisher != self.subscriber.client.id

    def fall_behind(self, cursor: int) -> None:
        """The socket has not taken what the lane has."""
        if not self.subscriber.behind:
            self.subscriber.callbacks.fell_behind(self.channel.name, cursor)
        self.read_from(cursor)

    def read_from(self, cursor: int) -> None:
        """Leave the lane; from here on only the cursor is kept."""
        self.cursor = cursor
        self.channel.leave_group(self)
        self.subscriber.encoder.fell_behind(self.channel.name, cursor)
        self.subscriber.lag(self)

    def miss(self, changes: list[PresenceChange], most: int) -> None:
        """Keep joins and leaves for later. The reader keeps ``most`` of them, on all its channels together; where they
        would be more, or all connections hold too much, those of this channel are dropped, and an empty list is the
        mark of that."""
        if self.missed != []:
            subscriber, cost = self.subscriber, CHANGE_COST * len(changes)
            budget = subscriber.memory_budget
            if subscriber.missed + len(changes) > most or budget.is_too_much_for(subscriber.client.source, cost):
                self.forget_missed()
                self.missed = []
            else:
                if self.missed is None:
                    self.missed = []
                self.missed += changes
                subscriber.missed += len(changes)
                subscriber.memory_budget.add(cost, subscriber.client.source)
        if self not in self.subscriber.behind:
            self.fall_behind(self.channel.history.end)

    def forget_missed(self) -> list[PresenceChange] | None:
        """What was kept for later is told, or wanted no longer."""
        missed, self.missed = self.missed, None
        if missed:
            self.subscriber.missed -= len(missed)
            self.subscriber.memory_budget.add(-CHANGE_COST * len(missed), self.subscriber.client.source)
        return missed


CatchUpCache = dict[tuple[ChannelView, EventEncoder, int], tuple[bytes, int]]
"""What one turn has read from the logs already: (channel, encoding, cursor) to (bytes, next cursor). Many readers that
stalled together resume together, and share what they read."""


class SubscriberCallbacks(Protocol):
    """Whose reading end it is: a session."""

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        """Asked before a ``LOST`` is written; False when it closed instead."""

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """It is behind now, and was not on any channel; ``cursor`` is what it needs first."""

    def caught_up(self, channel: bytes) -> None:
        """It is behind nowhere any more."""

    def epoch_changed(self) -> None:
        """A channel that it reads has another epoch, so nobody knows what it has missed."""


class NullSubscriberCallbacks:
    """The owner of what was the reading end of a session that is over, which must not be held by it: only a full
    collection would find that out, which hardly ever comes."""

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        return False

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Nobody minds."""

    def caught_up(self, channel: bytes) -> None:
        """Nobody minds."""

    def epoch_changed(self) -> None:
        """Nobody minds."""


NULL_CALLBACKS = NullSubscriberCallbacks()


class Subscriber:
    """The reading end of one peer."""

    __slots__ = ("encoder", "memory_budget", "behind", "missed", "outlet", "callbacks", "client", "stats")

    def __init__(
        self,
        client: Client,
        encoder: EventEncoder,
        outlet: Outlet,
        callbacks: SubscriberCallbacks,
        memory_budget: MemoryBudget,
        stats: Stats,
    ) -> None:
        self.client = client
        self.memory_budget = memory_budget
        self.stats = stats
        self.encoder = encoder
        self.outlet = outlet
        self.callbacks = callbacks
        # In the order of their turns, so that one busy channel does not starve the others.
        self.behind: dict[Subscription, None] = {}
        # Joins and leaves that are kept for it, on all its channels.
        self.missed = 0

    def lag(self, subscription: Subscription) -> None:
        """It is behind on a channel; it comes last among those."""
        if not self.behind:
            self.stats.behind += 1
        self.behind[subscription] = None

    def clear_behind(self, subscription: Subscription) -> None:
        """It is not behind there, or not any longer."""
        if subscription in self.behind:
            del self.behind[subscription]
            if not self.behind:
                self.stats.behind -= 1

    def catch_up(self, shared: CatchUpCache) -> bool:
        """Send one chunk of what was missed; whether to go on in the next turn (else: when the socket has drained)."""
        if self.outlet.blocked or not self.behind:
            return False
        subscription = next(iter(self.behind))
        channel, log = subscription.channel, subscription.channel.history
        data = b""
        if subscription.cursor < log.first:
            if not self.callbacks.accept_loss(channel.name, subscription.cursor, log.first - 1):
                return False
            data = self.encoder.lost(channel.name, subscription.cursor, log.first - 1)
            channel.stats.lost += log.first - subscription.cursor
            subscription.cursor = log.first
        data += self._read(subscription, shared)
        if subscription.cursor == log.end and not channel.has_undelivered_events:
            data += self._presence(subscription)
            channel.join_group(subscription)
            self.clear_behind(subscription)
            if not self.behind:
                self.callbacks.caught_up(channel.name)
        elif len(self.behind) > 1:
            del self.behind[subscription]
            self.behind[subscription] = None
        if data:
            self.stats.sent += len(data)
            self.outlet.try_write(data)
        return bool(self.behind) and not self.outlet.blocked

    def _read(self, subscription: Subscription, shared: CatchUpCache) -> bytes:
        """Encode about a chunk from the log and move the cursor behind it."""
        channel, cursor = subscription.channel, subscription.cursor
        key = (channel, self.encoder, cursor)
        if subscription.echo and key in shared:
            data, subscription.cursor = shared[key]
            channel.stats.delivered += subscription.cursor - cursor
            return data
        batches = channel.history.read(cursor, CHUNK_BYTES)
        if batches:
            subscription.cursor = batches[-1].end
        wanted = [batch for batch in batches if subscription.wants(batch)]
        data = b"".join([self.encoder.batch(channel.name, batch, channel.epoch) for batch in wanted])
        channel.stats.delivered += sum(map(len, wanted))
        if subscription.echo:
            shared[key] = (data, subscription.cursor)
        return data

    def _presence(self, subscription: Subscription) -> bytes:
        missed = subscription.forget_missed()
        if missed is None:
            return b""
        channel = subscription.channel.name
        if not missed:
            return self.encoder.presence_lost(channel)
        return self.encoder.presence(channel, missed)
