"""Subscriptions of the server's own process, which call Python functions.

A subscription has a session of its own, like a client that is connected, and so the same histories, limits and order of
events. Its callbacks are called in time slices. While a callback waits for a Deferred, its subscription is a slow
client: it keeps a cursor, and the events stay in the history.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from inspect import iscoroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.bridge.observers import CallbackLog
from twistedsock.bridge.values import BridgeError, BridgeEvent, BridgePosition, exception_of, position_of
from twistedsock.codecs import json_decoder
from twistedsock.codecs.native import (
    NATIVE_ENCODER,
    EventsRecord,
    LostRecord,
    NativeRecord,
    RefusedRecord,
    ResetRecord,
    SubscribedRecord,
    read_records,
)
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import SOCKET_FULL, DrainListener
from twistedsock.pubsub.values import Position
from twistedsock.server.connection import open_session
from twistedsock.session.commands import Command
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.session import SessionState
from twistedsock.stats import TcpStats

CLIENT_ADDRESS = b"unix:-"
"""The address of this process, as lists of connections show it: that of a client on this machine."""

SHUTTING_DOWN = Error(ErrorCode.UNAVAILABLE, "server is shutting down: try again later")

EventCallback = Callable[[BridgeEvent], object]
"""Called with each event. If it returns a Deferred or a coroutine, the next event waits for that."""

LostCallback = Callable[[int, int], object]
"""Called with the first and the last offset of events that the subscription does not receive."""

ResetCallback = Callable[[BridgePosition, int], object]
"""Called if the channel has another epoch. The subscription continues after the position. Events of the former epoch
are valid up to the offset in the second argument; 0 if none is known to be."""


class BridgeOutlet:
    """The outlet of a subscription: keeps what the session writes until the callbacks have been called. Like a socket,
    it accepts about one chunk. ``wake`` is called when it has data."""

    def __init__(self, context: ServerContext, wake: Callable[[], object]) -> None:
        self.blocked = 0
        self.principal: Principal = LOCAL
        self.drain_listener: DrainListener | None = None
        self._budget = context.memory_budget
        self._wake = wake
        self._waiting: deque[bytes] = deque()
        self._size = self._counted_bytes = 0

    def try_write(self, data: bytes) -> bool:
        if self.blocked:
            return False
        self.write(data)
        return True

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._set_size(self._size + len(data))
        if self._size >= CHUNK_BYTES:
            self.blocked |= SOCKET_FULL
        self._wake()

    def tcp_stats(self) -> TcpStats | None:
        return None

    def records(self) -> Iterator[NativeRecord]:
        """Remove and yield all that was written. It accepts more when this iterator is exhausted."""
        while self._waiting:
            yield from read_records(self._waiting.popleft())
        self._set_size(0)
        if self.blocked & SOCKET_FULL:
            self.blocked &= ~SOCKET_FULL
            if self.drain_listener is not None:
                self.drain_listener.resume_writing()

    def discard(self) -> None:
        self._waiting.clear()
        self._set_size(0)

    def _set_size(self, size: int) -> None:
        self._size = size
        self._counted_bytes = self._budget.adjust(self._counted_bytes, size, self.principal)


class BridgeSubscription:
    """A subscription of this process. Ends with ``unsubscribe``, or when the server stops. Exceptions of callbacks are
    logged and do not end it."""

    _log = Logger()

    def __init__(
        self,
        context: ServerContext,
        channel: str,
        callback: EventCallback,
        since: BridgePosition | None,
        on_lost: LostCallback | None,
        on_reset: ResetCallback | None,
    ) -> None:
        self.channel = channel
        self.subscribed: Deferred[BridgePosition] = Deferred()
        """Fires with the position at which the subscription has begun; events before it come from the history. Fails
        with ``BridgeError`` if the server refuses the subscription."""
        self.is_active = True
        """False after ``unsubscribe``, and when the server has ended or refused the subscription."""
        self._context = context
        self._callback = callback
        self._since = since
        self._on_lost = on_lost or self._log_lost
        self._on_reset = on_reset or self._log_reset
        self._failures = CallbackLog(context.broker.clock, f"the callback for events of {channel}")
        self._outlet = BridgeOutlet(context, self._wake)
        self._pipeline: InputPipeline | None = None
        self._calls: Iterator[Callable[[], object]] = iter(())
        self._is_waiting = False
        """True while a callback waits for a Deferred."""
        self._close_reason = CloseReason.NORMAL
        self._close_message = b""

    def unsubscribe(self) -> None:
        """End the subscription. No callback is called after that."""
        self.is_active = False
        self._calls = iter(())
        self._outlet.discard()
        self._is_waiting = False
        if self._pipeline is not None:
            self._pipeline.session.finish(CloseReason.NORMAL, "unsubscribed", "peer")

    # Called by the bridge.

    def open(self, commands: list[Command], is_draining: bool) -> None:
        """Open the session, and run the commands that subscribe."""
        if not self.is_active:  # unsubscribed before the start
            return
        if is_draining:
            self.reject(exception_of(SHUTTING_DOWN))
            return
        self._pipeline = open_session(
            self._context,
            NATIVE_ENCODER,
            json_decoder,  # unused: commands are values already
            self._outlet,
            Endpoints(CLIENT_ADDRESS, CLIENT_ADDRESS),
            self,
        )
        self._pipeline.session.send_welcome()
        self._pipeline.submit(commands)

    def reject(self, error: BridgeError) -> None:
        """The server refuses the subscription."""
        self.unsubscribe()
        self.subscribed.errback(error)

    # Called by the session.

    def pause_input(self) -> None:
        """Its commands are given, not read."""

    def resume_input(self) -> None:
        """Nothing has been paused."""

    def close_connection(self, reason: CloseReason) -> None:
        self._close_reason = reason
        if reason is CloseReason.GOING_AWAY:
            self.is_active = False
            if self._is_waiting:  # the stop waits too, until its timeout, which would look like a hang otherwise
                self._log.info("stopping: waiting for the callback for events of {channel}", channel=self.channel)
        self._wake()  # the events that were sent before come first

    def _wake(self) -> None:
        if not self._is_waiting:
            self._context.broker.scheduler.defer(self._run)

    # Callbacks.

    def _run(self) -> None:
        """Call callbacks for a time slice."""
        time_slice = self._context.broker.scheduler.time_slice()
        while (call := self._next_call()) is not None:
            self._call(call)
            if self._is_waiting:
                return
            if time_slice.is_over():
                self._wake()
                return
        if self._pipeline is not None and self._pipeline.session.state is SessionState.CLOSING:
            self._end(self._pipeline)

    def _next_call(self) -> Callable[[], object] | None:
        call = next(self._calls, None)
        if call is None:
            self._calls = self._calls_for_records()
            call = next(self._calls, None)
        return call

    def _calls_for_records(self) -> Iterator[Callable[[], object]]:
        for record in self._outlet.records():
            if isinstance(record, EventsRecord):
                for event in record.batch.events():
                    yield partial(self._callback, BridgeEvent(self.channel, record.epoch, event))
            elif isinstance(record, LostRecord):
                yield partial(self._on_lost, record.first, record.last)
            elif isinstance(record, ResetRecord):
                yield partial(self._on_reset, position_of(record.position), record.good)
            elif isinstance(record, SubscribedRecord):
                if record.recovered is False and not self._is_known(record.position):
                    start = BridgePosition(record.position.epoch.decode(), record.start - 1)
                    yield partial(self._on_reset, start, 0)
                yield partial(self.subscribed.callback, position_of(record.position))
            elif isinstance(record, RefusedRecord):
                error = BridgeError(record.code.decode(), record.message)
                yield partial(self.reject, error)
            else:
                self._close_message = record.message

    def _is_known(self, position: Position) -> bool:
        """True if the position that the subscription was to continue at is one of the present epoch. Events that are
        missing after it are reported as lost."""
        since = self._since
        return since is not None and position_of(position) >= since and since.epoch == position.epoch.decode()

    def _call(self, call: Callable[[], Any]) -> None:
        try:
            result = call()
        except Exception:
            self._failures.failed(Failure())
            return
        if iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            self._is_waiting = True
            result.addErrback(self._failures.failed)
            result.addCallback(self._continue)

    def _continue(self, result: object) -> None:
        self._is_waiting = False
        self._wake()

    def _end(self, pipeline: InputPipeline) -> None:
        self._pipeline = None
        pipeline.connection_lost("cleanly")
        if self.is_active:
            self._log.warn(
                "the subscription to {channel} has ended: {reason}",
                channel=self.channel,
                reason=self._close_message.decode(),
            )
        self.is_active = False

    def _log_lost(self, first: int, last: int) -> None:
        self._log.warn(
            "lost events {first} to {last} of {channel}: the callback is too slow, or the history too short",
            first=first,
            last=last,
            channel=self.channel,
        )

    def _log_reset(self, position: BridgePosition, good: int) -> None:
        self._log.warn(
            "{channel} has another epoch: events before {offset} may be missing",
            channel=self.channel,
            offset=position.offset + 1,
        )
