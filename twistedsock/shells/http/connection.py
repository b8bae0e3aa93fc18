"""A connection of HTTP/1.1: requests in, one after the other, and no longer at a time than is fair to others."""

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from twistedsock.core.access import Identity
from twistedsock.core.errors import TOO_MUCH_HELD, Refusal
from twistedsock.core.limits import SHARE
from twistedsock.core.rate import Meter, Verdict
from twistedsock.shells.certificates import subject_of
from twistedsock.shells.closing import close_kindly
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.wire.chunks import BadChunks, Chunks
from twistedsock.wire.credentials import find_credentials
from twistedsock.wire.http_head import MOST_HEADERS, RequestHead, refusal

if TYPE_CHECKING:
    from twistedsock.shells.http.site import BridgeSite

IDLE = 60
"""Seconds that a kept-alive connection may be silent."""

MOST_REQUESTS = 10_000
"""Requests on one connection, then it is closed, so that none lasts for ever: three hours of one a second."""

MOST_DIGITS = 19
"""Of a Content-Length: 2^63 has as many, and Python reads no number of more than 4,300, which Twisted does not
expect."""

GOODBYE = 15
"""Seconds that an idle connection has to take its goodbye."""


class HttpConnection(HTTPChannel):
    """What Twisted does not do: it bounds no body, drops no input behind the last answer, answers all requests that
    came together in one go, and logs each connection that was silent for too long."""

    transport: Any
    requests: list[Any]
    maxHeaders = MOST_HEADERS
    requestFactory: Any = BridgeRequest
    _networkProducer: Any
    site: "BridgeSite"
    peer: Any
    meter: Meter | None = None
    _log = Logger(observer=LogPublisher())
    _deaf = False
    _lost = False
    _kindly = False
    _served = 0
    _enough = 0.0
    _chunks: Chunks | None = None
    _done: Any = None
    _closing: Any = None
    _counted = 0

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connections[self] = None

    def dataReceived(self, data: bytes) -> None:
        # TLS goes on to deliver what comes behind the last answer, and Twisted is not prepared for it.
        if self._deaf or self.transport.disconnecting:
            return
        self.resetTimeout()
        self._read(data)

    def _read(self, data: bytes) -> None:
        self._enough = self.site.bridge.broker.clock() + SHARE
        super().dataReceived(data)

    def setLineMode(self, extra: bytes = b"") -> None:
        self.line_mode = 1
        if extra:
            self._read(extra)

    def lineReceived(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):  # a header on two lines is read in two ways (RFC 9112 section 5.2)
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        field, value = name.lower(), value.strip(b" \t")
        if field == b"content-length" and (len(value) > MOST_DIGITS or self._chunks is not None):
            line = name + b": not read"  # so it is refused as any other that is not understood
        elif field == b"transfer-encoding":
            wrong = self._version != b"HTTP/1.1" or self._chunks is not None or self._transferDecoder is not None
            if wrong or value.lower() != b"chunked":
                self._respondToBadRequestAndDisconnect()
                return False
            self._chunks = Chunks(self.requests[-1].handleContentChunk)
            self.length = None
            return True
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        self._served += 1
        self.persistent = self.checkPersistence(request, self._version) and self._served < MOST_REQUESTS
        request.begin(self._command, self._path, self.length)
        if self.length == 0:
            return
        expects = request.header(b"expect").lower() == b"100-continue"
        if request.is_refused and (
            expects or not self.persistent or self.length is None or self.length > self.site.bridge.limits.max_message
        ):
            self.persistent = False
            self._kindly = True
            request.process()
        elif expects:
            self._send100Continue()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        said = b",".join(request.requestHeaders.getRawHeaders(b"connection", ())).lower()
        return version == b"HTTP/1.1" and b"close" not in [one.strip() for one in said.split(b",")]

    def rawDataReceived(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._handlingRequest or self._chunks is None:
            super().rawDataReceived(data)
            return
        try:
            rest = self._chunks.feed(data)
        except BadChunks as bad:
            self.refuse(400, str(bad))
            return
        if rest is not None and not self._deaf:
            self._chunks = None
            self._dataBuffer.append(rest)
            self.allContentReceived()

    def allContentReceived(self) -> None:
        if not self._deaf:
            super().allContentReceived()

    def body_came(self, request: BridgeRequest, data: bytes) -> None:
        """A piece of the body of a request."""
        refusal = request.came(data)
        if refusal is None and request.held:
            holdings = self.site.bridge.holdings
            self._counted = holdings.recount(self._counted, request.held)
            if holdings.too_much:
                refusal = TOO_MUCH_HELD
        if refusal is not None:
            self.persistent = False
            self._kindly = True
            request.refuse(refusal)

    def requestDone(self, request: Any) -> None:
        self.site.running.pop(request, None)
        if self._counted:
            self._counted = self.site.bridge.holdings.recount(self._counted, 0)
        broker = self.site.bridge.broker
        if self.persistent and (self._dataBuffer or self._buffer) and broker.clock() >= self._enough:
            self._done = request
            self._networkProducer.pauseProducing()
            broker.postpone(self._go_on)
        else:
            super().requestDone(request)

    def _go_on(self) -> None:
        if not self._lost:
            super().requestDone(self._done)

    def is_too_fast(self, commands: int) -> bool:
        """Whether so many commands more are too fast; who does not care is closed after the answer."""
        if self.meter is None:
            return False
        verdict = self.meter.judge(commands)
        if verdict is Verdict.CLOSE:
            self.persistent = False
        return verdict is not Verdict.RUN

    def recognize(self, request: BridgeRequest) -> Identity | Refusal | None:
        """Who asks; None where there is no policy."""
        bridge, listening = self.site.bridge, self.site.listening
        if bridge.policy is None:
            return None
        head = RequestHead(
            method="",
            path="",
            host="",
            origin=None,
            upgrade=False,
            subprotocols=(),
            query=request.query.decode("latin-1"),
            authorization=request.header(b"authorization").decode("latin-1"),
            cookies=request.header(b"cookie").decode("latin-1"),
        )
        shown = find_credentials(head, bridge.policy.cookie)
        subject = subject_of(self.transport) if listening.secure else None
        outcome = bridge.recognize(listening.endpoint, None if shown is None else shown.token, subject)
        return bridge.policy.anonymous(listening.endpoint) if outcome is None else outcome

    def become_stream(self, request: BridgeRequest) -> None:
        """From here on everything that goes out is somebody else's, and what comes in is dropped."""
        self.site.running.pop(request, None)
        self._deaf = True
        self._buffer, self._dataBuffer = b"", []
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()

    def end_stream(self) -> None:
        """The stream is over."""
        if not self._lost and self._closing is None:
            self._closing = close_kindly(self.transport, self.callLater)

    def refuse(self, status: int, words: str) -> None:
        """What came is no request that could be answered."""
        self.transport.write(refusal(status, words))
        self._kindly = True
        self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.transport.write(refusal(400, "that is no HTTP request"))
        self.loseConnection()

    def loseConnection(self) -> None:
        """Who does not answer the goodbye of TLS, or does not read, is waited for no longer than who says nothing."""
        self._deaf = True
        self._buffer, self._dataBuffer = b"", []
        self.setTimeout(None)
        if self._kindly and self._closing is None:
            self._networkProducer.unregisterProducer()
            self._closing = close_kindly(self.transport, self.callLater)
        else:
            super().loseConnection()
            if self._abortingCall is None:
                self._abortingCall = self.callLater(IDLE, self.forceAbortClient)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = self._deaf = True
        self.site.connections.pop(self, None)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        for request in self.requests:
            self.site.running.pop(request, None)
        if self._counted:
            self._counted = self.site.bridge.holdings.recount(self._counted, 0)
        super().connectionLost(reason)
