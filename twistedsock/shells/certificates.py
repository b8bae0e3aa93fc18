"""TLS on a listener: its certificate, which can be replaced while it listens, and whose certificates it takes."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from OpenSSL.SSL import Connection
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

OLDEST_PROTOCOL = TLSVersion.TLSv1_2
"""RFC 8996 forbids what is older than TLS 1.2."""

SOON = timedelta(days=14)
"""Whoever renews certificates by a timer does so a month before they end, so half of that means that it has failed."""

MOST_SUBJECT = 200
"""Bytes of a common name. X.520 allows 64 characters; some authorities write more."""

_POSITIONS = (
    *("", "port", "privateKey", "certKey", "sslmethod"),
    *("interface", "backlog", "extraCertChain", "dhParameters"),
)
_FILES = ("privateKey", "certKey", "extraCertChain", "dhParameters")
_FIELD = re.compile(r"(?:^|:)((?:\\.|[^:\\])*)", re.DOTALL)


class CertificateError(Exception):
    """A certificate cannot be used; its text is one sentence for the operator, without the full stop."""


class _Recorder:
    """In the place of a reactor: notes what an endpoint would listen on, and with what certificate."""

    port: int
    options: CertificateOptions
    backlog: int
    interface: str

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int, interface: str) -> None:
        self.port, self.options, self.backlog, self.interface = port, contextFactory, backlog, interface


class Reading(NamedTuple):
    """What was in the files of a listener when they were read."""

    options: CertificateOptions
    until: datetime
    authorities: Path | None
    told: _Recorder


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """What the connections of one listener are encrypted with. They keep what they began with when it is replaced.

    ``description`` is an endpoint string of Twisted's that begins with ``ssl:``; its ``sslmethod`` is not heeded. File
    names in it are relative to ``folder``, so that they mean the same after a change of the working directory. Clients
    need a certificate of one of ``authorities``, a file of certificates, or none if that is None."""

    def __init__(self, description: str, folder: Path, authorities: Path | None = None) -> None:
        self._files, self._description = _with_files(description, folder)
        self._folder = folder
        self._in_use = self.read(authorities)

    @property
    def until(self) -> datetime:
        """When the certificate ends."""
        return self._in_use.until

    @property
    def authorities(self) -> Path | None:
        return self._in_use.authorities

    def use(self, fresh: "Reading") -> None:
        """From now on, for connections to come."""
        self._in_use = fresh

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        return self._in_use.options.serverConnectionForTLS(tlsProtocol)

    def listen(self, reactor: Any, factory: Any) -> Any:
        """Listen, and give the port."""
        told = self._in_use.told
        return reactor.listenSSL(
            told.port, factory, contextFactory=self, backlog=told.backlog, interface=told.interface
        )

    @property
    def shown(self) -> str:
        """The certificate as the operator knows it."""
        return f"{self._files['certKey']} (until {self.until:%Y-%m-%d})"

    def worry(self, now: float) -> str | None:
        """A sentence if the certificate has expired, or soon will, None if all is well. ``now`` is in seconds since
        1970."""
        left = self.until - datetime.fromtimestamp(now, UTC)
        if left <= timedelta():
            return f"the certificate {self._files['certKey']} has expired on {self.until:%Y-%m-%d %H:%M} UTC"
        if left <= SOON:
            return f"the certificate {self._files['certKey']} ends on {self.until:%Y-%m-%d %H:%M} UTC"
        return None

    def read(self, authorities: Path | None = None) -> "Reading":
        """Read the files again, to be used when all else is well, too. CertificateError if they cannot be used."""
        try:
            certificate, *more = _look_at(self._files)
            chain = [X509.from_cryptography(one) for one in more]
            recorder = _Recorder()
            serverFromString(recorder, self._description).listen(Factory())
            told = recorder.options
            options = CertificateOptions(
                privateKey=told.privateKey,
                certificate=told.certificate,
                extraCertChain=told.extraCertChain or chain,
                dhParameters=told.dhParameters,
                raiseMinimumTo=OLDEST_PROTOCOL,
                trustRoot=None if authorities is None else _trust(self._folder / authorities),
            )
            options.getContext()  # what does not fit shows here
        except CertificateError:
            raise
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None
        except Exception as error:  # OpenSSL's own, and what the parser of endpoints makes of a wrong field
            raise CertificateError(str(error) or type(error).__name__) from None
        return Reading(options, certificate.not_valid_after_utc, authorities, recorder)


@implementer(IStreamServerEndpoint)
class TLSEndpoint:
    """Listens as its certificates' description says."""

    def __init__(self, reactor: Any, certificates: Certificates) -> None:
        self._reactor = reactor
        self.certificates = certificates

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        return execute(self.certificates.listen, self._reactor, protocolFactory)


def subject_of(transport: Any) -> bytes | None:
    """The common name in the certificate by which a peer has proved who it is; None if it has shown none, or one in
    which there is no such name, several, or one that is not fit to be shown to others. Before its handshake is
    complete nobody has proved anything, so this is not to be called before."""
    ask = getattr(transport, "getPeerCertificate", None)
    certificate: X509 | None = ask() if ask is not None else None
    if certificate is None:
        return None
    try:
        names = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:  # not every certificate that OpenSSL takes can be read
        return None
    if len(names) != 1:
        return None
    name = names[0].value
    if not isinstance(name, str) or not name or not name.isprintable():
        return None
    subject = name.encode()
    return subject if len(subject) <= MOST_SUBJECT else None


def _with_files(description: str, folder: Path) -> tuple[dict[str, Path], str]:
    """The files that an endpoint string names, and the string with their full names."""
    files: dict[str, Path] = {}
    fields = []
    for place, field in enumerate(_FIELD.findall(description)):
        name, equals, value = field.partition("=")
        if not equals:
            name, value = _POSITIONS[place] if place < len(_POSITIONS) else "", field
        if name in _FILES:
            files[name] = folder / re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
            field = f"{name}={quoteStringArgument(str(files[name]))}"
        fields.append(field)
    if "privateKey" not in files:  # the default of Twisted's
        files["privateKey"] = folder / "server.pem"
        fields.append("privateKey=" + quoteStringArgument(str(files["privateKey"])))
    files.setdefault("certKey", files["privateKey"])
    return files, ":".join(fields)


def _look_at(files: dict[str, Path]) -> list[x509.Certificate]:
    """Find what is wrong with the files, as OpenSSL says it for itself only, and asks on the terminal for the password
    of a key that has one. Gives the certificate and those behind it: many authorities deliver the whole chain in one
    file, of which Twisted reads the first."""
    certificates = _certificates(files["certKey"])
    file = files["privateKey"]
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except TypeError:
        raise CertificateError(f"the key {file} has a password, and nobody is there to be asked") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"there is no private key in {file}") from None
    if key.public_key() != certificates[0].public_key():
        raise CertificateError(f"the key {file} does not belong to the certificate {files['certKey']}")
    if "extraCertChain" in files:
        _certificates(files["extraCertChain"])
    return certificates


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError:
        raise CertificateError(f"there is no certificate in {file}") from None


def _trust(file: Path) -> Any:
    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in _certificates(file)])
