"""Collects the events and presence changes that one webhook reports, and groups them into batches."""

from collections.abc import Callable

from twistedsock.limits.principal import Principal
from twistedsock.pubsub.values import Batch, Member
from twistedsock.webhooks.config import ChannelMatcher, WebhookTarget
from twistedsock.webhooks.payload import (
    SIGNATURE_HEADER,
    encode_body,
    encode_change,
    encode_dropped,
    encode_published,
    sign,
)
from twistedsock.webhooks.presence import Change, PresenceDebouncer
from twistedsock.webhooks.queue import ENTRY_BYTES, MAX_BATCH_BYTES, DeliveryBatch, EventQueue


class EventCollector:
    """An ``Observer`` of the broker. ``clock`` is monotonic, ``wall_clock`` returns seconds since 1970. ``wake`` is
    called when something was queued, or will be after some time. ``owner_of`` returns the principal that a channel
    counts for: if the queue is full, the principal with the most events loses some."""

    def __init__(
        self,
        target: WebhookTarget,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        generate_id: Callable[[], str],
        wake: Callable[[], None],
        owner_of: Callable[[bytes], Principal],
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._generate_id = generate_id
        self._wake = wake
        self._owner_of = owner_of
        self._queued_since = 0.0
        self._is_draining = False
        table = target.table
        self.queue = EventQueue(table.queue_events, table.queue_bytes)
        self._presence = PresenceDebouncer(self._queue_change, table.debounce, table.queue_events)
        self.reconfigure(target)

    def reconfigure(self, target: WebhookTarget) -> None:
        """Apply a new configuration. Queued events stay."""
        self.target = target
        self.table = table = target.table
        self._matches = ChannelMatcher(table)
        self._kinds = frozenset(table.events)
        self._wants_occupancy = bool(self._kinds & {"channel-occupied", "channel-vacated"})
        self._wants_members = bool(self._kinds & {"member-joined", "member-left"})
        self._wants_events = "event-published" in self._kinds
        self._presence.forget_other_channels(self._matches if self._wants_members else lambda channel: False)
        self._presence.max_pending = table.queue_events
        self._presence.debounce = 0.0 if self._is_draining else table.debounce
        self.queue.max_events, self.queue.max_bytes = table.queue_events, table.queue_bytes
        self.queue.enforce_limits()

    # Called by the broker.

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        if self._wants_events and self._matches(channel):
            time, owner = self._wall_clock(), self._owner_of(channel)
            for event in encode_published(channel, epoch, batch):
                self._queue(event, time, owner)
            self._wake()

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        if not self._matches(channel):
            return
        now, time, owner = self._clock(), self._wall_clock(), self._owner_of(channel)
        self._presence.report_due(now)
        if self._wants_occupancy and readers == 1:
            self._presence.occupied(channel, now, time, owner)
        if self._wants_members:
            self._presence.joined(channel, member, now, time, owner)
        self._wake()

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        if not self._matches(channel):
            return
        now, time, owner = self._clock(), self._wall_clock(), self._owner_of(channel)
        self._presence.report_due(now)
        if self._wants_members:
            self._presence.left(channel, member, now, time, owner)
        if self._wants_occupancy and readers == 0:
            self._presence.vacated(channel, now, time, owner)
        self._wake()

    # Called by the delivery.

    def next_due(self) -> float | None:
        """Monotonic time of the next batch. None if nothing waits."""
        presence_due = self._presence.next_due()
        if not self.queue:
            return presence_due
        if self._is_draining or self._has_full_batch():
            return self._clock()
        batch_due = self._queued_since + self.table.delay
        return batch_due if presence_due is None else min(batch_due, presence_due)

    def next_batch(self) -> DeliveryBatch | None:
        """The next batch, if it is due."""
        now = self._clock()
        self._presence.report_due(now)
        is_due = self._is_draining or self._has_full_batch() or now >= self._queued_since + self.table.delay
        if not self.queue or not is_due:
            return None
        batch = self.queue.pop_batch(self._generate_id(), self.table.batch_events)
        self._queued_since = now
        return batch

    def encode(self, batch: DeliveryBatch) -> tuple[bytes, dict[str, str]]:
        """The body of an attempt, and the headers that depend on it."""
        now = self._wall_clock()
        dropped = [encode_dropped(batch.dropped, batch.dropped_since, now)] if batch.dropped else []
        body = encode_body(self.table.title, batch.id, now, [*dropped, *batch.events])
        return body, {"Sockbridge-Delivery": batch.id, SIGNATURE_HEADER: sign(self.target.secret, body)}

    def drain(self) -> None:
        """Queue pending presence changes now, and deliver without delay from now on."""
        self._is_draining = True
        self._presence.report_all()

    def _has_full_batch(self) -> bool:
        event_bytes = self.queue.bytes - ENTRY_BYTES * len(self.queue)
        return len(self.queue) >= self.table.batch_events or event_bytes >= MAX_BATCH_BYTES

    def _queue_change(self, change: Change) -> None:
        if change.kind in self._kinds and self._matches(change.channel):
            self._queue(encode_change(change), change.time, change.owner)

    def _queue(self, event: bytes, time: float, owner: Principal) -> None:
        if not self.queue:
            self._queued_since = self._clock()
        self.queue.add(event, time, owner)
