"""The web port: reads the first request head of a connection, and gives the connection to Autobahn or twisted.web."""

from collections.abc import Callable
from typing import Any

from msgspec import structs
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocolNegotiationFactory
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.auth.identity import Identity
from twistedsock.auth.origins import ListenerScope
from twistedsock.codecs.engineio import PATH as ENGINE_PATH
from twistedsock.codecs.http import (
    MAX_HEAD_BYTES,
    RequestHead,
    can_begin_head,
    error_response,
    find_credentials,
    has_too_many_headers,
    read_head,
)
from twistedsock.codecs.problem_details import HTTP_STATUS
from twistedsock.errors import MEMORY_LIMIT_REACHED, TOO_FAST, Error, ErrorCode
from twistedsock.limits.principal import LOCAL, Principal, address_principal, subject_principal
from twistedsock.limits.rate import ENTRY_PRICE, TLS_HANDSHAKE_PRICE, token_price
from twistedsock.limits.shares import UNCOUNTED_BYTES
from twistedsock.server.connection import graceful_close
from twistedsock.server.engineio import EngineEndpoint
from twistedsock.server.engineio_websocket import EngineWebSocketFactory
from twistedsock.server.handshakes import AcceptedHandshakes, Handshake
from twistedsock.server.http.checks import INVALID_FORWARDED_FOR, INVALID_HOST
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.proxy_protocol import client_is_trusted_proxy, twisted_address
from twistedsock.server.sockets import (
    DEFAULT_LISTENER,
    ListenerConfig,
    ListenerFactory,
    endpoints_of,
    format_address,
    hand_over,
    handshake_info,
    host_of,
    local_address_of,
    subject_of,
    tune_socket,
)
from twistedsock.server.timeouts import TimeoutQueue
from twistedsock.server.web_endpoints import ENDPOINTS, SOCKBRIDGE, WebSocketEndpoint
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.server.websocket_transport import WebSocketTransport
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import HandshakeInfo, Step
from twistedsock.stats import OTHER_METHOD

Headers = tuple[tuple[str, str], ...]

NOT_HTTP = Error(ErrorCode.BAD_ARGUMENT, "invalid HTTP request: this is the web port")

INVALID_REQUEST = Error(ErrorCode.BAD_ARGUMENT, "invalid HTTP request")

HEAD_TOO_LONG = Error(ErrorCode.TOO_LONG, f"request head too long: at most {MAX_HEAD_BYTES} bytes are allowed")

TOO_MANY_HEADERS = Error(ErrorCode.TOO_LONG, "too many request headers")

REQUEST_TIMEOUT = Error(ErrorCode.BAD_ARGUMENT, "no complete request head was received in time")

UNKNOWN_PATH = Error(ErrorCode.UNKNOWN_COMMAND, "no WebSocket at this path: connect to /ws")

UNEXPECTED_CONTENT = Error(ErrorCode.BAD_ARGUMENT, "unexpected content in a WebSocket handshake")

RETRY_LATER: Headers = (("Retry-After", "5"),)


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class HTTPDispatcher(Protocol):
    """A connection of the web port. Until its first request head is complete, it reads that; afterwards the input goes
    to the protocol that handles the connection. Unless that is a WebSocket without TLS, it stays the protocol of its
    transport, because it releases the connection's entry in the connection limits at the end."""

    factory: "WebFactory"
    transport: Any
    proxied_address: Any = None
    """The address of the client, if a PROXY header has reported it."""
    handler: Any = None
    _closing: Any = None
    """The delayed call that aborts the connection, once it is closing."""
    _is_admitted = False
    _secured_at: float | None = None
    _has_skipped_empty_line = False
    _counted_bytes = 0
    """Bytes of the unfinished head that are counted in the memory budget."""
    _counted_for: Principal = LOCAL

    def connectionMade(self) -> None:
        factory = self.factory
        self._accepted_at = factory.context.broker.clock()
        tune_socket(self.transport, factory.send_buffer_bytes, factory.context.limits.unreachable_timeout)
        self._head = bytearray()
        self._client_address = self.proxied_address or self.transport.getPeer()
        host = host_of(self._client_address)
        self._is_trusted_proxy = self._comes_from_trusted_proxy(host)
        if self._is_trusted_proxy:
            # Its address stands for many clients. The connection is counted when the proxy has reported its client.
            host = ""
        if factory.listening.secure and not factory.context.charge(address_principal(host), TLS_HANDSHAKE_PRICE):
            factory.context.stats.count_error(TOO_FAST.code)
            self._report_refusal(TOO_FAST)
            self.transport.abortConnection()
        elif self._admit(host):
            factory.head_timeouts.start(self)

    def handshakeCompleted(self) -> None:
        """The TLS handshake is complete."""
        self._secured_at = self.factory.context.broker.clock()

    # The first request head.

    def dataReceived(self, data: bytes) -> None:
        if self._closing is not None:
            return
        search_from = max(0, len(self._head) - 3)  # the end of the head may be split
        self._head += data
        # An empty line before the request is ignored (RFC 9112 section 2.2).
        if not self._has_skipped_empty_line and self._head.startswith(b"\r\n"):
            self._has_skipped_empty_line = True
            del self._head[:2]
        end = self._head.find(b"\r\n\r\n", search_from, MAX_HEAD_BYTES)
        if end >= 0:
            self._dispatch(bytes(self._head), end + 4)
        elif not can_begin_head(self._head):
            self._reject(NOT_HTTP, 400)
        elif len(self._head) >= MAX_HEAD_BYTES:
            self._reject(HEAD_TOO_LONG, 431)
        elif len(self._head) > UNCOUNTED_BYTES:
            self._count_head()

    def _count_head(self) -> None:
        memory_budget = self.factory.context.memory_budget
        if not self._counted_bytes:
            self._counted_for = self._principal()
        self._counted_bytes = memory_budget.adjust(self._counted_bytes, len(self._head), self._counted_for)
        if memory_budget.is_exceeded_by(self._counted_for):
            self._reject(MEMORY_LIMIT_REACHED, 503, RETRY_LATER)

    def _discard_head(self) -> None:
        self._head = bytearray()
        if self._counted_bytes:
            memory_budget = self.factory.context.memory_budget
            self._counted_bytes = memory_budget.adjust(self._counted_bytes, 0, self._counted_for)

    def _dispatch(self, data: bytes, end: int) -> None:
        """Give the connection to its handler. ``data`` begins with a request head of ``end`` bytes."""
        scope = local_address_of(self.transport).scope
        accepted = self.factory.handshakes.find(data[:end], scope)
        if accepted is not None:
            self._accept_websocket(accepted, data, end)
            return
        if has_too_many_headers(data[:end]):
            self._reject(TOO_MANY_HEADERS, 431)
            return
        head = read_head(data[:end])
        if head is None:
            self._reject(INVALID_REQUEST, 400)
            return
        if head.forwarded_for and self._is_trusted_proxy and not self._read_forwarded_for(head.forwarded_for):
            return
        if head.upgrade:
            endpoint = self._check_handshake(head, scope)
            if endpoint is not None:
                handshake = Handshake(head, endpoint)
                self.factory.handshakes.add(data[:end], scope, handshake)
                self._accept_websocket(handshake, data, end)
        else:  # check_request validates the host of each request
            connection = HTTPConnection(self.factory.site, self._client_address, self._is_trusted_proxy)
            connection.replace_protocol = self._replace_handler
            self._hand_over(connection, data)

    # WebSocket handshakes.

    def _accept_websocket(self, accepted: Handshake, data: bytes, end: int) -> None:
        head, endpoint = accepted
        context, listening = self.factory.context, self.factory.listening
        credentials = None
        if context.policy is not None:
            credentials = find_credentials(head.authorization, head.query, head.cookies, context.policy.cookie)
        token = None if credentials is None else credentials.token
        subject = subject_of(self.transport) if listening.secure else None
        price = ENTRY_PRICE + (0 if token is None else token_price(len(token)))
        if not self._charge(self._principal(), price, end):
            return
        authenticated = context.authenticate(listening.endpoint, token, subject)
        if isinstance(authenticated, Identity) and authenticated.subject:
            if not self._charge_identity(authenticated.subject, price):
                return
        if isinstance(authenticated, Error) and credentials is not None and credentials.in_header:
            self._reject(authenticated, 401, (("WWW-Authenticate", 'Bearer error="invalid_token"'),))
        elif isinstance(endpoint, EngineWebSocketFactory):
            self._hand_over_to_engine(endpoint, head, authenticated, data, end)
        elif head.key:
            self._open_websocket(endpoint, head, authenticated, data[end:])
        else:
            websocket: Any = self.factory.websockets.buildProtocol(self._client_address)
            websocket.handshake = self._handshake_info()
            if authenticated is not None:
                websocket.authenticated = authenticated
            if endpoint is not SOCKBRIDGE:
                websocket.endpoint = endpoint
            if self._client_address != self.transport.getPeer():
                websocket.proxied_address = self._client_address
            self._hand_over(websocket, data)

    def _hand_over_to_engine(
        self,
        engine: EngineWebSocketFactory,
        head: RequestHead,
        authenticated: Identity | Error | None,
        data: bytes,
        end: int,
    ) -> None:
        if isinstance(authenticated, Error):
            self._reject(authenticated, HTTP_STATUS[authenticated.code])
            return
        subject = b"" if authenticated is None else authenticated.subject
        principal = subject_principal(subject) if subject else self._principal()
        query = head.query.encode("latin-1")
        websocket = engine.build(self._client_address, principal, query, authenticated)
        if not head.key:
            self._hand_over(websocket, data)
            return
        self._set_handler(websocket)
        self._leave_to(websocket)
        if websocket.open_accepted(self.transport, data[:end], head.key) and data[end:]:
            websocket.dataReceived(data[end:])

    def _check_handshake(
        self, head: RequestHead, scope: ListenerScope
    ) -> WebSocketEndpoint | EngineWebSocketFactory | None:
        """The endpoint of a handshake. None if the handshake has been rejected."""
        if not head.has_valid_host:
            self._reject(INVALID_HOST, 400)
            return None
        rejection = self.factory.origin_policy.check_origin(head.host, head.origin, scope)
        if rejection is not None:
            self._reject(rejection.error, rejection.status, about=head.origin if rejection.status == 403 else head.host)
            return None
        endpoint = self.factory.endpoints.get(head.path)
        if endpoint is None:
            self._reject(UNKNOWN_PATH, 404)
        elif head.has_body:  # a proxy would take the first messages for the content
            self._reject(UNEXPECTED_CONTENT, 400)
        elif isinstance(endpoint, EngineWebSocketFactory):
            return endpoint
        elif head.subprotocols and endpoint.select(head.subprotocols) is None:
            unsupported = f"no supported subprotocol: offer {endpoint.supported}"
            self._reject(Error(ErrorCode.BAD_ARGUMENT, unsupported), 400)
        else:
            return endpoint
        return None

    def _open_websocket(
        self, endpoint: WebSocketEndpoint, head: RequestHead, authenticated: Identity | Error | None, rest: bytes
    ) -> None:
        """Open a WebSocket whose handshake is in its plain form: Autobahn does not parse it again."""
        websockets = self.factory.websockets
        connection: Any = websockets.protocol()
        if endpoint is not SOCKBRIDGE:
            connection.endpoint = endpoint
        local, handshake = local_address_of(self.transport).text, self._handshake_info()
        endpoints = Endpoints(format_address(self._client_address).encode(), local)
        self._set_handler(connection)
        self._leave_to(connection)
        if connection.open_accepted(websockets, self.transport, head, endpoints, authenticated, handshake) and rest:
            connection.dataReceived(rest)

    def _handshake_info(self) -> HandshakeInfo:
        info = HandshakeInfo(self._accepted_at, "WebSocket")
        if self.factory.listening.proxied:
            info = handshake_info(self.transport, self._accepted_at, "WebSocket")
        if self._secured_at is None:
            return info
        return structs.replace(info, steps=(*info.steps, Step(self._secured_at, "handshake", "TLS")))

    # Limits.

    def _principal(self) -> Principal:
        return address_principal(host_of(self._client_address))

    def _admit(self, host: str) -> bool:
        """Count the connection in the connection limits. Returns False if it has been rejected."""
        error = self.factory.context.connection_limiter.acquire(host)
        if error is not None:
            self._reject(error, 503, RETRY_LATER)
            return False
        self._host = host
        self._is_admitted = True
        return True

    def _release(self) -> None:
        if self._is_admitted:
            self._is_admitted = False
            self.factory.context.connection_limiter.release(self._host)

    def _charge(self, principal: Principal, price: float, size: int = 0) -> bool:
        """Charge a WebSocket handshake. Returns False if it has been rejected, because it exceeds the rate limit."""
        context = self.factory.context
        if context.charge(principal, price, size):
            return True
        limiter = context.rate_limiters.get(principal, context.broker.clock())
        wait = 1 if limiter is None else limiter.retry_after
        self._reject(TOO_FAST, 429, (("Retry-After", str(wait)),))
        return False

    def _charge_identity(self, subject: bytes, price: float) -> bool:
        """Charge a handshake to the identity of the client instead of its address. Returns False as ``_charge``."""
        context = self.factory.context
        limiter = context.rate_limiters.get(self._principal(), context.broker.clock())
        if limiter is None:
            return True
        if not self._charge(subject_principal(subject), price):
            return False
        limiter.charge(-price)
        return True

    # Proxies.

    def _comes_from_trusted_proxy(self, host: str) -> bool:
        """True if the X-Forwarded-For header of this connection is trusted. It is not on connections that begin with a
        PROXY header: a proxy that cannot name its client there passes on the headers of the client."""
        listening = self.factory.listening
        if self.proxied_address is not None:
            return client_is_trusted_proxy(self.transport)
        return not listening.proxied and listening.trusted.trusts(host)

    def _read_forwarded_for(self, forwarded_for: str) -> bool:
        """Adopt the client address that a trusted proxy reports. Returns False if the connection has been rejected."""
        source = self.factory.listening.trusted.find_client(forwarded_for, host_of(self._client_address))
        if source is None:
            self._reject(INVALID_FORWARDED_FOR, 400)
            return False
        self._client_address, self._is_trusted_proxy = twisted_address(source), False
        self._release()
        return self._admit(source.host)

    # The handler of the connection, and its end.

    def _hand_over(self, handler: Any, data: bytes) -> None:
        self._set_handler(handler)
        if isinstance(handler, WebSocketTransport):
            self._leave_to(handler)
        handler.makeConnection(self.transport)
        handler.dataReceived(data)

    def _leave_to(self, websocket: WebSocketTransport) -> None:
        """Let the transport call a WebSocket directly, so that this object is freed."""
        if self.transport.protocol is self:  # not below TLS
            hand_over(self.transport, websocket)
            websocket.admitted_host, self._is_admitted = self._host, False

    def _set_handler(self, handler: Any) -> None:
        self.factory.head_timeouts.stop(self)
        self._discard_head()
        del self._head, self._client_address, self._accepted_at
        self._replace_handler(handler)

    def _replace_handler(self, handler: Any) -> None:
        self.handler = handler
        self.dataReceived = handler.dataReceived  # type: ignore[method-assign]

    def _reject(self, rejected: Error, status: int, headers: Headers = (), about: str | None = None) -> None:
        """Send an error response, and close."""
        self.factory.head_timeouts.stop(self)
        self._discard_head()
        stats = self.factory.context.stats
        stats.count_response(OTHER_METHOD, status)
        stats.count_error(rejected.code)
        self._report_refusal(rejected, about or "")
        self.transport.write(error_response(status, rejected.message, headers))
        self._closing = graceful_close(self.transport, self.factory.reactor.callLater)

    def _report_refusal(self, error: Error, about: str = "") -> None:
        endpoints = endpoints_of(self.transport, self._client_address)
        self.factory.context.connection_events.refused(endpoints, "web", error, about)

    def reject_late(self) -> None:
        """The request head was not complete in time."""
        self._reject(REQUEST_TIMEOUT, 408)

    def readConnectionLost(self) -> None:
        """The client has ended its stream. It may still wait for a response (RFC 9112 section 9.6)."""
        if self.handler is not None:
            self.handler.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The server has ended its stream."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.head_timeouts.stop(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        if self.handler is not None:
            self.handler.connectionLost(reason)
            self.handler = None
        self._discard_head()
        self._release()


@implementer(IProtocolNegotiationFactory)
class WebFactory(ListenerFactory):
    """Creates the connections of one web listener. ``origin_policy`` and, if given, ``routes`` and ``engine`` are
    shared by all web listeners. ``lines`` returns the line ports, for the page."""

    protocol: Any = HTTPDispatcher

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        origin_policy: OriginPolicy,
        send_buffer_bytes: int,
        ping_interval: int,
        ping_timeout: int,
        lines: Callable[[], list[dict[str, object]]],
        listening: ListenerConfig = DEFAULT_LISTENER,
        routes: Routes | None = None,
        engine: EngineEndpoint | None = None,
    ) -> None:
        self.context = context
        self.reactor = reactor
        self.send_buffer_bytes = send_buffer_bytes
        self.listening = listening
        self.origin_policy = origin_policy
        self.handshakes = AcceptedHandshakes(origin_policy)
        self.head_timeouts: TimeoutQueue[HTTPDispatcher] = TimeoutQueue(
            reactor, context.limits.handshake_timeout, HTTPDispatcher.reject_late
        )
        self.websockets = WebSocketFactory(context, reactor, send_buffer_bytes, ping_interval, ping_timeout, listening)
        self.endpoints: dict[str, WebSocketEndpoint | EngineWebSocketFactory] = {**ENDPOINTS}
        routes = routes or Routes(build_routes(context, reactor, lines))
        self.site = HTTPSite(reactor, context, origin_policy, routes, listening)
        if engine is not None:
            websockets = EngineWebSocketFactory(engine, send_buffer_bytes, listening)
            self.endpoints[ENGINE_PATH] = self.site.engine_websockets = websockets

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols for ALPN (RFC 7301). If a client offers protocols, as browsers and curl do, the handshake fails
        unless one of them is selected."""
        return [b"http/1.1"]
