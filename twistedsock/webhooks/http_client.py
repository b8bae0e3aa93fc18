"""The requests of one webhook, through treq. It is loaded where a webhook is configured, and nowhere else."""

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
from twistedsock.webhooks.delivery import Answer

_ANY_NAME = "receiver.invalid"
"""Twisted accepts no host name with an underscore. The name that is sent, and checked, is set afterwards."""


@implementer(IOpenSSLClientConnectionCreator)
class HostnameVerifier:
    """TLS with a host whose certificate one of ``trust`` has signed, or of those that the system trusts if that is
    None."""

    def __init__(self, host: str, trust: Any = None) -> None:
        host = host.removesuffix(".")  # neither in the extension (RFC 6066 section 3) nor in a certificate
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._options = optionsForClientTLS(host if is_address else _ANY_NAME, trustRoot=trust)
        self._server_name = None if is_address else host.encode("ascii")
        self._is_for_host = _judge(host, verify_certificate_ip_address if is_address else verify_certificate_hostname)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return connection

    def _verify(self, connection: Connection, certificate: X509, error: int, depth: int, trusted: int) -> bool:
        """Called for each certificate of the chain; the one of the host itself has the depth 0."""
        if depth or not trusted:
            return bool(trusted)
        return self._is_for_host(certificate.to_cryptography())


def _judge(host: str, verify: Callable[[PlainCertificate, str], None]) -> Callable[[PlainCertificate], bool]:
    def is_for_host(certificate: PlainCertificate) -> bool:
        try:
            verify(certificate, host)
        except Exception:  # whatever it is that could not be read in it: no is the answer that does no harm
            return False
        return True

    return is_for_host


ANSWER_BYTES = 64 * 1024
"""What is read of an answer, its head included, before the connection is cut. Nothing of it is used but the status and
``Retry-After``."""

_ANY_URL = "http://receiver.invalid/"
"""What treq is given in the place of the receiver's URL: it refuses IPv6 literals and names with an underscore, and
writes URLs anew. The requests go to ``WebhookTable.request_url``."""

KEPT_SECONDS = 4
"""How long a connection is kept that nothing is sent on: Node's servers close theirs after five, and a request that
meets a close is lost."""


class HTTPSender:
    """Sends requests, one after the other, with connections of its own. Redirects are not followed, cookies not kept,
    answers not decompressed. ``agent`` is for tests."""

    def __init__(self, target: WebhookTarget, reactor: Any, version: str, agent: IAgent | None = None) -> None:
        self._timeout = target.table.timeout
        self._reactor = reactor
        self._agent_name = f"sockbridge/{version}"
        self._endpoints = _Endpoints(target, reactor)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = KEPT_SECONDS
        self._agent = _Plain(
            agent or Agent.usingEndpointFactory(reactor, self._endpoints, self._pool), target.table.request_url
        )

    def post(self, body: bytes, headers: dict[str, str]) -> "Deferred[Answer]":
        """The answer. Fails with whatever went wrong on the way to it; it is cancelled where that takes too long."""
        self._endpoints.received = 0
        # A client of its own for each request, as it keeps cookies.
        client = HTTPClient(self._agent, data_to_body_producer=_Whole)
        sent = {"Content-Type": "application/json", "User-Agent": self._agent_name, **headers}
        answered: Deferred[Any] = client.post(
            _ANY_URL,
            data=body,
            headers=Headers({name: [value] for name, value in sent.items()}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        answered.addCallback(self._read)
        answered.addTimeout(self._timeout, self._reactor)
        return answered

    def close(self) -> "Deferred[Any]":
        """Close the connections that nothing is sent on."""
        return self._pool.closeCachedConnections()

    def _read(self, response: Any) -> "Deferred[Answer]":
        """Once there is a status, it holds, whatever becomes of the rest."""
        # As bytes, because a header that is not UTF-8 must not make a failure of a delivery.
        values = response.headers.getRawHeaders(b"Retry-After")
        answer = Answer(response.code, values[0].decode("latin-1") if values else None)
        whole: Deferred[Any] = treq.collect(response, lambda data: None)
        whole.addErrback(lambda failure: self._endpoints.abort())
        return whole.addCallback(lambda nothing: answer)


@implementer(IBodyProducer)
class _Whole:
    """A body that is in memory anyway, written at once."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> "Deferred[None]":
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """It has been written."""

    def pauseProducing(self) -> None:
        """It has been written."""

    def resumeProducing(self) -> None:
        """It has been written."""


@implementer(IAgent)
class _Plain:
    """Sends requests to one URL. Asks for no compression and takes none: a small answer could become a large one.
    Cookies are not taken either."""

    def __init__(self, agent: IAgent, url: bytes) -> None:
        self._agent = agent
        self._url = url

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> "Deferred[IResponse]":
        assert headers is not None, "treq gives some"
        headers.removeHeader("Accept-Encoding")
        return self._agent.request(method, self._url, headers, bodyProducer).addCallback(self._without)

    def _without(self, response: Any) -> Any:
        for name in ("Content-Encoding", "Set-Cookie"):
            response.headers.removeHeader(name)
        return response


class _Counting(ProtocolWrapper):
    """A connection that is cut when an answer is longer than anybody needs."""

    factory: "_CountingFactory"

    def dataReceived(self, data: bytes) -> None:
        endpoints = self.factory.endpoints
        endpoints.received += len(data)
        if endpoints.received > ANSWER_BYTES:
            self.abortConnection()
        else:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.endpoints.forget(self)
        super().connectionLost(reason)


class _CountingFactory(WrappingFactory):
    protocol = _Counting
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
    """Where a webhook connects to. ``received`` bytes have come as answer to the last request."""

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
    """Connects to any host that ``WebhookTable`` accepts: Twisted 26.10 refuses a name with an underscore, and one that
    begins with ``xn--`` and is not IDNA."""

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
        connected = self._endpoint.connect(_CountingFactory(factory, self._endpoints))
        return connected.addCallback(lambda counting: counting.wrappedProtocol)


# TODO-MERGED-DOC: Whether a receiver is who it should be: its certificate is for the host in the url, whatever
# else is wrong with it. Twisted 26.10 asks that, too, but takes a certificate that names no host at all:
# service-identity 24.1 and later raises another exception for those than the one that Twisted expects, which
# logs it and goes on.
