"""A connection of HTTP/1.1: requests in, one after the other, and no longer at a time than is fair to others."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger, LogPublisher
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from twistedsock.codecs.http import MAX_HEADERS, BadChunks, Chunks, error
from twistedsock.codecs.query import STATUS
from twistedsock.errors import TOO_FAST, TOO_MUCH_HELD, Error, ErrorCode
from twistedsock.limits.principal import LOCAL, Principal, address_principal
from twistedsock.limits.rate import Decision, RateLimiter
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.server.connection import graceful_close
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.sockets import host_of
from twistedsock.server.transport import count_for, only_write

if TYPE_CHECKING:
    from twistedsock.server.http.site import HTTPSite

IDLE = 60
"""Seconds that a kept-alive connection may be silent."""

GOODBYE = 15
"""Seconds that an idle connection has to take its goodbye."""

MAX_REQUESTS = 10_000
"""Requests on one connection, then it is closed, so that none lasts for ever: three hours of one a second."""

MAX_DIGITS = 19
"""Of a Content-Length: 2^63 has as many, and Python reads no number of more than 4,300, which Twisted does not
expect."""

MAX_EARLY = 16 * 1024
"""Bytes that are read of requests whose turn has not come; then the client is not read until it has."""

LONG_HEAD = Error(ErrorCode.TOO_LONG, "the head of the request is too long")

LATE = Error(ErrorCode.LIMIT, "the request did not end in time")


class HTTPConnection(HTTPChannel):
    """What Twisted does not do: it bounds no body, drops no input behind the last answer, answers all requests that
    came together in one go, gives each connection a timer, and logs each that was silent for too long."""

    transport: Any
    requests: list[Any]
    maxHeaders = MAX_HEADERS
    requestFactory: Any = HTTPRequest
    _networkProducer: Any
    _log = Logger(observer=LogPublisher())

    # Twisted's own attributes alone fill a dictionary of more than a KiB, if there are many more.
    __slots__ = (
        "_answered",
        "_begun",
        "_chunks",
        "_closing",
        "_counted",
        "_deaf",
        "_enough",
        "_input_ended",
        "_kindly",
        "_lost",
        "_read_as",
        "_served",
        "_source",
        "give_way",
        "is_proxied",
        "peer",
        "principal",
        "site",
    )

    def __init__(self, site: "HTTPSite", peer: Any, is_proxied: bool) -> None:
        super().__init__()
        self.timeOut = None  # all connections of a site share their timers
        self.callLater = site.reactor.callLater  # type: ignore[method-assign]
        self.site = site
        self.peer = peer
        """The far end, as a trusted proxy tells it."""
        self.is_proxied = is_proxied
        """Whether the far end is a trusted proxy, that may tell with each request whom it speaks for."""
        self.principal: Principal = LOCAL
        """That of the far end, whatever identity a request proves."""
        self.give_way: Callable[[Any], None] | None = None
        """Lets another protocol have what comes in, and the end of the connection."""
        self._read_as = Decision.RUN
        self._enough = 0.0
        self._served = 0
        self._begun = False
        self._counted = 0
        self._source: Principal = LOCAL
        self._chunks: Chunks | None = None
        self._answered: Any = None
        self._deaf = self._lost = self._kindly = self._input_ended = False
        self._closing: Any = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connections[self] = None
        self.know(self.peer)

    def know(self, peer: Any) -> None:
        """That is the far end."""
        self.peer = peer
        self.principal = address_principal(host_of(peer))
        count_for(self.transport, self.principal)

    # What comes in.

    def dataReceived(self, data: bytes) -> None:
        # TLS goes on to deliver what comes behind the last answer, and Twisted is not prepared for it.
        if self._deaf or self.transport.disconnecting:
            return
        context = self.site.context
        context.stats.received += len(data)
        if (meter := self.meter_of(self.principal)) is not None:
            self._read_as = meter.read(len(data), context.broker.clock())
            if self._read_as is Decision.CLOSE:
                self._give_up(TOO_FAST)
                return
        self._read(data)

    def _read(self, data: bytes) -> None:
        self._enough = self.site.context.broker.clock() + TIME_SLICE_SECONDS
        # Not as Twisted does it, where who goes on sending need never read.
        LineReceiver.dataReceived(self, data)
        self._watch()

    def setLineMode(self, extra: bytes = b"") -> None:
        """What was kept until a request was answered is read now; it has been counted."""
        self.line_mode = 1
        if extra:
            self._read(extra)

    def lineReceived(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):  # a header on two lines is read in two ways (RFC 9112 section 5.2)
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._give_up(LONG_HEAD, 431)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        field, value = name.lower(), value.strip(b" \t")
        has_length = self._chunks is not None or self._transferDecoder is not None
        # Two lengths, or a length and chunks, are how requests are smuggled (RFC 9112 section 11.2).
        if field == b"transfer-encoding":
            codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
            # Chunks are the last coding, and no other one (RFC 9112 section 6.3).
            if has_length or (b"chunked" in codings[:-1]) or codings[-1] != b"chunked" or self._version != b"HTTP/1.1":
                self._respondToBadRequestAndDisconnect()
                return False
            if len(codings) > 1:  # a coding that is not understood (RFC 9112 section 6.1)
                self._respond_and_disconnect(501, "unsupported transfer coding: send chunked alone")
                return False
            self._chunks, self.length = Chunks(self.requests[-1].handleContentChunk), None
            return True
        if field == b"content-length" and (has_length or len(value) > MAX_DIGITS):
            line = name + b": not read"  # so it is refused as any other that is not understood
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        self._served += 1
        self.persistent = self.checkPersistence(request, self._version) and self._served < MAX_REQUESTS
        request.begin(self._command, self._path, self._version, self.length)
        if self.length == 0:
            return
        expects = self._version == b"HTTP/1.1" and request.header(b"expect").lower() == b"100-continue"
        if request.is_refused and (expects or not self.persistent or self._is_long()):
            self._close_after(request.process)
        elif expects:
            self._send100Continue()

    def _is_long(self) -> bool:
        """Whether it is better to close the connection than to wait for a body that nobody wants."""
        return self.length is None or self.length > self.site.context.limits.max_message_bytes

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        said = b",".join(request.requestHeaders.getRawHeaders(b"connection", ())).lower()
        return version == b"HTTP/1.1" and b"close" not in [one.strip() for one in said.split(b",")]

    def rawDataReceived(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._handlingRequest:
            early = b"".join(self._dataBuffer) + data
            self._dataBuffer = [early]
            if len(early) > MAX_EARLY:
                self._networkProducer.pauseProducing()
        elif self._chunks is None:
            super().rawDataReceived(data)
        else:
            self._read_chunks(self._chunks, data)

    def _read_chunks(self, chunks: Chunks, data: bytes) -> None:
        try:
            rest = chunks.feed(data)
        except BadChunks as bad:
            self._give_up(Error(ErrorCode.BAD_ARGUMENT, str(bad)))
            return
        if rest is not None and not self._deaf:
            self._dataBuffer.append(rest)
            self.allContentReceived()

    def body_came(self, request: HTTPRequest, data: bytes) -> None:
        """A piece of the body of a request."""
        refused = request.came(data)
        if refused is not None:
            self._give_up(refused)

    def allContentReceived(self) -> None:
        if not self._deaf:
            self._chunks = None
            self._begun = False
            self.site.begun.stop(self)
            self.site.idle.stop(self)
            super().allContentReceived()

    def readConnectionLost(self) -> None:
        """The client sends nothing more. The requests that are there are answered (RFC 9112 section 9.6)."""
        self._input_ended = True
        if self._deaf:
            if self._closing is not None:
                self.transport.loseConnection()
        elif self._handlingRequest:
            only_write(self.transport)
        else:
            self.loseConnection()

    # How long it is waited for, and how much is held.

    def _watch(self) -> None:
        """Something has been read, or answered."""
        if self._deaf or self._lost:
            return
        held = len(self._buffer) + sum(map(len, self._dataBuffer)) + (self.requests[0].held if self.requests else 0)
        memory_budget = self.site.context.memory_budget
        if not self._counted:
            self._source = self.principal
        before, self._counted = self._counted, memory_budget.recount(self._counted, held, self._source)
        if self._counted > before and memory_budget.is_too_much_for(self._source):
            self._give_up(TOO_MUCH_HELD)
        elif self._input_ended and not self._handlingRequest:
            self.loseConnection()
        elif not self._handlingRequest:
            if not self.requests and not self._buffer:
                self._begun = False
                self.site.begun.stop(self)
                self.site.idle.start(self)
            elif not self._begun:
                self._begun = True
                self.site.idle.stop(self)
                self.site.begun.start(self)

    def be_late(self) -> None:
        """A request has begun, and did not end in time."""
        self._give_up(LATE, 408)

    def be_idle(self) -> None:
        """Nothing was asked for a long time, or nothing will be answered any more."""
        if self._abortingCall is None:
            self._abortingCall = self.callLater(GOODBYE, self.forceAbortClient)
        self.loseConnection()

    def timeoutConnection(self) -> None:
        """The client has not read for too long. The rest of the answer cannot be sent, so it ends in a reset: a FIN
        would be taken for its end."""
        self.abort()

    def abort(self) -> None:
        """End an answer that cannot be completed."""
        self._fall_deaf()
        self.setTimeout(None)
        self.transport.abortConnection()

    # What it may.

    def meter_of(self, principal: Principal) -> RateLimiter | None:
        """The meter that a request of this principal is charged to; None if the rate is not limited, as for clients on
        this machine."""
        context = self.site.context
        return None if self.principal == LOCAL else context.meters.of(principal, context.broker.clock())

    def is_too_fast(self, principal: Principal, price: float) -> bool:
        """Whether a request of that price exceeds the rate; a client that goes on is closed after the answer."""
        meter = self.meter_of(principal)
        if meter is None:
            return False
        verdict = meter.judge(price, self._read_as)
        if verdict is Decision.CLOSE:
            self.persistent = False
        return verdict is not Decision.RUN

    # How it goes on.

    def requestDone(self, request: Any) -> None:
        self.site.has_answered(request)
        request.forget_body()
        if self.persistent and (self._waitingForTransport or self._has_had_its_share()):
            # As if this one had not been answered yet. Who does not read its answers is not read either.
            self._answered = request
            self._networkProducer.pauseProducing()
            if self._waitingForTransport:
                self.site.idle.start(self)
            else:
                self.site.context.broker.postpone(self._go_on)
        else:
            super().requestDone(request)
            if not self._busyReceiving:
                self._watch()

    def _has_had_its_share(self) -> bool:
        """Whether others are to have their turn before it goes on."""
        return bool(self._dataBuffer or self._buffer) and self.site.context.broker.clock() >= self._enough

    def resumeProducing(self) -> None:
        """What was written has left."""
        super().resumeProducing()
        if self._answered is not None:
            self.site.idle.stop(self)
            self.site.context.broker.postpone(self._go_on)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Of an answer whose head may have been too much for the transport, which tells that once."""
        super().registerProducer(producer, streaming)
        if self._waitingForTransport:
            producer.pauseProducing()

    def _go_on(self) -> None:
        if self._lost or self._deaf or self._waitingForTransport or self._answered is None:
            return
        request, self._answered = self._answered, None
        if (meter := self.meter_of(self.principal)) is not None:
            meter.fill(self.site.context.broker.clock())
        super().requestDone(request)
        self._watch()

    def give_away(self, owner: Any) -> None:
        """From here on the connection is another protocol's, and nothing of HTTP is held any longer."""
        request = self.requests.pop()
        request.forget_body()
        self._fall_deaf()
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        # What came behind the request is dropped, and must not stop the reading of what comes later.
        self._waitingForTransport = True
        self.site.has_gone(self)
        self.site.has_answered(request)
        give_way, self.give_way = self.give_way, None
        assert give_way is not None
        give_way(owner)
        if self._input_ended:  # the owner begins in this turn
            self.callLater(0, owner.readConnectionLost)

    def drain(self) -> None:
        """The server is going away: whoever asks for nothing just now is closed."""
        if not self.requests and not self._deaf:
            self.be_idle()

    # How it ends.

    def _give_up(self, refused: Error, status: int | None = None) -> None:
        """Refuse what is being read, and close; the rest of it is taken, and forgotten."""
        request = self.requests[-1] if self.requests and not self._handlingRequest else None
        if request is not None and request.has_begun:
            self._close_after(lambda: request.refuse(refused, status))
        elif self._handlingRequest:  # others are behind one that is not answered yet, and cannot be answered before it
            self._fall_deaf()
            self.transport.abortConnection()
        else:
            self.site.context.stats.count_error(refused.code)
            told = status or STATUS[refused.code]
            self.transport.write(error(told, refused.message))
            self._close_after(self.loseConnection)

    def _close_after(self, answer: Any) -> None:
        self.persistent = False
        self._kindly = True
        answer()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._respond_and_disconnect(400, "that is no HTTP request")

    def _respond_and_disconnect(self, status: int, words: str) -> None:
        self.transport.write(error(status, words))
        self.loseConnection()

    def _fall_deaf(self) -> None:
        self._deaf = True
        self._buffer, self._dataBuffer = b"", []
        self.site.forget(self)
        self._counted = self.site.context.memory_budget.recount(self._counted, 0, self._source)

    def loseConnection(self) -> None:
        """Who does not answer the goodbye of TLS, or does not read, is waited for no longer than who says nothing. Who
        is still sending has its words taken, as a reset would take ours from it."""
        self._fall_deaf()
        self.setTimeout(None)
        if self._kindly and self._closing is None:
            self._networkProducer.unregisterProducer()
            self._closing = graceful_close(self.transport, self.callLater)
        elif self._closing is None:
            super().loseConnection()
            if self._abortingCall is None:
                self._abortingCall = self.callLater(IDLE, self.forceAbortClient)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = True
        self.give_way = None  # or two would hold each other
        self._fall_deaf()
        self.site.has_gone(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        for request in self.requests:
            self.site.has_answered(request)
        super().connectionLost(reason)
        for request in self.requests:
            request.forget_body()
            request.producer = None
        # They hold this connection, and must not be held by it.
        self.requests = []
        self._answered = self._chunks = self._transferDecoder = self._requestProducer = None
