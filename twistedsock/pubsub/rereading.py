"""Reads from the backplane what this node lacks.

``Repairs`` closes holes: a batch does not follow the newest event of its channel, or has another epoch. The batch is
held until the backplane has answered. ``OlderEvents`` serves subscriptions that are so far behind that the history has
dropped what they need. ``ReadQueue`` is for requests of histories.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.backplane import Backplane
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.scheduler import Scheduler
from twistedsock.pubsub.subscription import CatchUpCache, Subscriber, Subscription
from twistedsock.pubsub.values import Batch, ChannelState, Position, cost

T = TypeVar("T")

MAX_HELD_BYTES = 8 * 1024 * 1024
"""Cost of all batches that are held. More are not held, but read from the backplane afterwards: this happens only while
it sends quickly and answers slowly."""

MAX_READS = 32
"""Reads for slow subscriptions that wait for the backplane at a time, and as many for requests. Their answers have a
chunk each. Publications wait for as many reads at most, if the backplane does one thing after the other."""


class RepairedNode(Protocol):
    """What repairs need of the broker."""

    channels: Mapping[bytes, Channel]
    scheduler: Scheduler

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None: ...

    def deliver_after_loss(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        """Like ``deliver``, but what is missing before the batch is lost. The channel must be open."""

    def skip_to(self, channel: Channel, offset: int, time: int) -> None:
        """The events up to this offset are lost."""

    def reset(self, name: bytes, state: ChannelState) -> None: ...


class _Answer(NamedTuple):
    """To a publication, which belongs to one of the ``epochs``."""

    future: Future[int]
    outcome: int | Error
    epochs: tuple[bytes, bytes | None]


class _Repair:
    """Of one channel. ``held`` are the batches that have arrived since it began, with their epochs. ``is_truncated``
    means that there may be more, so the backplane is asked until it has nothing new. ``other_epoch`` is the epoch of
    the last event that has another one than the channel had; ``answers`` to publications wait until the channel has it.
    ``has_failed`` means that it could not be opened: the next event is another attempt. ``missing_until`` is the offset
    and the time of the newest event that is missing, if it is known although no event has arrived."""

    __slots__ = ("answers", "has_failed", "held", "is_truncated", "missing_until", "other_epoch", "size")

    def __init__(self) -> None:
        self.answers: list[_Answer] = []
        self.other_epoch: bytes | None = None
        self.has_failed = False
        self.missing_until: tuple[int, int] | None = None
        self.held: list[tuple[bytes, Batch]] = []
        self.size = 0
        self.is_truncated = False


class Repairs:
    def __init__(self, backplane: Backplane, node: RepairedNode) -> None:
        self._backplane = backplane
        self._node = node
        self.running: dict[bytes, _Repair] = {}
        self._held_bytes = 0

    def hold(self, channel: Channel, epoch: bytes, batch: Batch) -> None:
        """A batch does not follow the newest event of its channel, and is not an old one."""
        name = channel.name
        repair = self.running.get(name)
        if repair is not None and not repair.has_failed:
            self._add(repair, channel, epoch, batch)
            return
        if epoch == channel.epoch and not self._backplane.keeps_history:
            self._node.deliver_after_loss(name, epoch, batch)
            return
        repair = self._begin(name)
        self._add(repair, channel, epoch, batch)
        if epoch == channel.epoch:
            self._read(name, repair)
        else:
            self._reopen(name, repair)

    def read_newer(self, channel: Channel, state: ChannelState) -> None:
        """The backplane has events that follow the newest one of a channel."""
        if not self._backplane.keeps_history:
            self._node.skip_to(channel, state.position.offset, state.time)
        else:
            self._read_all(channel.name, (state.position.offset, state.time))

    def cancel(self, name: bytes) -> None:
        """The channel is closed. No answers wait, because each keeps it open."""
        if name in self.running:
            self._end(name)

    def epoch_changed(self, name: bytes) -> None:
        """The channel has a new epoch, which need not be the result of a repair."""
        repair = self.running.get(name)
        if repair is not None:
            if repair.has_failed:
                del self.running[name]
            repair.missing_until = None
            answers, repair.answers = repair.answers, []
            self._settle_all(name, answers)

    def _begin(self, name: bytes) -> _Repair:
        """A repair of a channel that has none, or one that has failed."""
        failed, repair = self.running.get(name), _Repair()
        if failed is not None:
            repair.other_epoch = failed.other_epoch
        self.running[name] = repair
        return repair

    def _end(self, name: bytes) -> None:
        self._held_bytes -= self.running.pop(name).size

    def _add(self, repair: _Repair, channel: Channel, epoch: bytes, batch: Batch) -> None:
        if epoch != channel.epoch:
            repair.other_epoch = epoch
        size = cost(batch)
        if repair.is_truncated or self._held_bytes + size > MAX_HELD_BYTES:
            repair.is_truncated = True
            return
        repair.held.append((epoch, batch))
        repair.size += size
        self._held_bytes += size

    def _reopen(self, name: bytes, repair: _Repair) -> None:
        on_result(self._backplane.open(name), partial(self._reopened, name, repair))

    def _read_all(self, name: bytes, missing_until: tuple[int, int] | None = None) -> None:
        """Read until the backplane has nothing new, in the repair that is running or in another one."""
        repair = self.running.get(name)
        is_running = repair is not None and not repair.has_failed
        if repair is None or repair.has_failed:
            repair = self._begin(name)
        repair.is_truncated = True
        repair.missing_until = missing_until or repair.missing_until
        if not is_running:
            self._read(name, repair)

    def _read(self, name: bytes, repair: _Repair) -> None:
        if self.running.get(name) is repair:
            position = self._node.channels[name].position
            answer = self._backplane.read(name, position, CHUNK_BYTES)
            on_result(answer, partial(self._was_read, name, repair, position))

    def _was_read(self, name: bytes, repair: _Repair, position: Position, outcome: Sequence[Batch] | Error) -> None:
        if self.running.get(name) is not repair:
            return
        channel, is_read = self._node.channels[name], not isinstance(outcome, Error)
        if not isinstance(outcome, Error) and channel.epoch == position.epoch:
            for batch in outcome:
                self._node.deliver_after_loss(name, position.epoch, batch)
        # There may be more, unless nothing was new.
        if is_read and channel.position != position and (repair.is_truncated or _lacks(repair, channel)):
            self._node.scheduler.defer(partial(self._read, name, repair))
            return
        self._finish(name, repair)
        self._settle_all(name, repair.answers)
        if repair.missing_until is not None and name not in self.running:
            offset, time = repair.missing_until
            if channel.head < offset:
                self._node.skip_to(channel, offset, time)

    def _reopened(self, name: bytes, repair: _Repair, outcome: ChannelState | Error) -> None:
        if self.running.get(name) is not repair:
            return
        if isinstance(outcome, Error):
            self._finish(name, repair, is_reopened=True)
            following = self.running.get(name)
            if following is None:
                following = self.running[name] = _Repair()
                following.has_failed = True
            following.other_epoch = following.other_epoch or repair.other_epoch
            for future, answer, _ in repair.answers:
                future.settle(answer if isinstance(answer, Error) else UNAVAILABLE)
            return
        channel = self._node.channels[name]
        channel.uses += 1  # it can have nothing else until the batches are delivered
        # First only what precedes the batches that are held: these are delivered like all others.
        self._node.reset(name, _before_held(outcome, repair))
        self._finish(name, repair, is_reopened=True)
        self._node.reset(name, outcome)
        if repair.is_truncated:
            self._read_all(name)
        self._settle_all(name, repair.answers)
        channel.uses -= 1

    def _finish(self, name: bytes, repair: _Repair, is_reopened: bool = False) -> None:
        """Deliver what was held. What is still missing before it is lost, unless it was not read because the channel
        ``is_reopened``."""
        self._end(name)
        channel = self._node.channels[name]
        for number, (epoch, batch) in enumerate(repair.held):
            if epoch == channel.epoch and not number and not is_reopened:
                self._node.deliver_after_loss(name, epoch, batch)
            elif epoch == channel.epoch or not is_reopened:  # a second hole is repaired like the first
                self._node.deliver(name, epoch, batch)
            # Otherwise it arrived late: the channel has moved on.
        if repair.other_epoch not in (None, channel.epoch) and not is_reopened and name not in self.running:
            following = self._begin(name)  # the event of the other epoch was not held
            following.other_epoch = repair.other_epoch
            self._reopen(name, following)

    def hold_answer(self, channel: Channel, publisher: bytes, answer: int | Error | Future[int]) -> Future[int]:
        """The answer to a publication of this client. It waits while the channel moves to a new epoch, because it can
        be an offset of that. Subscribers are sent the reset before the offset. An event that has just been delivered
        has the epoch of the channel: its answer does not wait, because it must precede the event."""
        held = Future[int]()

        def settle(outcome: int | Error) -> None:
            if channel.name in self.running and not _is_pending(channel, publisher, outcome):
                self._settle(channel.name, held, outcome)
            else:
                held.settle(outcome)

        on_result(answer, settle)
        return held

    def _settle(self, name: bytes, future: Future[int], outcome: int | Error) -> None:
        repair = self.running.get(name)
        if repair is None or repair.other_epoch in (None, self._node.channels[name].epoch):
            future.settle(outcome)
        elif repair.has_failed:
            future.settle(UNAVAILABLE)
        else:
            epochs = self._node.channels[name].epoch, repair.other_epoch
            repair.answers.append(_Answer(future, outcome, epochs))

    def _settle_all(self, name: bytes, answers: Sequence[_Answer]) -> None:
        for future, outcome, epochs in answers:
            # An epoch that has passed meanwhile cannot be named any more.
            is_known = self._node.channels[name].epoch in epochs
            self._settle(name, future, outcome if is_known else UNAVAILABLE)


def _before_held(state: ChannelState, repair: _Repair) -> ChannelState:
    """The state of a channel before the first batch of its epoch that is held."""
    epoch = state.position.epoch
    first = min([batch.first for other, batch in repair.held if other == epoch], default=state.position.offset + 1)
    if first > state.position.offset:
        return state
    tail = [batch.part(batch.first, first) for batch in state.tail if batch.first < first]
    time = state.time if state.tail and state.tail[0].first <= first else 0  # of an event that is held
    return replace(state, position=Position(epoch, first - 1), tail=tail, time=time)


def _lacks(repair: _Repair, channel: Channel) -> bool:
    """Whether events are missing between those of the channel and those that are held. Only a truncated repair holds
    none."""
    epoch, batch = repair.held[0]
    return epoch == channel.epoch and batch.first > channel.head + 1


def _is_pending(channel: Channel, publisher: bytes, outcome: int | Error) -> bool:
    """Whether the event of an answer has been delivered in this turn. Most likely it is the newest one."""
    return any(batch.first == outcome and batch.publisher == publisher for batch in reversed(channel.pending))


_Place = tuple[bytes, bytes, int]
"""A channel, an epoch and an offset."""


class OlderEvents:
    """``resume`` lets a subscriber catch up in the next turn. Many subscriptions can wait for the same events, for
    example after an interruption of the network: they share what is read and encoded, and are served in time slices."""

    def __init__(
        self,
        backplane: Backplane,
        scheduler: Scheduler,
        resume: Callable[[Subscriber], None],
        flush_replies: Callable[[], None],
    ) -> None:
        self._backplane = backplane
        self._scheduler = scheduler
        self._resume = resume
        self._flush_replies = flush_replies
        # By channel, epoch and cursor: the subscriptions that wait for the events from there on.
        self._waiting: OrderedDict[_Place, OrderedDict[Subscription, None]] = OrderedDict()
        # Those whose events are being read, or sent.
        self._reading: dict[_Place, OrderedDict[Subscription, None]] = {}
        self._is_starting = False

    def read_for(self, subscription: Subscription) -> None:
        """Send a subscription that is behind what its history has dropped, a chunk, as soon as the backplane answers.
        What the backplane has dropped too is reported as lost. The subscriber must be resumed when its socket accepts
        data again, as for other events."""
        key = (subscription.channel.name, subscription.channel.epoch, subscription.cursor)
        waiting = self._reading.get(key)
        if waiting is None:
            waiting = self._waiting.setdefault(key, OrderedDict())
        waiting[subscription] = None
        self._start_reads()

    def _start_reads(self) -> None:
        if self._is_starting:  # an answer was there at once
            return
        self._is_starting = True
        try:
            while self._waiting and len(self._reading) < MAX_READS:
                key, waiting = self._waiting.popitem(last=False)
                self._reading[key] = waiting
                name, epoch, cursor = key
                answer = self._backplane.read(name, Position(epoch, cursor - 1), CHUNK_BYTES)
                on_result(answer, partial(self._was_read, key))
        finally:
            self._is_starting = False

    def _was_read(self, key: _Place, outcome: Sequence[Batch] | Error) -> None:
        batches = () if isinstance(outcome, Error) else outcome
        self._scheduler.run_steps(self._send(key, batches), partial(self._end, key))

    def _send(self, key: _Place, batches: Sequence[Batch]) -> Iterator[None]:
        (_, epoch, cursor), waiting, cache = key, self._reading[key], CatchUpCache()
        while waiting:
            subscription, _ = waiting.popitem(last=False)
            subscriber = subscription.subscriber
            self._flush_replies()  # they name the newest offset at an earlier time
            still_waits = subscription in subscriber.behind and subscription.cursor == cursor
            if still_waits and subscription.channel.epoch == epoch and not subscriber.outlet.blocked:
                if subscriber.send_older(subscription, batches, cache):
                    self._resume(subscriber)
            elif subscriber.behind:
                self._resume(subscriber)
            yield

    def _end(self, key: _Place) -> None:
        del self._reading[key]
        self._start_reads()


class ReadQueue:
    """Asks the backplane for what requests need, a limited number of them at a time."""

    def __init__(self, backplane: Backplane) -> None:
        self._backplane = backplane
        self._running = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_starting = False

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch] | Error | Future[Sequence[Batch]]:
        """``Backplane.read``"""
        return self._ask(lambda: self._backplane.read(channel, after, limit))

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int | Error | Future[int]:
        """``Backplane.offset_before``"""
        return self._ask(lambda: self._backplane.offset_before(channel, epoch, time))

    def _ask(self, call: Callable[[], T | Error | Future[T]]) -> T | Error | Future[T]:
        if self._running < MAX_READS:
            return self._run(call)
        answer = Future[T]()
        self._waiting.append(lambda: on_result(self._run(call), answer.settle))
        return answer

    def _run(self, call: Callable[[], T | Error | Future[T]]) -> T | Error | Future[T]:
        answer = call()
        self._running += 1
        on_result(answer, self._ended)
        return answer

    def _ended(self, outcome: object) -> None:
        self._running -= 1
        if self._is_starting:  # an answer was there at once
            return
        self._is_starting = True
        try:
            while self._waiting and self._running < MAX_READS:
                self._waiting.popleft()()
        finally:
            self._is_starting = False
