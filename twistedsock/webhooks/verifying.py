"""Whether a receiver is who it should be: its certificate is for the host in the url, whatever else is wrong with it.

Twisted 26.10 asks that, too, but takes a certificate that names no host at all: service-identity 24.1 and later raises
another exception for those than the one that Twisted expects, which logs it and goes on.
"""

from collections.abc import Callable
from typing import Any

from cryptography.x509 import Certificate as PlainCertificate
from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import optionsForClientTLS
from zope.interface import implementer

_ANY_NAME = "receiver.invalid"
"""Twisted accepts no host name with an underscore. The name that is sent, and checked, is set afterwards."""


@implementer(IOpenSSLClientConnectionCreator)
class Verifying:
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
