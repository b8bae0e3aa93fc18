"""A channel: its place in the numbers, its log, its readers by encoding, and who comes and goes."""

from collections.abc import Callable

from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.encoder import EventEncoder
from twistedsock.pubsub.encoding_group import EncodingGroup, GatheredChunks
from twistedsock.pubsub.history import History
from twistedsock.pubsub.subscription import Subscription
from twistedsock.pubsub.undelivered import Undelivered
from twistedsock.pubsub.values import Batch, Lost, Member, Position, PresenceChange
from twistedsock.stats import Stats


class Channel:
    """It exists while somebody reads it or its log is not empty; the broker sees to that."""

    __slots__ = (
        "waiters",
        "contested",
        "epoch",
        "head",
        "encoding_groups",
        "history",
        "name",
        "owner",
        "pending",
        "stats",
        "subscriptions",
        "undelivered",
        "watchers",
    )

    def __init__(
        self, name: bytes, position: Position, limits: Limits, stats: Stats, owner: Principal = ELSEWHERE
    ) -> None:
        self.name = name
        self.owner = owner
        """The principal that the channel and its log are counted for. It changes by ``Broker.own`` only."""
        self.contested = 0
        """Bytes that other principals have written since then."""
        self.epoch = position.epoch
        self.head = position.offset
        self.history = History(limits, position.offset + 1)
        # Published, but not yet flushed: neither in the log nor with the readers.
        self.pending: list[Batch] = []
        self.encoding_groups: dict[EventEncoder, EncodingGroup] = {}
        self.subscriptions: dict[bytes, Subscription] = {}
        self.watchers: dict[Subscription, None] = {}
        # Who wants to be called when something has come; mostly nobody.
        self.waiters: dict[Callable[[], None], None] | None = None
        self.stats = stats
        # What the readers have still to get, where that is not the same for all of them.
        self.undelivered: Undelivered | None = None

    @property
    def is_history_only(self) -> bool:
        """Whether nothing would be lost with it but the events in its log."""
        return not (self.subscriptions or self.waiters or self.pending or self.undelivered)

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.head)

    @property
    def has_undelivered_events(self) -> bool:
        """Whether the log holds events that the lanes have not been sent yet."""
        return self.undelivered is not None and bool(self.undelivered.batches)

    def add_reader(self, subscription: Subscription) -> None:
        """A subscription that needs nothing of what has been published so far. All of that must be in the log."""
        if subscription.presence:
            self.watchers[subscription] = None
        if self.undelivered is not None:
            self.undelivered.skip(subscription)
        else:
            self.join_group(subscription)

    def change_reader(self, subscription: Subscription, echo: bool, presence: bool) -> None:
        """Other options for a subscription that has been sent what waits for it. All of that must be in the log."""
        self.leave_group(subscription)
        subscription.echo, subscription.presence = echo, presence
        if presence:
            self.watchers[subscription] = None
        else:
            self.watchers.pop(subscription, None)
            subscription.forget_missed()
        if self.undelivered is not None:
            self.undelivered.skip(subscription)
        elif subscription not in subscription.subscriber.behind:
            self.join_group(subscription)

    def join_group(self, subscription: Subscription) -> None:
        """A subscription has caught up with its lane, or with what the lane has still to be sent."""
        if self.undelivered is not None and self.undelivered.holds(subscription):
            return
        encoder = subscription.subscriber.encoder
        group = self.encoding_groups.get(encoder)
        if group is None:
            group = self.encoding_groups[encoder] = EncodingGroup(encoder, self.stats, self.epoch)
        group.join(subscription)

    def leave_group(self, subscription: Subscription) -> None:
        group = self.encoding_groups.get(subscription.subscriber.encoder)
        if group is not None:
            group.leave(subscription)

    def forget_reader(self, subscription: Subscription) -> None:
        """The reader has gone, and its lane with it where nobody else is on it: some have an encoding of their own."""
        self.watchers.pop(subscription, None)
        if self.undelivered is not None:
            self.undelivered.forget(subscription)
        self.leave_group(subscription)
        encoder = subscription.subscriber.encoder
        if encoder in self.encoding_groups and not self.encoding_groups[encoder]:
            del self.encoding_groups[encoder]

    def members(self) -> list[Member]:
        return [subscription.subscriber.client.member() for subscription in self.subscriptions.values()]

    def skip(self, lost: Lost) -> None:
        """Events that follow the newest one will never come. Nothing may be pending. What the log holds before them is
        let go of, as it is contiguous. Readers that have caught up are told at once, the others when they get there."""
        self.history.skip_to(lost.last + 1)
        for group in self.encoding_groups.values():
            group.skip(self.name, lost)

    def restart(self, position: Position, limits: Limits) -> list[Subscription]:
        """The epoch is another one. Nothing may be pending. Gives the subscriptions: they must get nothing more, as
        clients would take the new numbers for old ones."""
        self.history.shrink(0)  # for those who read it still
        self.epoch, self.head = position.epoch, position.offset
        self.history = History(limits, position.offset + 1)
        self.encoding_groups.clear()
        self.watchers.clear()
        subscriptions = list(self.subscriptions.values())
        for subscription in subscriptions:
            subscription.subscriber.clear_behind(subscription)
        return subscriptions

    def write(self, now: float) -> list[Batch]:
        """Put what was published into the log, and leave it to ``flush`` to send it. Returns the new events."""
        batches, self.pending = self.pending, []
        if batches:
            self.history.extend(batches, now)
            if self.waiters is not None:
                waiters, self.waiters = self.waiters, None
                for ring in waiters:
                    ring()
        return batches

    def write_only(self, now: float) -> None:
        """Put what was published into the log now, and send it at the end of the turn."""
        waiting = self.undelivered = self.undelivered or Undelivered()
        for batch in self.write(now):
            waiting.add(batch)

    def add_presence_change(self, change: PresenceChange) -> None:
        """Somebody came or went; what was published before must be in the log."""
        self.undelivered = self.undelivered or Undelivered()
        self.undelivered.add(change)

    def send_undelivered(self, subscription: Subscription, max_missed: int) -> None:
        """Send one subscription now what waits for it, so that it gets that before what is said to it next."""
        if self.undelivered is not None:
            self.undelivered.send(subscription, max_missed)

    def write_and_send_ahead(self, now: float, max_missed: int) -> list[Batch]:
        """Put what was published into the log, and send it, with the presence changes that wait, to the subscriptions
        that are in no lane. Returns what is to be sent to the others: ``deliver`` must follow."""
        waiting = self.undelivered
        if waiting is None:
            return self.write(now)
        self.write_only(now)
        if not waiting.batches:
            return []
        waiting.send_all(self.watchers, max_missed)
        return [batch for _, batch in waiting.batches]

    def deliver(self, batches: list[Batch], gathered: GatheredChunks | None = None) -> None:
        """Offer events to the lanes, or let them note them in ``gathered``."""
        if batches:
            # A lane whose last reader falls behind stays, empty, while that reads on: it will be back.
            for group in self.encoding_groups.values():
                group.deliver(self.name, batches, gathered)
            if self.undelivered is not None:
                waiting, self.undelivered = self.undelivered, None
                waiting.end_all()

    @property
    def has_changes_to_tell(self) -> bool:
        """Whether watchers have still to be told of presence changes."""
        return self.undelivered is not None and self.undelivered.has_changes

    def tell_watchers_first(self, max_missed: int, is_enough: Callable[[], bool]) -> bool:
        """Send watchers the presence changes and events that wait, which must be in the log, until ``is_enough``;
        whether so many have been reached that the rest can be delivered at once."""
        waiting = self.undelivered
        return waiting is None or waiting.tell_first(self.watchers, max_missed, is_enough)

    def tell_watchers(self, max_missed: int, is_enough: Callable[[], bool]) -> bool:
        """Tell watchers who came and who went, until ``is_enough``; whether all are told. No events may wait."""
        waiting = self.undelivered
        if waiting is None:
            return True
        if not waiting.tell(self.watchers, max_missed, is_enough):
            return False
        self.undelivered = None
        waiting.end_all()
        return True
