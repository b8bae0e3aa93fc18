"""One HTTP request: what endpoints read from it, and the ways to respond to it."""

from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from itertools import chain
from typing import Any, Protocol, cast

from twistedsock.auth.identity import Identity, Policy
from twistedsock.codecs.problem_details import HTTP_STATUS, PROBLEM_TYPE, RETRY_AFTER_SECONDS, ApiError, problem_details
from twistedsock.codecs.query import QueryParameters
from twistedsock.errors import FOR_ADMINS_WITH_TOKEN, INTERNAL, TOO_FAST, Error, ErrorCode
from twistedsock.limits.principal import Principal, subject_principal
from twistedsock.limits.rate import RateLimiter, answer_price, unreadable_price
from twistedsock.pubsub.future import Future, Steps, complete, on_result
from twistedsock.server.connection import log_exception
from twistedsock.server.http.headers import (
    BODILESS_STATUSES,
    CORS_ALLOWED_HEADERS,
    CORS_EXPOSED_HEADERS,
    DATA_HEADERS,
    JSON,
    PREFLIGHT_MAX_AGE_SECONDS,
    header_block,
)
from twistedsock.server.http.origin_policy import RejectedRequest
from twistedsock.server.http.routing import Route, RouteMatch
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.http.static import ServedFile
from twistedsock.server.http.streaming import StreamingResponse
from twistedsock.server.http.twisted_web_internals import RequestInternals
from twistedsock.server.sockets import ListenerConfig, endpoints_of
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints, Piece
from twistedsock.session.request import RequestClient

AUTHENTICATION_REQUIRED = Error(
    ErrorCode.UNAUTHORIZED, "authentication required: send the header Authorization: Bearer <token>"
)

TOKEN_EXPIRED = Error(ErrorCode.UNAUTHORIZED, "token expired: send a new one")

BAD_TOKEN_HEADERS = {b"WWW-Authenticate": b'Bearer error="invalid_token"'}

_REFUSALS = (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.RATE)

_DATA_BLOCK = header_block(DATA_HEADERS)

_EXPOSED_LINE = b"Access-Control-Expose-Headers: %s\r\n" % CORS_EXPOSED_HEADERS


def _first_pieces(pieces: Iterator[Piece]) -> Steps[list[bytes] | Error]:
    """Two pieces of a response, or the only one, whose length is its length."""
    first: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, Future):
            yield piece
        else:
            first.append(piece)
            if len(first) > 1:
                break
    return first


class RequestConnection(Protocol):
    """The interface of a connection for its requests."""

    site: HTTPSite
    client_address: Any
    is_trusted_proxy: bool
    persistent: Any
    """True if the connection is kept for another request."""

    @property
    def principal(self) -> Principal: ...
    def set_client_address(self, address: Any) -> None: ...
    def rate_limiter_of(self, principal: Principal) -> RateLimiter | None: ...
    def exceeds_rate(self, principal: Principal, price: float) -> bool: ...
    def body_received(self, request: Any, data: bytes) -> None: ...
    def hand_over(self, protocol: Any) -> None: ...
    def close_if_idle(self) -> None: ...
    def receive_timed_out(self) -> None: ...
    def idle_timed_out(self) -> None: ...
    def abort(self) -> None: ...
    def setTimeout(self, seconds: float | None) -> Any: ...
    def resetTimeout(self) -> None: ...


class HTTPRequest(RequestInternals):
    """Handlers respond once, with one of the ``respond`` methods, now or later. A response to a client that has
    disconnected is dropped. A handler can raise ``ApiError`` instead."""

    channel: Any
    method: bytes
    content = None

    query = b""
    static_file: ServedFile | None = None
    match: RouteMatch | None = None
    route: Route | None = None
    origin = b""
    """The origin of the page that sent the request, if it is allowed to read the response."""
    identity: Identity | None = None
    """The authenticated client. None without a policy, without credentials, or if the route does not authenticate."""
    identified_by: Policy | None = None
    """The policy that returned ``identity``."""
    rejection: RejectedRequest | None = None
    """The error that is sent instead of calling the handler."""
    has_head = False
    """True when the head has been received."""
    _parameters: QueryParameters | None = None
    _has_responded = False

    def __init__(self, channel: Any, queued: object = False) -> None:
        super().__init__(channel, queued)
        self.connection: RequestConnection = channel
        self._body = bytearray()
        self.on_disconnect: Callable[[], object] | None = None
        """Called if the client disconnects before the response."""
        self.on_shutdown: Callable[[], object] | None = None
        """Called if the server shuts down before the response. It is expected to respond soon."""

    # The client and its request.

    @property
    def context(self) -> ServerContext:
        return self.connection.site.context

    @property
    def reactor(self) -> Any:
        return self.connection.site.reactor

    @property
    def listener(self) -> ListenerConfig:
        return self.connection.site.listener

    @property
    def endpoints(self) -> Endpoints:
        """Addresses of both ends. The client's is the one that a trusted proxy reports."""
        return endpoints_of(self.transport, self.connection.client_address)

    @property
    def principal(self) -> Principal:
        """The principal that the request counts for in rates and limits: its identity, or else its address."""
        subject = b"" if self.identity is None else self.identity.subject
        return subject_principal(subject) if subject else self.connection.principal

    @property
    def rate_limiter(self) -> RateLimiter | None:
        """None if the rate is not limited."""
        return self.connection.rate_limiter_of(self.principal)

    @property
    def _is_anonymous(self) -> bool:
        """True if the client has sent no credentials."""
        identity = self.identity
        return self.rejection is None and (identity is None or not (identity.subject or identity.proof))

    @property
    def is_admin(self) -> bool:
        return self.context.is_admin(self.identity, self.endpoints.client)

    @property
    def broker_client(self) -> RequestClient:
        """The client as the broker sees it."""
        return RequestClient(self.context, self.listener.endpoint, self.endpoints.client, self.identity)

    @property
    def captured(self) -> bytes:
        """The decoded variable segment of the path. It may be invalid UTF-8."""
        return b"" if self.match is None else self.match.captured

    @property
    def channel_name(self) -> bytes:
        """The variable segment of a path that names a channel."""
        return self.captured

    @property
    def parameters(self) -> QueryParameters:
        """The query. Raises ``ApiError`` if it is malformed."""
        if self._parameters is None:
            self._parameters = QueryParameters(self.query)
        return self._parameters

    @property
    def body(self) -> bytes:
        return bytes(self._body)

    @property
    def is_finished(self) -> bool:
        """True if a response has begun or the client has disconnected."""
        return self._has_responded or self.is_disconnected

    def header(self, name: bytes) -> bytes:
        """The value of a header, named in lower case, that is expected once. Empty if it is absent."""
        return cast(bytes, self.getHeader(name)) or b""

    @property
    def is_document(self) -> bool:
        """True if a browser is going to show the response as a page, in a tab or a frame (Fetch Metadata, section 2).
        Browsers omit that header over plain HTTP, but then they accept HTML."""
        mode, accept = self.header(b"sec-fetch-mode"), self.header(b"accept").lower()
        return mode == b"navigate" or (not mode and b"text/html" in accept and b"text/event-stream" not in accept)

    @property
    def is_preflight(self) -> bool:
        """True for a CORS preflight request (Fetch, "CORS-preflight request")."""
        return bool(self.method == b"OPTIONS" and self.origin and self.header(b"access-control-request-method"))

    @property
    def allow(self) -> bytes:
        """The value of the header ``Allow``. Empty if the path is unknown."""
        if self.static_file is not None:
            return b"GET, HEAD"
        if self.path == b"*":  # the server as a whole (RFC 9110 section 9.3.7)
            return b"GET, HEAD, POST, DELETE"
        return b"" if self.match is None else self.match.allow

    def charge(self, price: float) -> None:
        """Charge ``price`` commands more than the one of every request. Raises ``ApiError`` over the rate."""
        if price and self.connection.exceeds_rate(self.principal, price):
            raise ApiError(TOO_FAST)

    def charge_afterwards(self, price: float) -> None:
        """Charge for work that has been done. It delays the next request."""
        if (limiter := self.rate_limiter) is not None:
            limiter.charge(price)

    def recheck_identity(self) -> Error | None:
        """The error if the identity is no longer valid, because the token has expired or the policy has changed. Both
        can happen while a body is received or a response is sent."""
        context, identity = self.context, self.identity
        if identity is None or context.policy is None:
            return None
        if context.policy is not self.identified_by:
            outcome = context.policy.review(identity, self.listener.endpoint)
            if isinstance(outcome, Error):
                return outcome
            self.identity, self.identified_by = outcome, context.policy
            identity = outcome
        is_expired = identity.expires is not None and identity.expires <= context.wall_clock()
        return TOKEN_EXPIRED if is_expired else None

    # Responses.

    def respond(
        self, status: int, content_type: bytes, body: bytes, headers: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Send a complete response. ``headers`` replace ``DATA_HEADERS``."""
        if self.is_finished:
            return
        head = self._head(status, content_type, len(body), _DATA_BLOCK if headers is None else header_block(headers))
        self.begin_response(status)
        # Head and body in one write.
        whole = head if self.method == b"HEAD" or status in BODILESS_STATUSES else head + body
        self.context.stats.sent += len(whole)
        self.channel.write(whole)
        self.finish()

    def respond_json(self, status: int, body: bytes, headers: Mapping[bytes, bytes] | None = None) -> None:
        """Send JSON. ``headers`` are added to ``DATA_HEADERS``."""
        self.charge_afterwards(int(answer_price(len(body))))
        self.respond(status, JSON, body, {**DATA_HEADERS, **headers} if headers else None)

    def stream_json(
        self, pieces: Iterator[Piece], headers: Mapping[bytes, bytes], is_allowed: Callable[[], bool]
    ) -> None:
        """Send JSON that may be long, as fast as the client reads it. ``is_allowed`` is called before each piece; if
        it returns False, the response is aborted."""
        if self.method == b"HEAD":
            self.respond_without_body({b"Content-Type": JSON, **DATA_HEADERS, **headers})
            return
        if self.is_finished:
            return
        first: list[bytes] | Error | Future[list[bytes]] = complete(_first_pieces(pieces))
        has_waited = isinstance(first, Future)
        on_result(first, lambda first: self._start_stream(first, pieces, headers, is_allowed, has_waited))

    def _start_stream(
        self,
        first: list[bytes] | Error,
        pieces: Iterator[Piece],
        headers: Mapping[bytes, bytes],
        is_allowed: Callable[[], bool],
        has_waited: bool,
    ) -> None:
        if self.is_finished or isinstance(first, Error):
            return
        if has_waited and not is_allowed():
            self.connection.abort()
            return
        if len(first) == 1:
            self.respond_json(200, first[0], headers)
            return
        # HTTP/1.0 has no chunks: the response ends with the connection, and one that is aborted with a reset.
        self.chunked = int(self.clientproto == b"HTTP/1.1")
        framing = {b"Transfer-Encoding": b"chunked"} if self.chunked else {}
        head = self._head(200, JSON, None, header_block({**DATA_HEADERS, **headers, **framing}))
        self.begin_response(200)
        self.channel.write(head)
        StreamingResponse(self, self._charged(chain(first, pieces)), is_allowed).start()

    def _charged(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            if not isinstance(piece, Future):
                self.charge_afterwards(answer_price(len(piece)))
            yield piece

    def respond_error(
        self, error: Error, status: int | None = None, headers: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Send problem details (RFC 9457). The status defaults to the one of the error code."""
        if error.code is ErrorCode.UNAUTHORIZED and error is not FOR_ADMINS_WITH_TOKEN and self._is_anonymous:
            error = AUTHENTICATION_REQUIRED
        self.context.stats.count_error(error.code)
        extra = dict(headers or {})
        status = status or HTTP_STATUS[error.code]
        if error.code is ErrorCode.UNAUTHORIZED:
            extra.setdefault(b"WWW-Authenticate", b"Bearer")
        elif error.code is ErrorCode.LIMIT:
            extra.setdefault(b"Retry-After", b"%d" % RETRY_AFTER_SECONDS)
        elif error.code is ErrorCode.RATE:
            limiter = self.rate_limiter
            extra.setdefault(b"Retry-After", b"%d" % (limiter.retry_after if limiter is not None else 1))
        self.respond(status, PROBLEM_TYPE, problem_details(error, status), {**DATA_HEADERS, **extra})

    def reject(self, error: Error, status: int | None = None, headers: Mapping[bytes, bytes] | None = None) -> None:
        """Send an error instead of calling the handler."""
        if self.route is not None and self.route.on_rejected is not None:
            self.route.on_rejected(self)
        self.respond_error(error, status, headers)

    def respond_without_body(self, headers: Mapping[bytes, bytes]) -> None:
        """Respond to HEAD if the length of the body is unknown."""
        if self.is_finished:
            return
        head = self._head(200, b"", None, header_block(headers))
        self.begin_response(200)
        self.channel.write(head)
        self.finish()

    def hand_over(self, protocol: Any, headers: Mapping[bytes, bytes]) -> bytes:
        """Give the connection to ``protocol``: it receives all further input and writes the response. Returns the head
        of a response that ends with the connection. The protocol has to write it first."""
        self._has_responded = True
        self.context.stats.count_response(self.method, 200)
        self.connection.persistent = False
        head = self._head(200, b"", None, header_block(headers))
        self.connection.hand_over(protocol)
        return head

    def switch_protocols(self, protocol: Any) -> None:
        """Give the connection to a protocol that responds to this request itself, from its head on."""
        self._has_responded = True
        self.context.stats.count_response(self.method, 101)
        lines = [b"%b %b %b\r\n" % (self.method, self.uri, self.clientproto)]
        lines += [
            b"%b: %b\r\n" % (name, value) for name, values in self.requestHeaders.getAllRawHeaders() for value in values
        ]
        transport = self.transport
        self.connection.hand_over(protocol)
        protocol.makeConnection(transport)
        protocol.dataReceived(b"".join([*lines, b"\r\n"]))

    def begin_response(self, status: int) -> None:
        """The caller writes a response with this status to the connection."""
        self._has_responded, self.on_disconnect, self.on_shutdown = True, None, None
        self.context.stats.count_response(self.method, status)
        self.code, self.startedWriting = status, 1

    def _head(self, status: int, content_type: bytes, length: int | None, headers: bytes) -> bytes:
        lines = [b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())]
        lines.append(b"Date: %s\r\n" % self.connection.site.date)
        if content_type:
            lines.append(b"Content-Type: %s\r\n" % content_type)
        if length is not None and status not in BODILESS_STATUSES:
            lines.append(b"Content-Length: %d\r\n" % length)
        lines.append(headers)
        if self.route is not None and self.route.allows_every_origin:
            lines.append(b"Access-Control-Allow-Origin: *\r\n")
        elif self.origin and not (self.static_file is not None and self.static_file.is_public):
            lines.append(b"Access-Control-Allow-Origin: %s\r\n" % self.origin)
            lines.append(_EXPOSED_LINE)
            if self.route is not None and self.route.allows_credentials:
                lines.append(b"Access-Control-Allow-Credentials: true\r\n")
        if self.static_file is None:
            lines.append(b"Vary: Origin\r\n")
        if not self.connection.persistent:
            lines.append(b"Connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    # Called by the connection.

    def head_received(self, method: bytes, uri: bytes, version: bytes) -> None:
        self.has_head = True
        self.method, self.clientproto = method, version
        self.set_target(uri)

    def set_target(self, target: bytes) -> None:
        """Set the URI, the path and the query from a target in origin form."""
        self.uri = target
        self.path, _, self.query = target.partition(b"?")

    @property
    def max_body(self) -> int:
        """Maximum bytes of the body."""
        maximum = None if self.route is None else self.route.max_body
        return self.context.limits.max_message_bytes if maximum is None else maximum

    @property
    def body_too_long(self) -> Error:
        return Error(ErrorCode.TOO_LONG, f"request body too long: the maximum is {self.max_body} bytes")

    def body_received(self, data: bytes) -> Error | None:
        """Append to the body. Returns the error if it is too long."""
        if self.rejection is None:
            self._body += data
            if len(self._body) > self.max_body:
                return self.body_too_long
        return None

    @property
    def buffered_bytes(self) -> int:
        return len(self._body)

    def discard_body(self) -> None:
        self._body = bytearray()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.process()

    def process(self) -> None:
        """Respond, or call the handler, which responds."""
        if self.rejection is not None:
            self._report_refusal(self.rejection.error)
            self.reject(self.rejection.error, self.rejection.status, self.rejection.headers)
        elif self.method == b"OPTIONS":
            self._respond_to_options()
        elif self.static_file is not None:
            file = self.static_file
            status, body, headers = file.response(self.header(b"if-none-match"), self.header(b"accept-encoding"))
            self.respond(status, b"" if status == 304 else file.content_type, body, headers)
        elif (error := self.recheck_identity()) is not None:
            self.respond_error(error, headers=BAD_TOKEN_HEADERS)
        elif self.route is not None:
            self._call_handler(self.route)

    def _report_refusal(self, error: Error) -> None:
        """Report a client that was rejected for what it is, and not for its request."""
        if error.code in _REFUSALS:
            about = self.header(b"origin").decode("latin-1") if error.code is ErrorCode.FORBIDDEN else ""
            self.context.connection_events.refused(self.endpoints, "http", error, about)

    def _call_handler(self, route: Route) -> None:
        self.connection.site.request_started(self)
        try:
            route.handler(self)
        except ApiError as failed:
            if failed.error.code is ErrorCode.BAD_JSON:
                self.charge_afterwards(unreadable_price(len(self._body)))
            self.respond_error(failed.error, failed.status)
        except Exception:
            log_exception()
            self.respond_error(INTERNAL)

    def _respond_to_options(self) -> None:
        """Respond to a preflight request, or to another OPTIONS, the default health check of HAProxy."""
        headers = {b"Allow": self.allow, **DATA_HEADERS}
        if self.is_preflight:
            headers = {
                b"Access-Control-Allow-Methods": self.allow,
                b"Access-Control-Allow-Headers": CORS_ALLOWED_HEADERS,
                b"Access-Control-Max-Age": b"%d" % PREFLIGHT_MAX_AGE_SECONDS,
            }
            if self.match is not None and self.match.allows_credentials:
                headers[b"Access-Control-Allow-Credentials"] = b"true"
        self.respond(204, b"", b"", headers)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if self.on_disconnect is not None:
            on_disconnect, self.on_disconnect = self.on_disconnect, None
            on_disconnect()

    def gotLength(self, length: int | None) -> None:
        """Twisted would open a temporary file for a long body."""

    def handleContentChunk(self, data: bytes) -> None:
        self.connection.body_received(self, data)

    def parseCookies(self) -> None:
        """Cookies are parsed by the policy that uses one."""
