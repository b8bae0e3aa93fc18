"""TLS of listeners: certificates that can be replaced while the server runs."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL.crypto import X509
from OpenSSL.SSL import Connection
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

MIN_TLS_VERSION = TLSVersion.TLSv1_2
"""RFC 8996 forbids versions before TLS 1.2."""

EXPIRY_WARNING = timedelta(days=14)
"""Automatic renewal takes place about a month before a certificate expires. Half of that means that it has failed."""


class CertificateError(Exception):
    """A certificate cannot be used. The message is one sentence for the operator, without a full stop."""


class _ListenRecorder:
    """Stands in for a reactor: records the arguments with which an endpoint would listen."""

    port: int
    options: CertificateOptions
    backlog: int
    interface: str

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int, interface: str) -> None:
        self.port, self.options, self.backlog, self.interface = port, contextFactory, backlog, interface


class LoadedCertificate(NamedTuple):
    """The content of a listener's files when they were read."""

    options: CertificateOptions
    expires_at: datetime
    authorities: Path | None
    arguments: _ListenRecorder


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """The certificate, key and trusted authorities of one listener. Open connections keep those they began with.

    ``description`` is an endpoint string of Twisted's that begins with ``ssl:``; its ``sslmethod`` is ignored. File
    names in it are relative to ``folder``, so that they mean the same after a change of the working directory. Clients
    need a certificate of one of ``authorities``, a file of certificates, unless that is None."""

    def __init__(self, description: str, folder: Path, authorities: Path | None = None) -> None:
        self._files, self._endpoint = _with_absolute_files(description, folder)
        self._folder = folder
        self._loaded = self.load(authorities)

    @property
    def expires_at(self) -> datetime:
        return self._loaded.expires_at

    @property
    def authorities(self) -> Path | None:
        return self._loaded.authorities

    @property
    def description(self) -> str:
        """The file and the expiry date, for the operator."""
        return f"{self._files['certKey']} (until {self.expires_at:%Y-%m-%d})"

    def load(self, authorities: Path | None = None) -> LoadedCertificate:
        """Read the files again; ``replace`` makes the result effective. Raises CertificateError if they cannot be
        used."""
        try:
            certificate, *intermediates = _read_and_check(self._files)
            recorder = _ListenRecorder()
            serverFromString(recorder, self._endpoint).listen(Factory())
            parsed = recorder.options
            options = CertificateOptions(
                privateKey=parsed.privateKey,
                certificate=parsed.certificate,
                extraCertChain=parsed.extraCertChain or [X509.from_cryptography(each) for each in intermediates],
                dhParameters=parsed.dhParameters,
                raiseMinimumTo=MIN_TLS_VERSION,
                trustRoot=None if authorities is None else _trust_root(self._folder / authorities),
            )
            options.getContext()  # raises if the parts do not match
        except CertificateError:
            raise
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None
        except Exception as error:  # errors of OpenSSL, and those of the endpoint parser for a wrong field
            raise CertificateError(str(error) or type(error).__name__) from None
        return LoadedCertificate(options, certificate.not_valid_after_utc, authorities, recorder)

    def replace(self, loaded: LoadedCertificate) -> None:
        """Use these for new connections."""
        self._loaded = loaded

    def expiry_warning(self, now: float) -> str | None:
        """A sentence if the certificate has expired or expires within ``EXPIRY_WARNING``, otherwise None. ``now`` is in
        seconds since 1970."""
        left = self.expires_at - datetime.fromtimestamp(now, UTC)
        if left <= timedelta():
            return f"the certificate {self._files['certKey']} expired at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        if left <= EXPIRY_WARNING:
            return f"the certificate {self._files['certKey']} expires at {self.expires_at:%Y-%m-%d %H:%M} UTC"
        return None

    def listen(self, reactor: Any, factory: Any) -> Any:
        """Listen, and return the port."""
        arguments = self._loaded.arguments
        return reactor.listenSSL(
            arguments.port, factory, contextFactory=self, backlog=arguments.backlog, interface=arguments.interface
        )

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        return self._loaded.options.serverConnectionForTLS(tlsProtocol)


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """An endpoint that listens with ``Certificates``."""

    def __init__(self, reactor: Any, certificates: Certificates) -> None:
        self._reactor = reactor
        self.certificates = certificates

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        return execute(self.certificates.listen, self._reactor, protocolFactory)


# The fields of an endpoint string by position, and those that name files.
_POSITIONS = (
    *("", "port", "privateKey", "certKey", "sslmethod"),
    *("interface", "backlog", "extraCertChain", "dhParameters"),
)
_FILE_FIELDS = ("privateKey", "certKey", "extraCertChain", "dhParameters")
_FIELD = re.compile(r"(?:^|:)((?:\\.|[^:\\])*)", re.DOTALL)


def _with_absolute_files(description: str, folder: Path) -> tuple[dict[str, Path], str]:
    """The files that an endpoint string names, and the string with their absolute names."""
    files: dict[str, Path] = {}
    fields = []
    for position, field in enumerate(_FIELD.findall(description)):
        name, equals, value = field.partition("=")
        if not equals:
            name, value = _POSITIONS[position] if position < len(_POSITIONS) else "", field
        if name in _FILE_FIELDS:
            files[name] = folder / re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
            field = f"{name}={quoteStringArgument(str(files[name]))}"
        fields.append(field)
    if "privateKey" not in files:  # Twisted's default
        files["privateKey"] = folder / "server.pem"
        fields.append("privateKey=" + quoteStringArgument(str(files["privateKey"])))
    files.setdefault("certKey", files["privateKey"])
    return files, ":".join(fields)


def _read_and_check(files: dict[str, Path]) -> list[x509.Certificate]:
    """The certificate and those that follow it in its file: many authorities deliver the whole chain in one file, of
    which Twisted reads the first only. Raises CertificateError with the reason, which OpenSSL's own errors do not name;
    it would also ask for the password of an encrypted key on the terminal."""
    certificates = _read_certificates(files["certKey"])
    file = files["privateKey"]
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except TypeError:
        raise CertificateError(f"the key {file} is encrypted: remove its password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"no private key in {file}") from None
    if key.public_key() != certificates[0].public_key():
        raise CertificateError(f"the key {file} does not belong to the certificate {files['certKey']}")
    if "extraCertChain" in files:
        _read_certificates(files["extraCertChain"])
    return certificates


def _read_certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError:
        raise CertificateError(f"no certificate in {file}") from None


def _trust_root(file: Path) -> Any:
    return trustRootFromCertificates([Certificate(X509.from_cryptography(each)) for each in _read_certificates(file)])
