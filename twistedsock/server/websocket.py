"""WebSocket through Autobahn: the JSON dialect, and the line dialect for those who ask for it.

Autobahn does the handshake, control frames, fragments and closing. Plain text frames come in by a short way, and what
goes out is framed already when it gets here, so neither costs a call of Autobahn's.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest

from twistedsock.auth.identity import Identity
from twistedsock.codecs import json_decoder, line_decoder
from twistedsock.codecs.encoders import JSON_IN_MESSAGES, LINES_IN_MESSAGES
from twistedsock.codecs.http import RequestHead
from twistedsock.codecs.payload import BOM, SPACE
from twistedsock.codecs.websocket import PlainFrames, are_extensions, switching_protocols, take_extensions
from twistedsock.errors import TOO_MUCH_HELD, CloseReason, Error
from twistedsock.limits.memory import UNCOUNTED_BYTES
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.subscription import SOCKET_FULL, Client
from twistedsock.server.autobahn_internals import AutobahnConnection, configure
from twistedsock.server.connection import LINGER_SECONDS, close_description, log_exception, open_session
from twistedsock.server.sockets import DEFAULT_LISTENER, ListenerConfig, endpoints_of
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.server.transport import detach_outlet, outlet_of
from twistedsock.session.encoder import Encoder, Endpoints
from twistedsock.session.input_pipeline import Decoder, InputPipeline
from twistedsock.session.registry import ServerContext
from twistedsock.session.timeline import HandshakeInfo

JSON_PROTOCOL = "sockbridge.v1.json"

LINE_PROTOCOL = "sockbridge.v1.line"

Spoken = tuple[Encoder, Decoder]
"""What goes out and what comes in."""

SPOKEN: dict[str, Spoken] = {
    JSON_PROTOCOL: (JSON_IN_MESSAGES, json_decoder),
    LINE_PROTOCOL: (LINES_IN_MESSAGES, line_decoder),
}

CLOSE_TIMEOUT = 5
"""Seconds for the answer to our close frame, before the connection is dropped."""

PORTION = 256
"""Bytes that Autobahn gets at a time: the smallest frames cost it tens of microseconds each, so between two portions
there is a look at the clock."""

MAX_REASON = 123
"""RFC 6455 section 5.5: a close frame has 125 bytes, and two are the code."""

NOT_BINARY = 1003
"""RFC 6455 section 7.4.1: a type of data that cannot be accepted."""


def choose(offered: Sequence[str]) -> str | None:
    """The first subprotocol that is spoken here, None if there is none."""
    return next((protocol for protocol in offered if protocol in SPOKEN), None)


class WebSocketConnection(AutobahnConnection):
    """One WebSocket client."""

    spoken: ClassVar[dict[str, Spoken]] = SPOKEN

    factory: "WebSocketFactory"
    transport: Any
    proxied_address: Any = None
    """Its address, where a proxy tells it."""
    outcome: Identity | Error | None = None
    """What the policy finds of who it is, until it is open."""
    arrival: HandshakeInfo | None = None
    """How it came in, until it is open."""
    _pipeline: InputPipeline | None = None
    _frames: PlainFrames | None = None
    _linger: Any = None
    _begun = False
    _unparsed = b""
    _messages: Sequence[bytes] = ()
    _counted = 0
    _holder: Client | None = None
    _deaf = False
    _ended = ""
    _input_ended = False

    def onConnect(self, request: ConnectionRequest) -> str | None:
        if not request.protocols:
            return None
        chosen = choose(request.protocols)
        if chosen is None:
            raise ConnectionDeny(400, f"this server speaks {JSON_PROTOCOL} and {LINE_PROTOCOL}")
        return chosen

    def processHandshake(self) -> None:
        """No extension is accepted here, so Autobahn does not see the offers: it would fail the handshake for offers
        that are only to be declined."""
        end = self.data.find(b"\r\n\r\n") + 4
        if end >= 4:
            head, offers = take_extensions(self.data[:end])
            if not are_extensions(offers):
                self.failHandshake("malformed Sec-WebSocket-Extensions: send extensions as in RFC 6455 section 9.1")
                return
            self.data = head + self.data[end:]
        super().processHandshake()

    def succeedHandshake(self, res: Any) -> None:
        """Autobahn would leave a fault of ours in a Deferred that nobody looks at, and the peer waiting for ever."""
        try:
            super().succeedHandshake(res)
        except Exception:
            log_exception()
            self.transport.abortConnection()

    def answer(
        self,
        factory: "WebSocketFactory",
        transport: Any,
        head: RequestHead,
        ends: Endpoints,
        outcome: Identity | Error | None = None,
        arrival: HandshakeInfo | None = None,
    ) -> bool:
        """Open a connection whose plain handshake has been read, without Autobahn; False if a fault of ours ended it.
        The answer and the welcome leave together. ``outcome`` is what the policy finds of who it is."""
        chosen = choose(head.subprotocols)
        self.open_without_handshake(factory, transport, chosen)
        try:
            self._begin(ends, switching_protocols(head.key, chosen, factory.server), outcome, arrival)
        except Exception:
            log_exception()
            transport.abortConnection()
            return False
        return True

    def onOpen(self) -> None:
        self.drop_handshake_state()
        outcome = self.__dict__.pop("outcome", None)
        policy = self.factory.context.policy
        if policy is not None and isinstance(outcome, Identity):  # another one, if the handshake took several turns
            outcome = policy.review(outcome, self.factory.listening.endpoint)
        arrival = self.__dict__.pop("arrival", None)
        self._begin(
            endpoints_of(self.transport, self.proxied_address or self.transport.getPeer()), b"", outcome, arrival
        )

    def _begin(
        self, ends: Endpoints, before: bytes, outcome: Identity | Error | None, arrival: HandshakeInfo | None = None
    ) -> None:
        factory, transport = self.factory, self.transport
        self._frames = PlainFrames(factory.context.limits.max_message_bytes)
        self._outlet = outlet_of(transport, factory.reactor)
        self._starting = self.websocket_protocol_in_use != JSON_PROTOCOL
        self._lines = self.websocket_protocol_in_use == LINE_PROTOCOL
        dialect, codec = self.spoken[self.websocket_protocol_in_use or JSON_PROTOCOL]
        endpoint = factory.listening.endpoint
        self._pipeline = open_session(
            factory.context,
            dialect,
            codec,
            self._outlet,
            ends,
            close=self._hang_up,
            pause=transport.pauseProducing,
            resume=self._resume,
            listener=endpoint,
            handshake=arrival,
            timeouts=factory.timeouts,
        )
        self._pipeline.session.send_welcome(before, outcome)

    def dataReceived(self, data: bytes) -> None:
        frames, pipeline = self._frames, self._pipeline
        self.factory.context.stats.received += len(data)
        if pipeline is not None and pipeline.is_rate_limited:
            pipeline.bytes_received(len(data))
        if self._unparsed:
            self._unparsed += data
            self._watch()
            return
        if frames is None or self.data or self.current_frame is not None or self.inside_message:
            self._parse(data)
            return
        if pipeline is None or self.state != self.STATE_OPEN:
            self._frames = None
            self._parse(frames.rest() + data)
            return
        messages, rest = frames.feed(data)
        if messages:
            if self.autoPingTimeoutCall is not None:
                self.cancel_ping_timeout()
            self._receive(messages)
        if rest:
            self._parse(rest)
        elif self._begun or self._counted or frames.begun is not None:
            self._watch()

    def _parse(self, data: bytes) -> None:
        """Let Autobahn have it: its own ``dataReceived`` first makes words for its log, and then calls this. Where that
        takes long, the rest waits until others have had their turn."""
        if self._deaf:
            return
        broker = self.factory.context.broker
        enough = broker.clock() + TIME_SLICE_SECONDS
        position, end = 0, len(data)
        while position < end:
            self.parse(data[position : position + PORTION])
            self._receive_messages()
            position += PORTION
            if position < end and broker.clock() >= enough:
                self._unparsed = data[position:]
                self.transport.pauseProducing()
                broker.postpone(self._parse_on)
                break
        self._watch()

    def _receive_messages(self) -> None:
        """Those that Autobahn has found, together: what they ask for is run no longer than is fair to others."""
        if self._messages:
            messages, self._messages = self._messages, ()
            if self._pipeline is not None and self.state == self.STATE_OPEN:
                self._receive(list(messages))

    def _parse_on(self) -> None:
        data, self._unparsed = self._unparsed, b""
        if data:
            self._parse(data)
            if self._pipeline is None or not self._pipeline.is_paused:
                self._resume()
            if self._input_ended:
                self._finish()

    def readConnectionLost(self) -> None:
        """The peer sends nothing more, not even a close frame: what it has asked for is run and answered, then the
        connection ends."""
        if not self._input_ended:
            self._input_ended = True
            self._finish()

    def _finish(self) -> None:
        if self._unparsed:
            return  # there is more to run; then we come here again
        if self._pipeline is not None and self.state == self.STATE_OPEN:
            self._pipeline.end_of_input()
        else:
            self.dropConnection()

    def _watch(self) -> None:
        """What has begun must end in time."""
        if self._pipeline is None:
            return
        plain = self._frames.begun if self._frames is not None else None
        held = len(self._unparsed) + len(self.data) + self.assembled_bytes + (0 if plain is None else len(plain))
        if (self._counted or held > UNCOUNTED_BYTES) and self._is_too_much(held, self._pipeline):
            return
        begun = plain is not None or bool(self.data) or self.current_frame is not None or self.inside_message
        if begun is not self._begun:
            self._begun = begun
            timeouts = self.factory.timeouts
            (timeouts.input_begun if begun else timeouts.input_ended)(self._pipeline)

    def _is_too_much(self, held: int, pipeline: InputPipeline) -> bool:
        """How much is held of what has not ended has changed; where it is too much, the peer goes, and what still comes
        of it is not looked at."""
        memory_budget, source = self.factory.context.memory_budget, pipeline.session.client.source
        before, self._counted = self._counted, memory_budget.recount(self._counted, held, source)
        self._holder = pipeline.session.client
        if self._counted <= before or not memory_budget.is_too_much_for(source):
            return False
        self._deaf = True
        self._frames, self._unparsed, self.data = None, b"", b""
        self.discard_fragments()
        self._counted = memory_budget.recount(self._counted, 0, source)
        pipeline.session.close_with_error(TOO_MUCH_HELD)
        return True

    def connectionLost(self, reason: Any = None) -> None:
        """What Autobahn's does, but for the words that it makes for its log, which are most of its cost."""
        if self._holder is not None:
            self._counted = self.factory.context.memory_budget.recount(self._counted, 0, self._holder.source)
        self._ended = close_description(reason)
        self.end(reason)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._pipeline is None or self.state != self.STATE_OPEN:
            return
        if isBinary:
            self.sendCloseFrame(NOT_BINARY, b"binary messages are not spoken here")
        else:
            self._messages = [*self._messages, bytes(payload)]

    def onPing(self, payload: bytes) -> None:
        self._receive_messages()  # they came before
        if self._pipeline is not None and not self._pipeline.is_within_rate():
            return
        super().onPing(payload)
        # Who does not read its pongs is not read either.
        if self._pipeline is not None and self.state == self.STATE_OPEN and self._outlet.blocked & SOCKET_FULL:
            self._pipeline.pause()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        if self._pipeline is not None:
            self.factory.timeouts.stop(self._pipeline)
            self._pipeline.connection_lost(self._ended)
            self._pipeline = None

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False) -> None:
        """Whoever closes, and for whatever reason: no data follows a close frame (RFC 6455 section 5.5.1)."""
        self._receive_messages()
        if self._pipeline is not None:
            shown, why = (self.remoteCloseCode, self.remoteCloseReason) if isReply else (code, reasonUtf8)
            words = "a close frame" if shown is None else f"a close frame with code {shown}"
            if why:
                words += ": " + (why if isinstance(why, str) else why.decode(errors="replace"))
            self._pipeline.session.mark_closing(words, "peer" if isReply else "server")
            # A peer whose input was paused must be read again, or its answer would never be seen.
            self.transport.resumeProducing()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if self._input_ended and not isReply:  # nobody will answer it
            self.dropConnection()

    def dropConnection(self, abort: bool = False) -> None:
        """Autobahn closes the transport: nothing of ours must hold it open, and a peer that does not read our last
        words has ``LINGER_SECONDS`` to do so."""
        if self._pipeline is not None:
            if abort:
                self._pipeline.session.mark_closing(self.wasNotCleanReason or "")
            detach_outlet(self._outlet, self.transport)
        super().dropConnection(abort)
        if not abort and self._linger is None:
            self._linger = self.factory.reactor.callLater(LINGER_SECONDS, self.transport.abortConnection)

    def _receive(self, messages: list[bytes]) -> None:
        pipeline, timeouts = self._pipeline, self.factory.timeouts
        assert pipeline is not None
        if self._begun:
            self._begun = False
            timeouts.input_ended(pipeline)
        if timeouts.has_idle_timeout:
            timeouts.command_received(pipeline)
        if self._starting:
            messages = self._start(pipeline, messages)
            if not messages:
                return
        if self._lines:
            messages = [line.removesuffix(b"\r") for message in messages for line in message.split(b"\n")]
        pipeline.submit(messages)

    def _start(self, pipeline: InputPipeline, messages: list[bytes]) -> list[bytes]:
        """The first message that is not blank decides what is spoken, if no subprotocol did. Returns it and all behind
        it."""
        for place, message in enumerate(messages):
            text = message.removeprefix(BOM)
            start = text.lstrip(SPACE)[:1]
            if not start:
                pipeline.is_within_rate()  # it costs as much as a command
                continue
            self._starting = False
            if start != b"{" and not self._lines:
                self._lines = True
                pipeline.decoder = line_decoder
                pipeline.session.set_encoder(LINES_IN_MESSAGES)
            return [text, *messages[place + 1 :]]
        return []

    def _hang_up(self, ending: CloseReason) -> None:
        # Autobahn's sendClose would refuse every code of a server's but 1000.
        why = None
        if ending is CloseReason.POLICY and self._pipeline is not None:
            why = self._pipeline.session.close_message[:MAX_REASON].decode(errors="ignore").encode() or None
        self.sendCloseFrame(int(ending), why)

    def _resume(self) -> None:
        if not self._unparsed:
            self.transport.resumeProducing()


class WebSocketFactory(WebSocketServerFactory):
    """``ping_interval`` and ``ping_timeout`` are whole seconds, 0 for never."""

    noisy = False

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        send_buffer_bytes: int,
        ping_interval: int,
        ping_timeout: int,
        listening: ListenerConfig = DEFAULT_LISTENER,
    ) -> None:
        txaio.use_twisted()
        super().__init__(reactor=reactor)
        self.context = context
        self.reactor = reactor
        self.send_buffer_bytes = send_buffer_bytes
        self.listening = listening
        self.timeouts = ConnectionTimeouts(context.limits, reactor)
        limits = context.limits
        self.setProtocolOptions(
            webStatus=False,
            utf8validateIncoming=True,
            maxFramePayloadSize=limits.max_message_bytes,
            maxMessagePayloadSize=limits.max_message_bytes,
            openHandshakeTimeout=limits.handshake_timeout,
            closeHandshakeTimeout=CLOSE_TIMEOUT,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_timeout,
            autoPingSize=12,
            autoPingRestartOnAnyTraffic=True,
            failByDrop=False,
            # The gate has looked at origins before Autobahn sees the request.
            allowedOrigins=["*"],
            allowNullOrigin=True,
        )
        configure(self, WebSocketConnection)
