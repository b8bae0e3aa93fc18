"""Lines over TCP, a Unix socket or TLS."""

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.codecs import line_decoder
from twistedsock.codecs.encoders import LINES
from twistedsock.codecs.http import wrong_door
from twistedsock.codecs.line_decoder import LineSplitter, Opening, WireProtocol
from twistedsock.codecs.payload import BOM
from twistedsock.codecs.telnet import IAC, TelnetFilter, replace_returns
from twistedsock.errors import TOO_FAST, TOO_MUCH_HELD, CloseReason
from twistedsock.limits.memory import UNCOUNTED_BYTES
from twistedsock.limits.principal import Principal, address_principal
from twistedsock.limits.rate import ENTRY_PRICE, TLS_HANDSHAKE_PRICE
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.server.connection import close_description, graceful_close, open_session
from twistedsock.server.sockets import (
    DEFAULT_LISTENER,
    ListenerConfig,
    ListenerFactory,
    endpoints_of,
    handshake_info,
    host_of,
    tune_socket,
)
from twistedsock.server.timeouts import ConnectionTimeouts, TimeoutQueue
from twistedsock.server.tls import subject_of
from twistedsock.server.transport import detach_outlet, outlet_of
from twistedsock.session.commands import Interrupt, InvalidCommand
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.registry import ServerContext

_FOREIGN = {
    WireProtocol.TLS: b"this port does not speak TLS: it expects lines of text",
    WireProtocol.OTHER: b"this port expects lines of UTF-8 text: the first one is none",
}
"""The last words to a connection that speaks another protocol."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class LineProtocol(Protocol):
    """One line peer. ``told`` is its address where a proxy tells it. With TLS, the conversation begins when the
    handshake is complete: who the peer is, is known then only, and before that nothing could leave."""

    factory: "LineFactory"
    transport: Any
    proxied_address: Any = None
    _pipeline: InputPipeline | None = None
    _telnet: TelnetFilter | None = None
    _closing: Any = None
    _admitted = False
    _spoken = False
    _begun = False
    _accepted_at: float | None = None
    _opening: Opening | None = None
    _returned = False
    _counted = 0

    def connectionMade(self) -> None:
        factory, transport = self.factory, self.transport
        tune_socket(transport, factory.send_buffer_bytes, factory.context.limits.unreachable_timeout)
        self._address = host_of(self.proxied_address or transport.getPeer())
        secure = factory.listening.secure
        price = ENTRY_PRICE + secure * TLS_HANDSHAKE_PRICE
        is_in_time = factory.context.charge(address_principal(self._address), price)
        error = factory.context.connection_limiter.enter(self._address) if is_in_time else TOO_FAST
        if error is not None:
            factory.context.stats.count_error(error.code)
            if secure and not is_in_time:  # to say why would take the handshake, which is what costs most
                transport.abortConnection()
                return
            transport.write(LINES.refused(None, error))
            self._closing = graceful_close(transport, factory.reactor.callLater)
            return
        self._admitted = True
        if secure:
            self._accepted_at = factory.context.broker.clock()
            factory.handshakes.start(self)
        else:
            self._begin()

    def handshakeCompleted(self) -> None:
        if self._admitted:
            self.factory.handshakes.stop(self)
            self._begin()

    def _begin(self) -> None:
        factory, transport = self.factory, self.transport
        peer = self.proxied_address or transport.getPeer()
        self._opening = Opening()
        self._splitter = LineSplitter(factory.context.limits.max_line_bytes, line_decoder.publishes)
        self._outlet = outlet_of(transport, factory.reactor)
        endpoint, ends = factory.listening.endpoint, endpoints_of(transport, peer)
        arrival = None
        if factory.listening.secure or factory.listening.proxied:
            handshake = "TLS" if factory.listening.secure else ""
            arrival = handshake_info(transport, factory.context.broker.clock(), handshake, self._accepted_at)
        self._pipeline = open_session(
            factory.context,
            LINES,
            line_decoder,
            self._outlet,
            ends,
            close=self._hang_up,
            pause=transport.pauseProducing,
            resume=self._resume,
            listener=endpoint,
            handshake=arrival,
            timeouts=factory.timeouts,
            awaits_first_command=True,
        )
        subject = subject_of(transport) if factory.listening.secure else None
        self._pipeline.session.send_welcome(b"", factory.context.authenticate(endpoint, None, subject))

    def dataReceived(self, data: bytes) -> None:
        pipeline = self._pipeline
        if pipeline is None or self._closing is not None:
            return
        self.factory.context.stats.received += len(data)
        if pipeline.is_rate_limited:
            pipeline.bytes_received(len(data))
            if self._closing is not None:
                return
        answer, interrupts = b"", 0
        if self._telnet is not None or IAC in data:
            self._telnet = self._telnet or TelnetFilter()
            data, answer, interrupts = self._telnet.feed(data)
            if answer:
                self._outlet.write(answer)
        if b"\0" in data:
            data = replace_returns(data, self._returned)
        if data:
            self._returned = data.endswith(b"\r")
        if self._opening is not None and self._is_foreign(pipeline, self._opening.feed(data)):
            return
        items: list[Any] = list(self._splitter.feed(data))
        if self._begun or self._splitter.unfinished:
            begun = self._splitter.begun
            if self._counted or (begun is not None and len(begun) > UNCOUNTED_BYTES):
                self._count(items, pipeline.session.client.source)
            self._watch(pipeline, bool(items))
        if self._opening is not None and any(isinstance(item, InvalidCommand) for item in items):
            # The first line is too long.
            if self._opening.begins_request() and self._is_foreign(pipeline, WireProtocol.HTTP):
                return
        if items and self.factory.timeouts.has_idle_timeout:
            self.factory.timeouts.command_received(pipeline)
        if items and not self._spoken:
            self._spoken = True
            self.factory.timeouts.first_command_received(pipeline)
            if isinstance(items[0], bytes):
                items[0] = items[0].removeprefix(BOM)
        items += [Interrupt()] * min(interrupts, 1)
        pipeline.submit(items)
        # Who does not read what refuses its options is not read either.
        if answer and self._outlet.blocked & SOCKET_FULL and self._closing is None:
            pipeline.pause()

    def readConnectionLost(self) -> None:
        """The peer has said all it wanted (a half-close); it may still read."""
        if self._pipeline is None or self._closing is not None:
            self.transport.loseConnection()
        else:
            self._pipeline.end_of_input()

    def writeConnectionLost(self) -> None:
        """Our own end of the stream, which we asked for."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self.factory.handshakes.stop(self)
        if self._pipeline is not None:
            self.factory.timeouts.stop(self._pipeline)
            self._pipeline.connection_lost(close_description(reason))
            if self._counted:
                source = self._pipeline.session.client.source
                self._counted = self.factory.context.memory_budget.recount(self._counted, 0, source)
            self._pipeline = None
        if self._admitted:
            self._admitted = False
            self.factory.context.connection_limiter.leave(self._address)

    def _count(self, items: list[Any], source: Principal) -> None:
        """How much of a line is held has changed; where it is too much, the line is skipped."""
        begun, memory_budget = self._splitter.begun, self.factory.context.memory_budget
        self._counted = memory_budget.recount(self._counted, 0 if begun is None else len(begun), source)
        if self._counted and memory_budget.is_too_much_for(source):
            items.append(self._splitter.skip(TOO_MUCH_HELD))
            self._counted = memory_budget.recount(self._counted, 0, source)

    def _watch(self, pipeline: InputPipeline, ended: bool) -> None:
        """A line that has begun must end in time."""
        if self._begun and (ended or not self._splitter.unfinished):
            self._begun = False
            self.factory.timeouts.input_ended(pipeline)
        if not self._begun and self._splitter.unfinished:
            self._begun = True
            self.factory.timeouts.input_begun(pipeline)

    def _is_foreign(self, pipeline: InputPipeline, spoken: WireProtocol | None) -> bool:
        """Whether the connection speaks another protocol. It is closed then, and none of its lines is run."""
        if spoken is None:
            return False
        self._opening = None
        if spoken is WireProtocol.LINES:
            return False
        if spoken is WireProtocol.HTTP:
            self._outlet.write(wrong_door(self.factory.web_address))
            pipeline.session.mark_closing("an HTTP request is for the web port")
            self._hang_up(CloseReason.POLICY)
        else:
            pipeline.session.close(CloseReason.POLICY, _FOREIGN[spoken])
        return True

    def _hang_up(self, ending: CloseReason) -> None:
        detach_outlet(self._outlet, self.transport)
        self._closing = graceful_close(self.transport, self.factory.reactor.callLater)

    def _resume(self) -> None:
        if self._closing is None:
            self.transport.resumeProducing()


class LineFactory(ListenerFactory):
    """``web_address`` is where lost browsers are sent, "" if there is no web port."""

    protocol: Any = LineProtocol

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        send_buffer_bytes: int,
        web_address: str = "",
        listening: ListenerConfig = DEFAULT_LISTENER,
    ) -> None:
        self.context = context
        self.reactor = reactor
        self.send_buffer_bytes = send_buffer_bytes
        self.web_address = web_address
        self.listening = listening
        self.timeouts = ConnectionTimeouts(context.limits, reactor)
        self.handshakes: TimeoutQueue[LineProtocol] = TimeoutQueue(
            reactor, context.limits.handshake_timeout, lambda protocol: protocol.transport.abortConnection()
        )
