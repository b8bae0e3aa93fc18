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
from OpenSSL.SSL import Connection, Error, WantReadError, ZeroReturnError
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, trustRootFromCertificates
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twistedsock.pubsub.subscription import SOCKET_FULL

OLDEST_PROTOCOL = TLSVersion.TLSv1_2
"""RFC 8996 forbids what is older than TLS 1.2."""

SOON = timedelta(days=14)
"""Whoever renews certificates by a timer does so a month before they end, so half of that means that it has failed."""

MAX_SUBJECT = 200
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
    return subject if len(subject) <= MAX_SUBJECT else None


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


MAX_IGNORED_BYTES = 64 * 1024
"""After close_notify. A client that goes on sending is reset, because it breaks the protocol and is not charged for
what it sends."""


@implementer(IHalfCloseableProtocol)
class FreedAtTheEnd(BufferingTLSTransport):
    """Twisted's, without what would hold it, and with the half-close of TLS 1.3: a client that has sent close_notify
    still reads (RFC 8446 section 6.1). In TLS 1.2 close_notify ends both directions (RFC 5246 section 7.2.1). Aborted
    connections end without close_notify."""

    _input_ended = False
    _ignored = 0

    # What Twisted's class has.
    _lostTLSConnection: bool
    _aborted: bool
    _tlsConnection: Any
    wrappedProtocol: Any

    def dataReceived(self, data: bytes) -> None:
        """Twisted's, but what comes after close_notify is ignored (RFC 8446 section 6.1). OpenSSL would keep it."""
        if not self._input_ended:
            super().dataReceived(data)
            return
        self._ignored += len(data)
        if self._ignored > MAX_IGNORED_BYTES:
            self.abortConnection()

    def _flushReceiveBIO(self) -> None:
        """Twisted's, with a branch for the half-close. After close_notify nothing is read any more."""
        while not self._lostTLSConnection and not self._input_ended:
            try:
                data = self._tlsConnection.recv(2**15)
            except WantReadError:
                break
            except ZeroReturnError:
                if self._is_half_close():
                    self._input_ended = True
                    self.wrappedProtocol.readConnectionLost()
                else:
                    self._shutdownTLS()
                    self._tlsShutdownFinished(None)
            except Error:
                self._tlsShutdownFinished(Failure())
            else:
                if not self._aborted:
                    self.wrappedProtocol.dataReceived(data)
        self._flushSendBIO()

    def _shutdownTLS(self) -> None:
        """Twisted's, but a producer can also be unregistered when the connection is gone."""
        if self._tlsConnection is not None:
            super()._shutdownTLS()

    def _is_half_close(self) -> bool:
        """Whether close_notify, which has just come, leaves the other direction open."""
        return (
            not self.disconnecting
            and self._tlsConnection.get_protocol_version_name() == "TLSv1.3"
            and IHalfCloseableProtocol.providedBy(self.wrappedProtocol)
        )

    def abortConnection(self) -> None:
        """Twisted's, without close_notify: a client takes that for the end of what it reads, and not for a reset."""
        transport: Any = self.transport
        self._aborted = self.disconnecting = True
        transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The peer has ended its TCP stream. Before its close_notify, that is a truncation."""
        if not self._input_ended:
            transport: Any = self.transport
            transport.connectionLost(connectionDone)

    def writeConnectionLost(self) -> None:
        """Our own end of the TCP stream."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The producer of what was written here holds us; it has been told that it is over."""
        super().connectionLost(reason)
        self.unregisterProducer()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """Where a peer goes without a word, or breaks the rules, Twisted keeps the error in a variable on the stack in
        which it came up, and the error has that stack. Who is told of the error asks for its kind alone.

        What still waits to be sent is discarded (RFC 5246 section 7.2.1). Twisted waits until it has been sent and the
        producer has no more, but a producer that is resumed after the end of TLS writes nothing: the connection would
        stay for ever, neither read nor written."""
        transport: Any = self.transport
        waits = getattr(transport, "blocked", 0) & SOCKET_FULL
        super()._tlsShutdownFinished(reason)
        if waits:
            transport.abortConnection()
        if reason is not None:
            _forget_stack(reason)


def _forget_stack(failure: Failure) -> None:
    failure.tb = None
    error: BaseException | None = failure.value
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def free_at_the_end(port: Any) -> None:
    """Let a listening port make such connections, if it makes Twisted's usual ones. Before the first connection."""
    factory = getattr(port, "factory", None)
    if isinstance(factory, TLSMemoryBIOFactory) and factory.protocol is BufferingTLSTransport:
        factory.protocol = FreedAtTheEnd


# TODO-MERGED-DOC: TLS connections that a client may half-close, and that are freed when they end, with
# OpenSSL's buffers: not by a full garbage collection, which hardly ever comes here.
