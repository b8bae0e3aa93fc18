"""WebSocket connections, on Autobahn.

Autobahn does the handshake, control frames, fragments and closing. Two short cuts avoid most of its cost: complete text
frames are parsed here, and outgoing frames arrive here as bytes. A handshake in its plain form is answered by the web
port, see ``open_accepted``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest

from twistedsock.auth.identity import Identity
from twistedsock.codecs.http import RequestHead
from twistedsock.codecs.line_decoder import split_messages
from twistedsock.codecs.payload import BOM, JSON_WHITESPACE
from twistedsock.codecs.websocket import CLOSE_CODES, PlainFrames, switching_protocols
from twistedsock.errors import MEMORY_LIMIT_REACHED, CloseReason, Error
from twistedsock.limits.shares import UNCOUNTED_BYTES
from twistedsock.pubsub.subscription import SOCKET_FULL, Client
from twistedsock.server.autobahn_internals import AutobahnConnection, configure
from twistedsock.server.connection import close_description, log_exception, open_session
from twistedsock.server.sockets import DEFAULT_LISTENER, ListenerConfig, endpoints_of
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.server.transport import outlet_of
from twistedsock.server.web_endpoints import SOCKBRIDGE, WebSocketEndpoint
from twistedsock.server.websocket_transport import WebSocketTransport
from twistedsock.session.commands import Command
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.input_pipeline import InputPipeline, Message
from twistedsock.session.timeline import HandshakeInfo

CLOSE_TIMEOUT_SECONDS = 5
"""Time for the client to answer a close frame, before the connection is dropped."""

MAX_CLOSE_REASON_BYTES = 123
"""RFC 6455 section 5.5: a close frame has 125 bytes, and the code takes two."""

UNSUPPORTED_DATA = 1003
"""RFC 6455 section 7.4.1: a type of data that cannot be accepted."""


class WebSocketConnection(WebSocketTransport):
    """A connection of a WebSocket client. The web port sets the attributes without underscore before it opens."""

    factory: "WebSocketFactory"
    transport: Any
    endpoint: WebSocketEndpoint = SOCKBRIDGE
    proxied_address: Any = None
    """The address of the client, if a proxy has reported it."""
    authenticated: Identity | Error | None = None
    """The result of the policy for the client's credentials. Removed when the connection opens."""
    handshake: HandshakeInfo | None = None
    """How the connection began. Removed when the connection opens."""
    pipeline: InputPipeline | None = None
    _messages: Sequence[Message] = ()
    """Messages that Autobahn has completed."""
    _awaits_first_message = True
    _has_lines = False
    _decode_binary: Callable[[bytes], Command] | None = None
    _has_partial_input = False
    _counted_bytes = 0
    """Bytes of unfinished input that are counted in the memory budget."""
    _counted_client: Client | None = None
    _is_input_ignored = False
    _has_input_ended = False
    _close_description = ""

    # The handshake.

    def onConnect(self, request: ConnectionRequest) -> str | None:
        if not request.protocols:
            return None
        selected = self.endpoint.select(request.protocols)
        if selected is None:
            raise ConnectionDeny(400, f"no supported subprotocol: offer {self.endpoint.supported}")
        return selected

    def onOpen(self) -> None:
        self.drop_handshake_state()
        authenticated = self.__dict__.pop("authenticated", None)
        policy = self.factory.context.policy
        if policy is not None and isinstance(authenticated, Identity):
            # The handshake may have taken several turns, and the policy may have changed.
            authenticated = policy.review(authenticated, self.factory.listening.endpoint)
        handshake = self.__dict__.pop("handshake", None)
        endpoints = endpoints_of(self.transport, self.proxied_address or self.transport.getPeer())
        self._open_session(endpoints, b"", authenticated, handshake)

    def open_accepted(
        self,
        factory: "WebSocketFactory",
        transport: Any,
        head: RequestHead,
        endpoints: Endpoints,
        authenticated: Identity | Error | None = None,
        handshake: HandshakeInfo | None = None,
    ) -> bool:
        """Open a connection whose plain handshake has been read and accepted, without Autobahn. The response and the
        welcome are sent together. Returns False if an exception has ended the connection."""
        selected = self.endpoint.select(head.subprotocols)
        self.open_without_handshake(factory, transport, selected)
        try:
            response = switching_protocols(head.key, selected, factory.server)
            self._open_session(endpoints, response, authenticated, handshake)
        except Exception:
            log_exception()
            transport.abortConnection()
            return False
        return True

    def _open_session(
        self,
        endpoints: Endpoints,
        response: bytes,
        authenticated: Identity | Error | None,
        handshake: HandshakeInfo | None,
    ) -> None:
        factory, transport = self.factory, self.transport
        selected = self.websocket_protocol_in_use
        dialect = self.endpoint.default if selected is None else self.endpoint.subprotocols[selected]
        if dialect.has_lines:
            self._has_lines = True
        elif selected is not None or self.endpoint.default_for_text is None:
            self._awaits_first_message = False
        self._decode_binary = dialect.decode_binary
        self._plain_frames = PlainFrames(factory.context.limits.max_message_bytes, dialect.decode_binary)
        self.outlet = outlet_of(transport, factory.reactor)
        self.pipeline = open_session(
            factory.context,
            dialect.encoder,
            dialect.decoder,
            self.outlet,
            endpoints,
            self,
            listener=factory.listening.endpoint,
            handshake=handshake,
            timeouts=factory.timeouts,
        )
        self.pipeline.session.send_welcome(response, authenticated)

    # Input: bytes.

    def dataReceived(self, data: bytes) -> None:
        pipeline = self.pipeline
        self.factory.stats.received += len(data)
        if pipeline is not None and pipeline.session.is_rate_limited:
            pipeline.bytes_received(len(data))
        if not self._is_input_ignored:
            self.receive(data)

    def slice_parsed(self) -> None:
        if self.pipeline is None or not self.pipeline.is_paused:
            self.resume_input()
        if self._has_input_ended:
            self._finish()

    def input_parsed(self) -> None:
        """Start or stop the timeout of unfinished frames and messages, and count their memory."""
        pipeline = self.pipeline
        if pipeline is None:
            return
        size = self.unfinished_bytes
        if (self._counted_bytes or size > UNCOUNTED_BYTES) and self._exceeds_memory_budget(size, pipeline):
            return
        has_partial = bool(self.data) or self.partial_plain_frame is not None
        has_partial = has_partial or self.current_frame is not None or self.inside_message
        if has_partial is not self._has_partial_input:
            self._has_partial_input = has_partial
            timeouts = self.factory.timeouts
            (timeouts.input_begun if has_partial else timeouts.input_ended)(pipeline)
        is_unfinished = has_partial or bool(self._counted_bytes)
        if is_unfinished is not self.has_unfinished_input:
            self.has_unfinished_input = is_unfinished

    def _exceeds_memory_budget(self, size: int, pipeline: InputPipeline) -> bool:
        """Count the memory of unfinished input. If it exceeds the budget, close the connection and ignore its input."""
        memory_budget, client = self.factory.context.memory_budget, pipeline.session.client
        before, self._counted_bytes = (
            self._counted_bytes,
            memory_budget.adjust(self._counted_bytes, size, client.source),
        )
        self._counted_client = client
        if self._counted_bytes <= before or not memory_budget.is_exceeded_by(client.source):
            return False
        self._is_input_ignored = True
        self._plain_frames, self._unparsed, self.data = None, b"", b""
        self.discard_fragments()
        self._counted_bytes = memory_budget.adjust(self._counted_bytes, 0, client.source)
        pipeline.session.close_with_error(MEMORY_LIMIT_REACHED)
        return True

    # Input: messages.

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.pipeline is None or self.state != self.STATE_OPEN:
            return
        if not isBinary:
            self._messages = [*self._messages, bytes(payload)]
        elif self._decode_binary is not None:
            self._messages = [*self._messages, self._decode_binary(bytes(payload))]
        else:
            self.sendCloseFrame(UNSUPPORTED_DATA, b"binary messages are not supported")

    def messages_parsed(self) -> None:
        """Run the messages that Autobahn has completed together, so that they share one time slice."""
        if self._messages:
            messages, self._messages = self._messages, ()
            if self.pipeline is not None and self.state == self.STATE_OPEN:
                self.handle_messages(list(messages))

    def handle_messages(self, messages: list[Any]) -> None:
        """Run the commands of messages. Binary messages are commands already."""
        pipeline, timeouts = self.pipeline, self.factory.timeouts
        assert pipeline is not None  # of an open connection
        if self._has_partial_input:
            self._has_partial_input = False
            timeouts.input_ended(pipeline)
        if timeouts.has_idle_timeout:
            timeouts.command_received(pipeline)
        if self._awaits_first_message:
            messages = self._select_dialect(pipeline, messages)
            if not messages:
                return
        if self._has_lines:
            pipeline.submit(split_messages(messages, self.factory.context.limits.max_message_bytes))
        else:
            pipeline.submit(messages)

    def _select_dialect(self, pipeline: InputPipeline, messages: list[bytes]) -> list[Message]:
        """Without a subprotocol, the first message that is not blank selects the protocol. Returns this message and
        those after it."""
        for position, message in enumerate(messages):
            text = message.removeprefix(BOM)
            start = text.lstrip(JSON_WHITESPACE)[:1]
            if not start:
                pipeline.is_within_rate()  # a blank message costs as much as a command
                continue
            self._awaits_first_message = False
            dialect = self.endpoint.default_for_text
            if start != b"{" and not self._has_lines and dialect is not None:
                self._has_lines = dialect.has_lines
                pipeline.decoder = dialect.decoder
                pipeline.session.set_encoder(dialect.encoder)
            return [text, *messages[position + 1 :]]
        return []

    def onPing(self, payload: bytes) -> None:
        self.messages_parsed()  # they arrived before the ping
        pipeline = self.pipeline
        if pipeline is not None and not pipeline.is_within_rate():
            return
        super().onPing(payload)
        # A client that does not read its pongs is not read either.
        if pipeline is not None and self.state == self.STATE_OPEN and self.outlet.blocked & SOCKET_FULL:
            pipeline.pause()

    def pause_input(self) -> None:
        self.transport.pauseProducing()

    def resume_input(self) -> None:
        if not self._unparsed:
            self.transport.resumeProducing()

    # Closing the connection.

    def close_connection(self, reason: CloseReason) -> None:
        # Autobahn's sendClose rejects the close codes of a server except 1000.
        text = None
        if reason is CloseReason.POLICY and self.pipeline is not None:
            message = self.pipeline.session.close_message[:MAX_CLOSE_REASON_BYTES]
            text = message.decode(errors="ignore").encode() or None
        self.sendCloseFrame(CLOSE_CODES[reason], text)

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Send a close frame, for whatever reason. No data follows it (RFC 6455 section 5.5.1)."""
        self.messages_parsed()
        if self.pipeline is not None:
            close_code, reason = (self.remoteCloseCode, self.remoteCloseReason) if isReply else (code, reasonUtf8)
            description = "a close frame" if close_code is None else f"a close frame with code {close_code}"
            if reason:
                description += ": " + (reason if isinstance(reason, str) else reason.decode(errors="replace"))
            self.pipeline.session.mark_closing(description, "peer" if isReply else "server")
            # If reading was paused, the close frame of the client would never be read.
            self.transport.resumeProducing()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if self._has_input_ended and not isReply:  # the client cannot answer it
            self.dropConnection()

    def dropConnection(self, abort: bool = False) -> None:
        if abort and self.pipeline is not None:
            self.pipeline.session.mark_closing(self.wasNotCleanReason or "")
        super().dropConnection(abort)

    def readConnectionLost(self) -> None:
        """The client has ended its stream without a close frame. Its commands are run and answered, then the connection
        is closed."""
        if not self._has_input_ended:
            self._has_input_ended = True
            self._finish()

    def _finish(self) -> None:
        if self._unparsed:
            return  # called again when it has been parsed
        if self.pipeline is not None and self.state == self.STATE_OPEN:
            self.pipeline.end_of_input()
        else:
            self.dropConnection()

    def connectionLost(self, reason: Any = None) -> None:
        if self._counted_client is not None:
            memory_budget = self.factory.context.memory_budget
            self._counted_bytes = memory_budget.adjust(self._counted_bytes, 0, self._counted_client.source)
        self._close_description = close_description(reason)
        super().connectionLost(reason)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        super().onClose(wasClean, code, reason)
        if self.pipeline is not None:
            self.factory.timeouts.stop(self.pipeline)
            self.pipeline.connection_lost(self._close_description)
            self.pipeline = None


class WebSocketFactory(WebSocketServerFactory):
    """Creates the WebSocket connections of one web listener. ``ping_interval`` and ``ping_timeout`` are whole seconds,
    0 for never. ``max_message_bytes`` is None for the limit of the server."""

    noisy = False
    connection_class: type[AutobahnConnection] = WebSocketConnection

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        send_buffer_bytes: int,
        ping_interval: int,
        ping_timeout: int,
        listening: ListenerConfig = DEFAULT_LISTENER,
        max_message_bytes: int | None = None,
    ) -> None:
        txaio.use_twisted()
        super().__init__(reactor=reactor)
        self.context = context
        self.stats = context.broker.stats
        self.reactor = reactor
        self.send_buffer_bytes = send_buffer_bytes
        self.listening = listening
        self.timeouts = ConnectionTimeouts(context.limits, reactor)
        limits = context.limits
        maximum = max_message_bytes or limits.max_message_bytes
        self.setProtocolOptions(
            webStatus=False,
            utf8validateIncoming=True,
            maxFramePayloadSize=maximum,
            maxMessagePayloadSize=maximum,
            # Autobahn's timers count whole seconds and take three at least.
            openHandshakeTimeout=limits.handshake_timeout,
            closeHandshakeTimeout=CLOSE_TIMEOUT_SECONDS,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_timeout,
            autoPingSize=12,
            autoPingRestartOnAnyTraffic=True,
            failByDrop=False,
            # The web port checks origins before Autobahn receives the request.
            allowedOrigins=["*"],
            allowNullOrigin=True,
        )
        configure(self, self.connection_class)
