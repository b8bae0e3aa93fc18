"""The WebSockets of Engine.IO clients. A WebSocket opens a session, or a session that polls moves to it."""

from functools import partial
from typing import Any, cast

from autobahn.websocket.types import ConnectionRequest
from msgspec import Struct

from twistedsock.auth.identity import Identity
from twistedsock.codecs.engineio import (
    HandshakeError,
    InvalidPacket,
    Packet,
    Query,
    decode_frame,
    encode_text,
    read_query,
)
from twistedsock.codecs.engineio_session import CloseCause
from twistedsock.codecs.websocket import (
    CLOSE_CODES,
    PlainFrames,
    binary_frame,
    plain_headers,
    switching_protocols,
    text_frame,
)
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.principal import Principal
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.server.connection import log_exception
from twistedsock.server.engineio import EngineConnection, EngineEndpoint, Handshake
from twistedsock.server.sockets import DEFAULT_LISTENER, ListenerConfig, endpoints_of, handshake_info
from twistedsock.server.transport import outlet_of
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.server.websocket_transport import WebSocketTransport

decode_binary = partial(decode_frame, is_binary=True)
"""A binary message as a packet."""


class ClientRequest(Struct):
    """The request that opens a WebSocket. ``address`` is that of the client."""

    address: Any
    principal: Principal
    query: bytes
    identity: Identity | None
    headers: dict[str, str] = {}


class EngineWebSocket(WebSocketTransport):
    """Built by ``EngineWebSocketFactory.build``."""

    factory: "EngineWebSocketFactory"
    request: ClientRequest
    """Removed when the WebSocket opens."""
    _connection: EngineConnection | None = None

    # Opening.

    def open_accepted(self, transport: Any, head: bytes, key: str) -> bool:
        """Open a connection whose plain handshake has been read and accepted, without Autobahn. Returns False if an
        exception has ended the connection."""
        self.open_without_handshake(self.factory, transport, None)
        self.request.headers = plain_headers(head)
        try:
            transport.write(switching_protocols(key, None, self.factory.server))
            self.onOpen()
        except Exception:
            log_exception()
            transport.abortConnection()
            return False
        return True

    def onConnect(self, request: ConnectionRequest) -> None:
        self.request.headers = dict(request.headers)

    def onOpen(self) -> None:
        request = self.__dict__.pop("request")
        self.drop_handshake_state()
        self.outlet = outlet_of(self.transport, self.factory.reactor)
        self.outlet.principal = request.principal
        self.outlet.drain_listener = self
        error = self._open(request)
        if error is not None:
            # After the handshake, because programs and pages cannot read the response to one that fails.
            self._end(CloseReason.TRY_AGAIN if isinstance(error, Error) else CloseReason.POLICY, error.message)

    def _open(self, request: ClientRequest) -> HandshakeError | Error | None:
        endpoint, query = self.factory.engine, read_query(request.query)
        if isinstance(query, HandshakeError):
            return query
        if query.sid:
            return self._upgrade(endpoint, query)
        listening, clock = self.factory.listening, self.factory.context.broker.clock
        connection = endpoint.open(
            Handshake(
                request.address,
                endpoints_of(self.transport, request.address),
                request.principal,
                query,
                request.headers,
                listening.secure,
                request.identity,
                listening.endpoint,
                handshake_info(self.transport, clock(), "Socket.IO over WebSocket"),
            )
        )
        if isinstance(connection, Error):
            return connection
        self._connection = connection
        connection.session.open_with_socket(self)
        connection.start()
        self._opened(connection)
        return None

    def _upgrade(self, endpoint: EngineEndpoint, query: Query) -> HandshakeError | None:
        connection = endpoint.find(query.sid)
        if connection is None:
            return HandshakeError.UNKNOWN_SESSION
        if not connection.session.upgrade(self, query.revision, endpoint.reactor.seconds()):
            return HandshakeError.BAD_REQUEST
        self._connection = connection
        connection.update()
        self._opened(connection)
        return None

    def _opened(self, connection: EngineConnection) -> None:
        if connection.charges_input:
            self._plain_frames = PlainFrames(self.factory.engine.settings.max_payload, decode_binary)

    # Output, called by the session.

    @property
    def is_blocked(self) -> bool:
        return bool(self.outlet.blocked & SOCKET_FULL)

    def send_frames(self, frames: bytes) -> None:
        """Send messages that are frames already. The caller counts them."""
        if self.state == self.STATE_OPEN:
            self.outlet.write(frames)

    def send(self, packet: Packet) -> None:
        if self.state == self.STATE_OPEN:
            frame = self.factory.encode(packet)
            self.factory.stats.sent += len(frame)
            self.outlet.write(frame)

    def close(self) -> None:
        self._connection = None
        self._end(CloseReason.NORMAL)

    def _end(self, reason: CloseReason, message: str = "") -> None:
        self.transport.resumeProducing()  # or the close frame of the client would never be read
        self.sendCloseFrame(CLOSE_CODES[reason], message.encode() or None)

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        connection = self._connection
        if not self._unparsed and not (connection is not None and connection.session.is_paused):
            self.transport.resumeProducing()

    def resume_writing(self) -> None:
        self.resume()
        if self._connection is not None:
            self._connection.session.flush()
            self._connection.update()

    # Input.

    def dataReceived(self, data: bytes) -> None:
        self.factory.stats.received += len(data)
        connection = self._connection
        if connection is not None and not connection.charge_bytes(len(data)):
            connection.fail(CloseCause.TRANSPORT)
        else:
            self.receive(data)

    def handle_messages(self, messages: list[Any]) -> None:
        connection = self._connection
        if connection is None or connection.session.receive_texts(self, messages, self.factory.reactor.seconds()):
            return
        for message in messages:
            if isinstance(message, bytes):
                self.onMessage(message, False)
            else:
                self.onMessage(message.data, True)
        self.messages_parsed()

    def messages_parsed(self) -> None:
        if self._connection is not None:
            self._connection.input_parsed()

    def input_parsed(self) -> None:
        """Count the input that is not complete in the memory budget."""
        connection, size = self._connection, self.unfinished_bytes
        if connection is not None and connection.unfinished_bytes != size:
            connection.unfinished_bytes = size
            self.has_unfinished_input = size > 0
            connection.update()

    def slice_parsed(self) -> None:
        if not self.outlet.blocked:
            self.resume()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        connection = self._connection
        if connection is None:
            return
        if not connection.charge_packet(payload, isBinary):
            connection.fail(CloseCause.TRANSPORT)
            return
        try:
            connection.session.socket_received(self, payload, isBinary, self.factory.reactor.seconds())
        except InvalidPacket:
            connection.session.fail(CloseCause.INVALID)
        connection.update()

    def onPing(self, payload: bytes) -> None:
        """Answer a ping of WebSocket. Engine.IO has pings of its own."""
        if self._connection is not None and not self._connection.charge(1):
            self._connection.fail(CloseCause.TRANSPORT)
            return
        super().onPing(payload)
        # A client that does not read its pongs is not read either.
        if self.state == self.STATE_OPEN and self.outlet.blocked & SOCKET_FULL:
            self.transport.pauseProducing()

    # The end.

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Send a close frame, for whatever reason. No message can be sent or received after it."""
        self.messages_parsed()  # they arrived before it
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self._leave_session()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        super().onClose(wasClean, code, reason)
        self._leave_session()

    def _leave_session(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.unfinished_bytes = 0
            connection.session.socket_lost(self)
            connection.update()


class EngineWebSocketFactory(WebSocketFactory):
    """Creates the WebSockets of one web listener. They have no pings of WebSocket, because Engine.IO has its own."""

    connection_class = EngineWebSocket

    def __init__(
        self,
        engine: EngineEndpoint,
        send_buffer_bytes: int,
        listening: ListenerConfig = DEFAULT_LISTENER,
    ) -> None:
        self.engine = engine
        self._last: tuple[Packet | None, bytes] = (None, b"")
        super().__init__(
            engine.context,
            engine.reactor,
            send_buffer_bytes,
            0,
            0,
            listening,
            max_message_bytes=engine.settings.max_payload,
        )

    def encode(self, packet: Packet) -> bytes:
        """The frame of a packet. Many clients receive the same object, so its frame is made once."""
        last, frame = self._last
        if packet is not last:
            frame = binary_frame(packet.data) if packet.is_binary else text_frame(encode_text(packet))
            self._last = (packet, frame)
        return frame

    def build(self, address: Any, principal: Principal, query: bytes, identity: Identity | None) -> EngineWebSocket:
        """The protocol of a connection whose handshake has passed the checks of the web port. It receives the handshake
        next. ``address`` is that of the client."""
        websocket: Any = self.buildProtocol(address)
        websocket.request = ClientRequest(address, principal, query, identity)
        return cast(EngineWebSocket, websocket)
