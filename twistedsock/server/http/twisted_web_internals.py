"""The private attributes of twisted.web that this server depends on, under public names.

Checked with Twisted 26.10. A test fails if a later version has no longer one of ``CHANNEL_INTERNALS`` or
``REQUEST_INTERNALS``: then compare this module with ``twisted.web.http.HTTPChannel`` and ``Request``.
"""

from typing import Any

from twisted.logger import Logger, LogPublisher
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.http import HTTPChannel, Request

CHECKED_TWISTED_VERSION = "26.10"

CHANNEL_INTERNALS = (
    "_abortingCall",
    "_buffer",
    "_busyReceiving",
    "_command",
    "_dataBuffer",
    "_handlingRequest",
    "_log",
    "_networkProducer",
    "_path",
    "_requestProducer",
    "_respondToBadRequestAndDisconnect",
    "_send100Continue",
    "_transferDecoder",
    "_version",
    "_waitingForTransport",
)

REQUEST_INTERNALS = ("_disconnected",)


def detach_transport(channel: HTTPChannel, protocol: Any) -> tuple[Any, bytes]:
    """Let ``protocol`` receive all further input of a connection that is handling a request, and its end. Returns the
    transport, and the input that has been received behind the request. The connection is not called any more, and must
    not be used."""
    internals: Any = channel
    transport: Any = channel.transport
    channel.setTimeout(None)
    producer: Any = internals._networkProducer
    producer.unregisterProducer()
    producer.resumeProducing()
    if isinstance(transport, ProtocolWrapper):  # TLS
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol
    behind, internals._dataBuffer = b"".join(internals._dataBuffer), []
    # The connection may be in the middle of a read, whose rest it passes on.
    internals.rawDataReceived = lambda data: protocol.dataReceived(data)
    internals.requests = []  # requests refer to their connection
    return transport, behind


class RequestInternals(Request):
    @property
    def is_disconnected(self) -> bool:
        return bool(self._disconnected)


class ChannelInternals(HTTPChannel):
    """An HTTP/1.1 connection of Twisted, with public names for the parts that ``HTTPConnection`` controls."""

    transport: Any
    requests: list[Any]
    persistent: Any
    _networkProducer: Any
    _requestProducer: Any
    # Twisted logs each client that times out.
    _log = Logger(observer=LogPublisher())

    # Together with Twisted's own attributes, more of them would make a dictionary of more than a KiB per connection.
    __slots__ = ()

    # Input.

    @property
    def has_unparsed_input(self) -> bool:
        return bool(self._dataBuffer or self._buffer)

    @property
    def has_partial_line(self) -> bool:
        return bool(self._buffer)

    @property
    def unparsed_bytes(self) -> int:
        return len(self._buffer) + sum(map(len, self._dataBuffer))

    def parse(self, data: bytes) -> None:
        """Parse input. Unlike ``HTTPChannel.dataReceived``, this does not restart the write timeout: a client that
        sends without reading its responses must time out."""
        LineReceiver.dataReceived(self, data)

    @property
    def is_parsing(self) -> bool:
        return self._busyReceiving

    def append_pipelined(self, data: bytes) -> int:
        """Keep input of later requests until the present one is answered. Returns how many bytes are kept."""
        joined = b"".join(self._dataBuffer) + data
        self._dataBuffer = [joined]
        return len(joined)

    def append_after_body(self, data: bytes) -> None:
        """Keep the input after the end of a chunked body."""
        self._dataBuffer.append(data)

    def discard_input(self) -> None:
        self._buffer, self._dataBuffer = b"", []

    def pause_reading(self) -> None:
        self._networkProducer.pauseProducing()

    # The request that is being received or handled.

    @property
    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and version."""
        return self._command, self._path, self._version

    @property
    def is_http_1_1(self) -> bool:
        return bool(self._version == b"HTTP/1.1")

    @property
    def is_handling_request(self) -> bool:
        """True from the end of a request until it has been answered."""
        return bool(self._handlingRequest)

    @property
    def has_content_length(self) -> bool:
        """True if a ``Content-Length`` has been received, also one of 0."""
        return self._transferDecoder is not None

    def send_100_continue(self) -> None:
        self._send100Continue()

    def reject_malformed(self) -> None:
        """Called by Twisted for a request that it cannot parse. To be overridden."""
        raise NotImplementedError

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.reject_malformed()

    # Output.

    @property
    def is_write_blocked(self) -> bool:
        """True while the transport has more to write than it accepts."""
        return bool(self._waitingForTransport)

    def pause_producer(self) -> None:
        """Pause the producer of the response. It is a wrapper if that of the caller cannot be paused."""
        self._requestProducer.pauseProducing()

    def detach_from_transport(self) -> None:
        """Let the transport no longer pause and resume this connection."""
        self._networkProducer.unregisterProducer()

    def detach_for_new_owner(self) -> None:
        """Let the transport read again, for another protocol. ``requestDone`` does not resume it a second time."""
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        self._waitingForTransport = True

    def abort_after(self, seconds: float) -> None:
        """Reset the connection after this time, unless that is scheduled already."""
        if self._abortingCall is None:
            self._abortingCall = self.callLater(seconds, self.forceAbortClient)

    def break_reference_cycles(self) -> None:
        """The request, its producer and the body decoder refer to this connection."""
        for request in self.requests:
            request.producer = None
        self.requests = []
        self._transferDecoder = self._requestProducer = None
