"""The Socket.IO side of one connection: joins namespaces, and carries events and acks between a client and handlers."""

from typing import TYPE_CHECKING, Any

import msgspec
from twisted.python.failure import Failure

from twistedsock.codecs.engineio import Packet
from twistedsock.codecs.engineio_session import CloseCause
from twistedsock.codecs.socketio import (
    InvalidPacket,
    PacketDecoder,
    PacketType,
    SocketPacket,
    encode_values,
)
from twistedsock.server.engineio import EngineConnection, Handshake, MessageHandler
from twistedsock.socketio.socket import ConnectionRefused, Socket, arguments_of, engine_packets

if TYPE_CHECKING:
    from twistedsock.socketio.namespace import Namespace
    from twistedsock.socketio.server import SocketIO

MAX_RUNNING_HANDLERS = 1_000
"""Handlers of one client that have not returned their answer, so that a client cannot start any number of them."""

MAX_HELD_PACKETS = 1_000
"""Packets for a client whose connect handler has not decided yet."""

CONNECT = "connect"

DISCONNECT = "disconnect"

_encode = msgspec.json.Encoder().encode


class Connection(MessageHandler):
    """The sockets of one client by the names of their namespaces."""

    def __init__(self, server: "SocketIO", engine: EngineConnection, connect_timeout: float, max_bytes: int) -> None:
        self._server = server
        self._engine = engine
        self._decoder = PacketDecoder(max_bytes)
        self._sockets: dict[str, Socket] = {}
        self._held: dict[Socket, list[Packet]] = {}
        """The packets for sockets whose connect handler has not decided yet."""
        self._left: set[str] = set()
        """Namespaces that a socket has left. Packets for them may still be on their way."""
        self._running = 0
        self._timer: Any = self.call_later(connect_timeout, self._connect_timed_out)

    @property
    def handshake(self) -> Handshake:
        return self._engine.handshake

    @property
    def transport(self) -> str:
        return self._engine.session.transport

    @property
    def buffered_bytes(self) -> int:
        """The size of a packet that waits for attachments."""
        return self._decoder.buffered_bytes

    def call_later(self, seconds: float, call: Any, *arguments: Any) -> Any:
        """A delayed call of the reactor."""
        return self._engine.endpoint.reactor.callLater(seconds, call, *arguments)

    def _connect_timed_out(self) -> None:
        self._timer = None
        self._engine.fail(CloseCause.TRANSPORT)

    # Output.

    def send(self, socket: Socket, *packets: Packet) -> None:
        """Send to a socket, or hold the packets until it is connected."""
        held = self._held.get(socket)
        if held is None:
            self._engine.send(*packets)
        elif len(held) + len(packets) <= MAX_HELD_PACKETS:
            held += packets
        else:
            self._engine.fail(CloseCause.TOO_SLOW)

    # Input, called by the engine.

    def received(self, data: bytes, is_binary: bool) -> None:
        try:
            packet = self._decoder.feed(data, is_binary)
            if packet is None:
                return
            if packet.error:
                raise InvalidPacket(packet.error)
            self._handle(packet)
        except InvalidPacket:
            self._engine.fail(CloseCause.INVALID)

    def _handle(self, packet: SocketPacket) -> None:
        socket = self._sockets.get(packet.namespace)
        if packet.type is PacketType.CONNECT:
            if socket is not None:
                raise InvalidPacket("the namespace has been joined already")
            self._connect(packet)
        elif socket is None or socket in self._held:
            if packet.namespace not in self._left:
                raise InvalidPacket("the namespace has not been joined")
        elif packet.type is PacketType.EVENT:
            self._call_handler(socket, packet)
        elif packet.type is PacketType.ACK:
            assert packet.id is not None
            socket.acknowledged(packet.id, packet)
        else:
            self.leave(socket, "client namespace disconnect")

    # Joining and leaving namespaces.

    def _connect(self, packet: SocketPacket) -> None:
        namespace = self._server.namespaces.get(packet.namespace)
        if namespace is None:
            self._refuse(packet.namespace, ConnectionRefused("Invalid namespace"))
            return
        auth = packet.values[0] if packet.items else {}
        socket = Socket(self, namespace, self._server.generate_id(), auth)
        self._sockets[namespace.name], self._held[socket] = socket, []
        self._left.discard(namespace.name)
        called = namespace.call(CONNECT, socket, auth)
        if called is None:
            self._connected(None, socket)
        else:
            called.addCallbacks(self._connected, self._refused, callbackArgs=(socket,), errbackArgs=(socket,))
            called.addErrback(self._log_failure, namespace, CONNECT)

    def _connected(self, result: object, socket: Socket) -> None:
        """The connect handler has accepted a client, which may have disconnected meanwhile."""
        held = self._held.pop(socket)
        if not socket.is_connected:
            self._refuse(socket.namespace.name, ConnectionRefused("disconnected"))
            self._call_disconnect(socket)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        socket.namespace.add(socket)
        reply = SocketPacket(PacketType.CONNECT, socket.namespace.name, (_encode({"sid": socket.id}),))
        self._engine.send(*engine_packets(reply), *held)

    def _refused(self, failure: Failure, socket: Socket) -> None:
        del self._held[socket]
        socket.namespace.remove(socket)
        if socket.is_connected:
            socket.closed("refused")
            del self._sockets[socket.namespace.name]
            self._left.add(socket.namespace.name)
            refusal = failure.value
            if not isinstance(refusal, ConnectionRefused):
                refusal = ConnectionRefused("internal error")
            self._refuse(socket.namespace.name, refusal)
        if not isinstance(failure.value, ConnectionRefused):
            self._log_failure(failure, socket.namespace, CONNECT)

    def _log_failure(self, failure: Failure, namespace: "Namespace", event: str) -> None:
        namespace.log_failure(failure, event, self._engine.endpoint.reactor.seconds())

    def _refuse(self, namespace: str, refusal: ConnectionRefused) -> None:
        error = {"message": str(refusal)}
        if refusal.data is not None:
            error["data"] = refusal.data
        self._engine.send(*engine_packets(SocketPacket(PacketType.CONNECT_ERROR, namespace, (_encode(error),))))

    def leave(self, socket: Socket, reason: str) -> None:
        """A socket leaves its namespace."""
        self._left.add(socket.namespace.name)
        del self._sockets[socket.namespace.name]
        self._close(socket, reason)

    def _close(self, socket: Socket, reason: str) -> None:
        socket.namespace.remove(socket)
        socket.closed(reason)
        if socket not in self._held:
            self._call_disconnect(socket)

    def _call_disconnect(self, socket: Socket) -> None:
        called = socket.namespace.call(DISCONNECT, socket, socket.disconnect_reason)
        if called is not None:
            called.addErrback(self._log_failure, socket.namespace, DISCONNECT)

    # Events.

    def _call_handler(self, socket: Socket, packet: SocketPacket) -> None:
        if self._running >= MAX_RUNNING_HANDLERS:
            self._engine.fail(CloseCause.TOO_SLOW)
            return
        event = packet.event_name
        called = socket.namespace.call(event, socket, *packet.values)
        if called is None:
            return
        self._running += 1
        called.addBoth(self._returned)
        if packet.id is not None:
            called.addCallback(self._acknowledge, socket, packet.id)
        called.addErrback(self._log_failure, socket.namespace, event)

    def _returned(self, result: Any) -> Any:
        self._running -= 1
        return result

    def _acknowledge(self, value: Any, socket: Socket, id: int) -> None:
        items, attachments = encode_values(arguments_of(value))
        if socket.is_connected:
            packet = SocketPacket(PacketType.ACK, socket.namespace.name, items, id, attachments)
            self._engine.send(*engine_packets(packet))

    # The end, called by the engine.

    def closed(self, cause: CloseCause) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sockets, self._sockets = self._sockets, {}
        for socket in sockets.values():
            self._close(socket, cause.value)
