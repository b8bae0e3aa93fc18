"""A channel: its history, its subscriptions, and the events that were not sent to them yet.

Events that have been published are ``pending`` until the end of the turn. Then ``prepare_delivery`` appends them to the
history, and ``deliver`` offers them to the encoding groups, whose members are the subscriptions that are caught up.

A subscription that is behind is in no group: it reads the history (``subscription``). Neither is a subscription that
has been sent something ahead of its group: while presence changes wait for watchers, or the history had to be updated
before the end of the turn, ``Undelivered`` has the position of each subscription.
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.encoding_group import EncodingGroup, GatheredChunks
from twistedsock.pubsub.history import History
from twistedsock.pubsub.subscription import EventEncoder, Subscription
from twistedsock.pubsub.undelivered import Undelivered, never
from twistedsock.pubsub.values import Batch, ChannelState, Lost, Member, Position, PresenceChange, Reset
from twistedsock.stats import Stats

MAX_RESETS = 8
"""New epochs that a subscription receives one by one, if its socket accepts nothing meanwhile. Of more, it receives
the last ones."""


class Channel:
    """The broker keeps it as long as it has subscriptions or history."""

    __slots__ = (
        "_limits",
        "begin",
        "encoding_groups",
        "epoch",
        "foreign_bytes",
        "head",
        "history",
        "name",
        "owner",
        "pending",
        "previous",
        "resets",
        "stats",
        "subscriptions",
        "undelivered",
        "uses",
        "waiters",
        "watchers",
    )

    def __init__(
        self, name: bytes, state: ChannelState, limits: Limits, stats: Stats, owner: Principal = ELSEWHERE
    ) -> None:
        """The tail of the state is not read: ``HistoryBudget.load`` adds it."""
        self.name = name
        self.owner = owner
        """The principal that the channel and its history count for. Only ``ChannelShares`` changes it."""
        self.foreign_bytes = 0
        """Bytes that other principals have published since it is the owner."""
        self.epoch = state.position.epoch
        self.head = state.position.offset
        """The offset of the newest event, 0 before the first."""
        self.begin = state.begin
        """The offset before the first event of the epoch."""
        self.previous = state.previous
        """The former epoch, and the newest of its events that is still valid; None if unknown."""
        self.history = _empty_history(limits, state)
        self.pending: list[Batch] = []
        """Published events that are neither in the history nor with the subscriptions."""
        self.encoding_groups: dict[EventEncoder, EncodingGroup] = {}
        self.subscriptions: dict[bytes, Subscription] = {}
        """By the id of their client."""
        self.watchers: dict[Subscription, None] = {}
        """The subscriptions that are sent presence changes."""
        self.waiters: dict[Callable[[], None], None] | None = None
        self.uses = 0
        """How many publications wait for the backplane, and other work that needs the channel is being done."""
        self.resets: dict[Subscription, list[Reset]] | None = None
        self.stats = stats
        self.undelivered: Undelivered | None = None
        self._limits = limits

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.head)

    @property
    def is_history_only(self) -> bool:
        """Whether only its history would be lost with it."""
        return not (self.subscriptions or self.waiters or self.pending or self.undelivered or self.uses)

    @property
    def has_undelivered_events(self) -> bool:
        """Whether the history holds events that the encoding groups have not been sent yet."""
        return self.undelivered is not None and bool(self.undelivered.batches)

    @property
    def has_presence_changes(self) -> bool:
        """Whether presence changes wait for watchers."""
        return self.undelivered is not None and self.undelivered.has_changes

    # Events.

    def time_of(self, offset: int) -> int | None:
        """The time of an event that is among the newest: None if neither the history nor a waiting batch has it."""
        for batch in reversed(self.pending):
            if batch.first <= offset < batch.end:
                return batch.time
        if not self.history.first <= offset < self.history.end:
            return None
        return self.history.read(offset, 1)[0].time

    def append_pending(self, now: float) -> None:
        """Append published events to the history before the end of the turn, at which they are delivered."""
        undelivered = self._need_undelivered()
        for batch in self._append_pending(now):
            undelivered.add(batch)

    def prepare_delivery(self, now: float) -> list[Batch]:
        """Append published events to the history, and send all that waits to the subscriptions that are ahead of their
        group. Returns the events for the groups: ``deliver`` must follow."""
        if self.undelivered is None:
            return self._append_pending(now)
        self.append_pending(now)
        if not self.undelivered.batches:
            return []
        self.undelivered.send_all(self.watchers)
        return [batch for _, batch in self.undelivered.batches]

    def deliver(self, batches: list[Batch], gathered: GatheredChunks | None = None) -> None:
        """Offer events to all encoding groups, or add what they would send to ``gathered``."""
        if batches:
            # A group whose last member falls behind stays, empty, while that catches up: it will be back.
            for group in self.encoding_groups.values():
                group.broadcast(self.name, batches, gathered)
            if self.undelivered is not None:
                undelivered, self.undelivered = self.undelivered, None
                undelivered.close()

    def _append_pending(self, now: float) -> list[Batch]:
        batches, self.pending = self.pending, []
        if batches:
            self.history.extend(batches, now)
            if self.waiters is not None:
                waiters, self.waiters = self.waiters, None
                for callback in waiters:
                    callback()
        return batches

    def notify_once(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when the next events have been appended to the history. It must not change anything
        before the next turn. The channel stays open until then, or until ``Broker.cancel_notify``."""
        if self.waiters is None:
            self.waiters = {}
        self.waiters[callback] = None

    def cancel_notify(self, callback: Callable[[], None]) -> None:
        """Cancel ``notify_once``. Does nothing if the callback has been called already."""
        if self.waiters is not None and callback in self.waiters:
            del self.waiters[callback]
            self.waiters = self.waiters or None

    # Presence changes.

    def add_presence_change(self, change: PresenceChange) -> None:
        """A member has joined or left. Events that were published before must be in the history."""
        self._need_undelivered().add(change)

    def send_changes(self, is_over: Callable[[], bool] = never) -> bool:
        """Send presence changes to watchers until ``is_over``. No events may wait. Returns whether all were sent."""
        if self.undelivered is not None:
            if not self.undelivered.send_changes(self.watchers, is_over):
                return False
            undelivered, self.undelivered = self.undelivered, None
            undelivered.close()
        return True

    def send_changes_before_events(self, is_over: Callable[[], bool]) -> bool:
        """Send the presence changes and events that wait to watchers until ``is_over``. They must be in the history.
        Returns whether so few remain that the events can be delivered."""
        return self.undelivered is None or self.undelivered.send_changes_before_events(self.watchers, is_over)

    def members(self) -> list[Member]:
        return [subscription.subscriber.client.member() for subscription in self.subscriptions.values()]

    # Subscriptions.

    def add_subscription(self, subscription: Subscription) -> None:
        """A new subscription needs nothing of what has been published so far. All of that must be in the history."""
        if subscription.presence:
            self.watchers[subscription] = None
        if self.undelivered is not None:
            self.undelivered.skip(subscription)
        else:
            self.join_group(subscription)

    def change_options(
        self, subscription: Subscription, echo: bool, presence: bool, encoder: EventEncoder | None = None
    ) -> None:
        """The subscription must have been sent all that waits for it, and all of that must be in the history. Without
        ``encoder``, it gets that of its subscriber."""
        if self.pop_resets(subscription):  # the reply has the new epoch, and what it asks for follows
            subscription.cursor = self.history.end
        self.leave_group(subscription)
        self._drop_empty_group(subscription)
        subscription.echo, subscription.presence = echo, presence
        subscription.encoder = subscription.subscriber.encoder if encoder is None else encoder
        if presence:
            self.watchers[subscription] = None
        else:
            self.watchers.pop(subscription, None)
            subscription.pop_missed()
        if self.undelivered is not None:
            self.undelivered.skip(subscription)
        elif subscription not in subscription.subscriber.behind:
            self.join_group(subscription)

    def remove_subscription(self, subscription: Subscription) -> None:
        """Its encoding group is removed with its last member, because some encoders belong to one subscriber."""
        self.watchers.pop(subscription, None)
        self.pop_resets(subscription)
        if self.undelivered is not None:
            self.undelivered.remove(subscription)
        self.leave_group(subscription)
        self._drop_empty_group(subscription)

    def join_group(self, subscription: Subscription) -> None:
        """The subscription has been sent what its group has been sent, or will be sent by ``Undelivered``."""
        if self.undelivered is not None and self.undelivered.tracks(subscription):
            return
        encoder = subscription.encoder
        group = self.encoding_groups.get(encoder)
        if group is None:
            group = self.encoding_groups[encoder] = EncodingGroup(encoder, self.stats, self.epoch)
        group.add(subscription)

    def leave_group(self, subscription: Subscription) -> None:
        group = self.encoding_groups.get(subscription.encoder)
        if group is not None:
            group.remove(subscription)

    def _drop_empty_group(self, subscription: Subscription) -> None:
        encoder = subscription.encoder
        if encoder in self.encoding_groups and not self.encoding_groups[encoder]:
            del self.encoding_groups[encoder]

    def send_undelivered(self, subscription: Subscription) -> None:
        """Send one subscription what waits for it, so that it gets that before whatever is sent to it next."""
        if self.undelivered is not None:
            self.undelivered.send(subscription)

    def _need_undelivered(self) -> Undelivered:
        if self.undelivered is None:
            self.undelivered = Undelivered(self._limits.max_pending_presence)
        return self.undelivered

    # Gaps and epochs.

    def skip(self, lost: Lost, time: int) -> None:
        """Events that follow the newest one, the last of them at ``time`` or before, will never come. Nothing may be
        pending. The history is dropped, because it has no gaps. Subscriptions that are caught up get a report now,
        those that are behind when they get there."""
        self.history.skip_to(lost.last + 1, time)
        for group in self.encoding_groups.values():
            group.report_lost(self.name, lost)

    def restart(self, state: ChannelState) -> None:
        """The channel has a new epoch. Nothing may be pending. All subscriptions are behind afterwards, at the first
        event of the new epoch that they have not been sent, and receive the reset when they catch up. This
        takes about as long as the delivery of one event."""
        former, head = Position(self.epoch, self.head), self.head
        self.history.shrink(0)  # for replies that are still being read from it
        self.epoch, self.head, self.begin = state.position.epoch, state.position.offset, state.begin
        self.previous = state.previous
        self.history = _empty_history(self._limits, state)
        self.encoding_groups.clear()
        if self.subscriptions and self.resets is None:
            self.resets = {}
        for subscription in self.subscriptions.values():
            is_behind = subscription in subscription.subscriber.behind
            reset = _reset_for(state, former, subscription.cursor if is_behind else head + 1)
            assert self.resets is not None
            resets = self.resets.setdefault(subscription, [])
            resets.append(reset)
            if len(resets) > MAX_RESETS:
                # The subscriber does not learn of the epoch before the second one, so nothing is known of its own.
                resets[:2] = [replace(resets[1], good=0, lost=None)]
            subscription.cursor = reset.offset + 1
            subscription.subscriber.mark_behind(subscription)
        if self.waiters is not None:
            waiters, self.waiters = self.waiters, None
            for callback in waiters:
                callback()

    def pop_resets(self, subscription: Subscription) -> Sequence[Reset]:
        """The resets that a subscription has not been sent. They are sent now, or are no longer needed."""
        if self.resets is None:
            return ()
        resets = self.resets.pop(subscription, ())
        self.resets = self.resets or None
        return resets


def _empty_history(limits: Limits, state: ChannelState) -> History:
    first, previous = state.tail[0].first if state.tail else state.position.offset + 1, state.previous
    is_one_sequence = previous is not None and previous.offset == state.begin
    return History(limits, first, state.time, 1 if is_one_sequence else state.begin + 1)


def _reset_for(state: ChannelState, former: Position, cursor: int) -> Reset:
    """How a subscription moves to a new epoch. ``former`` is the newest event of the old epoch on this node, ``cursor``
    the offset of the next event of it that the subscription would have been sent."""
    epoch, previous, begin = state.position.epoch, state.previous, state.begin
    if previous is None or previous.epoch != former.epoch:
        # Nothing is known of the old epoch.
        return Reset(epoch, 0, begin, Lost(cursor, former.offset) if cursor <= former.offset else None)
    good = min(previous.offset, cursor - 1)
    if previous.offset == begin:  # the offsets are one sequence, and so is the history
        return Reset(epoch, good, good, None)
    return Reset(epoch, good, begin, Lost(cursor, previous.offset) if cursor <= previous.offset else None)
