"""Subscribers and their subscriptions: caught up, behind, or closed.

A subscription that is caught up is in an encoding group of its channel, and is offered the bytes that all its members
share. If the subscriber's socket does not accept them, the subscription leaves the group and keeps only a cursor: the
offset of the next event that it needs. When the socket accepts data again, the subscriber catches up: it reads the
histories of the channels, a chunk at a time, until its subscriptions can join their groups again.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.limits.shares import MemoryBudget
from twistedsock.pubsub.values import CHANGE_COST, Batch, Member, PresenceChange, Reset
from twistedsock.stats import Stats, TcpStats

if TYPE_CHECKING:
    from twistedsock.pubsub.history import History

SOCKET_FULL = 1
"""A bit of ``Outlet.blocked``: bytes wait in user space for the socket."""

REPLY_PENDING = 2
"""A bit of ``Outlet.blocked``: a reply must be written before the next events."""

NOT_READING = 4
"""A bit of ``Outlet.blocked``: the client no longer reads. Output is discarded, but the input that it sent before is
still processed, because ``printf … | nc`` may have exited before its last line is read."""

RIGHTS_UNCHECKED = 8
"""A bit of ``Outlet.blocked``: the client's rights have changed, and its subscriptions have still to be checked."""


class DrainListener(Protocol):
    """A session. An object, because a bound method would take 64 bytes of each connection."""

    def resume_writing(self) -> None:
        """The socket has accepted all bytes that waited."""


class Outlet(Protocol):
    """Writes to the connection of one client. There is one class for each kind of transport."""

    blocked: int
    """The reasons why ``try_write`` refuses data, as bits; 0: data goes straight to the socket."""

    principal: Principal
    """The principal that waiting bytes count for."""

    def try_write(self, data: bytes) -> bool:
        """Accept all of ``data``, or refuse all of it and return False. Bytes that the socket does not accept at once
        wait in the transport, which therefore holds one chunk at most."""

    def write(self, data: bytes) -> None:
        """Accept ``data`` in any case."""

    def tcp_stats(self) -> TcpStats | None:
        """The counters of the connection, if the system has them. This is a system call."""


class EventEncoder(Protocol):
    """Pure, and shared by all subscribers of one protocol; the subscriptions of a channel that share an encoder are an
    encoding group. Each method returns the very bytes that go on the socket, frame heads included, or ``b""`` if the
    protocol has no such message."""

    overhead: int
    """Bytes that it writes around a payload beside the channel's and the sender's name, roughly."""

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        """Its events, each one message. This is the hot path."""

    def with_time(self) -> "EventEncoder":
        """The encoder of this protocol that writes the time of each event: the same, if it always does."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes: ...

    def presence_lost(self, channel: bytes) -> bytes:
        """Presence changes were dropped, because the subscriber was behind for too long."""

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        """The events with these offsets, both included, will not be sent."""

    def reset(self, channel: bytes, reset: Reset) -> bytes:
        """The channel has a new epoch, and the subscriber gets its events."""

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """The subscriber's socket did not accept the events from offset ``cursor`` on, or the subscriber starts there.
        Only encoders that belong to one subscriber and remember the encoded events need this."""


class ChannelView(Protocol):
    """The part of a channel that its subscriptions use."""

    name: bytes
    epoch: bytes
    history: "History"
    resets: "dict[Subscription, list[Reset]] | None"
    """The resets that subscriptions have not been sent, in order."""
    stats: Stats

    @property
    def has_undelivered_events(self) -> bool:
        """Whether the history holds events that the encoding groups have not been sent yet."""

    def pop_resets(self, subscription: "Subscription") -> Sequence[Reset]:
        """The resets that the subscription is sent now, or no longer needs."""

    def join_group(self, subscription: "Subscription") -> None: ...

    def leave_group(self, subscription: "Subscription") -> None: ...


class Client:
    """The remote program. Its nick may change, so events hold a copy. ``principal`` changes when the client proves
    another identity."""

    __slots__ = ("_member", "id", "nick", "principal", "source")

    def __init__(self, id: bytes, principal: Principal = LOCAL) -> None:
        self.id = id
        self.nick = id
        self.principal = principal
        self.source = principal
        """The principal of its address, which does not change: the memory of its connection counts for that."""
        self._member: Member | None = None

    def snapshot(self) -> "Client":
        """The publisher of something that is published later: its nick is the one of now."""
        copy = Client(self.id, self.principal)
        copy.nick = self.nick
        return copy

    def member(self) -> Member:
        """The same object until the nick changes, so that replies with thousands of members do not hold copies."""
        if self._member is None or self._member.nick != self.nick:
            self._member = Member(self.id, self.nick)
        return self._member


class Subscription:
    """One subscriber on one channel. ``cursor`` is the offset of the next event that it needs; it is maintained only
    while the subscription is behind. ``missed`` are presence changes that could not be sent; an empty list means that
    there were too many to be kept. ``encoder`` is that of the subscriber, or a variant of it for this channel."""

    __slots__ = ("channel", "cursor", "echo", "encoder", "missed", "presence", "principal", "subscriber")

    def __init__(
        self,
        subscriber: "Subscriber",
        channel: ChannelView,
        echo: bool,
        presence: bool,
        encoder: EventEncoder | None = None,
    ) -> None:
        self.subscriber = subscriber
        self.channel = channel
        self.encoder = subscriber.encoder if encoder is None else encoder
        self.echo = echo
        self.presence = presence
        self.principal = subscriber.client.principal
        """The principal that the subscription counts for, although its client may prove another identity later."""
        self.cursor = 0
        self.missed: list[PresenceChange] | None = None

    def wants(self, batch: Batch) -> bool:
        return self.echo or batch.publisher != self.subscriber.client.id

    def fall_behind(self, cursor: int) -> None:
        """The socket has not accepted what the group was sent from offset ``cursor`` on."""
        if not self.subscriber.behind:
            self.subscriber.callbacks.fell_behind(self.channel.name, cursor)
        self.read_from(cursor)

    def read_from(self, cursor: int) -> None:
        """Leave the group, and read the history from offset ``cursor`` on."""
        self.cursor = cursor
        self.channel.leave_group(self)
        self.encoder.fell_behind(self.channel.name, cursor)
        self.subscriber.mark_behind(self)

    def keep_missed(self, changes: list[PresenceChange], limit: int) -> None:
        """Keep presence changes until the subscription has caught up. A subscriber keeps at most ``limit`` of them for
        all its subscriptions. If there are more, or all connections hold too much memory, those of this subscription
        are dropped."""
        if self.missed != []:
            subscriber, cost = self.subscriber, CHANGE_COST * len(changes)
            budget = subscriber.memory_budget
            if subscriber.missed + len(changes) > limit or budget.is_exceeded_by(subscriber.client.source, cost):
                self.pop_missed()
                self.missed = []
            else:
                if self.missed is None:
                    self.missed = []
                self.missed += changes
                subscriber.missed += len(changes)
                budget.add(cost, subscriber.client.source)
        if self not in self.subscriber.behind:
            self.fall_behind(self.channel.history.end)

    def pop_missed(self) -> list[PresenceChange] | None:
        """The changes are sent now, or are not wanted any more."""
        missed, self.missed = self.missed, None
        if missed:
            self.subscriber.missed -= len(missed)
            self.subscriber.memory_budget.add(-CHANGE_COST * len(missed), self.subscriber.client.source)
        return missed


CatchUpCache = dict[tuple[ChannelView, EventEncoder, int], tuple[bytes, int]]
"""The results of reading histories in this turn, or of one read of the backplane: (channel, encoder, cursor) to (bytes,
next cursor). Many subscribers that fell behind together catch up together, and share what they read."""


class OlderEventsReader(Protocol):
    def read_for(self, subscription: Subscription) -> None:
        """Call ``Subscriber.send_older`` when the backplane has returned the events from the cursor on."""


class SubscriberCallbacks(Protocol):
    """The events that a subscriber reports to its session."""

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        """The history does not hold these events any more. Returns False if the session has been closed instead of
        skipping them."""

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """The first subscription has fallen behind; ``cursor`` is what it needs next."""

    def caught_up(self, channel: bytes) -> None:
        """The last subscription that was behind has caught up."""


class NullSubscriberCallbacks:
    """Replaces a session that has closed. It breaks the reference cycle of session and subscriber, so that both are
    freed at once, and not by the garbage collector, which runs rarely."""

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        return False

    def fell_behind(self, channel: bytes, cursor: int) -> None: ...

    def caught_up(self, channel: bytes) -> None: ...


NULL_CALLBACKS = NullSubscriberCallbacks()


_NONE_BEHIND: dict[Subscription, None] = {}
"""Shared by all subscribers that are caught up, and never changed, because most are so most of the time."""


class Subscriber:
    """One client with all its subscriptions, as far as sending events to it is concerned."""

    __slots__ = ("behind", "callbacks", "client", "encoder", "memory_budget", "missed", "outlet", "stats")

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
        self.encoder = encoder
        self.outlet = outlet
        self.callbacks = callbacks
        self.memory_budget = memory_budget
        self.stats = stats
        self.behind: dict[Subscription, None] = _NONE_BEHIND
        """The subscriptions that are behind, in the order of their turns, so that a busy channel delays no other."""
        self.missed = 0
        """The number of presence changes that all its subscriptions keep."""

    def mark_behind(self, subscription: Subscription) -> None:
        if not self.behind:
            self.stats.behind += 1
            self.behind = {}
        self.behind[subscription] = None

    def clear_behind(self, subscription: Subscription) -> None:
        if subscription in self.behind:
            del self.behind[subscription]
            if not self.behind:
                self.stats.behind -= 1
                self.behind = _NONE_BEHIND

    def catch_up(self, cache: CatchUpCache, older: "OlderEventsReader | None" = None) -> bool:
        """Send a chunk of what one of the subscriptions has missed. Returns whether to continue in the next turn; if
        not, then when the socket accepts data again, or ``older`` has read what the history has dropped."""
        if self.outlet.blocked or not self.behind:
            return False
        subscription = next(iter(self.behind))
        channel, history = subscription.channel, subscription.channel.history
        data = b"" if channel.resets is None else self._encode_resets(subscription)
        if subscription.cursor < history.first:
            if older is not None:
                if data:
                    self.stats.sent += len(data)
                    self.outlet.try_write(data)
                older.read_for(subscription)
                return False
            lost = self._encode_lost(subscription, history.first)
            if lost is None:
                return False
            data += lost
        data += self._read_chunk(subscription, cache, lambda cursor: history.read(cursor, CHUNK_BYTES))
        if subscription.cursor == history.end and not channel.has_undelivered_events:
            data += self._encode_missed(subscription)
            channel.join_group(subscription)
            self.clear_behind(subscription)
            if not self.behind:
                self.callbacks.caught_up(channel.name)
        else:
            self._let_others_go_first(subscription)
        if data:
            self.stats.sent += len(data)
            self.outlet.try_write(data)
        return bool(self.behind) and not self.outlet.blocked

    def send_older(self, subscription: Subscription, batches: Sequence[Batch], cache: CatchUpCache) -> bool:
        """Send events from the cursor on that were read from the backplane. If they begin after the cursor, or there
        are none, what is missing is reported as lost. Returns whether to continue in the next turn."""
        history, data = subscription.channel.history, b""
        available = min(batches[0].first, history.first) if batches else history.first
        if subscription.cursor < available:
            lost = self._encode_lost(subscription, available)
            if lost is None:
                return False
            data += lost
        data += self._read_chunk(subscription, cache, lambda cursor: following(batches, cursor, history.end))
        self._let_others_go_first(subscription)
        self.stats.sent += len(data)
        self.outlet.try_write(data)
        return not self.outlet.blocked

    def _let_others_go_first(self, subscription: Subscription) -> None:
        if len(self.behind) > 1:
            del self.behind[subscription]
            self.behind[subscription] = None

    def _encode_lost(self, subscription: Subscription, end: int) -> bytes | None:
        """The report that the events from the cursor on and before ``end`` will not be sent. None if the session has
        been closed instead."""
        channel, first = subscription.channel, subscription.cursor
        if not self.callbacks.accept_loss(channel.name, first, end - 1):
            return None
        subscription.cursor = end
        channel.stats.lost += end - first
        return subscription.encoder.lost(channel.name, first, end - 1)

    def _encode_wanted(self, subscription: Subscription, batches: Sequence[Batch]) -> bytes:
        channel, encoder = subscription.channel, subscription.encoder
        wanted = [batch for batch in batches if subscription.wants(batch)]
        channel.stats.delivered += sum(map(len, wanted))
        return b"".join([encoder.batch(channel.name, batch, channel.epoch) for batch in wanted])

    def _read_chunk(
        self, subscription: Subscription, cache: CatchUpCache, read: Callable[[int], Sequence[Batch]]
    ) -> bytes:
        """Encode the events that ``read`` returns for the cursor, and move the cursor behind them."""
        channel, cursor = subscription.channel, subscription.cursor
        key = (channel, subscription.encoder, cursor)
        if subscription.echo and key in cache:
            data, subscription.cursor = cache[key]
            channel.stats.delivered += subscription.cursor - cursor
            return data
        batches = read(cursor)
        if batches:
            subscription.cursor = batches[-1].end
        data = self._encode_wanted(subscription, batches)
        if subscription.echo:
            cache[key] = (data, subscription.cursor)
        return data

    def send_resets(self, subscription: Subscription) -> None:
        """Send a subscription its resets now, even if the socket is full: a reply with an offset of the new epoch
        follows."""
        data = self._encode_resets(subscription)
        self.stats.sent += len(data)
        self.outlet.write(data)

    def _encode_resets(self, subscription: Subscription) -> bytes:
        channel, encoder, data = subscription.channel, subscription.encoder, b""
        for reset in channel.pop_resets(subscription):
            if reset.lost is not None:
                data += encoder.lost(channel.name, reset.lost.first, reset.lost.last)
                channel.stats.lost += reset.lost.last + 1 - reset.lost.first
            data += encoder.reset(channel.name, reset)
        return data

    def _encode_missed(self, subscription: Subscription) -> bytes:
        missed = subscription.pop_missed()
        if missed is None:
            return b""
        if not missed:
            return subscription.encoder.presence_lost(subscription.channel.name)
        return subscription.encoder.presence(subscription.channel.name, missed)


def following(batches: Sequence[Batch], cursor: int, end: int) -> Sequence[Batch]:
    """The events from the cursor on and before ``end``, without what follows a gap: the history has the events in
    it."""
    found: list[Batch] = []
    for batch in batches:
        if batch.first > cursor:
            break
        if batch.end > cursor and batch.first < end:
            found.append(batch.part(cursor, end))
            cursor = batch.end
    return found
