"""An HTTP/1.1 connection: receives requests one after another, within limits of size, time, rate and memory."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.python.failure import Failure

from twistedsock.codecs.http import MAX_HEADERS, ChunkDecoder, InvalidChunks, error_response
from twistedsock.codecs.problem_details import HTTP_STATUS
from twistedsock.errors import MEMORY_LIMIT_REACHED, TOO_FAST, Error, ErrorCode
from twistedsock.limits.principal import LOCAL, Principal, address_principal
from twistedsock.limits.rate import Decision, RateLimiter
from twistedsock.pubsub.scheduler import TimeSlice
from twistedsock.server.connection import graceful_close
from twistedsock.server.http.checks import check_request
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.site import IDLE_TIMEOUT_SECONDS, HTTPSite
from twistedsock.server.http.twisted_web_internals import ChannelInternals
from twistedsock.server.sockets import host_of
from twistedsock.server.transport import charge_to, mark_input_ended

CLOSE_TIMEOUT_SECONDS = 15
"""Time that an idle connection has to complete its close."""

MAX_REQUESTS = 10_000
"""Requests on one connection, then it is closed: after three hours of one request a second. No connection stays open
indefinitely."""

MAX_CONTENT_LENGTH_DIGITS = 19
"""As many as 2^63 has. ``int`` raises ``ValueError`` for more than 4,300, which Twisted does not catch."""

MAX_PIPELINED_BYTES = 16 * 1024
"""Bytes of later requests that are read before the present one is answered."""

HEAD_TOO_LONG = Error(ErrorCode.TOO_LONG, "request head too long")

REQUEST_TIMED_OUT = Error(ErrorCode.LIMIT, "request timed out: it was not complete in time")


class State(Enum):
    BETWEEN_REQUESTS = auto()
    """No part of a request is pending. The connection is idle, or a request is being handled."""
    RECEIVING = auto()
    """A part of a request has been received. The receive timeout is running."""
    CLOSING = auto()
    """Input is ignored. A last response can still be sent."""
    LOST = auto()


class HTTPConnection(ChannelInternals):
    """Adds to Twisted's channel: limits for bodies, pipelined input, rate and memory; timeouts that all connections of
    a site share; responses to pipelined requests in fair time slices; no input is processed after the last response.

    ``client_address`` is that of the client. With ``is_trusted_proxy``, it is that of a proxy which can report the
    address of the client in each request."""

    maxHeaders = MAX_HEADERS
    requestFactory: Any = HTTPRequest

    # Twisted's own attributes alone fill a dictionary. With many more it would grow to more than a KiB.
    __slots__ = (
        "_chunks",
        "_counted_bytes",
        "_counted_for",
        "_input_has_ended",
        "_linger_timer",
        "_lingers",
        "_rate_decision",
        "_request_count",
        "_time_slice",
        "_state",
        "_unfinished",
        "client_address",
        "is_trusted_proxy",
        "principal",
        "replace_protocol",
        "site",
    )

    def __init__(self, site: HTTPSite, client_address: Any, is_trusted_proxy: bool = False) -> None:
        super().__init__()
        self.timeOut = None  # all connections of a site share their timers
        self.callLater = site.reactor.callLater  # type: ignore[method-assign]
        self.site = site
        self.client_address = client_address
        self.is_trusted_proxy = is_trusted_proxy
        self.principal: Principal = LOCAL
        """The principal of the address. A request can prove an identity and count for that instead."""
        self.replace_protocol: Callable[[Any], None] | None = None
        """Makes another protocol the receiver of input and of the loss of the connection."""
        self._state = State.BETWEEN_REQUESTS
        self._rate_decision = Decision.ALLOW
        self._time_slice: TimeSlice | None = None
        self._request_count = 0
        self._counted_bytes = 0
        self._counted_for: Principal = LOCAL
        self._chunks: ChunkDecoder | None = None
        self._unfinished: Any = None
        """A request that has been answered, while reading of the next one is suspended."""
        self._input_has_ended = self._lingers = False
        self._linger_timer: Any = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connections[self] = None
        self.set_client_address(self.client_address)

    def set_client_address(self, address: Any) -> None:
        self.client_address = address
        self.principal = address_principal(host_of(address))
        charge_to(self.transport, self.principal)

    @property
    def _is_closing(self) -> bool:
        return self._state is State.CLOSING or self._state is State.LOST

    # Input.

    def dataReceived(self, data: bytes) -> None:
        # TLS delivers input after the last response too, which Twisted's channel does not expect.
        if self._is_closing or self.transport.disconnecting:
            return
        context = self.site.context
        context.stats.received += len(data)
        if (limiter := self.rate_limiter_of(self.principal)) is not None:
            self._rate_decision = limiter.count_bytes(len(data), context.broker.clock())
            if self._rate_decision is Decision.DISCONNECT:
                self._reject_and_close(TOO_FAST)
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._time_slice = self.site.context.broker.scheduler.time_slice()
        self.parse(data)
        self._update_timeouts_and_memory()

    def setLineMode(self, extra: bytes = b"") -> None:
        """Parse the input that was kept until a request was answered. Its bytes have been counted."""
        self.line_mode = 1
        if extra:
            self._parse(extra)

    def lineReceived(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):  # parsers disagree on folded headers (RFC 9112 section 5.2)
            self.reject_malformed()
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._reject_and_close(HEAD_TOO_LONG, 431)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        field, value = name.lower(), value.strip(b" \t")
        has_length = self._chunks is not None or self.has_content_length
        # Two lengths, or a length and chunks, are used to smuggle requests (RFC 9112 section 11.2).
        if field == b"transfer-encoding":
            codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
            # Chunked is the last coding, and only the last one (RFC 9112 section 6.3).
            if has_length or b"chunked" in codings[:-1] or codings[-1] != b"chunked" or not self.is_http_1_1:
                self.reject_malformed()
                return False
            if len(codings) > 1:  # an unsupported coding (RFC 9112 section 6.1)
                self._send_error_and_close(501, "unsupported transfer coding: send chunked alone")
                return False
            self._chunks, self.length = ChunkDecoder(self.requests[-1].handleContentChunk), None
            return True
        if field == b"content-length" and (has_length or len(value) > MAX_CONTENT_LENGTH_DIGITS):
            line = name + b": invalid"  # Twisted rejects it like any other invalid length
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        method, target, version = self.request_line
        self._request_count += 1
        self.persistent = self.checkPersistence(request, version) and self._request_count < MAX_REQUESTS
        request.head_received(method, target, version)
        request.rejection = check_request(request, self.length)
        if self.length == 0:
            return
        expects = self.is_http_1_1 and request.header(b"expect").lower() == b"100-continue"
        if request.rejection is not None and (expects or not self.persistent or self._has_long_body()):
            self._close_after(request.process)
        elif expects:
            self.send_100_continue()

    def _has_long_body(self) -> bool:
        """True if closing the connection is better than receiving and dropping the body of a rejected request."""
        return self.length is None or self.length > self.site.context.limits.max_message_bytes

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        options = b",".join(request.requestHeaders.getRawHeaders(b"connection", ())).lower()
        return version == b"HTTP/1.1" and b"close" not in [option.strip() for option in options.split(b",")]

    def rawDataReceived(self, data: bytes) -> None:
        if self._is_closing:
            return
        if self.is_handling_request:
            if self.append_pipelined(data) > MAX_PIPELINED_BYTES:
                self.pause_reading()
        elif self._chunks is None:
            super().rawDataReceived(data)
        else:
            self._read_chunks(self._chunks, data)

    def _read_chunks(self, chunks: ChunkDecoder, data: bytes) -> None:
        try:
            rest = chunks.feed(data)
        except InvalidChunks as bad:
            self._reject_and_close(Error(ErrorCode.BAD_ARGUMENT, str(bad)))
            return
        if rest is not None and not self._is_closing:
            self.append_after_body(rest)
            self.allContentReceived()

    def body_received(self, request: HTTPRequest, data: bytes) -> None:
        problem = request.body_received(data)
        if problem is not None:
            self._reject_and_close(problem)

    def allContentReceived(self) -> None:
        if not self._is_closing:
            self._chunks = None
            self._state = State.BETWEEN_REQUESTS
            self.site.receive_timeouts.stop(self)
            self.site.idle_timeouts.stop(self)
            super().allContentReceived()

    def readConnectionLost(self) -> None:
        """The client has ended its half of the connection. Complete requests are answered (RFC 9112 section 9.6)."""
        self._input_has_ended = True
        if self._is_closing:
            if self._linger_timer is not None:
                self.transport.loseConnection()
        elif self.is_handling_request:
            mark_input_ended(self.transport)
        else:
            self.loseConnection()

    # Timeouts and memory.

    def _update_timeouts_and_memory(self) -> None:
        if self._is_closing:
            return
        buffered = self.unparsed_bytes + (self.requests[0].buffered_bytes if self.requests else 0)
        budget = self.site.context.memory_budget
        if not self._counted_bytes:
            self._counted_for = self.principal
        before = self._counted_bytes
        self._counted_bytes = budget.adjust(before, buffered, self._counted_for)
        if self._counted_bytes > before and budget.is_exceeded_by(self._counted_for):
            self._reject_and_close(MEMORY_LIMIT_REACHED)
        elif self.is_handling_request:
            return
        elif self._input_has_ended:
            self.loseConnection()
        elif not self.requests and not self.has_partial_line:
            self._state = State.BETWEEN_REQUESTS
            self.site.receive_timeouts.stop(self)
            self.site.idle_timeouts.start(self)
        elif self._state is State.BETWEEN_REQUESTS:
            self._state = State.RECEIVING
            self.site.idle_timeouts.stop(self)
            self.site.receive_timeouts.start(self)

    def receive_timed_out(self) -> None:
        """Called if a request was not complete in time."""
        self._reject_and_close(REQUEST_TIMED_OUT, 408)

    def idle_timed_out(self) -> None:
        """Called if no request was received, or no response read, for ``IDLE_TIMEOUT_SECONDS``."""
        self.abort_after(CLOSE_TIMEOUT_SECONDS)
        self.loseConnection()

    def timeoutConnection(self) -> None:
        """Called if the client has not read a long response for too long. The connection is reset, because a FIN would
        mark the response as complete."""
        self.abort()

    def abort(self) -> None:
        """Reset the connection, for a response that cannot be completed."""
        self._stop_input()
        self.setTimeout(None)
        self.transport.abortConnection()

    # Rate.

    def rate_limiter_of(self, principal: Principal) -> RateLimiter | None:
        """The limiter for requests of this principal. None if the rate is not limited, as for local clients."""
        context = self.site.context
        return None if self.principal == LOCAL else context.rate_limiters.get(principal, context.broker.clock())

    def exceeds_rate(self, principal: Principal, price: float) -> bool:
        """Charge ``price`` commands. True if that exceeds the rate. If the client continues, its connection is closed
        after the response."""
        limiter = self.rate_limiter_of(principal)
        if limiter is None:
            return False
        decision = limiter.check(price, self._rate_decision)
        if decision is Decision.DISCONNECT:
            self.persistent = False
        return decision is not Decision.ALLOW

    # Between requests.

    def requestDone(self, request: Any) -> None:
        request.discard_body()
        if self.persistent and (self.is_write_blocked or self._is_slice_over()):
            # The next request is handled when the client has read the response, or in a later turn.
            self._unfinished = request
            self.pause_reading()
            if self.is_write_blocked:
                self.site.idle_timeouts.start(self)
            else:
                self.site.context.broker.scheduler.defer(self._continue)
        else:
            super().requestDone(request)
            if not self.is_parsing:
                self._update_timeouts_and_memory()
        self.site.request_finished(request)  # the server may end with it, and close this connection at once

    def _is_slice_over(self) -> bool:
        return self.has_unparsed_input and self._time_slice is not None and self._time_slice.is_over()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._unfinished is not None:
            self.site.idle_timeouts.stop(self)
            self.site.context.broker.scheduler.defer(self._continue)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The head of the response may have filled the transport, which reports that only once."""
        super().registerProducer(producer, streaming)
        if self.is_write_blocked:
            self.pause_producer()

    def _continue(self) -> None:
        if self._is_closing or self.is_write_blocked or self._unfinished is None:
            return
        request, self._unfinished = self._unfinished, None
        if (limiter := self.rate_limiter_of(self.principal)) is not None:
            limiter.refill(self.site.context.broker.clock())
        super().requestDone(request)
        self._update_timeouts_and_memory()

    def hand_over(self, protocol: Any) -> None:
        """Give the connection to another protocol. Input after the request is dropped."""
        request = self.requests.pop()
        request.discard_body()
        self._stop_input()
        self.detach_for_new_owner()
        self.site.remove_connection(self)
        self.site.request_finished(request)
        replace_protocol, self.replace_protocol = self.replace_protocol, None
        assert replace_protocol is not None
        replace_protocol(protocol)
        if self._input_has_ended:  # the protocol starts in this turn
            self.callLater(0, protocol.readConnectionLost)

    # Closing.

    def close_if_idle(self) -> None:
        """Called when the server shuts down."""
        if not self.requests and not self._is_closing:
            self.idle_timed_out()

    def _reject_and_close(self, problem: Error, status: int | None = None) -> None:
        """Respond with an error to the request that is being received, and close."""
        request = self.requests[-1] if self.requests and not self.is_handling_request else None
        if request is not None and request.has_head:
            self._close_after(lambda: request.reject(problem, status))
        elif self.is_handling_request:  # responses keep the order of requests, and an earlier one is not answered yet
            self._stop_input()
            self.transport.abortConnection()
        else:
            self.site.context.stats.count_error(problem.code)
            self.transport.write(error_response(status or HTTP_STATUS[problem.code], problem.message))
            self._close_after(self.loseConnection)

    def _close_after(self, respond: Callable[[], object]) -> None:
        """Close with the response. The client may still be sending: its input is read and dropped for a while, because
        a reset would delete the response."""
        self.persistent = False
        self._lingers = True
        respond()

    def reject_malformed(self) -> None:
        self._send_error_and_close(400, "malformed HTTP request")

    def _send_error_and_close(self, status: int, message: str) -> None:
        self.transport.write(error_response(status, message))
        self.loseConnection()

    def _stop_input(self) -> None:
        if self._state is not State.LOST:
            self._state = State.CLOSING
        self.discard_input()
        self.site.stop_timeouts(self)
        self._counted_bytes = self.site.context.memory_budget.adjust(self._counted_bytes, 0, self._counted_for)

    def loseConnection(self) -> None:
        """Close. A client that does not complete the close, of TLS for example, is reset after a while."""
        self._stop_input()
        self.setTimeout(None)
        if self._linger_timer is not None:
            return
        if self._lingers:
            self.detach_from_transport()
            self._linger_timer = graceful_close(self.transport, self.callLater)
        else:
            super().loseConnection()
            self.abort_after(IDLE_TIMEOUT_SECONDS)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._state = State.LOST
        self.replace_protocol = None
        self._stop_input()
        self.site.remove_connection(self)
        if self._linger_timer is not None and self._linger_timer.active():
            self._linger_timer.cancel()
        for request in self.requests:
            self.site.request_finished(request)
        super().connectionLost(reason)
        for request in self.requests:
            request.discard_body()
        self.break_reference_cycles()
        self._unfinished = self._chunks = None
