"""All channels: publish goes down to the backplane, every delivery comes back up through one door, ``deliver``.

What is delivered waits in its channel until the end of the reactor's turn, so that batching adapts to the load by
itself: one event at rest, hundreds in one send under fire.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

from twistedsock.errors import TOO_MANY_CHANNELS, Error
from twistedsock.limits.memory import MemoryBudget, Shares
from twistedsock.limits.principal import ELSEWHERE, LOCAL, Principal
from twistedsock.limits.settings import (
    CHUNK_BYTES,
    MAX_MEMBERS_HELD,
    MAX_PENDING_REPLY_WRITERS,
    RESERVED_CHANNELS,
    TIME_SLICE_SECONDS,
    Limits,
    reserved_limits,
)
from twistedsock.pubsub.backplane import Backplane, Observer, PresenceObserver
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.encoding_group import GatheredChunks, send_gathered
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.history import FRAME_COST
from twistedsock.pubsub.history_budget import HistoryBudget
from twistedsock.pubsub.names import check_channel, check_event_name, is_reserved
from twistedsock.pubsub.subscription import CatchUpCache, Client, Subscriber, Subscription
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Lost, Member, Position, PresenceChange, Publication
from twistedsock.stats import Stats

IDLE_FLUSH_AFTER_SECONDS = 0.0005
"""Seconds since the last flush after which the next does not wait for the end of the turn: who publishes now is alone,
most likely. If not, a reader gets two sends in that turn instead of one, and that seldom."""

LARGEST_SEARCHED = 8
"""Principals whose channels are looked at for one that can give way, those with most channels first. Only principals
that read nearly all their channels are passed over."""


def _report_nothing(channel: bytes, lost: Lost | None) -> None:
    """For tests, and whoever has no log."""


def nothing() -> None:
    """What is called in the end where nobody waits for it."""


def _steps(calls: Iterable[Callable[[], Iterator[object] | None]], faults: list[Exception]) -> Iterator[object]:
    for call in calls:
        try:
            more = call()
            if more is not None:
                yield from more
        except Exception as fault:
            faults.append(fault)
        yield None


class Flushable(Protocol):
    """Who has something to say before the turn ends."""

    def flush(self) -> None:
        """Say it."""


class Broker:
    """The one table of channels. ``schedule`` is asked to call ``turn`` soon, at the end of the reactor's turn;
    ``clock`` gives seconds that never go back."""

    def __init__(
        self,
        backplane: Backplane,
        limits: Limits,
        clock: Callable[[], float],
        schedule: Callable[[], None],
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.channels: dict[bytes, Channel] = {}
        # How many of them are the server's own.
        self.own_channels = 0
        self.member_shares = Shares(MAX_MEMBERS_HELD)
        self.subscription_shares = Shares(limits.max_subscriptions)
        self._shares = Shares(limits.max_channels)
        self._reserved_shares = Shares(RESERVED_CHANNELS)
        # Channels that are not here yet, and the principals that they are counted for already.
        self._claims: dict[bytes, Principal] = {}
        self.memory_budget = MemoryBudget(limits.max_buffered_bytes)
        self.stats = Stats()
        # What the server tells of itself is none of its work.
        self._reserved_stats = Stats()
        # To be added to before the first connection.
        self.observers: list[Observer] = []
        # Those who want to know of readers only: events pass by the million.
        self.presence_observers: list[PresenceObserver] = []
        self._reserved_limits = reserved_limits(limits)
        # Set when so much waits that it should leave before the turn ends; whoever delivers asks after each command.
        self.needs_flush = False
        self._backplane = backplane
        self._schedule = schedule
        # A turn has been asked for; what a read has brought is being run.
        self._asked = self._reading = False
        self._flushed = clock()
        self._opening: dict[bytes, Future[Channel]] = {}
        # Channels with events that have not been delivered.
        self._dirty: dict[Channel, None] = {}
        self._waiting = 0
        self._history_budget = HistoryBudget(limits.history_total_bytes, lambda: self.clock(), self._review)
        self._awake: OrderedDict[Subscriber, None] = OrderedDict()
        # Who has had a share of time, in the order in which they go on.
        self._postponed: OrderedDict[Callable[[], None], None] = OrderedDict()
        self._talkers: dict[Flushable, None] = {}
        # Subscriptions whose place means nothing any more, as their channel has another epoch. They get nothing.
        self._outdated: dict[Subscription, None] = {}
        # Called once for each break in what the backplane delivers, with the events that it has skipped; with None if
        # the channel has another epoch.
        self.report_gap: Callable[[bytes, Lost | None], object] = _report_nothing
        # Channels whose watchers have not been told yet who came and who went.
        self._untold: dict[Channel, None] = {}
        # Loops over many sessions that are under way.
        self._loops = 0

    @property
    def history_bytes(self) -> int:
        """What all logs keep together."""
        return self._history_budget.size

    @property
    def subscriptions(self) -> int:
        """All of them together."""
        return self.subscription_shares.total

    @property
    def members_held(self) -> int:
        """Members in all answers that are being said bit by bit."""
        return self.member_shares.total

    @property
    def is_ready(self) -> bool:
        """Whether what is published is likely to get through."""
        return self._backplane.is_ready

    # What sessions ask.

    def start_input(self) -> None:
        """What one read has brought is going to be run; ``finish`` must follow, whatever happens."""
        self._reading = True

    def end_input(self, talker: Flushable) -> None:
        """It has been run; ``talker`` may have replies to flush. They leave in one burst with the events, right before
        them: between two bursts a peer may fall asleep, and to wake it is what costs most. The burst is due when the
        turn ends, for others may publish in it; at rest at once."""
        self._reading = False
        if not (self._dirty or self._awake):
            talker.flush()
            return
        self._talkers[talker] = None
        if len(self._talkers) > MAX_PENDING_REPLY_WRITERS:
            self._flush_talkers()
        if self._awake or self.clock() - self._flushed < IDLE_FLUSH_AFTER_SECONDS:
            self._ask_for_turn()
        elif not self._asked:
            self.flush()

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        """Returns the offset of the first event."""
        known = self.channels.get(publication.channel)
        if known is None:
            error = self._refuse_channel(publication.channel, publisher.principal)
            if error is not None:
                return error
        error = check_event_name(publication.name)
        if error is not None:
            return error
        if known is None:
            return self._publish_first(publisher, publication)
        if known.owner != publisher.principal:
            self._contest(known, publisher.principal, publication)
        return self._backplane.publish(publisher, publication)

    def open(self, name: bytes, principal: Principal = LOCAL) -> Channel | Error | Future[Channel]:
        """The channel of that name. If there is none, it is made, and counted for ``principal``. Callers that do not
        subscribe must ``close_if_unused`` it."""
        channel = self.channels.get(name)
        if channel is not None:
            return channel
        if name in self._opening:
            return self._opening[name]
        error = self._refuse_channel(name, principal)
        if error is not None:
            return error
        answer = self._backplane.open(name)
        if not isinstance(answer, Future):
            return self._opened(name, answer, principal)
        release = self._claim(name, principal)
        self._opening[name] = opening = Future[Channel]()

        def opened(outcome: Position | Error) -> None:
            release(outcome)
            self._opening.pop(name).settle(self._opened(name, outcome, principal))

        answer.then(opened)
        return opening

    def subscribe(self, channel: Channel, subscription: Subscription) -> None:
        """Add a reader, live from here on; it has seen nothing of what was published before."""
        peer = subscription.subscriber.client
        self.subscription_shares.add(subscription.principal, 1)
        channel.subscriptions[peer.id] = subscription  # first, so that the channel does not vanish with its log
        self._backplane.join(channel.name, peer.member())
        self.update_history(channel)
        channel.add_reader(subscription)
        for observer in (*self.observers, *self.presence_observers):
            observer.joined(channel.name, peer.member(), len(channel.subscriptions))

    def resubscribe(self, subscription: Subscription, echo: bool, presence: bool) -> None:
        """Change a reader's options; it stays where it is in the channel, and nobody hears of it."""
        channel = self.channels[subscription.channel.name]
        self.update_history(channel)
        if subscription in self._outdated:
            del self._outdated[subscription]  # it is told the epoch now
        else:
            channel.send_undelivered(subscription, self.limits.max_pending_presence)
        channel.change_reader(subscription, echo, presence)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take a reader out; the channel vanishes if nothing is left of it."""
        channel, peer = self.channels[subscription.channel.name], subscription.subscriber.client
        del channel.subscriptions[peer.id]
        self._outdated.pop(subscription, None)
        self.subscription_shares.add(subscription.principal, -1)
        if subscription.principal == channel.owner:
            self._own_by_reader(channel)
        channel.forget_reader(subscription)
        subscription.subscriber.clear_behind(subscription)
        subscription.forget_missed()
        self._backplane.leave(channel.name, peer.member())
        for observer in (*self.observers, *self.presence_observers):
            observer.left(channel.name, peer.member(), len(channel.subscriptions))
        self.close_if_unused(channel)

    def member_renamed(self, subscription: Subscription) -> None:
        """A reader has a new nick."""
        self._backplane.rename(subscription.channel.name, subscription.subscriber.client.member())

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        """Who reads a channel, on all nodes."""
        error = check_channel(channel)
        if error is not None:
            return error
        return self._backplane.members(channel)

    def owner_of(self, name: bytes) -> Principal:
        """The principal that a channel counts for."""
        channel = self.channels.get(name)
        return ELSEWHERE if channel is None else channel.owner

    def local_members(self, name: bytes) -> list[Member]:
        """Who reads a channel on this node."""
        channel = self.channels.get(name)
        return channel.members() if channel is not None else []

    def update_history(self, channel: Channel) -> None:
        """Bring the log of one channel up to date: it says all that its head does, and nothing that is too old. What
        is new is delivered when the turn ends."""
        if channel.pending:
            size = channel.history.size
            self._history_budget.note_written(channel)
            channel.write_only(self.clock())
            self._history_budget.account(channel, size)
        else:
            self._history_budget.expire(channel, self.clock())

    def send_undelivered(self, subscription: Subscription) -> None:
        """Send one reader the events that wait for it, so that it gets them before what it is told next."""
        channel = self.channels[subscription.channel.name]
        if channel.pending:
            self.update_history(channel)
        # Readers that leave together need not be told of each other.
        if channel.has_undelivered_events and subscription not in self._outdated:
            channel.send_undelivered(subscription, self.limits.max_pending_presence)

    def resume(self, subscriber: Subscriber) -> None:
        """A reader's socket has drained, or it asked for a replay: let it catch up in the next turn."""
        if subscriber.behind:
            self._awake[subscriber] = None
            self._ask_for_turn()

    def postpone(self, go_on: Callable[[], None]) -> None:
        """Call back in the next turn, or in one after it: all who wait for that share it, each in its order."""
        self._postponed[go_on] = None
        if not self._asked:
            self._asked = True
            self._schedule()

    def make_steps(self, steps: Iterator[object], done: Callable[[], object]) -> None:
        """Go through ``steps``, as many in a turn as fit into a share of time, beginning now; then call ``done``."""
        enough = self.clock() + TIME_SLICE_SECONDS
        try:
            for _ in steps:
                if self.clock() >= enough:
                    self.postpone(partial(self.make_steps, steps, done))
                    return
        except BaseException:
            done()
            raise
        done()

    def make_calls(
        self,
        calls: Iterable[Callable[[], Iterator[object] | None]],
        words: str,
        done: Callable[[], object] = nothing,
    ) -> None:
        """Make a call for each of many sessions, in time slices as ``make_steps``. A call may return its own steps. An
        exception of one does not keep the others from being made: all are raised in the end as an ExceptionGroup with
        these words. Watchers are told who has gone when all have been made."""
        faults: list[Exception] = []

        def finish() -> None:
            self._loops -= 1
            if self._untold:
                self.postpone(self._tell_watchers)
            done()
            if faults:
                raise ExceptionGroup(words, faults)

        self._loops += 1
        self.make_steps(_steps(calls, faults), finish)

    def notify_once(self, channel: Channel, ring: Callable[[], None]) -> None:
        """Call ``ring`` once, when the next events are in the log: it must not change anything before the next turn.
        The channel stays until then, or until ``cancel_notify``."""
        if channel.waiters is None:
            channel.waiters = {}
        channel.waiters[ring] = None

    def cancel_notify(self, channel: Channel, ring: Callable[[], None]) -> None:
        """Who has given ``ring`` does not wait any longer; nothing happens if it has been called already."""
        if channel.waiters is not None and ring in channel.waiters:
            del channel.waiters[ring]
            channel.waiters = channel.waiters or None
        self.close_if_unused(channel)

    def remove_subscriber(self, subscriber: Subscriber) -> None:
        """A reader is gone."""
        self._awake.pop(subscriber, None)

    # What the backplane tells.

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        """The one door up: events have got their places, one after the other. What was delivered before is ignored;
        events that the backplane has skipped, and an epoch that has changed, are reported to subscribers."""
        channel, first, end = self.channels.get(name), batch.first, batch.end
        if channel is None:
            channel = self._make(name, Position(epoch, first - 1))
        elif first != channel.head + 1 or epoch != channel.epoch:
            if epoch == channel.epoch and first <= channel.head:
                if end - 1 <= channel.head:
                    return
                first = channel.head + 1
                batch = batch.part(first, end)
            else:
                channel = self._break(channel, Position(epoch, first - 1))
        channel.head = end - 1
        count = end - first
        channel.stats.published += count
        for observer in self.observers:
            observer.published(name, epoch, batch)
        if channel not in self._dirty:
            self._dirty[channel] = None
            self._ask_for_turn()
        channel.pending.append(batch)
        self._waiting += batch.payloads.size + FRAME_COST * count
        if self._waiting >= CHUNK_BYTES:
            self.needs_flush = True

    def _break(self, channel: Channel, position: Position) -> Channel:
        """The next event does not follow the newest one of the channel. Its log holds no gap, so it begins anew; later
        that is to be repaired by asking the backplane for what is missing."""
        self._flush_talkers()
        channel.deliver(self._write(channel))
        channel.tell_watchers(self.limits.max_pending_presence, lambda: False)  # so that all are in their lanes
        self._dirty.pop(channel, None)  # the next event adds it again
        size = channel.history.size
        if position.epoch == channel.epoch:
            lost = Lost(channel.head + 1, position.offset)
            channel.skip(lost)
            self.report_gap(channel.name, lost)
        else:
            self._outdated |= dict.fromkeys(channel.restart(position, self.limits))
            if self._outdated:
                self.postpone(self._dismiss_outdated)
            self.report_gap(channel.name, None)
        self._history_budget.account(channel, size)
        return self.channels.get(channel.name) or self._make(
            channel.name, position, channel.owner
        )  # a flush can end its need

    def _dismiss_outdated(self) -> None:
        """Close the sessions whose subscriptions are of a former epoch."""
        calls = [partial(self._dismiss_if_outdated, subscription) for subscription in self._outdated]
        self.make_calls(calls, "sessions of a former epoch could not be closed")

    def _dismiss_if_outdated(self, subscription: Subscription) -> None:
        # It counts as outdated until it has ended, so that it is sent nothing on the way.
        if subscription in self._outdated:
            subscription.subscriber.callbacks.epoch_changed()

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        """Somebody came to a channel or left it, on this node or another. Watchers are told after this turn."""
        channel = self.channels.get(name)
        if channel is not None and channel.watchers:
            if channel.pending:
                self.update_history(channel)  # what was published before is to be heard before
            channel.add_presence_change(change)
            self._untold[channel] = None
            self.postpone(self._tell_watchers)

    def counted_members(self, members: Sequence[Member], principal: Principal) -> Iterator[Member]:
        """The members of an answer that is going to be said bit by bit, counted as long as they are held."""
        self.member_shares.add(principal, len(members))
        try:
            yield from members
        finally:
            self.member_shares.add(principal, -len(members))

    # What time tells.

    def run_turn(self) -> None:
        """The end of a reactor's turn: flush what was published, then let those who are behind read on, and those go on
        who were postponed; as many of each as fit into a share of time, and one at least."""
        self._asked = False
        began = self.clock()
        try:
            self.flush()
            if self._awake:
                self._catch_up()
            if self._postponed:
                self._go_on()
        finally:
            self.stats.count_turn(self.clock() - began)
            if self._awake or self._postponed:
                self._ask_for_turn()

    def _go_on(self) -> None:
        enough = self.clock() + TIME_SLICE_SECONDS
        for _ in range(len(self._postponed)):
            go_on, _ = self._postponed.popitem(last=False)
            go_on()
            if self.clock() >= enough:
                break

    def _tell_watchers(self) -> None:
        """As many as fit into a share of time; each channel in its turn."""
        if self._loops:
            return
        self._flush_talkers()
        enough = self.clock() + TIME_SLICE_SECONDS
        while self._untold:
            channel = next(iter(self._untold))
            del self._untold[channel]
            if channel.pending or channel.has_undelivered_events:
                self.flush()  # this tells watchers too, or goes on with that in the next turn
            elif not channel.tell_watchers(self.limits.max_pending_presence, lambda: self.clock() >= enough):
                self._untold[channel] = None
            if self.clock() >= enough:
                break
        if self._untold:
            self.postpone(self._tell_watchers)

    def _catch_up(self) -> None:
        enough = self.clock() + TIME_SLICE_SECONDS
        awake, self._awake = self._awake, OrderedDict()
        shared: CatchUpCache = {}
        try:
            while awake:
                subscriber, _ = awake.popitem(last=False)
                if subscriber.catch_up(shared):
                    self._awake[subscriber] = None
                if self.clock() >= enough:
                    break
        finally:
            if awake:  # who had no turn comes first in the next
                self._awake = awake | self._awake

    def flush(self, is_whole: bool = False) -> None:
        """Flush every dirty channel now. Unless it ``is_whole``, or more than a chunk waits, channels with so many
        presence changes for so many watchers that telling them takes more than a share of time stay dirty, and go on in
        the next turn."""
        self._flush_talkers()
        is_whole, self.needs_flush = is_whole or self.needs_flush, False
        began = self.clock() if self._dirty else 0.0
        dirty, self._dirty = list(self._dirty), {}
        if not is_whole and any([channel.has_changes_to_tell for channel in dirty]):
            dirty = self._told_first(dirty, began + TIME_SLICE_SECONDS)
        if not self._dirty:
            self._waiting = 0
        if len(dirty) == 1:
            dirty[0].deliver(self._write(dirty[0]))
        elif dirty:
            # Who reads several of the channels gets it all in one send, which costs far more than gathering it. Nothing
            # may be sent while it is gathered: some encodings say with each event what was sent before.
            gathered: GatheredChunks = defaultdict(list)
            written = [(channel, self._write(channel)) for channel in dirty]
            for channel, batches in written:
                channel.deliver(batches, gathered)
            for subscriber, due in gathered.items():
                send_gathered(subscriber, due)
        for channel in dirty:
            self.close_if_unused(channel)
        if dirty:
            self._flushed = self.clock()
            self.stats.flushes.observe(self._flushed - began)

    def _told_first(self, dirty: list[Channel], enough: float) -> list[Channel]:
        """Those of some dirty channels whose watchers have been told what happened before the events that wait."""
        told: list[Channel] = []
        for channel in dirty:
            if channel.has_changes_to_tell:
                self.update_history(channel)
            if channel.tell_watchers_first(self.limits.max_pending_presence, lambda: self.clock() >= enough):
                told.append(channel)
            else:
                self._dirty[channel] = None
                self._ask_for_turn()
        return told

    def expire_histories(self) -> None:
        """Let go what is too old. To be called every few seconds, as nothing else looks at a silent channel. Where
        there are many, it goes on in the next turns."""
        if self._sweep_on not in self._postponed and not self._history_budget.sweep(self.channels.values()):
            self.postpone(self._sweep_on)

    def _sweep_on(self) -> None:
        if not self._history_budget.sweep_on():
            self.postpone(self._sweep_on)

    def clear_history(self, channel: Channel) -> None:
        """Let go of all that its log keeps."""
        self._history_budget.clear(channel)

    def close_if_unused(self, channel: Channel) -> None:
        """Remove a channel that nobody reads and whose log is empty."""
        if channel.subscriptions or channel.history or channel.pending or channel.waiters:
            return
        if self.channels.get(channel.name) is channel:
            del self.channels[channel.name]
            self.own_channels -= is_reserved(channel.name)
            self._shares_of(channel.name).add(channel.owner, -1)
            self._backplane.close(channel.name)

    def _shares_of(self, name: bytes) -> Shares:
        return self._reserved_shares if is_reserved(name) else self._shares

    def _refuse_channel(self, name: bytes, principal: Principal) -> Error | None:
        error = check_channel(name)
        if error is not None:
            return error
        shares = self._shares_of(name)
        if shares.total < shares.limit or name in self._claims:
            return None
        if (not is_reserved(name) and self._make_room(principal)) or shares.admits(principal):
            return None
        return TOO_MANY_CHANNELS

    def _make_room(self, principal: Principal) -> bool:
        """Empty a channel that nobody reads, of a principal that has more channels than this one and than its share;
        whether there was one."""
        shares = self._shares
        enough = max(shares.of(principal) + 1, shares.fair_share_with(principal))
        for owner in islice(shares.largest_first(), LARGEST_SEARCHED):
            if shares.of(owner) <= enough:
                return False
            unread = self._history_budget.find_unread(owner)
            if unread is not None:
                self.clear_history(unread)
                return True
        return False

    def _claim(self, name: bytes, principal: Principal) -> Callable[[object], None]:
        """Count a channel that will be here soon. Gives what is to be called when it is here, or will not come."""
        if name in self._claims:
            return lambda outcome: None
        self._claims[name] = principal
        self._shares_of(name).add(principal, 1)

        def release(outcome: object) -> None:
            del self._claims[name]
            self._shares_of(name).add(principal, -1)

        return release

    def _publish_first(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        """On a channel that is not here yet."""
        release = self._claim(publication.channel, publisher.principal)
        try:
            answer = self._backplane.publish(publisher, publication)
        except BaseException:
            release(None)
            raise
        on_result(answer, release)
        return answer

    def _contest(self, channel: Channel, principal: Principal, publication: Publication) -> None:
        """Another principal than the owner writes to a channel. When others have written half as much as the log keeps,
        it counts for them: so one event is not enough to be charged with the history of others, or to take it over."""
        payloads = publication.payloads
        channel.contested += BATCH_COST + EVENT_COST * len(payloads) + payloads.size
        if 2 * channel.contested > channel.history.size and not is_reserved(channel.name):
            self._own(channel, principal)

    def _own(self, channel: Channel, principal: Principal) -> None:
        shares = self._shares_of(channel.name)
        shares.add(channel.owner, -1)
        shares.add(principal, 1)
        self._history_budget.change_owner(channel, principal)

    def _own_by_reader(self, channel: Channel) -> None:
        """A channel that has readers, but no history, counts for the newest of them."""
        if channel.subscriptions and not channel.history and not channel.pending:
            newest = next(reversed(channel.subscriptions.values()))
            if newest.principal != channel.owner:
                self._own(channel, newest.principal)

    def _review(self, channel: Channel) -> None:
        """The log of a channel may have become empty."""
        self._own_by_reader(channel)
        self.close_if_unused(channel)

    def _make(self, name: bytes, position: Position, owner: Principal | None = None) -> Channel:
        limits, stats = self.limits, self.stats
        if is_reserved(name):
            limits, stats = self._reserved_limits, self._reserved_stats
            self.own_channels += 1
        # What comes from other nodes, and is open here for nobody, is their clients'.
        owner = owner or self._claims.get(name, ELSEWHERE)
        self._shares_of(name).add(owner, 1)
        channel = self.channels[name] = Channel(name, position, limits, stats, owner)
        return channel

    def _opened(self, name: bytes, outcome: Position | Error, principal: Principal) -> Channel | Error:
        if isinstance(outcome, Error):
            return outcome
        # An event may have been delivered while the answer was under way.
        return self.channels.get(name) or self._make(name, outcome, principal)

    def _ask_for_turn(self) -> None:
        if not self._asked and not self._reading:
            self._asked = True
            self._schedule()

    def _flush_talkers(self) -> None:
        """Before events leave, as the reply to a publish comes before one's own copy of the event."""
        if self._talkers:
            talkers, self._talkers = self._talkers, {}
            for talker in talkers:
                talker.flush()

    def _write(self, channel: Channel) -> list[Batch]:
        size = channel.history.size
        if channel.pending:
            self._history_budget.note_written(channel)
        batches = channel.write_and_send_ahead(self.clock(), self.limits.max_pending_presence)
        self._history_budget.account(channel, size)
        return batches
