"""The private parts of Autobahn that this server depends on: smaller connections, joined fragments, direct parsing.

Checked with Autobahn 26.10. ``tests/server/test_internals.py`` fails if a later version lacks one of the names in
``METHODS`` or ``ATTRIBUTES``: then compare this module with ``autobahn.websocket.protocol.WebSocketProtocol``.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator

CHECKED_AUTOBAHN_VERSION = "26.10"

METHODS = (
    "_cancelAutoPingTimeoutCall",
    "_connectionLost",
    "_dataReceived",
    "_max_message_size_exceeded",
    "_sendAutoPing",
)
"""Private methods of Autobahn's protocol that are called or overridden here. Its factory has ``_batched_timer``."""


class _ResolvedFuture:
    """Replaces the two Deferreds that fire when a connection has opened and closed. Nothing waits for them here."""

    called = True

    def callback(self, result: object) -> None:
        """Ignored."""


class _NullLogger:
    """Replaces Autobahn's log, which reports clients and their errors: remote clients could fill the disk with it.
    Exceptions are logged by ``server.connection``."""

    def ignore(self, *arguments: object, **fields: object) -> None:
        """Ignored."""

    trace = debug = info = warn = error = critical = failure = ignore


OPEN_STATE: dict[str, Any] = {
    "connected": 1,
    "state": WebSocketProtocol.STATE_OPEN,
    "data": b"",
    "_perMessageCompress": None,
    "trackedTimings": None,
    "send_state": 0,
    "send_queue": (),
    "triggered": False,
    "wasMaxFramePayloadSizeExceeded": False,
    "wasMaxMessagePayloadSizeExceeded": False,
    "closedByMe": False,
    "failedByMe": False,
    "droppedByMe": False,
    "wasClean": False,
    "wasNotCleanReason": None,
    "wasServerConnectionDropTimeout": False,
    "wasOpenHandshakeTimeout": False,
    "wasCloseHandshakeTimeout": False,
    "wasServingFlashSocketPolicyFile": False,
    "localCloseCode": None,
    "localCloseReason": None,
    "remoteCloseCode": None,
    "remoteCloseReason": None,
    "openHandshakeTimeoutCall": None,
    "closeHandshakeTimeoutCall": None,
    "autoPingTimeoutCall": None,
    "autoPingPending": None,
    "autoPingPendingCall": None,
    "autoPingPendingSeq": 0,
    "autoPingPendingSent": None,
    "websocket_version": 13,
    "websocket_protocol_in_use": None,
    "inside_message": False,
    "current_frame": None,
}
"""Attributes of an open connection without unfinished input. Their common values stand on the class."""

SHARED: dict[str, Any] = {
    "is_open": _ResolvedFuture(),
    "is_closed": _ResolvedFuture(),
    "trafficStats": TrafficStats(),
    "_valid_events": None,
    "_results": None,
    "_transport_details": None,
    "peer": "",
}
"""Objects that Autobahn creates for each connection and that this server does not use."""

HANDSHAKE_STATE = {
    "http_headers",
    "http_request_data",
    "http_request_host",
    "http_request_params",
    "http_request_path",
    "http_request_uri",
    "http_response_data",
    "http_status_line",
    "utf8validator",
    "websocket_extensions",
    "websocket_extensions_in_use",
    "websocket_origin",
    "websocket_protocols",
    "_wskey",
}
"""Attributes that are not needed after the handshake. The validator is created again when a message needs one."""


ATTRIBUTES = (*OPEN_STATE, *SHARED, *HANDSHAKE_STATE)
"""Attributes that Autobahn sets on each connection."""


def _differs_from_class(name: str, value: Any) -> bool:
    if name in OPEN_STATE:
        return value != OPEN_STATE[name] and name != "send_queue"
    return name not in SHARED and name not in HANDSHAKE_STATE


CALLS_PER_TURN = 250
"""Timers of one second that expire together. Each may send a ping; other clients are served between two turns."""


class TimedCall:
    """A call that waits, and can be cancelled."""

    __slots__ = ("_call", "_second", "_timers")

    def __init__(self, timers: "Timers", second: int, call: Callable[[], object]) -> None:
        self._timers = timers
        self._second = second
        self._call = call

    def __call__(self) -> None:
        self._call()

    def cancel(self) -> None:
        """Does nothing if the call has been made already."""
        self._timers.remove(self, self._second)


class Timers:
    """Replaces the timers of Autobahn's factory, which need four objects for each connection, and search a list for
    one that is cancelled: connections that were opened in the same second would take quadratic time to close.

    All calls of one second share a timer of the reactor. As Autobahn's, they are made up to a second early."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        # The calls of each second, and the reactor's timer for them.
        self._seconds: dict[int, tuple[dict[TimedCall, None], Any]] = {}

    def call_later(self, delay: float, call: Callable[[], object]) -> TimedCall:
        now = self._reactor.seconds()
        second = int(now + delay)
        calls, _ = self._seconds.get(second) or self._start(second, max(0.0, second - now))
        timed = TimedCall(self, second, call)
        calls[timed] = None
        return timed

    def remove(self, timed: TimedCall, second: int) -> None:
        waiting = self._seconds.get(second)
        if waiting is not None:
            waiting[0].pop(timed, None)
            self._end_if_empty(second)

    def _start(self, second: int, delay: float) -> tuple[dict[TimedCall, None], Any]:
        started = self._seconds[second] = {}, self._reactor.callLater(delay, self._run, second)
        return started

    def _run(self, second: int) -> None:
        calls, _ = self._seconds[second]
        # First, so that an exception in a call does not prevent the rest.
        self._seconds[second] = calls, self._reactor.callLater(0, self._run, second)
        for timed in list(islice(calls, CALLS_PER_TURN)):
            if timed in calls:  # not cancelled by one before it
                del calls[timed]
                timed()
        self._end_if_empty(second)

    def _end_if_empty(self, second: int) -> None:
        waiting = self._seconds.get(second)
        if waiting is not None and not waiting[0]:
            waiting[1].cancel()
            del self._seconds[second]


class SlimConnection:
    """Reduces the memory of a connection: default values stand on the class, not on each of the connections.

    An idle connection of Autobahn has 45 attributes, and most of them have the same value on all connections. This
    class is mixed in before Autobahn's. A connection is opened either by Autobahn, and then ``onOpen`` must call
    ``drop_handshake_state``, or by ``open_without_handshake``."""

    log = _NullLogger()

    # Provided by Autobahn's class.
    autoPingInterval: int
    _sendAutoPing: Callable[[], None]

    def __init__(self) -> None:
        """Replaces the constructor of Autobahn's class, which sets what stands on the class here."""

    def open_without_handshake(self, factory: Any, transport: Any, subprotocol: str | None) -> None:
        """Set the state of a connection that is open, for a handshake that the caller reads and answers."""
        self.factory, self.transport = factory, transport
        factory.countConnections += 1
        if subprotocol is not None:
            self.websocket_protocol_in_use = subprotocol
        if self.autoPingInterval:
            timer = factory._batched_timer
            self.autoPingPendingCall = timer.call_later(self.autoPingInterval, self._sendAutoPing)

    def drop_handshake_state(self) -> None:
        # A new dict, because one that has lost its entries keeps their memory.
        self.__dict__ = {name: value for name, value in self.__dict__.items() if _differs_from_class(name, value)}

    def __getattr__(self, name: str) -> Any:
        if name == "utf8validator":
            self.utf8validator = validator = Utf8Validator()
            return validator
        raise AttributeError(name)


for _attribute, _value in {**OPEN_STATE, **SHARED}.items():
    setattr(SlimConnection, _attribute, _value)


class FragmentAssembler:
    """Joins the fragments of a message as they arrive. This class is mixed in before Autobahn's.

    Autobahn keeps each piece as an object: a message in pieces of two bytes takes 28 times its size, and empty
    fragments (allowed by RFC 6455 section 5.4) take unlimited memory, because they never reach a limit of bytes. Here a
    message can have as many fragments as bytes."""

    _joined: bytes | bytearray = b""

    # Provided by Autobahn's class.
    failedByMe: bool
    maxMessagePayloadSize: int
    message_data: Any
    frame_data: Any

    @property
    def assembled_bytes(self) -> int:
        """The size of the message that is being assembled."""
        return len(self._joined)

    def discard_fragments(self) -> None:
        self._joined = b""

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)  # type: ignore[misc]
        self._joined = bytearray()
        self._fragments = 0

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)  # type: ignore[misc]
        self._fragments += 1
        maximum = self.maxMessagePayloadSize
        if self._fragments > maximum and not self.failedByMe:
            self.wasMaxMessagePayloadSizeExceeded = True
            reason = f"received WebSocket message of more than {maximum} fragments"
            self._max_message_size_exceeded(self._fragments, maximum, reason)  # type: ignore[attr-defined]

    def onMessageFrameData(self, payload: bytes) -> None:
        if not self.failedByMe:
            self._joined += payload

    def onMessageFrameEnd(self) -> None:
        self.frame_data = None

    def onMessageEnd(self) -> None:
        self.message_data = [bytes(self._joined)]
        del self._joined, self._fragments
        super().onMessageEnd()  # type: ignore[misc]


class AutobahnConnection(SlimConnection, FragmentAssembler, WebSocketServerProtocol):  # type: ignore[misc]
    """A WebSocket connection of Autobahn, with public names for the private methods that the server calls.
    ``CONFIG_ATTRS`` is empty because the options stand on a subclass of each factory, see ``configure``: copying them
    to each connection and logging them would be most of the cost of a handshake."""

    CONFIG_ATTRS: Any = ()

    def parse(self, data: bytes) -> None:
        """Parse input as Autobahn's ``dataReceived`` does, without the log message that it formats first."""
        self._dataReceived(data)

    def cancel_ping_timeout(self) -> None:
        """Input has arrived: do not close the connection for a missing pong."""
        if self.autoPingTimeoutCall is not None:
            self._cancelAutoPingTimeoutCall()

    def end(self, reason: Any) -> None:
        """The connection is lost. Autobahn's ``connectionLost`` formats log messages as well, which is most of its
        cost."""
        WebSocketProtocol._connectionLost(self, reason)
        self.factory.countConnections -= 1


def configure(factory: Any, connection_class: type[AutobahnConnection]) -> None:
    """Let a factory create connections of a subclass that has the factory's options as class attributes, and use
    ``Timers``."""
    options = {name: getattr(factory, name) for name in WebSocketServerProtocol.CONFIG_ATTRS}
    # On a class, a function would become a method. This one is called for each browser that offers compression.
    options["perMessageCompressionAccept"] = staticmethod(options["perMessageCompressionAccept"])
    factory._batched_timer = Timers(factory.reactor)
    factory.protocol = type("Configured" + connection_class.__name__, (connection_class,), options)
