"""HAProxy's PROXY protocol: connections of trusted proxies that begin with the address of their client."""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.auth.trusted_proxies import Source
from twistedsock.codecs.proxy_protocol import ProxyHeader, ProxyHeaderDecoder
from twistedsock.limits.settings import Limits
from twistedsock.server.sockets import ListenerConfig, hand_over, host_of, innermost_transport
from twistedsock.server.timeouts import TimeoutQueue

DEFAULT_TIMEOUT_SECONDS = Limits().handshake_timeout


def twisted_address(source: Source) -> Any:
    """The address that a proxy reported, as Twisted represents it."""
    if not source.host:
        return UNIXAddress(b"")
    kind = IPv6Address if ":" in source.host else IPv4Address
    return kind("TCP", source.host, source.port)


def client_is_trusted_proxy(transport: Any) -> bool:
    """True if the client that a PROXY header reported on this connection is itself a trusted proxy. Loopback is trusted
    as it was reported, although the client is known by another address: see ``Source.relative_to``."""
    return getattr(innermost_transport(transport), "client_is_trusted_proxy", False)


def expect_proxy_headers(
    port: Any, reactor: Any, listening: ListenerConfig, seconds: float = DEFAULT_TIMEOUT_SECONDS
) -> None:
    """If a listener is ``proxied``, require a header on the connections of its trusted proxies, within ``seconds``.
    Must be called before the first connection. ``factory`` is a public attribute of Twisted's ports."""
    if listening.proxied:
        port.factory = ProxyProtocolFactory(port.factory, reactor, listening, seconds)


class ProxyProtocol(Protocol):
    """A connection of a trusted proxy until its header has been read. Then the protocol of the port takes over."""

    factory: "ProxyProtocolFactory"
    transport: Any

    def connectionMade(self) -> None:
        # An attribute of the transport, because the next protocol needs it: see ``sockets.handshake_info``.
        self.transport.accepted_at = self.factory.timeouts.now()
        self._reader = ProxyHeaderDecoder()
        self.factory.timeouts.start(self)

    def dataReceived(self, data: bytes) -> None:
        header = self._reader.feed(data)
        if isinstance(header, ProxyHeader):
            self.factory.timeouts.stop(self)
            self._hand_over(header)
        elif header is not None:
            self.factory.timeouts.stop(self)
            self.reject()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # Not logged: load balancers check the server by connecting and disconnecting.
        self.factory.timeouts.stop(self)

    def reject(self) -> None:
        """The connection does not begin with a header."""
        self.factory.log_missing_header(host_of(self.transport.getPeer()) or "a Unix socket")
        self.transport.abortConnection()

    def _hand_over(self, header: ProxyHeader) -> None:
        transport, address = self.transport, None
        if header.source is not None:
            address = twisted_address(header.source.relative_to(host_of(transport.getPeer())))
            transport.client_is_trusted_proxy = self.factory.listening.trusted.trusts(header.source.host)
        protocol: Any = self.factory.wrapped.buildProtocol(address)
        hand_over(transport, protocol)
        protocol.makeConnection(transport)
        if header.rest:
            protocol.dataReceived(header.rest)


class ProxyProtocolFactory(ServerFactory):
    """Placed before the factory of a port. Connections that do not come from a trusted proxy skip it, so a header that
    they send is an invalid command or request."""

    protocol: Any = ProxyProtocol
    noisy = False
    _log = Logger()
    _has_logged = False

    def __init__(
        self, wrapped: Any, reactor: Any, listening: ListenerConfig, seconds: float = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self.wrapped = wrapped
        self.timeouts: TimeoutQueue[ProxyProtocol] = TimeoutQueue(reactor, seconds, ProxyProtocol.reject)
        self.listening = listening

    def buildProtocol(self, address: Any) -> Any:
        if self.listening.trusted.trusts(host_of(address)):
            return super().buildProtocol(address)
        return self.wrapped.buildProtocol(address)

    def doStop(self) -> None:
        """The port started the wrapped factory before this one took its place."""
        self.wrapped.doStop()

    def log_missing_header(self, proxy: str) -> None:
        """Log once that a proxy sends no header, because each of its connections would repeat it."""
        if not self._has_logged:
            self._has_logged = True
            self._log.warn(
                "the proxy at {proxy} sends no PROXY header to {endpoint}, so its connections are closed: "
                "enable the header in the proxy, or remove this endpoint from proxy-protocol",
                proxy=proxy,
                endpoint=self.listening.endpoint,
            )
