"""Observers: Python objects that receive the events and subscriptions of all channels."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.bridge.values import BridgeEvent, BridgeMember, member_of
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.values import Batch, Member
from twistedsock.session.context import ServerContext

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
    need. They are called in the next turn of the reactor, and must be quick: nothing limits the events that wait for
    an observer."""

    def published(self, event: BridgeEvent) -> object:
        """An event was published."""

    def joined(self, channel: str, member: BridgeMember, subscribers: int) -> object:
        """A client has subscribed. The channel has so many subscribers then."""

    def left(self, channel: str, member: BridgeMember, subscribers: int) -> object:
        """A subscription has ended. The channel has so many subscribers then."""


class BridgeObservation:
    """Calls an observer in the turn after the event. ``stop`` ends it."""

    def __init__(self, context: ServerContext, observer: BridgeObserver) -> None:
        self._context = context
        self._observer = observer
        self._calls: deque[Callable[[], object]] = deque()
        self._failures = CallbackLog(context.broker.clock, f"the observer {observer!r}")
        context.broker.observers.append(self)

    def stop(self) -> None:
        """Call the observer no more."""
        with suppress(ValueError):
            self._context.broker.observers.remove(self)
        self._calls.clear()

    # Called by the broker.

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        if not is_reserved(channel):
            self._add(partial(self._report_events, channel.decode(), epoch, batch))

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        self._add_change(self._observer.joined, channel, member, readers)

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        self._add_change(self._observer.left, channel, member, readers)

    def _add_change(
        self, report: Callable[[str, BridgeMember, int], object], channel: bytes, member: Member, readers: int
    ) -> None:
        if not is_reserved(channel):
            self._add(partial(self._call, partial(report, channel.decode(), member_of(member), readers)))

    def _add(self, call: Callable[[], object]) -> None:
        self._calls.append(call)
        self._context.broker.scheduler.defer(self._run)

    def _run(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _report_events(self, channel: str, epoch: bytes, batch: Batch) -> None:
        for event in batch.events():
            self._call(partial(self._observer.published, BridgeEvent(channel, epoch, event)))

    def _call(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            self._failures.failed(Failure())
