"""The web port: the first request head decides who gets the connection, Autobahn or twisted.web, and then owns it."""

from collections.abc import Callable
from typing import Any

from msgspec import structs
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IProtocolNegotiationFactory
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.auth.identity import Identity
from twistedsock.auth.origins import ListenerScope
from twistedsock.codecs.http import (
    MAX_HEAD,
    RequestHead,
    begins_head,
    error,
    find_credentials,
    has_too_many_headers,
    read_head,
)
from twistedsock.errors import TOO_FAST, TOO_MUCH_HELD, Error, ErrorCode
from twistedsock.limits.memory import UNCOUNTED_BYTES
from twistedsock.limits.principal import LOCAL, Principal, address_principal, subject_principal
from twistedsock.limits.rate import ENTRY_PRICE, TLS_HANDSHAKE_PRICE, token_price
from twistedsock.server.connection import graceful_close
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
    LocalAddress,
    format_address,
    handshake_info,
    host_of,
    local_address_of,
    tune_socket,
)
from twistedsock.server.timeouts import TimeoutQueue
from twistedsock.server.tls import subject_of
from twistedsock.server.websocket import JSON_PROTOCOL, LINE_PROTOCOL, WebSocketFactory, choose
from twistedsock.session.encoder import Endpoints
from twistedsock.session.registry import ServerContext
from twistedsock.session.timeline import HandshakeInfo, Step
from twistedsock.stats import OTHER_METHOD

CODES = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.UNKNOWN_COMMAND,
    421: ErrorCode.FORBIDDEN,
    429: ErrorCode.RATE,
    431: ErrorCode.TOO_LONG,
    503: ErrorCode.LIMIT,
}
"""As which code a refusal is counted, by its status; all others are requests that are none."""

WEBSOCKET_PATHS = ("/ws", "/")
"""``/`` is for those who forget the other."""


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class HTTPDispatcher(Protocol):
    """The protocol of a web connection until its first request head is there. ``told`` is the address of its peer
    where a PROXY header tells it."""

    factory: "WebFactory"
    transport: Any
    proxied_address: Any = None
    _admitted = False
    _owner: Any = None
    _closing: Any = None
    _secured_at: float | None = None
    _counted = 0
    _source: Principal = LOCAL
    _empty_line_skipped = False

    def connectionMade(self) -> None:
        factory = self.factory
        self._accepted_at = factory.context.broker.clock()
        tune_socket(self.transport, factory.send_buffer_bytes, factory.context.limits.unreachable_timeout)
        self._head = bytearray()
        self._peer = self.proxied_address or self.transport.getPeer()
        self._is_proxied = self._comes_from_proxy()
        # A proxy's own address is the address of many; it is counted when it has told whose this is.
        address = "" if self._is_proxied else host_of(self._peer)
        if factory.listening.secure and not factory.context.charge(address_principal(address), TLS_HANDSHAKE_PRICE):
            factory.context.stats.count_error(TOO_FAST.code)
            self.transport.abortConnection()
        elif self._enter(address):
            factory.deadlines.start(self)

    def handshakeCompleted(self) -> None:
        """Of TLS."""
        self._secured_at = self.factory.context.broker.clock()

    def dataReceived(self, data: bytes) -> None:
        if self._closing is not None:
            return
        # The end may lie across the cut.
        looked = max(0, len(self._head) - 3)
        self._head += data
        # An empty line before the request is ignored (RFC 9112 section 2.2).
        if not self._empty_line_skipped and self._head.startswith(b"\r\n"):
            self._empty_line_skipped = True
            del self._head[:2]
        end = self._head.find(b"\r\n\r\n", looked, MAX_HEAD)
        if end >= 0:
            self._decide(bytes(self._head), end + 4)
        elif not begins_head(self._head):
            self._refuse(400, "this port expects HTTP, and that is none")
        elif len(self._head) >= MAX_HEAD:
            self._refuse(431, "the head of the request is too long")
        elif len(self._head) > UNCOUNTED_BYTES:
            memory_budget = self.factory.context.memory_budget
            if not self._counted:
                self._source = self._principal()
            self._counted = memory_budget.recount(self._counted, len(self._head), self._source)
            if memory_budget.is_too_much_for(self._source):
                self._refuse(503, TOO_MUCH_HELD.message, (("Retry-After", "5"),))

    def readConnectionLost(self) -> None:
        """The client has ended its stream. It may still wait for an answer (RFC 9112 section 9.6)."""
        if self._owner is not None:
            self._owner.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our own end of the stream, which we asked for."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.deadlines.stop(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        if self._owner is not None:
            self._owner.connectionLost(reason)
            self._owner = None
        self._forget_head()
        self._leave()

    def _decide(self, data: bytes, end: int) -> None:
        if has_too_many_headers(data[:end]):
            self._refuse(431, "the head of the request has too many headers")
            return
        head = read_head(data[:end])
        if head is None:
            self._refuse(400, "that is no HTTP request")
            return
        if head.forwarded_for and self._is_proxied and not self._believe(head.forwarded_for):
            return
        if not head.upgrade:  # check_request validates the host of each request
            connection = HTTPConnection(self.factory.site, self._peer, self._is_proxied)
            connection.replace_protocol = self._give_way
            self._hand_over(connection, data)
            return
        here = local_address_of(self.transport)
        refused = self._judge(head, here.scope)
        if refused is not None:
            self._refuse(*refused)
            return
        policy, listening = self.factory.context.policy, self.factory.listening
        shown = None if policy is None else find_credentials(head, policy.cookie)
        token = None if shown is None else shown.token
        subject = subject_of(self.transport) if listening.secure else None
        price = ENTRY_PRICE + (0 if token is None else token_price(len(token)))
        if not self._charge(self._principal(), price, end):
            return
        outcome = self.factory.context.authenticate(listening.endpoint, token, subject)
        if isinstance(outcome, Identity) and outcome.subject and not self._recharge(outcome.subject, price):
            return
        if isinstance(outcome, Error) and shown is not None and shown.in_header:
            self._refuse(401, outcome.message, (("WWW-Authenticate", 'Bearer error="invalid_token"'),))
        elif head.key:
            self._open(head, here, data[end:], outcome)
        else:
            owner: Any = self.factory.websockets.buildProtocol(self._peer)
            owner.arrival = self._arrival()
            if outcome is not None:
                owner.outcome = outcome
            if self._peer != self.transport.getPeer():
                owner.proxied_address = self._peer
            self._hand_over(owner, data)

    def _principal(self) -> Principal:
        return address_principal(host_of(self._peer))

    def _charge(self, principal: Principal, price: float, size: int = 0) -> bool:
        """Charge the handshake of a WebSocket; False if it has been refused, because that exceeds the rate."""
        context = self.factory.context
        if context.charge(principal, price, size):
            return True
        meter = context.rate_limiters.of(principal, context.broker.clock())
        wait = 1 if meter is None else meter.wait
        self._refuse(429, TOO_FAST.message, (("Retry-After", str(wait)),))
        return False

    def _recharge(self, subject: bytes, price: float) -> bool:
        """Charge the handshake to the identity that it has proved instead of its address; False as for ``_charge``.
        Then the address is charged for the proof."""
        context = self.factory.context
        meter = context.rate_limiters.of(self._principal(), context.broker.clock())
        if meter is None:
            return True
        if not self._charge(subject_principal(subject), price):
            return False
        meter.charge(-price)
        return True

    def _judge(self, head: RequestHead, door: ListenerScope) -> tuple[int, str] | None:
        if not head.has_valid_host:
            return 400, INVALID_HOST.message
        rejection = self.factory.gate.check_origin(head.host, head.origin, door)
        if rejection is not None:
            return rejection.status, rejection.error.message
        if head.path not in WEBSOCKET_PATHS:
            return 404, "the WebSocket is at /ws"
        if head.content:  # a proxy would read the first messages as a part of the request
            return 400, "a WebSocket handshake has no content"
        if head.subprotocols and choose(head.subprotocols) is None:
            return 400, f"this server speaks {JSON_PROTOCOL} and {LINE_PROTOCOL}"
        return None

    def _comes_from_proxy(self) -> bool:
        """Whether the peer may tell whom it speaks for. A proxy that begins with a PROXY header, and cannot tell there
        who its client is, passes on what that client writes."""
        listening = self.factory.listening
        if self.proxied_address is not None:
            return client_is_trusted_proxy(self.transport)
        return not listening.proxied and listening.trusted.trusts(host_of(self._peer))

    def _believe(self, forwarded_for: str) -> bool:
        """Take the client's address for the peer's; False if the connection has been refused."""
        source = self.factory.listening.trusted.find_client(forwarded_for, host_of(self._peer))
        if source is None:
            self._refuse(400, INVALID_FORWARDED_FOR.message)
            return False
        self._peer, self._is_proxied = twisted_address(source), False
        self._leave()
        return self._enter(source.host)

    def _enter(self, address: str) -> bool:
        """Be counted; False if the connection has been refused."""
        unwelcome = self.factory.context.connection_limiter.enter(address)
        if unwelcome is not None:
            self._refuse(503, unwelcome.message, (("Retry-After", "5"),))
            return False
        self._address = address
        self._admitted = True
        return True

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self.factory.context.connection_limiter.leave(self._address)

    def _hand_over(self, owner: Any, data: bytes) -> None:
        """From here on everything goes straight to the new owner."""
        self._give_to(owner)
        owner.makeConnection(self.transport)
        owner.dataReceived(data)

    def _open(self, head: RequestHead, here: LocalAddress, rest: bytes, outcome: Identity | Error | None) -> None:
        """As ``_hand_over``, to a WebSocket whose plain handshake is answered at once."""
        websockets = self.factory.websockets
        owner: Any = websockets.protocol()
        ends, arrival = Endpoints(format_address(self._peer).encode(), here.text), self._arrival()
        self._give_to(owner)
        if owner.answer(websockets, self.transport, head, ends, outcome, arrival) and rest:
            owner.dataReceived(rest)

    def _arrival(self) -> HandshakeInfo:
        """How a WebSocket came in."""
        arrival = HandshakeInfo(self._accepted_at, "WebSocket")
        if self.factory.listening.proxied:
            arrival = handshake_info(self.transport, self._accepted_at, "WebSocket")
        if self._secured_at is None:
            return arrival
        secured = Step(self._secured_at, "handshake", "TLS")
        return structs.replace(arrival, steps=(*arrival.steps, secured))

    def _give_to(self, owner: Any) -> None:
        self.factory.deadlines.stop(self)
        self._forget_head()
        del self._head, self._peer, self._accepted_at
        self._owner = owner
        self.dataReceived = owner.dataReceived  # type: ignore[method-assign]

    def _give_way(self, owner: Any) -> None:
        """From one owner to another."""
        self._owner = owner
        self.dataReceived = owner.dataReceived  # type: ignore[method-assign]

    def _forget_head(self) -> None:
        self._head = bytearray()
        if self._counted:
            self._counted = self.factory.context.memory_budget.recount(self._counted, 0, self._source)

    def _refuse(self, status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.factory.deadlines.stop(self)
        self._forget_head()
        stats = self.factory.context.stats
        stats.count_response(OTHER_METHOD, status)
        stats.count_error(CODES.get(status, ErrorCode.BAD_ARGUMENT))
        self.transport.write(error(status, words, headers))
        self._closing = graceful_close(self.transport, self.factory.reactor.callLater)


@implementer(IProtocolNegotiationFactory)
class WebFactory(ListenerFactory):
    """``gate`` is shared by all web listeners, so that each refusal is told once; so are ``routes``, where they are
    given. ``lines`` tells where the line ports are, for the page."""

    protocol: Any = HTTPDispatcher

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        gate: OriginPolicy,
        send_buffer_bytes: int,
        ping_interval: int,
        ping_timeout: int,
        lines: Callable[[], list[dict[str, object]]],
        listening: ListenerConfig = DEFAULT_LISTENER,
        routes: Routes | None = None,
    ) -> None:
        self.context = context
        self.reactor = reactor
        self.send_buffer_bytes = send_buffer_bytes
        self.listening = listening
        self.gate = gate
        self.deadlines: TimeoutQueue[HTTPDispatcher] = TimeoutQueue(
            reactor,
            context.limits.handshake_timeout,
            lambda doorman: doorman._refuse(408, "no request came in time"),
        )
        self.websockets = WebSocketFactory(context, reactor, send_buffer_bytes, ping_interval, ping_timeout, listening)
        routes = routes or Routes(build_routes(context, reactor, lines))
        self.site = HTTPSite(reactor, context, gate, routes, listening)

    def acceptableProtocols(self) -> list[bytes]:
        """What is spoken over TLS (RFC 7301). A client that offers protocols, as browsers and curl do, must get one of
        them, or the handshake fails."""
        return [b"http/1.1"]
