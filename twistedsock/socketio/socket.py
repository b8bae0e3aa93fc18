"""A client in one namespace, as an application sees it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twistedsock.auth.identity import Identity
from twistedsock.codecs.engineio import Packet
from twistedsock.codecs.engineio import PacketType as EngineType
from twistedsock.codecs.socketio import RESERVED_NAMES, PacketType, SocketPacket, encode_packet, encode_values

if TYPE_CHECKING:
    from twistedsock.socketio.connection import Connection
    from twistedsock.socketio.namespace import Namespace

MAX_PENDING_CALLS = 1_000
"""Calls of one socket that wait for an answer, so that a client that never answers cannot fill the memory."""

DEFAULT_CALL_TIMEOUT_SECONDS = 60.0
"""Time for the answer to a call: longer than the ping timeout, so that a lost client is noticed first."""


class ConnectionRefused(Exception):
    """Raised by a connect handler to refuse a client. The client receives ``connect_error`` with the message, and with
    ``data``, which must be a value that JSON can represent."""

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.data = data


class Disconnected(Exception):
    """The failure of a call whose client has disconnected. The message is the reason."""


def arguments_of(value: Any) -> tuple[Any, ...]:
    """The arguments of an ack for the value that a handler returned: none for None, several for a tuple."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def value_of(arguments: list[Any]) -> Any:
    """The reverse of ``arguments_of``."""
    if not arguments:
        return None
    return arguments[0] if len(arguments) == 1 else tuple(arguments)


def event_packet(namespace: str, event: str, arguments: tuple[Any, ...], id: int | None = None) -> SocketPacket:
    """Raises ``TypeError`` or ``ValueError`` if the name or an argument cannot be sent."""
    if not isinstance(event, str) or event in RESERVED_NAMES:
        raise ValueError(f"invalid event name {event!r}: use a string that is not reserved")
    items, attachments = encode_values((event, *arguments))
    return SocketPacket(PacketType.EVENT, namespace, items, id, attachments)


def engine_packets(packet: SocketPacket) -> tuple[Packet, ...]:
    """The Engine.IO messages that carry a packet."""
    text, *attachments = encode_packet(packet)
    return (Packet(EngineType.MESSAGE, text), *(Packet(EngineType.MESSAGE, data, True) for data in attachments))


class _Call:
    """A call that waits for its ack."""

    __slots__ = ("deferred", "timer")

    def __init__(self, deferred: Deferred[Any], timer: Any) -> None:
        self.deferred = deferred
        self.timer = timer


class Socket:
    """One client in one namespace. ``id`` is public, and other in each namespace. ``data`` is for the application."""

    def __init__(self, connection: "Connection", namespace: "Namespace", id: str, auth: dict[str, Any]) -> None:
        self.id = id
        self.namespace = namespace
        self.auth = auth
        """The object that the client has sent as ``auth``. The server does not verify it."""
        self.data: Any = None
        self.rooms: set[str] = set()
        """The rooms that it has joined. Read only."""
        self.is_connected = True
        self.disconnect_reason = ""
        self._connection = connection
        self._calls: dict[int, _Call] = {}
        self._next_id = 0

    def __repr__(self) -> str:
        return f"<Socket {self.id} {self.namespace.name}>"

    # The client.

    @property
    def address(self) -> str:
        """The address and port of the client. If a trusted proxy reports it, the one that it reports."""
        return self._connection.handshake.endpoints.client.decode()

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the first request, by their names in lower case."""
        return self._connection.handshake.headers

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters of the first request."""
        return self._connection.handshake.query.parameters

    @property
    def identity(self) -> Identity | None:
        """The identity that the policy of the server found for a token in the first request. None if there is none."""
        return self._connection.handshake.identity

    @property
    def transport(self) -> str:
        """``polling`` or ``websocket``, at present."""
        return self._connection.transport

    # Sending.

    def emit(self, event: str, *arguments: Any) -> None:
        """Send an event. ``bytes`` in the arguments are sent as attachments. Does nothing if the client has
        disconnected."""
        packet = event_packet(self.namespace.name, event, arguments)
        if self.is_connected:
            self._connection.send(self, *engine_packets(packet))

    def call(self, event: str, *arguments: Any, timeout: float = DEFAULT_CALL_TIMEOUT_SECONDS) -> Deferred[Any]:
        """Send an event and return a Deferred of the answer: None, a value, or a tuple of several. It fails with
        ``TimeoutError`` after so many seconds, with ``Disconnected``, or with ``RuntimeError`` if too many calls
        wait."""
        deferred: Deferred[Any] = Deferred()
        packet = event_packet(self.namespace.name, event, arguments, self._next_id)
        if not self.is_connected:
            deferred.errback(Disconnected("the client has disconnected"))
        elif len(self._calls) >= MAX_PENDING_CALLS:
            deferred.errback(RuntimeError(f"too many calls wait for this client: the maximum is {MAX_PENDING_CALLS}"))
        else:
            timer = self._connection.call_later(timeout, self._call_timed_out, self._next_id)
            self._calls[self._next_id] = _Call(deferred, timer)
            self._next_id += 1
            self._connection.send(self, *engine_packets(packet))
        return deferred

    def _call_timed_out(self, id: int) -> None:
        self._calls.pop(id).deferred.errback(TimeoutError("the client has not answered in time"))

    # Rooms.

    def join(self, room: str) -> None:
        """Receive the events that are emitted to a room. Rooms exist while a socket is in them."""
        self.namespace.join(self, room)

    def leave(self, room: str) -> None:
        self.namespace.leave(self, room)

    # The end.

    def disconnect(self) -> None:
        """Remove the client from this namespace. It stays connected to other namespaces."""
        if self.is_connected:
            self._connection.send(self, *engine_packets(SocketPacket(PacketType.DISCONNECT, self.namespace.name)))
            self._connection.leave(self, "server namespace disconnect")

    # Called by the connection.

    def send(self, *packets: Packet) -> None:
        """Send packets that have been encoded once for several sockets."""
        self._connection.send(self, *packets)

    def acknowledged(self, id: int, packet: SocketPacket) -> None:
        """The client has answered. Answers to calls that have timed out are dropped. Raises ``InvalidPacket``."""
        if id in self._calls:
            value = value_of(packet.values)
            call = self._calls.pop(id)
            call.timer.cancel()
            call.deferred.callback(value)

    def closed(self, reason: str) -> None:
        """The client has disconnected."""
        self.is_connected, self.disconnect_reason = False, reason
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.timer.cancel()
            call.deferred.errback(Disconnected(reason))
