"""The Python API of a server that runs in this process: publish, subscribe, observe (docs/reference/python-api.md).

A subscription has a session of its own, like a client that is connected, and so the same histories, limits and order of
events. Its callbacks are called in time slices. While a callback waits for a Deferred, its subscription is a slow
client: it keeps a cursor, and the events stay in the history.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import iscoroutine
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

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
from twistedsock.codecs.payload import MAX_DEPTH, build_payloads, is_too_deep
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.names import is_reserved
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.pubsub.values import JSON, TEXT, Batch, Event, Member, Payloads, Position, Publication
from twistedsock.server.connection import open_session
from twistedsock.session.commands import Command, Nick, Subscribe
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.request import RequestClient
from twistedsock.session.session import SessionState
from twistedsock.stats import TcpStats

CLIENT_ADDRESS = b"unix:-"
"""The address of this process, as lists of connections show it: that of a client on this machine."""

FAILURE_LOG_SECONDS = 60.0
"""Seconds for which further exceptions of the same callback are not logged. A callback can fail for every event."""

NOT_UTF8 = Error(ErrorCode.NOT_UTF8, "invalid text: contains an unpaired surrogate, which UTF-8 cannot express")

TOO_DEEP = Error(ErrorCode.BAD_JSON, f"data too deep: at most {MAX_DEPTH} levels are allowed")

SHUTTING_DOWN = Error(ErrorCode.UNAVAILABLE, "server is shutting down: try again later")

_TIME_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

_read_json = msgspec.json.Decoder().decode


class BridgeError(Exception):
    """The server has rejected a call. ``code`` is the stable part, for programs (docs/reference/errors.md); ``message``
    is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class BridgePosition(NamedTuple):
    """A point in the events of a channel: after the event with this offset, 0 before the first. Offsets of different
    epochs cannot be compared."""

    epoch: str
    offset: int


class BridgeMember(NamedTuple):
    """A subscriber of a channel. The nick is the id if the client has none."""

    id: str
    nick: str


class BridgeEvent:
    """An event. Its attributes are read-only."""

    __slots__ = ("_epoch", "_event", "_value", "channel")

    def __init__(self, channel: str, epoch: bytes, event: Event) -> None:
        self.channel = channel
        self._epoch = epoch
        self._event = event

    @property
    def offset(self) -> int:
        """The number of the event in its channel: 1, 2, 3 …"""
        return self._event.offset

    @property
    def position(self) -> BridgePosition:
        """The position after this event. With it, ``subscribe(since=…)`` continues behind the event."""
        return BridgePosition(self._epoch.decode(), self._event.offset)

    @property
    def time(self) -> datetime:
        """When the event was published, in UTC with milliseconds. It never decreases within a channel. A ``datetime``,
        because Python compares and formats those; ``timestamp()`` returns seconds since 1970."""
        return _TIME_ZERO + self._event.time * _MILLISECOND

    @property
    def sender(self) -> str:
        """The nick of the publisher, or its id if it has none."""
        return self._event.sender.decode()

    @property
    def name(self) -> str:
        """The name of the event, ``message`` if the publisher gave none."""
        return self._event.name.decode()

    @property
    def value(self) -> Any:
        """The text as ``str``, or the value of the JSON text: ``dict``, ``list``, ``str``, ``int``, ``float``,
        ``bool`` or None. All receivers of this object share a ``dict`` or ``list``."""
        if not hasattr(self, "_value"):
            payload = self._event.payload
            self._value = _read_json(payload) if self._event.kind is JSON else payload.decode()
        return self._value

    def __repr__(self) -> str:
        return f"<BridgeEvent {self.channel} {self.offset} {self.name} from {self.sender}: {self.value!r}>"


EventCallback = Callable[[BridgeEvent], object]
"""Called with each event. If it returns a Deferred or a coroutine, the next event waits for that."""

LostCallback = Callable[[int, int], object]
"""Called with the first and the last offset of events that the subscription does not receive."""

ResetCallback = Callable[[BridgePosition, int], object]
"""Called if the channel has another epoch. The subscription continues after the position. Events of the former epoch
are valid up to the offset in the second argument; 0 if none is known to be."""


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


class Bridge:
    """Publishes and subscribes in this process, with all rights. Calls before the server has started wait for that.

    Create it with ``make_service(…).bridge``."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        # Without a policy, clients on this machine have all rights. A slow callback must not end its subscription.
        limits = msgspec.structs.replace(context.limits, slow_consumer="skip")
        self._trusted_context = replace(context, policy=None, limits=limits)
        self._waiting: list[Callable[[], object]] | None = []

    def start(self) -> None:
        """Called by the service when it starts."""
        waiting, self._waiting = self._waiting or [], None
        for call in waiting:
            call()

    def publish(
        self, channel: str, value: object, *, name: str = "message", nick: str = ""
    ) -> Deferred[BridgePosition]:
        """Publish an event. A ``str`` is text; any other value becomes JSON: numbers, None, lists, dicts, dataclasses,
        dates … ``name`` is the name of the event, ``nick`` the sender. Returns the position after the event. Fails
        with ``BridgeError``, or with ``TypeError`` if the value cannot be written as JSON."""
        try:
            publication = Publication(_encode(channel), self._payloads(value), _encode(name))
            sender = _encode(nick)
        except (BridgeError, TypeError):
            return fail()
        published: Deferred[BridgePosition] = Deferred()

        def publish() -> None:
            client = RequestClient(self._trusted_context, "", CLIENT_ADDRESS)
            on_result(client.publish(publication, sender), partial(_settle, published))

        self._after_start(publish)
        return published

    def subscribe(
        self,
        channel: str,
        callback: EventCallback,
        *,
        last: int | None = None,
        since: BridgePosition | None = None,
        nick: str = "",
        on_lost: LostCallback | None = None,
        on_reset: ResetCallback | None = None,
    ) -> "BridgeSubscription":
        """Call ``callback`` with each event from now on. ``last`` adds the newest events of the history, ``since``
        those after a position. Other subscribers see ``nick`` in the list of members. Without ``on_lost`` and
        ``on_reset``, both are logged."""
        subscription = BridgeSubscription(self._trusted_context, channel, callback, since, on_lost, on_reset)
        try:
            commands: list[Command] = [Nick(_encode(nick))] if nick else []
            position = (None, None) if since is None else (since.offset, _encode(since.epoch))
            commands.append(Subscribe(_encode(channel), last, *position))
        except BridgeError as error:
            subscription.reject(error)
            return subscription
        self._after_start(lambda: subscription.open(commands, self._context.draining))
        return subscription

    def observe(self, observer: BridgeObserver) -> "BridgeObservation":
        """Report events and subscriptions of all channels to an observer, until ``stop`` of the result is called."""
        return BridgeObservation(self._context, observer)

    def _after_start(self, call: Callable[[], object]) -> None:
        if self._waiting is None:
            call()
        else:
            self._waiting.append(call)

    def _payloads(self, value: object) -> Payloads:
        if isinstance(value, bytes | bytearray | memoryview):
            raise TypeError("payloads are text or JSON: decode bytes, or publish them in base64")
        kind = TEXT if isinstance(value, str) else JSON
        try:
            payload = value.encode() if isinstance(value, str) else msgspec.json.encode(value)
        except UnicodeEncodeError:
            raise _exception(NOT_UTF8) from None
        except RecursionError:
            raise _exception(TOO_DEEP) from None
        limit = self._context.limits.max_message_bytes
        if len(payload) > limit:
            raise _exception(Error(ErrorCode.TOO_LONG, f"value too long: at most {limit} bytes are allowed"))
        if kind is JSON and is_too_deep(payload):
            raise _exception(TOO_DEEP)
        return build_payloads((payload,), kind)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _exception(NOT_UTF8) from None


def _exception(error: Error) -> BridgeError:
    return BridgeError(error.code.value.decode(), error.message)


def _position(position: Position) -> BridgePosition:
    return BridgePosition(position.epoch.decode(), position.offset)


def _settle(published: Deferred[BridgePosition], outcome: Position | Error) -> None:
    if isinstance(outcome, Error):
        published.errback(_exception(outcome))
    else:
        published.callback(_position(outcome))


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


class BridgeOutlet:
    """The outlet of a subscription: keeps what the session writes until the callbacks have been called. Like a socket,
    it accepts about one chunk. ``wake`` is called when it has data."""

    def __init__(self, context: ServerContext, wake: Callable[[], object]) -> None:
        self.blocked = 0
        self.principal: Principal = LOCAL
        self.on_drained: Callable[[], None] | None = None
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
            if self.on_drained is not None:
                self.on_drained()

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
            self.reject(_exception(SHUTTING_DOWN))
            return
        self._pipeline = open_session(
            self._context,
            NATIVE_ENCODER,
            json_decoder,  # unused: commands are values already
            self._outlet,
            Endpoints(CLIENT_ADDRESS, CLIENT_ADDRESS),
            close=self._closed,
            pause=_do_nothing,
            resume=_do_nothing,
        )
        self._pipeline.session.send_welcome()
        self._pipeline.submit(commands)

    def reject(self, error: BridgeError) -> None:
        """The server refuses the subscription."""
        self.unsubscribe()
        self.subscribed.errback(error)

    # Called by the session.

    def _closed(self, reason: CloseReason) -> None:
        self._close_reason = reason
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
                yield partial(self._on_reset, _position(record.position), record.good)
            elif isinstance(record, SubscribedRecord):
                if record.recovered is False and not self._is_known(record.position):
                    start = BridgePosition(record.position.epoch.decode(), record.start - 1)
                    yield partial(self._on_reset, start, 0)
                yield partial(self.subscribed.callback, _position(record.position))
            elif isinstance(record, RefusedRecord):
                error = BridgeError(record.code.decode(), record.message)
                yield partial(self.reject, error)
            else:
                self._close_message = record.message

    def _is_known(self, position: Position) -> bool:
        """True if the position that the subscription was to continue at is one of the present epoch. Events that are
        missing after it are reported as lost."""
        since = self._since
        return since is not None and _position(position) >= since and since.epoch == position.epoch.decode()

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
        if self.is_active and self._close_reason is not CloseReason.GOING_AWAY:
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


def _do_nothing() -> None: ...


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
            about = BridgeMember(member.id.decode(), member.nick.decode())
            self._add(partial(self._call, partial(report, channel.decode(), about, readers)))

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
