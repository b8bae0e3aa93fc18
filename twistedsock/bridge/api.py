"""The Python API of a server that runs in this process: publish, subscribe, read, observe
(docs/reference/python-api.md)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TypeVar

import msgspec
from twisted.internet.defer import Deferred, fail

from twistedsock.bridge.observers import BridgeObservation, BridgeObserver
from twistedsock.bridge.subscription import (
    CLIENT_ADDRESS,
    SHUTTING_DOWN,
    BridgeSubscription,
    EventCallback,
    LostCallback,
    ResetCallback,
)
from twistedsock.bridge.values import (
    MILLISECOND,
    NOT_UTF8,
    TIME_ZERO,
    BridgeError,
    BridgeEvent,
    BridgeHistory,
    BridgeMember,
    BridgePosition,
    encode_text,
    exception_of,
    member_of,
    position_of,
)
from twistedsock.codecs.payload import MAX_DEPTH, build_payloads, is_too_deep
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.future import Future, Steps, complete, map_result, on_result
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Event, Member, PayloadKind, Payloads, Position, Publication
from twistedsock.session.commands import Command, Nick, Subscribe
from twistedsock.session.context import ServerContext
from twistedsock.session.history_query import Bound, HistoryQuery, Moment
from twistedsock.session.request import HistoryPage, RequestClient

T = TypeVar("T")

Reject = Callable[[Error], object]

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Calls that wait for the start. A backplane can take long to start, or never do so."""

WAITING_CALL_BYTES = 2_500
"""Memory of a subscription that waits; the other calls need half of that. Measured on CPython 3.11."""

STARTING = Error(ErrorCode.UNAVAILABLE, "the server has not started yet: try again later")

TOO_DEEP = Error(ErrorCode.BAD_JSON, f"data too deep: at most {MAX_DEPTH} levels are allowed")


class Bridge:
    """Publishes and subscribes in this process, with all rights. Calls before the server has started wait for that.

    Create it with ``make_service(…).bridge``."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        # Without a policy, clients on this machine have all rights. A slow callback must not end its subscription.
        limits = msgspec.structs.replace(context.limits, slow_consumer="skip")
        self._trusted_context = replace(context, policy=None, limits=limits)
        self._waiting: list[tuple[Callable[[], object], Reject]] | None = []
        self._waiting_bytes = 0

    def start(self) -> None:
        """Called by the service when it starts."""
        waiting, self._waiting = self._waiting or [], None
        for call, _ in waiting:
            call()

    def stop(self) -> None:
        """Called by the service when it has stopped. Calls that still wait for the start fail."""
        waiting, self._waiting = self._waiting or [], None
        for _, reject in waiting:
            reject(SHUTTING_DOWN)

    def publish(
        self, channel: str, value: object, *, name: str = "message", nick: str = ""
    ) -> Deferred[BridgePosition]:
        """Publish an event. A ``str`` is text; ``bytes``, a ``bytearray`` and a ``memoryview`` are bytes; any other
        value becomes JSON: numbers, None, lists, dicts, dataclasses, dates … ``name`` is the name of the event,
        ``nick`` the sender. Returns the position after the event. Fails with ``BridgeError``, or with ``TypeError`` if
        the value cannot be written as JSON."""
        try:
            publication = Publication(encode_text(channel), self._payloads(value), encode_text(name))
            sender = encode_text(nick)
        except (BridgeError, TypeError):
            return fail()
        published: Deferred[Position] = Deferred()
        settle = partial(_settle, published)
        size = publication.payloads.size
        self._after_start(lambda: on_result(self._client().publish(publication, sender), settle), settle, size)
        return published.addCallback(position_of)

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
            commands: list[Command] = [Nick(encode_text(nick))] if nick else []
            position = (None, None) if since is None else (since.offset, encode_text(since.epoch))
            commands.append(Subscribe(encode_text(channel), last, *position))
        except BridgeError as error:
            subscription.reject(error)
            return subscription
        self._after_start(
            lambda: subscription.open(commands, self._context.draining),
            lambda error: subscription.reject(exception_of(error)),
        )
        return subscription

    def history(
        self,
        channel: str,
        *,
        last: int | None = None,
        after: int | datetime | None = None,
        before: int | datetime | None = None,
    ) -> Deferred[BridgeHistory]:
        """Read the history: the events after and before an offset or a time, both exclusive; of these, the newest
        ``last``. Fails with ``BridgeError``, or with ``ValueError`` for a time without a time zone."""
        try:
            name, query = encode_text(channel), HistoryQuery(last, None, _bound(after), _bound(before))
        except (BridgeError, ValueError):
            return fail()
        read: Deferred[BridgeHistory] = Deferred()
        settle = partial(_settle, read)
        self._after_start(lambda: on_result(self._read_history(name, query), settle), settle)
        return read

    def members(self, channel: str) -> Deferred[list[BridgeMember]]:
        """Read the subscribers of a channel, on all nodes. Fails with ``BridgeError``."""
        try:
            name = encode_text(channel)
        except BridgeError:
            return fail()
        read: Deferred[list[Member]] = Deferred()
        settle = partial(_settle, read)
        self._after_start(lambda: on_result(self._client().members(name), settle), settle)
        return read.addCallback(lambda members: [member_of(member) for member in members])

    def observe(self, observer: BridgeObserver) -> "BridgeObservation":
        """Report events and subscriptions of all channels to an observer, until ``stop`` of the result is called."""
        return BridgeObservation(self._context, observer)

    def _read_history(self, channel: bytes, query: HistoryQuery) -> BridgeHistory | Error | Future[BridgeHistory]:
        page = self._client().history(channel, query)
        return map_result(page, lambda page: complete(_history(page)))

    def _client(self) -> RequestClient:
        return RequestClient(self._trusted_context, "", CLIENT_ADDRESS)

    def _after_start(self, call: Callable[[], object], reject: Reject, size: int = 0) -> None:
        """Make a call now, or when the server has started. ``size`` is that of the payload."""
        if self._waiting is None:
            call()
            return
        self._waiting_bytes += size + WAITING_CALL_BYTES
        if self._waiting_bytes > MAX_WAITING_BYTES:
            reject(STARTING)
        else:
            self._waiting.append((call, reject))

    def _payloads(self, value: object) -> Payloads:
        try:
            payload, kind = _encode(value)
        except UnicodeEncodeError:
            raise exception_of(NOT_UTF8) from None
        except RecursionError:
            raise exception_of(TOO_DEEP) from None
        # The depth first: how deep a value has to be to exhaust the stack of msgspec depends on the Python.
        if kind is JSON and is_too_deep(payload):
            raise exception_of(TOO_DEEP)
        limit = self._context.limits.max_message_bytes
        if len(payload) > limit:
            raise exception_of(Error(ErrorCode.TOO_LONG, f"value too long: at most {limit} bytes are allowed"))
        return build_payloads((payload,), kind)


def _encode(value: object) -> tuple[bytes, PayloadKind]:
    if isinstance(value, str):
        return value.encode(), TEXT
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), BYTES
    return msgspec.json.encode(value), JSON


def _bound(limit: int | datetime | None) -> Bound | None:
    if not isinstance(limit, datetime):
        return limit
    if limit.tzinfo is None:
        raise ValueError("a time without a time zone: give one, for example datetime.now(UTC)")
    return Moment((limit - TIME_ZERO) // MILLISECOND)


def _history(page: HistoryPage) -> Steps[BridgeHistory | Error]:
    channel, epoch = page.channel.decode(), page.position.epoch
    events: list[BridgeEvent] = []
    for item in page.events:
        if isinstance(item, Event):
            events.append(BridgeEvent(channel, epoch, item))
        elif isinstance(item, Future):
            yield item
        else:
            words = f"events {item.first} to {item.last} were deleted or could not be read meanwhile: read again"
            return Error(ErrorCode.UNAVAILABLE, words)
    lost = None if page.lost is None else (page.lost.first, page.lost.last)
    return BridgeHistory(events, lost, position_of(page.position))


def _settle(deferred: Deferred[T], outcome: T | Error) -> None:
    if isinstance(outcome, Error):
        deferred.errback(exception_of(outcome))
    else:
        deferred.callback(outcome)
