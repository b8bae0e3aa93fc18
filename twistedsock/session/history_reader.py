"""Reads parts of histories: from the memory of this node and, what that has dropped, from the backplane.

The backplane is asked for a chunk when the client needs it: so one chunk of each request is in memory, however much the
backplane has, and however slowly the client reads.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from twistedsock.errors import Error
from twistedsock.limits.principal import Principal
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import Steps, wait_for
from twistedsock.pubsub.subscription import following
from twistedsock.pubsub.values import Batch, Lost, Position, cost
from twistedsock.session.encoder import HistoryItem
from twistedsock.session.history_query import Bound, HistoryQuery, Moment, find_range, resolve

if TYPE_CHECKING:
    from twistedsock.pubsub.broker import Broker
    from twistedsock.pubsub.channel import Channel


class HistoryPart(msgspec.Struct, frozen=True):
    """The offsets from ``start`` to before ``stop``, which are available, and before them the requested events that are
    ``lost``. ``events`` reads them as far as it is advanced. It yields a future when the next events are being read,
    and ``Lost`` for events that are dropped meanwhile or cannot be read."""

    start: int
    stop: int
    lost: Lost | None
    events: Iterator[HistoryItem]


def read_memory(channel: "Channel", query: HistoryQuery, now: float) -> HistoryPart:
    """The part of a history that is requested, as far as this node has it in memory."""
    history = channel.history
    asked = find_range(history, query, now)
    return HistoryPart(asked.start, asked.stop, asked.lost, history.events(asked.start, asked.stop))


def read_part(
    broker: "Broker", channel: "Channel", query: HistoryQuery, now: float, principal: Principal
) -> Steps[HistoryPart | Error]:
    """The part of a history that is requested, also if only the backplane has it. Without any bound, these are the
    events in memory. The channel may be closed meanwhile. What is read counts for ``principal``.

    ``lost`` is as in ``find_range``, and also names what could not be read. An error means that the backplane could not
    find a time."""
    query = resolve(query, now)
    if not broker.reads_older or query.is_unlimited or query.is_empty:
        return read_memory(channel, query, now)
    history, reader = channel.history, _Reader(broker, channel, principal)
    end = history.end
    stop = yield from reader.find_stop(query.before)
    if isinstance(stop, Error):
        return stop
    starts = [] if query.since is None else [query.since + 1]
    if query.after is not None:
        after = yield from reader.find_start(query.after)
        if isinstance(after, Error):
            return after
        starts.append(after)
    start = max(starts, default=history.origin)
    if stop is not None:
        stop = min(stop, end)
        if query.last is not None:
            start = max(start, stop - query.last)
        if start >= min(stop, history.first):
            return HistoryPart(max(start, history.first), stop, None, reader.events(start, stop))
    batches = yield from reader.read(start)
    has_failed = isinstance(batches, Error)
    batches = () if isinstance(batches, Error) else batches
    available = min([history.first, *(batch.first for batch in batches[:1])])
    if stop is None:  # none of the events that are kept is so old
        stop = min(available, end)
    is_incomplete = start < min(available, stop) and (starts or has_failed)
    lost = Lost(start, min(available, stop) - 1) if is_incomplete else None
    start = max(start, available)
    return HistoryPart(start, stop, lost, reader.events(start, stop, batches))


class _Reader:
    """Of one request. The history and the epoch are those at its beginning."""

    def __init__(self, broker: "Broker", channel: "Channel", principal: Principal) -> None:
        self._reads = broker.reads
        self._budget = broker.memory_budget
        self._principal = principal
        self._name = channel.name
        self._epoch = channel.epoch
        self._history = channel.history

    def find_start(self, after: Bound) -> Steps[int | Error]:
        """The offset of the first event that may have been published after a bound."""
        if not isinstance(after, Moment):
            return after + 1
        time, history = after.milliseconds, self._history
        if not history.may_have_dropped_after(time):
            return history.start_after(time)
        found = yield from self._offset_before(time + 1)
        return found if isinstance(found, Error) else found + 1 if found else history.origin

    def find_stop(self, before: Bound | None) -> Steps[int | Error | None]:
        """The offset of the first event that was published at a bound or later. None if all events that are kept
        were."""
        if before is None:
            return self._history.end
        if not isinstance(before, Moment):
            return max(1, before)
        time, history = before.milliseconds, self._history
        if not history.may_have_dropped_since(time):
            return history.first_since(time)
        found = yield from self._offset_before(time)
        return found if isinstance(found, Error) else found + 1 if found else None

    def _offset_before(self, time: int) -> Steps[int | Error]:
        return (yield from wait_for(self._reads.offset_before(self._name, self._epoch, time)))

    def read(self, start: int) -> Steps[Sequence[Batch] | Error]:
        """The events from an offset on that the backplane returns at once."""
        answer = self._reads.read(self._name, Position(self._epoch, start - 1), CHUNK_BYTES)
        return (yield from wait_for(answer))

    def events(self, start: int, stop: int, batches: Sequence[Batch] = ()) -> Iterator[HistoryItem]:
        """The events from ``start`` on and before ``stop``. ``batches`` are the first ones, if they have been read."""
        history = self._history
        while start < stop:
            if start >= history.first:
                batches = history.read(start, CHUNK_BYTES, stop)
            elif not batches:
                answer = yield from self.read(start)
                batches = () if isinstance(answer, Error) else answer
            found = following(batches, start, stop)
            if found:
                yield from self._counted(found)
                start = found[-1].end
            else:
                available = min([history.first, stop, *(batch.first for batch in batches[:1] if batch.first > start)])
                yield Lost(start, available - 1)
                start = available
            batches = ()

    def _counted(self, batches: Sequence[Batch]) -> Iterator[HistoryItem]:
        """Events of batches, which count as memory until they have been sent."""
        held = sum(map(cost, batches))
        self._budget.add(held, self._principal)
        try:
            for batch in batches:
                yield from batch.events()
        finally:
            self._budget.add(-held, self._principal)
