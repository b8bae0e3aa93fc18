"""What all WebSocket connections of the web port share, whatever protocol their messages have: a handshake without
extensions, input that is parsed in fair time slices, and a close that lets the client read the last bytes.
"""

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from twistedsock.codecs.websocket import PlainFrames, are_extensions, split_extensions
from twistedsock.server.autobahn_internals import AutobahnConnection
from twistedsock.server.connection import LINGER_SECONDS, log_exception
from twistedsock.server.transport import detach_outlet

PARSE_BYTES = 256
"""Input that Autobahn receives at a time. The smallest frames cost it tens of microseconds each, so the clock is
checked after each part."""


@implementer(IHalfCloseableProtocol)
class WebSocketTransport(AutobahnConnection):
    """A subclass sets ``outlet`` when the connection opens, and receives the messages of ``onMessage``."""

    factory: Any
    transport: Any
    outlet: Any = None
    admitted_host: str | None = None
    """The client's entry in the connection limits, if this connection must release it."""
    has_unfinished_input = False
    """Set by ``input_parsed``, which is called until nothing is unfinished any more."""
    _plain_frames: PlainFrames | None = None
    """Decodes plain frames. None if Autobahn decodes all: before the connection opens, after it closes, and on
    connections whose messages take long."""
    _unparsed = b""
    """Input that waits for the next time slice."""
    _linger: Any = None

    # The handshake.

    def processHandshake(self) -> None:
        """Hide the offered extensions from Autobahn: none is accepted here, and it would fail the handshake for some
        offers that only have to be declined."""
        end = self.data.find(b"\r\n\r\n") + 4
        if end >= 4:
            head, offers = split_extensions(self.data[:end])
            if not are_extensions(offers):
                self.failHandshake("malformed Sec-WebSocket-Extensions: send extensions as in RFC 6455 section 9.1")
                return
            self.data = head + self.data[end:]
        super().processHandshake()

    def succeedHandshake(self, res: Any) -> None:
        """Abort the connection if an exception is raised. Autobahn would leave it in a Deferred, and the client would
        wait for ever."""
        try:
            super().succeedHandshake(res)
        except Exception:
            log_exception()
            self.transport.abortConnection()

    # Input.

    @property
    def unfinished_bytes(self) -> int:
        """The size of frames and messages that are not complete."""
        return len(self._unparsed) + len(self.data) + self.assembled_bytes + len(self.partial_plain_frame or b"")

    @property
    def partial_plain_frame(self) -> bytearray | None:
        """A plain frame that is not complete yet."""
        return None if self._plain_frames is None else self._plain_frames.partial

    def receive(self, data: bytes) -> None:
        """Decode input: plain frames here, and everything from another one on by Autobahn."""
        frames = self._plain_frames
        if self._unparsed:
            self._unparsed += data
            self.input_parsed()
        elif frames is None or self.data or self.current_frame is not None or self.inside_message:
            self.parse_in_slices(data)  # Autobahn has begun with it
        elif self.state != self.STATE_OPEN:
            self._plain_frames = None
            self.parse_in_slices(frames.drain() + data)
        else:
            messages, rest = frames.feed(data)
            if messages:
                if self.autoPingTimeoutCall is not None:
                    self.cancel_ping_timeout()
                self.handle_messages(messages)
            if rest:
                self.parse_in_slices(rest)
            elif self.has_unfinished_input or frames.partial is not None:
                self.input_parsed()

    def handle_messages(self, messages: list[Any]) -> None:
        """Called with the messages of plain frames that have arrived together."""

    def parse_in_slices(self, data: bytes) -> None:
        """Let Autobahn parse input. After a time slice the rest waits until other clients have been served."""
        scheduler = self.factory.context.broker.scheduler
        time_slice = scheduler.time_slice()
        position, end = 0, len(data)
        while position < end:
            self.parse(data[position : position + PARSE_BYTES])
            self.messages_parsed()
            position += PARSE_BYTES
            if position < end and time_slice.is_over():
                self._unparsed = data[position:]
                self.transport.pauseProducing()
                scheduler.defer(self._parse_unparsed)
                break
        self.input_parsed()

    def _parse_unparsed(self) -> None:
        data, self._unparsed = self._unparsed, b""
        if data:
            self.parse_in_slices(data)
            self.slice_parsed()

    def messages_parsed(self) -> None:
        """Called when messages may have been completed."""

    def input_parsed(self) -> None:
        """Called when input has been parsed, or a part of it, and the rest waits."""

    def slice_parsed(self) -> None:
        """Called in a later time slice, when input that waited has been parsed. Reading is paused."""

    # Closing.

    def dropConnection(self, abort: bool = False) -> None:
        """Called by Autobahn to close the transport. A client that does not read the last bytes has
        ``LINGER_SECONDS``."""
        if self.outlet is not None:
            detach_outlet(self.outlet, self.transport)
        super().dropConnection(abort)
        if not abort and self._linger is None:
            self._linger = self.factory.reactor.callLater(LINGER_SECONDS, self.transport.abortConnection)

    def readConnectionLost(self) -> None:
        """The client has ended its stream without a close frame. It may still read."""
        self.dropConnection()

    def writeConnectionLost(self) -> None:
        """The server has ended its stream."""

    def connectionLost(self, reason: Any = None) -> None:
        self.end(reason)
        if self.admitted_host is not None:
            self.factory.context.connection_limiter.release(self.admitted_host)
            self.admitted_host = None

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
