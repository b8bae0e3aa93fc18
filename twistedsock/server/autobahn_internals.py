"""Autobahn connections without what only their handshake, or only other servers, need.

An idle WebSocket is 45 attributes, most of them the same for all: here they stand on the class until a connection
needs one of its own. Autobahn sets and reads them by name, so a name that it no longer has costs nothing.
"""

from collections.abc import Callable
from typing import Any

from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol
from autobahn.websocket.utf8validator import Utf8Validator


class _Settled:
    """In place of the two Deferreds that tell when a connection has opened and closed; nobody listens to ours."""

    called = True

    def callback(self, result: object) -> None:
        """Nobody is there to be told."""


class _Silence:
    """In place of Autobahn's log, which tells of peers and their faults: a stranger could fill the disk with them.
    Faults of ours are exceptions, which are logged elsewhere."""

    def say_nothing(self, *arguments: object, **fields: object) -> None:
        """Nothing."""

    trace = debug = info = warn = error = critical = failure = say_nothing


_SAME_FOR_ALL: dict[str, Any] = {
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
"""Attributes of an open connection at rest."""

_SHARED: dict[str, Any] = {
    "is_open": _Settled(),
    "is_closed": _Settled(),
    "trafficStats": TrafficStats(),
    "_valid_events": None,
    "_results": None,
    "_transport_details": None,
    "peer": "",
}
"""What is made for each connection and read by nobody here, or by the log alone."""

_HANDSHAKE = {
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
"""What is not needed once the connection is open; the validator is made again when a message needs one."""


def _is_own(name: str, value: Any) -> bool:
    if name in _SAME_FOR_ALL:
        return value != _SAME_FOR_ALL[name] and name != "send_queue"
    return name not in _SHARED and name not in _HANDSHAKE


class SlimConnection:
    """Mixed into a WebSocket protocol, before Autobahn's class. A connection is opened by Autobahn, and ``lighten`` is
    to be called in ``onOpen``; or by ``open_at_once``."""

    log = _Silence()

    # What Autobahn's class has.
    autoPingInterval: int
    _sendAutoPing: Callable[[], None]

    def __init__(self) -> None:
        """Autobahn's own makes what stands on the class here."""

    def open_at_once(self, factory: Any, transport: Any, subprotocol: str | None) -> None:
        """Bring a new connection to where Autobahn's handshake and ``lighten`` would have brought it. The handshake has
        been read, and is to be answered, by others."""
        self.factory, self.transport = factory, transport
        factory.countConnections += 1
        if subprotocol is not None:
            self.websocket_protocol_in_use = subprotocol
        if self.autoPingInterval:
            timer = factory._batched_timer
            self.autoPingPendingCall = timer.call_later(self.autoPingInterval, self._sendAutoPing)

    def lighten(self) -> None:
        # A new dict, as one that has lost its entries keeps their room.
        self.__dict__ = {name: value for name, value in self.__dict__.items() if _is_own(name, value)}

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is nowhere else.
        if name == "utf8validator":
            self.utf8validator = validator = Utf8Validator()
            return validator
        raise AttributeError(name)


for _attribute, _value in {**_SAME_FOR_ALL, **_SHARED}.items():
    setattr(SlimConnection, _attribute, _value)
