"""Observers: Python objects that receive the events and subscriptions of all channels."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.bridge.values import BridgeEvent, BridgeMember, member_of
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.values import Batch, Member
from twistedsock.session.context import ServerContext

MAX_WAITING_CALLS = 10_000
"""Calls of one observer that wait: as many events as the queue of a webhook holds by default."""

MAX_WAITING_BYTES = 8 * 1024 * 1024
"""Payloads of these calls, which may have been dropped from the histories already."""

FAILURE_LOG_SECONDS = 60.0
"""Seconds for which further exceptions of the same callback are not logged. A callback can fail for every event."""


class CallbackLog:
    """Logs the exceptions of a callback, each minute the first one."""

    _log = Logger()

    def __init__(self, clock: Callable[[], float], what: str) -> None:
        self._clock = clock
        self._what = what
        self._logged_at: float | None = None

    def failed(self, failure: Failure) -> None:
        now = self._clock()
        if self._logged_at is None or now >= self._logged_at + FAILURE_LOG_SECONDS:
            self._logged_at = now
            self._log.failure(
                "{what} failed; further failures are not logged for {seconds:.0f} s",
                failure,
                what=self._what,
                seconds=FAILURE_LOG_SECONDS,
            )


class BridgeObserver:
    """Receives what happens in all channels of this server except its own, ``$sys/…``. Override the methods that you
    need. They are called in the next turn of the reactor, or in later ones if there is much to report, and must be
    quick: if more than ``MAX_WAITING_CALLS`` or ``MAX_WAITING_BYTES`` wait, all further calls are left out until the
    observer has caught up."""

    _log = Logger()

    def published(self, event: BridgeEvent) -> object:
        """An event was published."""

    def joined(self, channel: str, member: BridgeMember, subscribers: int) -> object:
        """A client has subscribed. The channel has so many subscribers then."""

    def left(self, channel: str, member: BridgeMember, subscribers: int) -> object:
        """A subscription has ended. The channel has so many subscribers then."""

    def missed(self, calls: int) -> None:
        """So many calls of the other methods were left out here. By default, a warning is logged."""
        self._log.warn("the observer {observer!r} is too slow: it has missed {calls} calls", observer=self, calls=calls)


class BridgeObservation:
    """Calls an observer after the event, in time slices. ``stop`` ends it."""

    def __init__(self, context: ServerContext, observer: BridgeObserver) -> None:
        self._context = context
        self._observer = observer
        self._waiting: deque[tuple[Iterable[Callable[[], object]], int, int]] = deque()
        """Calls, their number, and the bytes of their payloads."""
        self._waiting_calls = self._waiting_bytes = 0
        self._missed_calls = 0
        self._current: Iterator[Callable[[], object]] = iter(())
        self._failures = CallbackLog(context.broker.clock, f"the observer {observer!r}")
        context.broker.observers.append(self)

    def stop(self) -> None:
        """Call the observer no more."""
        with suppress(ValueError):
            self._context.broker.observers.remove(self)
        self._waiting.clear()
        self._waiting_calls = self._waiting_bytes = self._missed_calls = 0
        self._current = iter(())

    # Called by the broker.

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        if not is_reserved(channel):
            self._add(self._calls_for_events(channel.decode(), epoch, batch), len(batch), batch.payloads.size)

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        self._add_change(self._observer.joined, channel, member, readers)

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        self._add_change(self._observer.left, channel, member, readers)

    def _add_change(
        self, report: Callable[[str, BridgeMember, int], object], channel: bytes, member: Member, readers: int
    ) -> None:
        if not is_reserved(channel):
            self._add([partial(report, channel.decode(), member_of(member), readers)], 1, 0)

    def _calls_for_events(self, channel: str, epoch: bytes, batch: Batch) -> Iterator[Callable[[], object]]:
        for event in batch.events():
            yield partial(self._observer.published, BridgeEvent(channel, epoch, event))

    def _add(self, calls: Iterable[Callable[[], object]], count: int, size: int) -> None:
        if self._missed_calls or self._is_full(count, size):
            self._missed_calls += count
        else:
            self._waiting.append((calls, count, size))
            self._waiting_calls += count
            self._waiting_bytes += size
        self._context.broker.scheduler.defer(self._run)

    def _is_full(self, count: int, size: int) -> bool:
        """True if there is no room for more. A single batch that is longer than the limits is accepted."""
        if not self._waiting_calls:
            return False
        return self._waiting_calls + count > MAX_WAITING_CALLS or self._waiting_bytes + size > MAX_WAITING_BYTES

    # Calls.

    def _run(self) -> None:
        """Make calls for a time slice."""
        scheduler = self._context.broker.scheduler
        time_slice = scheduler.time_slice()
        while (call := self._next_call()) is not None:
            try:
                call()
            except Exception:
                self._failures.failed(Failure())
            if time_slice.is_over():
                scheduler.defer(self._run)
                return

    def _next_call(self) -> Callable[[], object] | None:
        while (call := next(self._current, None)) is None:
            if self._waiting:
                calls, count, size = self._waiting.popleft()
                self._waiting_calls -= count
                self._waiting_bytes -= size
                self._current = iter(calls)
            elif self._missed_calls:
                missed, self._missed_calls = self._missed_calls, 0
                return partial(self._observer.missed, missed)
            else:
                return None
        return call
