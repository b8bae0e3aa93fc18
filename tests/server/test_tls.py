"""Certificates are read, checked and replaced; names in client certificates. The handshakes are real, the sockets are
not."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from tests.authority import Authority
from twistedsock.server.sockets import subject_of
from twistedsock.server.tls import CertificateError, Certificates, TLSEndpoint

ENDPOINT = "ssl:8443:privateKey=server.key:certKey=server.pem"


@pytest.fixture
def authority(tmp_path):
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    return authority


class Connection:
    """Both ends of a TLS connection, in one process."""

    def __init__(self, certificates, **options):
        factory = Factory.forProtocol(Protocol)
        self.clock = Clock()
        tls = TLSMemoryBIOFactory(certificates, False, factory, self.clock)
        self.server = tls.buildProtocol(None)
        self.wire = StringTransport()
        self.server.makeConnection(self.wire)
        self.received, self.sent = [], b""
        self.server.wrappedProtocol.dataReceived = self.received.append
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if "shows" in options:
            context.load_cert_chain(f"{options['shows']}.pem", f"{options['shows']}.key")
        if "version" in options:
            context.minimum_version = context.maximum_version = options["version"]
        if "ciphers" in options:
            context.set_ciphers(options["ciphers"])
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._incoming, self._outgoing)
        self._carry(self.client.do_handshake)

    def _carry(self, act):
        """Call something at the client's end until it succeeds. None if the server does not answer."""
        while True:
            try:
                result, done = act(), True
            except ssl.SSLWantReadError:
                result, done = None, False
            if self._outgoing.pending:
                self.server.dataReceived(self._outgoing.read())
            self.clock.advance(0)
            answer = self.wire.value()
            self.wire.clear()
            self.sent += answer
            self._incoming.write(answer)
            if done or not answer:
                return result

    def say(self, data):
        self._carry(lambda: self.client.write(data))

    def hear(self):
        return self._carry(lambda: self.client.read(100))

    @property
    def serial(self):
        return x509.load_der_x509_certificate(self.client.getpeercert(True)).serial_number


def test_provides_the_interface_of_twisted(authority, tmp_path):
    certificates = Certificates(ENDPOINT, tmp_path)
    assert verifyObject(IOpenSSLServerConnectionCreator, certificates)
    assert verifyObject(IStreamServerEndpoint, TLSEndpoint(None, certificates))


def test_listens_as_described(authority, tmp_path):
    reactor = MemoryReactorClock()
    certificates = Certificates(ENDPOINT + ":interface=\\:\\:1:backlog=7", tmp_path)
    factory = Factory()
    ports = []
    TLSEndpoint(reactor, certificates).listen(factory).addCallback(ports.append)
    assert ports
    assert reactor.sslServers == [(8443, factory, certificates, 7, "::1")]


@pytest.mark.parametrize(
    "description",
    [
        "ssl:8443:server.key:server.pem",
        "ssl:8443:certKey=server.pem:privateKey=server.key",
        "ssl:8443:server.key:certKey=serv\\er.pem",
    ],
)
def test_files_are_relative_to_the_folder(authority, tmp_path, description, monkeypatch):
    monkeypatch.chdir("/")
    assert Certificates(description, tmp_path).description.startswith(f"{tmp_path}/server.pem (until 20")


def test_key_and_certificate_can_share_a_file_with_an_unusual_name(authority, tmp_path):
    both = (tmp_path / "server.key").read_bytes() + (tmp_path / "server.pem").read_bytes()
    strange = tmp_path / "a:b=c\\d.pem"
    for file in (strange, tmp_path / "server.pem"):
        file.write_bytes(both)
    assert Certificates("ssl:8443:privateKey=a\\:b=c\\\\d.pem", tmp_path)
    assert Certificates("ssl:8443", tmp_path)


def test_client_receives_the_certificate(authority, tmp_path):
    serial = authority.issue("server", "localhost")
    connection = Connection(Certificates(ENDPOINT, tmp_path))
    assert connection.serial == serial
    connection.say(b"PING\n")
    assert connection.received == [b"PING\n"]


def test_new_certificate_applies_to_new_connections(authority, tmp_path):
    old = authority.issue("server", "localhost")
    certificates = Certificates(ENDPOINT, tmp_path)
    before = Connection(certificates)
    new = authority.issue("server", "localhost", until=datetime(2030, 1, 2, tzinfo=UTC))
    assert Connection(certificates).serial == old
    certificates.replace(certificates.load())
    assert Connection(certificates).serial == new
    assert certificates.expires_at == datetime(2030, 1, 2, tzinfo=UTC)
    before.server.wrappedProtocol.transport.write(b"PONG\n")
    assert before.hear() == b"PONG\n"
    before.say(b"PING\n")
    assert before.received == [b"PING\n"]


@pytest.mark.parametrize(
    ("key", "certificate", "words"),
    [
        ("server.key", b"-----BEGIN CERTIFICATE-----\n", "no certificate in {}/server.pem"),
        ("server.key", "server.key", "no certificate in {}/server.pem"),
        (None, "server.pem", "{}/server.key: No such file or directory"),
        (b"\xff\xfe", "server.pem", "no private key in {}/server.key"),
        ("other.key", "server.pem", "the key {0}/server.key does not belong to the certificate {0}/server.pem"),
        ("secret.key", "secret.pem", "the key {}/server.key is encrypted: remove its password"),
    ],
)
def test_rejects_unusable_files_and_keeps_the_old_certificate(authority, tmp_path, key, certificate, words):
    """``key`` and ``certificate`` are names of files, or contents."""
    serial = authority.issue("server", "localhost")
    authority.issue("other", "localhost")
    authority.issue("secret", "localhost", password=b"secret")
    certificates = Certificates(ENDPOINT, tmp_path)
    contents = [(tmp_path / one).read_bytes() if isinstance(one, str) else one for one in (key, certificate)]
    for name, content in zip(("server.key", "server.pem"), contents, strict=True):
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(CertificateError) as caught:
        certificates.load()
    assert str(caught.value) == words.format(tmp_path)
    assert Connection(certificates).serial == serial
    with pytest.raises(CertificateError):
        Certificates(ENDPOINT, tmp_path)


@pytest.mark.parametrize("field", ["colour=blue", "backlog=many", "extraCertChain=server.key", "dhParameters=none.pem"])
def test_rejects_unusable_field(authority, tmp_path, field):
    with pytest.raises(CertificateError) as caught:
        Certificates(f"{ENDPOINT}:{field}", tmp_path)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["behind the certificate", "in a file of its own"])
def test_sends_the_chain(authority, tmp_path, where):
    endpoint = ENDPOINT
    if where == "in a file of its own":
        endpoint += ":extraCertChain=authority.pem"
    else:
        with (tmp_path / "server.pem").open("ab") as file:
            file.write(authority.pem.read_bytes())
    # TLS 1.2 sends the chain unencrypted.
    connection = Connection(Certificates(endpoint, tmp_path), version=ssl.TLSVersion.TLSv1_2)
    assert ssl.PEM_cert_to_DER_cert(authority.pem.read_text()) in connection.sent


@pytest.mark.parametrize(
    ("version", "welcome"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
@pytest.mark.parametrize("method", ["", ":sslmethod=TLS_METHOD"])
@pytest.mark.filterwarnings("ignore:Passing method to:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_refuses_old_tls_versions(authority, tmp_path, version, welcome, method):
    certificates = Certificates(ENDPOINT + method, tmp_path)
    # OpenSSL offers the old versions only at security level 0.
    options = {"version": version, "ciphers": "DEFAULT@SECLEVEL=0"}
    if welcome:
        assert Connection(certificates, **options).client.version() == version.name.replace("_", ".")
    else:
        with pytest.raises(ssl.SSLError, match="(?i)protocol.version"):
            Connection(certificates, **options)


class TestClients:
    """Certificates of clients."""

    @pytest.fixture
    def certificates(self, authority, tmp_path):
        return Certificates(ENDPOINT, tmp_path, Path("authority.pem"))

    @pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
    def connect(self, certificates, tmp_path, request):
        def connect(shows=None):
            options = {} if shows is None else {"shows": tmp_path / shows}
            connection = Connection(certificates, version=request.param, **options)
            connection.say(b"PING\n")
            connection.hear()
            return connection

        return connect

    def test_valid_certificate_has_a_subject(self, authority, connect):
        authority.issue("ann", "Ann of Ærø")
        connection = connect(shows="ann")
        assert connection.received == [b"PING\n"]
        assert subject_of(connection.server) == "Ann of Ærø".encode()

    def test_rejects_client_without_certificate(self, connect):
        with pytest.raises(ssl.SSLError):
            connect()

    def test_rejects_certificate_of_another_authority(self, connect, tmp_path):
        Authority(tmp_path, "stranger").issue("ann", "ann")
        with pytest.raises(ssl.SSLError):
            connect(shows="ann")

    def test_rejects_expired_certificate(self, authority, connect):
        authority.issue("ann", "ann", until=datetime(2021, 1, 1, tzinfo=UTC))
        with pytest.raises(ssl.SSLError):
            connect(shows="ann")

    def test_file_can_have_several_authorities(self, authority, connect, certificates, tmp_path):
        other = Authority(tmp_path, "other")
        other.issue("bob", "bob")
        (tmp_path / "both.pem").write_bytes(authority.pem.read_bytes() + other.pem.read_bytes())
        certificates.replace(certificates.load(Path("both.pem")))
        assert subject_of(connect(shows="bob").server) == b"bob"

    def test_authorities_can_be_replaced(self, authority, connect, certificates, tmp_path):
        other = Authority(tmp_path, "other")
        authority.issue("ann", "ann")
        other.issue("bob", "bob")
        connect(shows="ann")
        certificates.replace(certificates.load(other.pem))
        assert subject_of(connect(shows="bob").server) == b"bob"
        with pytest.raises(ssl.SSLError):
            connect(shows="ann")
        certificates.replace(certificates.load(None))
        assert subject_of(connect().server) is None

    def test_rejects_file_without_authorities(self, certificates, tmp_path):
        with pytest.raises(CertificateError) as caught:
            certificates.load(Path("server.key"))
        assert str(caught.value) == f"no certificate in {tmp_path}/server.key"
        with pytest.raises(CertificateError) as caught:
            certificates.load(Path("none.pem"))
        assert str(caught.value) == f"{tmp_path}/none.pem: No such file or directory"


class Shown:
    """A transport whose client has sent a certificate."""

    def __init__(self, certificate):
        self._certificate = certificate

    def getPeerCertificate(self):
        return self._certificate


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        (["ann"], b"ann"),
        (["Ann Smith"], b"Ann Smith"),
        (["x" * 200], b"x" * 200),
        ([], None),
        ([""], None),
        (["ann", "bob"], None),
        (["ann", "ann"], None),
        (["x" * 201], None),
        (["é" * 101], None),
        (["an\nn"], None),
        (["an\x1b[2Jn"], None),
        (["ann\x00"], None),
        (["ann\u202e"], None),
        (["ann\u2028"], None),
        (["ann\u200b"], None),
        (["ann\xad"], None),
    ],
)
@pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")
def test_subject_is_the_only_printable_common_name(authority, tmp_path, names, subject):
    authority.issue("client", *names)
    certificate = x509.load_pem_x509_certificate((tmp_path / "client.pem").read_bytes())
    assert subject_of(Shown(X509.from_cryptography(certificate))) == subject


def test_unreadable_certificate_has_no_subject():
    class Unreadable:
        def to_cryptography(self):
            raise ValueError("error parsing asn1 value")

    assert subject_of(Shown(Unreadable())) is None


def test_client_without_certificate_has_no_subject():
    assert subject_of(Shown(None)) is None
    assert subject_of(StringTransport()) is None


def test_warns_of_expiry(authority, tmp_path):
    expires_at = datetime(2027, 3, 15, 12, tzinfo=UTC)
    authority.issue("server", "localhost", until=expires_at)
    certificates = Certificates(ENDPOINT, tmp_path)
    file, end, day = tmp_path / "server.pem", expires_at.timestamp(), 24 * 3600
    assert certificates.expiry_warning(end - 14 * day - 1) is None
    assert certificates.expiry_warning(end - 14 * day) == f"the certificate {file} expires at 2027-03-15 12:00 UTC"
    assert certificates.expiry_warning(end - 1) == f"the certificate {file} expires at 2027-03-15 12:00 UTC"
    assert certificates.expiry_warning(end) == f"the certificate {file} expired at 2027-03-15 12:00 UTC"
    assert certificates.description == f"{file} (until 2027-03-15)"
