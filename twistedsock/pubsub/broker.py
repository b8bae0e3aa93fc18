"""All channels, and the path of an event from its publisher to its subscribers.

``publish`` passes a publication to the backplane. The backplane gives its events their offsets and calls ``deliver``,
the one entry point of all events, with a batch of them. The batch waits in its channel until the end of the reactor's
turn; then ``flush`` appends it to the history of the channel and sends it to the subscriptions. So the batching adapts
to the load: one event in a send while there are few, hundreds while there are many.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

from twistedsock.errors import Error
from twistedsock.limits.settings import (
    CHUNK_BYTES,
    MAX_MEMBERS_HELD,
    MAX_PENDING_REPLY_WRITERS,
    Limits,
)
from twistedsock.limits.shares import MemoryBudget, Shares
from twistedsock.pubsub.backplane import Backplane, Observer, PresenceObserver
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.channels import Channels
from twistedsock.pubsub.encoding_group import GatheredChunks, send_gathered
from twistedsock.pubsub.future import Future, map_result, on_result
from twistedsock.pubsub.history import FRAME_COST
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME, check_channel, check_event_name, is_reserved
from twistedsock.pubsub.rereading import OlderEvents, ReadQueue, Repairs
from twistedsock.pubsub.scheduler import Scheduler
from twistedsock.pubsub.subscription import CatchUpCache, Client, EventEncoder, Subscriber, Subscription
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Lost,
    Member,
    NodeCommand,
    Position,
    PresenceChange,
    Publication,
)
from twistedsock.stats import Stats

IDLE_FLUSH_AFTER_SECONDS = 0.0005
"""Seconds since the last flush after which the next one does not wait for the end of the turn, because most likely
nothing else is published in this turn. If it is, subscribers get two sends instead of one."""


def _ignore_gap(channel: bytes, lost: Lost | None) -> None: ...


def _ignore_command(command: NodeCommand) -> None: ...


class Flushable(Protocol):
    """Has replies to write before the events of this turn are sent."""

    chunks: list[bytes] | None
    """These replies."""

    def flush(self) -> None: ...


class Broker:
    """``clock`` returns seconds and never goes back; ``wall_clock`` returns the seconds since 1970. ``schedule_turn``
    asks the reactor to call ``run_turn`` soon."""

    def __init__(
        self,
        backplane: Backplane,
        limits: Limits,
        clock: Callable[[], float],
        schedule_turn: Callable[[], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.scheduler = Scheduler(clock, schedule_turn)
        self.member_shares = Shares(MAX_MEMBERS_HELD)
        """Members in replies that are being written."""
        self.subscription_shares = Shares(limits.max_subscriptions)
        self.memory_budget = MemoryBudget(limits.max_buffered_bytes)
        self.stats = Stats()
        self._repairs = Repairs(backplane, self)
        self.channels = Channels(backplane, limits, self.stats, clock, wall_clock, self._repairs.cancel)
        self.histories = self.channels.histories
        self.observers: list[Observer] = []
        """Observers of what the clients of this node do. Add to this list before the first connection is accepted."""
        self.presence_observers: list[PresenceObserver] = []
        """Observers of subscriptions. Publications, which can be millions, are not reported to them."""
        self.report_gap: Callable[[bytes, Lost | None], object] = _ignore_gap
        """Called with the events that the backplane has skipped, or with None if the channel has another epoch."""
        self.needs_flush = False
        """Set when a chunk of events waits. A publisher must call ``flush`` then, before it publishes more."""
        self.handle_command: Callable[[NodeCommand], object] = _ignore_command
        """Called with the commands of other nodes."""
        self.backplane = backplane
        self.reads = ReadQueue(backplane)
        # Other backplanes need not have this attribute.
        self._counts_members: bool = getattr(backplane, "counts_members", False)
        # How the ids of this node's clients begin.
        self._id_prefix = backplane.node_name and backplane.node_name + b"-"
        self._older: OlderEvents | None = None
        if backplane.keeps_history:
            self._older = OlderEvents(backplane, self.scheduler, self.resume, self._flush_replies)
        self.is_handling_input = False
        """Set while input that was read from a socket is handled. ``end_input`` must follow."""
        # Replies to be written before the next events.
        self._reply_writers: dict[Flushable, None] = {}
        # Channels with events that have not been sent, and how many bytes these are, about.
        self._unflushed: dict[Channel, None] = {}
        self._unflushed_bytes = 0
        self._flushed_at = clock()
        # Channels whose watchers have not been sent all presence changes.
        self._changed: dict[Channel, None] = {}
        # Subscribers that are behind and whose sockets accept data, in the order of their turns.
        self._catching_up: OrderedDict[Subscriber, None] = OrderedDict()
        self._is_expiring = False

    @property
    def is_ready(self) -> bool:
        """Whether a publication is likely to succeed."""
        return self.backplane.is_ready

    @property
    def reads_older(self) -> bool:
        """Whether events that a history has dropped may be available from the backplane."""
        return self._older is not None

    # The path of an event: handle input, publish, deliver, end of the input or of the turn, flush.

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        """Returns the offset of the first event."""
        channel = self.channels.get(publication.channel)
        if channel is None:
            error = self.channels.shares.check(publication.channel, publisher.principal)
            if error is not None:
                return error
        if publication.name != DEFAULT_EVENT_NAME:
            error = check_event_name(publication.name)
            if error is not None:
                return error
        if channel is None:
            return self._publish_to_new(publisher, publication)
        if channel.owner != publisher.principal:
            self.channels.shares.count_foreign(channel, publisher.principal, publication.payloads)
        answer = self.backplane.publish(publisher, publication)
        if not self._repairs.running and not isinstance(answer, Future):
            return answer
        return self._hold_answer(channel, publisher, answer)

    def _publish_to_new(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        if self.backplane.keeps_history:  # the channel needs its older events
            opened, sender = self.channels.open(publication.channel, publisher.principal), publisher.snapshot()
            return map_result(opened, lambda channel: self._publish_to_opened(channel, sender, publication))
        release = self.channels.shares.claim(publication.channel, publisher.principal)
        try:
            answer = self.backplane.publish(publisher, publication)
        except BaseException:
            release(None)
            raise
        on_result(answer, release)
        return answer

    def _publish_to_opened(
        self, channel: Channel, publisher: Client, publication: Publication
    ) -> int | Error | Future[int]:
        if self.channels.get(channel.name) is not channel:  # another client that waited for it did not need it
            return self._publish_to_new(publisher, publication)
        return self._hold_answer(channel, publisher, self.backplane.publish(publisher, publication))

    def _hold_answer(self, channel: Channel, publisher: Client, answer: int | Error | Future[int]) -> Future[int]:
        """The channel stays open until the publication is answered: otherwise its event would not be delivered here,
        and observers would miss it."""
        channel.uses += 1
        held = self._repairs.hold_answer(channel, publisher.id, answer)
        held.then(lambda outcome: self._end_use(channel))
        return held

    def _end_use(self, channel: Channel) -> None:
        channel.uses -= 1
        self.channels.close_if_unused(channel)

    def time_of(self, name: bytes, offset: int) -> int | None:
        """The time of an event that has just been published, if its channel still has it."""
        channel = self.channels.get(name)
        return None if channel is None else channel.time_of(offset)

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        """Called by the backplane with events that follow the newest ones of the channel. Events that have been
        delivered before are ignored. If events are missing, or the epoch is another one, ``Repairs`` reads what is
        missing."""
        channel, first, end = self.channels.get(name), batch.first, batch.end
        if channel is None:
            state = ChannelState(Position(epoch, first - 1))
            channel = self.channels.add(name, state, self.channels.shares.owner_of_new(name))
        elif first != channel.head + 1 or epoch != channel.epoch:
            if epoch != channel.epoch or first > channel.head + 1:
                self._repairs.hold(channel, epoch, batch)
                return
            if end - 1 <= channel.head:
                return
            first = channel.head + 1
            batch = batch.part(first, end)
        channel.head = end - 1
        count = end - first
        if not self._id_prefix or batch.publisher.startswith(self._id_prefix):  # by a client of this node
            channel.stats.published += count
            for observer in self.observers:
                observer.published(name, epoch, batch)
        if channel not in self._unflushed:
            self._unflushed[channel] = None
            if not self.is_handling_input:  # else ``end_input`` decides
                self.scheduler.request_turn()
        channel.pending.append(batch)
        self._unflushed_bytes += batch.payloads.size + FRAME_COST * count
        if self._unflushed_bytes >= CHUNK_BYTES:
            self.needs_flush = True

    def end_input(self, replies: Flushable) -> None:
        """All that was read has been handled; ``replies`` may be waiting to be written. They leave together with the
        events, right before them: if a client's machine goes to sleep between the two, waking it costs most. That is at
        the end of the turn, because other clients may publish in it too, or now if the server is idle."""
        self.is_handling_input = False
        if not (self._unflushed or self._catching_up):
            replies.flush()
            return
        if replies.chunks:
            self._reply_writers[replies] = None
            if len(self._reply_writers) > MAX_PENDING_REPLY_WRITERS:
                self._flush_replies()
        if self.scheduler.is_turn_requested:
            return
        if self._catching_up or self.clock() - self._flushed_at < IDLE_FLUSH_AFTER_SECONDS:
            self.scheduler.request_turn()
        else:
            self.flush()

    def _request_turn(self) -> None:
        if not self.is_handling_input:  # else ``end_input`` decides
            self.scheduler.request_turn()

    def run_turn(self) -> None:
        """The end of a turn of the reactor: send what was published, let subscribers catch up, and do deferred work,
        each of the latter two for a time slice."""
        self.scheduler.is_turn_requested = False
        start = self.clock()
        try:
            self.flush()
            if self._catching_up:
                self._catch_up()
            if self.scheduler.deferred:
                self.scheduler.run_deferred()
        finally:
            self.stats.count_turn(self.clock() - start)
            if self._catching_up or self.scheduler.deferred:
                self._request_turn()

    def flush(self, is_complete: bool = False) -> None:
        """Write replies, then send all events that wait. A channel for which sending the presence changes that precede
        its events takes longer than a time slice is left for the next turn, except if this flush ``is_complete`` or
        more than a chunk waits."""
        self._flush_replies()
        is_complete, self.needs_flush = is_complete or self.needs_flush, False
        if not self._unflushed:
            self._unflushed_bytes = 0
            return
        start = self.clock()
        channels, self._unflushed = list(self._unflushed), {}
        if not is_complete and any([channel.undelivered and channel.has_presence_changes for channel in channels]):
            channels = self._send_changes_first(channels)
        if not self._unflushed:
            self._unflushed_bytes = 0
        if len(channels) == 1:
            channel = channels[0]
            channel.deliver(self.histories.prepare_delivery(channel, start))
        elif channels:
            # A subscriber of several channels gets all their events in one send, which saves far more than gathering
            # them costs. Nothing may be sent meanwhile: some encoders report with each event what was sent before it.
            gathered: GatheredChunks = defaultdict(list)
            written = [(channel, self.histories.prepare_delivery(channel, start)) for channel in channels]
            for channel, batches in written:
                channel.deliver(batches, gathered)
            for subscriber, due in gathered.items():
                send_gathered(subscriber, due)
        for channel in channels:
            if not channel.subscriptions:
                self.channels.close_if_unused(channel)
        if channels:
            self._flushed_at = self.clock()
            self.stats.flushes.observe(self._flushed_at - start)

    def _flush_replies(self) -> None:
        """Before events are sent, because clients expect the reply to a publish before their own copy of the event."""
        if self._reply_writers:
            reply_writers, self._reply_writers = self._reply_writers, {}
            for replies in reply_writers:
                replies.flush()

    # Presence: the members of a channel on all nodes, and their changes.

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        """Called by the backplane. Watchers are sent the change after this turn."""
        channel = self.channels.get(name)
        if channel is not None and channel.watchers:
            if channel.pending:
                self.histories.update(channel)  # these events come before the change
            channel.add_presence_change(change)
            self._changed[channel] = None
            self.scheduler.defer(self._send_changes)

    def _send_changes(self) -> None:
        """Send presence changes for a time slice, each channel in its turn."""
        if self.scheduler.is_running_calls:  # sessions are being closed: wait until all members have left
            self.scheduler.defer(self._send_changes)
            return
        self._flush_replies()
        time_slice = self.scheduler.time_slice()
        while self._changed:
            channel = next(iter(self._changed))
            del self._changed[channel]
            if channel.pending or channel.has_undelivered_events:
                self.flush()  # this sends the changes too, or continues with them in the next turn
            elif not channel.send_changes(time_slice.is_over):
                self._changed[channel] = None
            if time_slice.is_over():
                break
        if self._changed:
            self.scheduler.defer(self._send_changes)

    def _send_changes_first(self, channels: list[Channel]) -> list[Channel]:
        """Send the presence changes that precede the events of some channels. Returns the channels whose events can be
        delivered; the remaining ones wait for the next turn."""
        ready: list[Channel] = []
        time_slice = self.scheduler.time_slice()
        for channel in channels:
            if channel.has_presence_changes:
                self.histories.update(channel)
            if channel.send_changes_before_events(time_slice.is_over):
                ready.append(channel)
            else:
                self._unflushed[channel] = None
                self._request_turn()
        return ready

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        """The members of a channel on all nodes."""
        error = check_channel(channel)
        if error is not None:
            return error
        return self.backplane.members(channel)

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None:
        """Called by a backplane that ``counts_members``, on one of its nodes for each change: ``members`` is the number
        on all nodes."""
        for observer in self.observers:
            if change.joined:
                observer.joined(name, change.member, members)
            else:
                observer.left(name, change.member, members)

    def _observers_here(self, channel: bytes) -> Sequence[PresenceObserver]:
        """The observers of a subscription on this node."""
        if self._counts_members and not is_reserved(channel):
            return self.presence_observers
        return (*self.observers, *self.presence_observers)

    def local_members(self, name: bytes) -> list[Member]:
        """The members of a channel on this node."""
        channel = self.channels.get(name)
        return channel.members() if channel is not None else []

    # Subscriptions.

    def subscribe(self, channel: Channel, subscription: Subscription) -> None:
        """Add a subscription. It gets the events that are published from now on."""
        client = subscription.subscriber.client
        self.subscription_shares.add(subscription.principal, 1)
        channel.subscriptions[client.id] = subscription  # first, so that the channel is not closed as unused
        self.backplane.join(channel.name, client.member())
        self.histories.update(channel)
        channel.add_subscription(subscription)
        for observer in self._observers_here(channel.name):
            observer.joined(channel.name, client.member(), len(channel.subscriptions))

    def change_options(
        self, subscription: Subscription, echo: bool, presence: bool, encoder: EventEncoder | None = None
    ) -> None:
        """The subscription keeps its position in the channel, and no presence change is reported."""
        channel = self.channels[subscription.channel.name]
        self.histories.update(channel)
        channel.send_undelivered(subscription)
        channel.change_options(subscription, echo, presence, encoder)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription. The channel is closed if it has nothing else."""
        channel, client = self.channels[subscription.channel.name], subscription.subscriber.client
        del channel.subscriptions[client.id]
        self.subscription_shares.add(subscription.principal, -1)
        if subscription.principal == channel.owner:
            self.channels.shares.give_to_subscriber(channel)
        channel.remove_subscription(subscription)
        subscription.subscriber.clear_behind(subscription)
        subscription.pop_missed()
        self.backplane.leave(channel.name, client.member())
        for observer in self._observers_here(channel.name):
            observer.left(channel.name, client.member(), len(channel.subscriptions))
        self.channels.close_if_unused(channel)

    def member_renamed(self, subscription: Subscription) -> None:
        """The client of a subscription has another nick."""
        self.backplane.rename(subscription.channel.name, subscription.subscriber.client.member())

    def send_undelivered(self, subscription: Subscription) -> None:
        """Send one subscription the events that wait for it now, so that it gets them before whatever is sent to it
        next."""
        channel = self.channels[subscription.channel.name]
        if channel.pending:
            self.histories.update(channel)
        # Presence changes alone can wait: clients that leave together need not learn that from each other.
        if channel.has_undelivered_events:
            channel.send_undelivered(subscription)

    def resume(self, subscriber: Subscriber) -> None:
        """The subscriber's socket accepts data again, or it has asked for old events: let it catch up in the next
        turn."""
        if subscriber.behind:
            self._catching_up[subscriber] = None
            self._request_turn()

    def remove_subscriber(self, subscriber: Subscriber) -> None:
        self._catching_up.pop(subscriber, None)

    def _catch_up(self) -> None:
        """Send subscribers that are behind a chunk each, for a time slice."""
        time_slice = self.scheduler.time_slice()
        waiting, self._catching_up = self._catching_up, OrderedDict()
        cache: CatchUpCache = {}
        try:
            while waiting:
                subscriber, _ = waiting.popitem(last=False)
                if subscriber.catch_up(cache, self._older):
                    self._catching_up[subscriber] = None
                if time_slice.is_over():
                    break
        finally:
            if waiting:  # those that had no turn are the first in the next one
                self._catching_up = waiting | self._catching_up

    # Gaps and epochs.

    def deliver_after_loss(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        """Like ``deliver`` for a batch of the channel's epoch, but what is missing before it is lost. A history has no
        gaps, so it starts again behind that."""
        channel = self.channels[name]
        if batch.first > channel.head + 1:
            channel.uses += 1  # it can have nothing else until the batch is delivered
            self.skip_to(channel, batch.first - 1, batch.time)
            channel.uses -= 1
        self.deliver(name, epoch, batch)

    def skip_to(self, channel: Channel, offset: int, time: int) -> None:
        """The events up to this offset, the last of them published at ``time`` or before, are lost. A channel that
        has nothing else now is closed by ``expire_histories``, because an event may be about to be delivered."""
        lost, size = Lost(channel.head + 1, offset), self._finish_delivery(channel)
        channel.skip(lost, time)
        channel.head = offset
        self.histories.account(channel, size)
        self.report_gap(channel.name, lost)

    def reset(self, name: bytes, state: ChannelState) -> None:
        """Called by the backplane when a channel has a new epoch: its subscribers are notified, and get the events of
        that epoch. Newer events of the same epoch are delivered."""
        channel = self.channels.get(name)
        if channel is None:
            return
        if state.position.epoch == channel.epoch:
            for batch in state.tail:
                self.deliver(name, channel.epoch, batch)
            if channel.head < state.position.offset:
                self._repairs.read_newer(channel, state)
            return
        channel.uses += 1  # its history can be emptied, if all are too large together
        size = self._finish_delivery(channel)
        channel.restart(state)
        self.histories.account(channel, size)
        self.channels.load(channel, state)
        channel.uses -= 1
        self.report_gap(name, None)
        self._repairs.epoch_changed(name)
        for subscription in channel.subscriptions.values():
            self.resume(subscription.subscriber)

    def _finish_delivery(self, channel: Channel) -> int:
        """Send all that waits in a channel to its groups, so that all subscriptions are in their groups or behind.
        Returns the size of the history."""
        self._flush_replies()
        channel.deliver(self.histories.prepare_delivery(channel, self.clock()))
        channel.send_changes()
        self._unflushed.pop(channel, None)  # the next event adds it again
        return channel.history.size

    def run_command(self, command: NodeCommand) -> None:
        """Called by the backplane with a command of another node."""
        self.handle_command(command)

    def expire_histories(self) -> None:
        """Drop the events that are too old. Call this every few seconds: nothing else does it for channels that are not
        used. If there are many channels, it continues in the next turns."""
        if not self._is_expiring:
            self._is_expiring = True
            self.scheduler.run_steps(self.histories.expire_all(list(self.channels.values())), self._expired)

    def _expired(self) -> None:
        self._is_expiring = False
