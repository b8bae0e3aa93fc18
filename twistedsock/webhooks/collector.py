"""One webhook without its reactor: looks on at the channels, and queues what its receiver is to be told."""

from collections.abc import Callable

import msgspec

from twistedsock.limits.principal import Principal
from twistedsock.pubsub.values import Batch as Published
from twistedsock.pubsub.values import Member
from twistedsock.webhooks.config import Matching, WebhookTarget
from twistedsock.webhooks.payload import SIGNATURE, sign, write_body, write_change, write_dropped, write_published
from twistedsock.webhooks.presence import Change, Presence
from twistedsock.webhooks.queue import BATCH_BYTES, ENTRY_COST, Batch, Queue


class Figures(msgspec.Struct):
    """``queued`` events and bytes wait now, those under way included. The others count since the start: events that
    were delivered and dropped, attempts that failed. ``last_status`` is that of the last answer, 0 before the first
    and where an attempt was not answered."""

    queued: int = 0
    queued_bytes: int = 0
    delivered: int = 0
    dropped: int = 0
    failed: int = 0
    last_status: int = 0


class EventCollector:
    """An Observer of the broker. ``clock`` never goes back, ``wall_clock`` gives seconds since 1970. ``wake`` is called
    whenever something was queued, or is going to be when time has passed. ``owner_of`` gives the principal that a
    channel counts for: a queue that is full loses events of the one that has most in it."""

    def __init__(
        self,
        target: WebhookTarget,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        draw_id: Callable[[], str],
        wake: Callable[[], None],
        owner_of: Callable[[bytes], Principal],
    ) -> None:
        self.figures = Figures()
        self._clock = clock
        self._wall_clock = wall_clock
        self._draw_id = draw_id
        self._wake = wake
        self._owner_of = owner_of
        self._since = 0.0
        self._hastens = False
        table = target.table
        self.queue = Queue(table.queue_events, table.queue_bytes)
        self._presence = Presence(self._changed, table.debounce, table.queue_events)
        self.use(target)

    def use(self, target: WebhookTarget) -> None:
        """Do by other words from now on; what is queued stays."""
        self.target = target
        self.table = table = target.table
        self._matches = Matching(table)
        self._wanted = frozenset(table.events)
        self._wants_occupancy = bool(self._wanted & {"channel-occupied", "channel-vacated"})
        self._wants_members = bool(self._wanted & {"member-joined", "member-left"})
        self._wants_events = "event-published" in self._wanted
        self._presence.keep(self._matches if self._wants_members else lambda channel: False)
        self._presence.most = table.queue_events
        self._presence.debounce = 0.0 if self._hastens else table.debounce
        self.queue.most_events, self.queue.most_bytes = table.queue_events, table.queue_bytes
        self.queue.shrink()

    # What the broker tells.

    def published(self, channel: bytes, epoch: bytes, batch: Published) -> None:
        if self._wants_events and self._matches(channel):
            time, owner = self._wall_clock(), self._owner_of(channel)
            for event in write_published(channel, epoch, batch, time):
                self._queue(event, time, owner)
            self._wake()

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        if not self._matches(channel):
            return
        now, time, owner = self._clock(), self._wall_clock(), self._owner_of(channel)
        self._presence.ripen(now)
        if self._wants_occupancy and readers == 1:
            self._presence.occupied(channel, now, time, owner)
        if self._wants_members:
            self._presence.joined(channel, member, now, time, owner)
        self._wake()

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        if not self._matches(channel):
            return
        now, time, owner = self._clock(), self._wall_clock(), self._owner_of(channel)
        self._presence.ripen(now)
        if self._wants_members:
            self._presence.left(channel, member, now, time, owner)
        if self._wants_occupancy and readers == 0:
            self._presence.vacated(channel, now, time, owner)
        self._wake()

    # What the delivery asks.

    def due(self) -> float | None:
        """When there is something to do, by the clock that never goes back; None while there is nothing."""
        ripe = self._presence.due()
        if not self.queue:
            return ripe
        if self._hastens or self._is_full():
            return self._clock()
        soon = self._since + self.table.delay
        return soon if ripe is None else min(soon, ripe)

    def take(self) -> Batch | None:
        """What is to be delivered now; None if nothing is."""
        now = self._clock()
        self._presence.ripen(now)
        if not self.queue or not (self._hastens or self._is_full() or now >= self._since + self.table.delay):
            return None
        batch = self.queue.take(self._draw_id(), self.table.batch_events)
        self._since = now
        return batch

    def write(self, batch: Batch) -> tuple[bytes, dict[str, str]]:
        """The body of an attempt, and its own headers."""
        now = self._wall_clock()
        told = [write_dropped(batch.dropped, batch.dropped_since, now)] if batch.dropped else []
        body = write_body(self.table.title, batch.id, now, [*told, *batch.events])
        return body, {"Sockbridge-Delivery": batch.id, SIGNATURE: sign(self.target.secret, body)}

    def hasten(self) -> None:
        """The end is near: nothing waits for anything any longer."""
        self._hastens = True
        self._presence.tell_all()

    def _is_full(self) -> bool:
        return (
            len(self.queue) >= self.table.batch_events or self.queue.bytes - ENTRY_COST * len(self.queue) >= BATCH_BYTES
        )

    def _changed(self, change: Change) -> None:
        if change.kind in self._wanted and self._matches(change.channel):
            self._queue(write_change(change), change.time, change.owner)

    def _queue(self, event: bytes, time: float, owner: Principal) -> None:
        if not self.queue:
            self._since = self._clock()
        self.queue.add(event, time, owner)
