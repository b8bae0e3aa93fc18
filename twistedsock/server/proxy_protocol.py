"""Connections that begin with a PROXY header, before TLS and all else."""

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.auth.trusted_proxies import Source
from twistedsock.codecs.proxy_protocol import Header, HeaderReader
from twistedsock.server.sockets import ListenerConfig, host_of, innermost_transport
from twistedsock.server.timeouts import TimeoutQueue
from twistedsock.server.websocket import OPEN_TIMEOUT


def proxied_address(source: Source) -> Any:
    """What a proxy tells, as Twisted has addresses."""
    if not source.host:
        return UNIXAddress(b"")
    kind = IPv6Address if ":" in source.host else IPv4Address
    return kind("TCP", source.host, source.port)


def speaks_for_proxy(transport: Any) -> bool:
    """Whether the client that a PROXY header reported on this connection is a trusted proxy itself. Loopback is trusted
    as it was reported, although the client is known by another address: see ``Source.seen_from``."""
    return getattr(innermost_transport(transport), "speaks_for_proxy", False)


def expect_proxy_headers(port: Any, reactor: Any, listening: ListenerConfig, seconds: float = OPEN_TIMEOUT) -> None:
    """Let the trusted connections of a listening port begin with a header, if it is proxied, and have it within so many
    seconds. Before the first one."""
    if listening.proxied:
        port.factory = ProxyProtocolFactory(port.factory, reactor, listening, seconds)


class ProxyProtocol(Protocol):
    """A connection of a trusted proxy until its header is there. Then it is gone, and nothing of it is left."""

    factory: "ProxyProtocolFactory"
    transport: Any

    def connectionMade(self) -> None:
        # Where those find it whom it is given to.
        self.transport.accepted_at = self.factory.deadlines.now()
        self._reader = HeaderReader()
        self.factory.deadlines.start(self)

    def dataReceived(self, data: bytes) -> None:
        header = self._reader.feed(data)
        if isinstance(header, Header):
            self.factory.deadlines.stop(self)
            self._give_way(header)
        elif header is not None:
            self.factory.deadlines.stop(self)
            self.refuse()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # Not a word: load balancers look whether we are there by connecting, and go.
        self.factory.deadlines.stop(self)

    def refuse(self) -> None:
        """There is no header, and there will be none."""
        self.factory.tell(host_of(self.transport.getPeer()) or "a Unix socket")
        self.transport.abortConnection()

    def _give_way(self, header: Header) -> None:
        transport, told = self.transport, None
        if header.source is not None:
            told = proxied_address(header.source.seen_from(host_of(transport.getPeer())))
            transport.speaks_for_proxy = self.factory.listening.trusted.trusts(header.source.host)
        owner: Any = self.factory.wrapped.buildProtocol(told)
        transport.protocol = owner
        owner.makeConnection(transport)
        if header.rest:
            owner.dataReceived(header.rest)


class ProxyProtocolFactory(ServerFactory):
    """In front of the factory of a port. The connections of all but the trusted are made as if it were not there, so a
    header that they send is what it would be anywhere: no command, and no request."""

    protocol: Any = ProxyProtocol
    noisy = False
    _log = Logger()
    _told = False

    def __init__(self, wrapped: Any, reactor: Any, listening: ListenerConfig, seconds: float = OPEN_TIMEOUT) -> None:
        self.wrapped = wrapped
        self.deadlines: TimeoutQueue[ProxyProtocol] = TimeoutQueue(reactor, seconds, ProxyProtocol.refuse)
        self.listening = listening

    def buildProtocol(self, address: Any) -> Any:
        if self.listening.trusted.trusts(host_of(address)):
            return super().buildProtocol(address)
        return self.wrapped.buildProtocol(address)

    def doStop(self) -> None:
        self.wrapped.doStop()

    def tell(self, proxy: str) -> None:
        """Log that a proxy sends no header, once: it will go on like that."""
        if not self._told:
            self._told = True
            self._log.warn(
                "the proxy at {proxy} does not begin with a PROXY header at {endpoint}, so its connections are closed; "
                "let it send one, or take this endpoint out of proxy-protocol",
                proxy=proxy,
                endpoint=self.listening.endpoint,
            )
