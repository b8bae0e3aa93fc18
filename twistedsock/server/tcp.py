"""The line protocol over TCP, a Unix socket or TLS. If the first line is JSON, so are all others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.codecs.http import http_on_line_port
from twistedsock.codecs.json_decoder import JSON_LINE_DECODER
from twistedsock.codecs.json_encoder import JSON_LINE_ENCODER
from twistedsock.codecs.line_decoder import INTERRUPT_NOTICE, LINE_DECODER, LineSplitter
from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.codecs.payload import BOM
from twistedsock.codecs.protocol_detection import ProtocolDetector, WireProtocol
from twistedsock.codecs.telnet import IAC, TelnetFilter, replace_returns
from twistedsock.errors import MEMORY_LIMIT_REACHED, TOO_FAST, CloseReason
from twistedsock.limits.principal import address_principal
from twistedsock.limits.rate import ENTRY_PRICE, TLS_HANDSHAKE_PRICE
from twistedsock.limits.shares import UNCOUNTED_BYTES
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.server.connection import close_description, graceful_close, open_session
from twistedsock.server.sockets import (
    DEFAULT_LISTENER,
    ListenerConfig,
    ListenerFactory,
    endpoints_of,
    handshake_info,
    host_of,
    subject_of,
    tune_socket,
)
from twistedsock.server.timeouts import ConnectionTimeouts, TimeoutQueue
from twistedsock.server.transport import detach_outlet, outlet_of
from twistedsock.session.commands import InvalidCommand
from twistedsock.session.input_pipeline import InputPipeline

if TYPE_CHECKING:
    from twistedsock.session.context import ServerContext

_CLOSING_NOTICES = {
    WireProtocol.TLS: b"this port does not use TLS: connect without TLS and send lines of text",
    WireProtocol.OTHER: b"invalid first line: send lines of UTF-8 text",
}
"""Sent to a client that speaks another protocol, before it is disconnected."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class LineProtocol(Protocol):
    """A connection that speaks lines. With TLS, the session opens when the handshake is complete: only then is the
    certificate of the client known, and nothing could be sent before."""

    factory: "LineFactory"
    transport: Any
    proxied_address: Any = None
    """The address of the client, if a proxy has reported it."""
    pipeline: InputPipeline | None = None
    _telnet: TelnetFilter | None = None
    _opening: ProtocolDetector | None = None
    """Recognizes the protocol, until that is done."""
    _closing: Any = None
    """The delayed call that aborts the connection, once it is closing."""
    _is_admitted = False
    _is_past_first_line = False
    _line_has_begun = False
    _accepted_at: float | None = None
    _counted_bytes = 0
    """Bytes of an unfinished line that are counted in the memory budget."""

    # Opening the connection.

    def connectionMade(self) -> None:
        factory, transport = self.factory, self.transport
        tune_socket(transport, factory.send_buffer_bytes, factory.context.limits.unreachable_timeout)
        client_address = self.proxied_address or transport.getPeer()
        self._host = host_of(client_address)
        secure = factory.listening.secure
        price = ENTRY_PRICE + secure * TLS_HANDSHAKE_PRICE
        is_within_rate = factory.context.charge(address_principal(self._host), price)
        error = factory.context.connection_limiter.acquire(self._host) if is_within_rate else TOO_FAST
        if error is not None:
            factory.context.stats.count_error(error.code)
            endpoints = endpoints_of(transport, client_address)
            factory.context.connection_events.refused(endpoints, "line", error)
            if secure and not is_within_rate:  # sending the error would take the handshake, the most expensive part
                transport.abortConnection()
                return
            transport.write(LINE_ENCODER.refused(None, error))
            self._closing = graceful_close(transport, factory.reactor.callLater)
            return
        self._is_admitted = True
        if secure:
            self._accepted_at = factory.context.broker.clock()
            factory.handshakes.start(self)
        else:
            self._open_session(client_address)

    def handshakeCompleted(self) -> None:
        if self._is_admitted:
            self.factory.handshakes.stop(self)
            self._open_session(self.proxied_address or self.transport.getPeer())

    def _open_session(self, client_address: Any) -> None:
        factory, transport = self.factory, self.transport
        context, listening = factory.context, factory.listening
        self._opening = ProtocolDetector()
        self._splitter = LineSplitter(context.limits.max_line_bytes)
        self._outlet = outlet_of(transport, factory.reactor)
        handshake = None
        if listening.secure or listening.proxied:
            name = "TLS" if listening.secure else ""
            handshake = handshake_info(transport, context.broker.clock(), name, self._accepted_at)
        self.pipeline = open_session(
            context,
            LINE_ENCODER,
            LINE_DECODER,
            self._outlet,
            endpoints_of(transport, client_address),
            self,
            listener=listening.endpoint,
            handshake=handshake,
            timeouts=factory.timeouts,
            awaits_first_command=True,
        )
        subject = subject_of(transport) if listening.secure else None
        self.pipeline.session.send_welcome(b"", context.authenticate(listening.endpoint, None, subject))

    # Input: count, filter, recognize the protocol, split, run.

    def dataReceived(self, data: bytes) -> None:
        pipeline = self.pipeline
        if pipeline is None or self._closing is not None:
            return
        self.factory.stats.received += len(data)
        if pipeline.session.is_rate_limited:
            pipeline.bytes_received(len(data))
            if self._closing is not None:
                return
        interrupted = answered = False
        if self._telnet is not None or IAC in data or 0 in data:
            data, interrupted, answered = self._filter(data)
        if self._opening is not None and self._is_other_protocol(pipeline, self._opening.feed(data)):
            return
        items: Sequence[Any] = self._splitter.feed(data)
        if self._line_has_begun or data[-1:] != b"\n":
            items = self._watch_unfinished_line(pipeline, items)
        if items and (not self._is_past_first_line or self._opening is not None):
            items = self._begin(pipeline, items)
            if self._closing is not None:
                return
        if items and self.factory.timeouts.has_idle_timeout:
            self.factory.timeouts.command_received(pipeline)
        pipeline.submit([*items, INTERRUPT_NOTICE] if interrupted else items)
        # A client that does not read the answers to its telnet options is not read either.
        if answered and self._outlet.blocked & SOCKET_FULL and self._closing is None:
            pipeline.pause()

    def _filter(self, data: bytes) -> tuple[bytes, bool, bool]:
        """Remove telnet sequences. Returns the rest of the input, whether the user has interrupted a command, and
        whether options were answered."""
        answer, interrupts = b"", 0
        if self._telnet is not None or IAC in data:
            self._telnet = self._telnet or TelnetFilter()
            data, answer, interrupts = self._telnet.feed(data)
            if answer:
                self._outlet.write(answer)
        if 0 in data:
            data = replace_returns(data, self._splitter.ends_with_cr)
        return data, interrupts > 0, bool(answer)

    def _is_other_protocol(self, pipeline: InputPipeline, protocol: WireProtocol | None) -> bool:
        """Select the protocol. True if it is not one of the line port: then the connection is closed, and no command
        is run."""
        if protocol is None:
            return False
        self._opening = None
        if protocol is WireProtocol.JSON_LINES:
            self._splitter.has_verbs = False
            pipeline.decoder = JSON_LINE_DECODER
            pipeline.session.set_encoder(JSON_LINE_ENCODER)
            return False
        if protocol is WireProtocol.LINES:
            return False
        if protocol is WireProtocol.HTTP:
            self._outlet.write(http_on_line_port(self.factory.web_address))
            pipeline.session.mark_closing("an HTTP request is for the web port")
            self.close_connection(CloseReason.POLICY)
        else:
            pipeline.session.close(CloseReason.POLICY, _CLOSING_NOTICES[protocol])
        return True

    def _begin(self, pipeline: InputPipeline, items: Sequence[Any]) -> Sequence[Any]:
        """Handle the first items, up to the first line that is not blank. It can be too long, or an HTTP request."""
        opening, is_too_long = self._opening, any(isinstance(item, InvalidCommand) for item in items)
        if opening is not None and is_too_long and opening.looks_like_http():
            self._is_other_protocol(pipeline, WireProtocol.HTTP)
            return ()
        if self._is_past_first_line:
            return items
        self._is_past_first_line = True
        self.factory.timeouts.first_command_received(pipeline)
        first = items[0]
        return [first.removeprefix(BOM), *items[1:]] if isinstance(first, bytes) else items

    def _watch_unfinished_line(self, pipeline: InputPipeline, items: Sequence[Any]) -> Sequence[Any]:
        """Start or stop the timeout of an unfinished line, and count its memory. If that exceeds the budget, the line
        is skipped, and the error is added to the items."""
        begun = self._splitter.partial
        size = 0 if begun is None else len(begun)
        if self._counted_bytes or size > UNCOUNTED_BYTES:
            memory_budget, principal = self.factory.context.memory_budget, pipeline.session.client.source
            self._counted_bytes = memory_budget.adjust(self._counted_bytes, size, principal)
            if self._counted_bytes and memory_budget.is_exceeded_by(principal):
                items = [*items, self._splitter.discard_partial(MEMORY_LIMIT_REACHED)]
                self._counted_bytes = memory_budget.adjust(self._counted_bytes, 0, principal)
        if self._line_has_begun and (items or not self._splitter.has_partial_line):
            self._line_has_begun = False
            self.factory.timeouts.input_ended(pipeline)
        if not self._line_has_begun and self._splitter.has_partial_line:
            self._line_has_begun = True
            self.factory.timeouts.input_begun(pipeline)
        return items

    # Closing the connection.

    def readConnectionLost(self) -> None:
        """The client has ended its stream (a half-close). It may still read."""
        if self.pipeline is None or self._closing is not None:
            self.transport.loseConnection()
        else:
            self.pipeline.end_of_input()

    def writeConnectionLost(self) -> None:
        """The server has ended its stream."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        context = self.factory.context
        self.factory.handshakes.stop(self)
        if self.pipeline is not None:
            self.factory.timeouts.stop(self.pipeline)
            self.pipeline.connection_lost(close_description(reason))
            if self._counted_bytes:
                principal = self.pipeline.session.client.source
                self._counted_bytes = context.memory_budget.adjust(self._counted_bytes, 0, principal)
            self.pipeline = None
        if self._is_admitted:
            self._is_admitted = False
            context.connection_limiter.release(self._host)

    def close_connection(self, reason: CloseReason) -> None:
        if self.pipeline is not None:
            session = self.pipeline.session
            if session.replies.encoder is JSON_LINE_ENCODER and not session.replies.has_unfinished_reply:
                self._outlet.write(JSON_LINE_ENCODER.close(reason, session.close_message))
        detach_outlet(self._outlet, self.transport)
        self._closing = graceful_close(self.transport, self.factory.reactor.callLater)

    def pause_input(self) -> None:
        self.transport.pauseProducing()

    def resume_input(self) -> None:
        if self._closing is None:
            self.transport.resumeProducing()


class LineFactory(ListenerFactory):
    """Creates the connections of one line listener. ``web_address`` is shown to browsers that connect to it, empty if
    there is no web port."""

    protocol: Any = LineProtocol

    def __init__(
        self,
        context: "ServerContext",
        reactor: Any,
        send_buffer_bytes: int,
        web_address: str = "",
        listening: ListenerConfig = DEFAULT_LISTENER,
    ) -> None:
        self.context = context
        self.stats = context.broker.stats
        self.reactor = reactor
        self.send_buffer_bytes = send_buffer_bytes
        self.web_address = web_address
        self.listening = listening
        self.timeouts = ConnectionTimeouts(context.limits, reactor)
        self.handshakes: TimeoutQueue[LineProtocol] = TimeoutQueue(
            reactor, context.limits.handshake_timeout, lambda protocol: protocol.transport.abortConnection()
        )
