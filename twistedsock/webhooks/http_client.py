"""Sends the requests of one webhook with treq. Loaded only if a webhook is configured.

The certificate of a receiver must be valid for the host in its URL. Twisted 26.10 checks that too, but accepts a
certificate that names no host at all: service-identity 24.1 and later raises another exception for those than the one
that Twisted expects, which logs it and continues.
"""

from collections.abc import Callable
from typing import Any

import treq
from cryptography.x509 import Certificate as PlainCertificate
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from twistedsock.webhooks.config import WebhookTarget
from twistedsock.webhooks.delivery import Response

_PLACEHOLDER_NAME = "receiver.invalid"
"""Twisted rejects host names with an underscore. The name that is sent and checked is set afterwards."""


@implementer(IOpenSSLClientConnectionCreator)
class HostnameVerifier:
    """TLS with ``host``. Its certificate must be signed by an authority of ``trust``, or of the system if that is
    None."""

    def __init__(self, host: str, trust: Any = None) -> None:
        host = host.removesuffix(".")  # not in SNI (RFC 6066 section 3) nor in certificates
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._options = optionsForClientTLS(host if is_address else _PLACEHOLDER_NAME, trustRoot=trust)
        self._server_name = None if is_address else host.encode("ascii")
        self._is_for_host = _host_check(
            host, verify_certificate_ip_address if is_address else verify_certificate_hostname
        )

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self.verify)
        return connection

    def verify(self, connection: Connection, certificate: X509, error: int, depth: int, trusted: int) -> bool:
        """Called for each certificate of the chain. That of the host itself has depth 0."""
        if depth or not trusted:
            return bool(trusted)
        return self._is_for_host(certificate.to_cryptography())


def _host_check(host: str, verify: Callable[[PlainCertificate, str], None]) -> Callable[[PlainCertificate], bool]:
    def is_for_host(certificate: PlainCertificate) -> bool:
        try:
            verify(certificate, host)
        except Exception:  # also a certificate that cannot be parsed
            return False
        return True

    return is_for_host


MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of a response, head included, that are read before the connection is aborted. Only the status and
``Retry-After`` are used."""

_PLACEHOLDER_URL = "http://receiver.invalid/"
"""Passed to treq in place of the receiver's URL, because treq rejects IPv6 literals and names with an underscore, and
normalizes URLs. The requests are sent to ``WebhookTable.request_url``."""

KEEP_ALIVE_SECONDS = 4
"""Idle connections are closed after this time. Node's servers close theirs after five seconds, and a request that is
sent at that moment fails."""


class HTTPSender:
    """Sends requests one at a time, on its own connections. Does not follow redirects, keep cookies or decompress
    responses. ``agent`` is for tests."""

    def __init__(self, target: WebhookTarget, reactor: Any, version: str, agent: IAgent | None = None) -> None:
        self._timeout = target.table.timeout
        self._reactor = reactor
        self._agent_name = f"sockbridge/{version}"
        self._endpoints = _Endpoints(target, reactor)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = KEEP_ALIVE_SECONDS
        self._agent = _PlainAgent(
            agent or Agent.usingEndpointFactory(reactor, self._endpoints, self._pool), target.table.request_url
        )

    def post(self, body: bytes, headers: dict[str, str]) -> "Deferred[Response]":
        """Send a body. Fails if there is no response within the timeout of the webhook."""
        self._endpoints.received = 0
        # A new client for each request, because clients keep cookies.
        client = HTTPClient(self._agent, data_to_body_producer=BytesProducer)
        sent = {"Content-Type": "application/json", "User-Agent": self._agent_name, **headers}
        responded: Deferred[Any] = client.post(
            _PLACEHOLDER_URL,
            data=body,
            headers=Headers({name: [value] for name, value in sent.items()}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        responded.addCallback(self._read)
        responded.addTimeout(self._timeout, self._reactor)
        return responded

    def close(self) -> "Deferred[Any]":
        """Close idle connections."""
        return self._pool.closeCachedConnections()

    def _read(self, response: Any) -> "Deferred[Response]":
        """The status counts even if reading the rest of the response fails."""
        # As bytes, because a header that is not UTF-8 must not fail the delivery.
        values = response.headers.getRawHeaders(b"Retry-After")
        result = Response(response.code, values[0].decode("latin-1") if values else None)
        whole: Deferred[Any] = treq.collect(response, lambda data: None)
        whole.addErrback(lambda failure: self._endpoints.abort())
        return whole.addCallback(lambda nothing: result)


@implementer(IBodyProducer)
class BytesProducer:
    """Writes a body at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> "Deferred[None]":
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        pass

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass


@implementer(IAgent)
class _PlainAgent:
    """Sends requests to one URL. Neither requests nor accepts compression, because a small response could become a
    large one, nor cookies."""

    def __init__(self, agent: IAgent, url: bytes) -> None:
        self._agent = agent
        self._url = url

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> "Deferred[IResponse]":
        assert headers is not None, "treq passes some"
        headers.removeHeader("Accept-Encoding")
        return self._agent.request(method, self._url, headers, bodyProducer).addCallback(self._remove_headers)

    def _remove_headers(self, response: Any) -> Any:
        for name in ("Content-Encoding", "Set-Cookie"):
            response.headers.removeHeader(name)
        return response


class _LimitedProtocol(ProtocolWrapper):
    """A connection that is aborted if a response is too long."""

    factory: "_LimitedFactory"

    def dataReceived(self, data: bytes) -> None:
        endpoints = self.factory.endpoints
        endpoints.received += len(data)
        if endpoints.received > MAX_RESPONSE_BYTES:
            self.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.endpoints.forget(self)
        super().connectionLost(reason)


class _LimitedFactory(WrappingFactory):
    protocol = _LimitedProtocol
    noisy = False

    def __init__(self, factory: IProtocolFactory, endpoints: "_Endpoints") -> None:
        super().__init__(factory)
        self.endpoints = endpoints

    def buildProtocol(self, address: IAddress | None) -> Any:
        protocol = super().buildProtocol(address)
        self.endpoints.connection = protocol
        return protocol


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Connects to the receiver. ``received`` is the number of bytes of the present response."""

    def __init__(self, target: WebhookTarget, reactor: Any) -> None:
        self.received = 0
        self.connection: Any = None
        self._reactor = reactor
        self._timeout = target.table.timeout
        self._trust = None
        if target.authorities is not None:
            authorities = load_pem_x509_certificates(target.authorities)
            self._trust = trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in authorities])

    def endpointForURI(self, uri: URI) -> "_Endpoint":
        endpoint: Any = _HostnameEndpoint(self._reactor, uri.host.decode(), uri.port, timeout=self._timeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(HostnameVerifier(uri.host.decode(), self._trust), endpoint)
        return _Endpoint(endpoint, self)

    def abort(self) -> None:
        if self.connection is not None:
            self.connection.abortConnection()

    def forget(self, connection: Any) -> None:
        if self.connection is connection:
            self.connection = None


class _HostnameEndpoint(HostnameEndpoint):
    """Connects to any host that ``WebhookTable`` accepts. Twisted 26.10 rejects names with an underscore, and those
    that begin with ``xn--`` and are not IDNA."""

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        assert isinstance(host, str), "see endpointForURI"
        return False, host.encode("ascii"), host


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, endpoint: Any, endpoints: _Endpoints) -> None:
        self._endpoint = endpoint
        self._endpoints = endpoints

    def connect(self, factory: Any) -> Any:
        factory.noisy = False
        connected = self._endpoint.connect(_LimitedFactory(factory, self._endpoints))
        return connected.addCallback(lambda limited: limited.wrappedProtocol)
