"""The requests of webhooks: their content, accepted responses, and accepted certificates."""

import gzip
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509
from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.authority import Authority, named
from tests.webhooks.conftest import Describe, Target
from twistedsock.webhooks.config import read_targets
from twistedsock.webhooks.delivery import Response
from twistedsock.webhooks.http_client import MAX_RESPONSE_BYTES, BytesProducer, HostnameVerifier, HTTPSender

HEADERS = {"Sockbridge-Delivery": "id1"}


@pytest.fixture
def reactor() -> MemoryReactorClock:
    return MemoryReactorClock()


@pytest.fixture
def sender_to(aim: Target, reactor: MemoryReactorClock) -> Any:
    """A sender whose receiver is ``respond(method, url, parameters, headers, body)``."""

    def sender_to(respond: Any, **options: Any) -> Any:
        return HTTPSender(aim(**options), reactor, "1.2", RequestTraversalAgent(StringStubbingResource(respond)))

    return sender_to


def result_of(deferred: Any) -> Any:
    results = []
    deferred.addBoth(results.append)
    assert results, "no result yet"
    return results[0]


def test_sends_a_json_post_without_accepting_compression(sender_to: Callable[..., HTTPSender]) -> None:
    requests = []

    def respond(*request: Any) -> Any:
        requests.append(request)
        return 200, {}, b"thanks"

    sender = sender_to(respond, url="https://example.org/hook?key=1")
    assert result_of(sender.post(b'{"a":1}', HEADERS)) == Response(200, None)
    ((method, url, parameters, headers, body),) = requests
    assert (method, url, parameters, body) == (b"POST", "https://example.org/hook", {b"key": [b"1"]}, b'{"a":1}')
    sent = {name.lower(): values for name, values in headers.items()}
    assert sent[b"sockbridge-delivery"] == [b"id1"]
    assert sent[b"content-type"] == [b"application/json"]
    assert sent[b"user-agent"] == [b"sockbridge/1.2"]
    assert sent[b"content-length"] == [b"7"]
    assert b"accept-encoding" not in sent


@pytest.mark.parametrize(
    ("status", "header", "value"), [(503, b"7", "7"), (200, b"\xff", "\xff")], ids=["a number", "not UTF-8"]
)
def test_returns_status_and_retry_after(sender_to, status, header, value):
    sender = sender_to(lambda *request: (status, {b"Retry-After": header}, b""))
    assert result_of(sender.post(b"{}", HEADERS)) == Response(status, value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_does_not_follow_redirects(sender_to: Callable[..., HTTPSender], status: int) -> None:
    urls = []

    def respond(method: Any, url: str, *others: Any) -> Any:
        urls.append(url)
        return status, {b"Location": b"https://example.com/other"}, b""

    assert result_of(sender_to(respond).post(b"{}", HEADERS)).status == status
    assert urls == ["https://example.org/hook"]


def test_does_not_keep_cookies(sender_to: Callable[..., HTTPSender]) -> None:
    cookies = []

    def respond(method: Any, url: str, parameters: Any, headers: Any, body: Any) -> Any:
        cookies.append(headers.get(b"Cookie"))
        return 200, {b"Set-Cookie": b"a=b"}, b""

    sender = sender_to(respond)
    for _ in range(2):
        sender.post(b"{}", HEADERS)
    assert cookies == [None, None]


def test_does_not_decompress_responses(sender_to: Callable[..., HTTPSender], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("decompressed")

    monkeypatch.setattr("twisted.web.client.GzipDecoder.deliverBody", never)
    large = gzip.compress(b"x" * 100_000)
    sender = sender_to(lambda *request: (200, {b"Content-Encoding": b"gzip"}, large))
    assert result_of(sender.post(b"{}", HEADERS)).status == 200


class SilentReceiver(Resource):
    """Does not respond, or begins a response that does not end."""

    isLeaf = True

    def __init__(self, begins: Any = False) -> None:
        super().__init__()
        self.begins = begins

    def render(self, request: Any) -> Any:
        self.request = request
        if self.begins:
            request.write(b"well")
        return NOT_DONE_YET


def test_fails_without_a_response_in_time(aim: Target, reactor: MemoryReactorClock) -> None:
    sender = HTTPSender(aim(timeout=5), reactor, "1.2", RequestTraversalAgent(SilentReceiver()))
    results = []
    sender.post(b"{}", HEADERS).addBoth(results.append)
    reactor.advance(4.9)
    assert not results
    reactor.advance(0.2)
    (reason,) = results[0].value.reasons
    assert reason.check(CancelledError)


def test_status_counts_even_if_the_body_is_incomplete(aim: Target, reactor: MemoryReactorClock) -> None:
    sender = HTTPSender(aim(timeout=5), reactor, "1.2", RequestTraversalAgent(SilentReceiver(begins=True)))
    responded = sender.post(b"{}", HEADERS)
    reactor.advance(5)
    assert result_of(responded).status == 200
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


class Transport(StringTransport):
    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Called by Twisted."""

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True


class TestConnection:
    """A connection of the reactor, up to its bytes."""

    @pytest.fixture
    def connect(self, aim: Target, reactor: MemoryReactorClock) -> Any:
        """Start a request. Returns its response, transport, protocol, and its host and port."""

        def connect(sender: HTTPSender) -> Any:
            responded = sender.post(b"{}", HEADERS)
            host, port, factory, _, _ = reactor.tcpClients[-1]
            protocol, transport = factory.buildProtocol(None), Transport()
            protocol.makeConnection(transport)
            return responded, transport, protocol, (host, port)

        return connect

    @pytest.fixture
    def sender(self, aim: Target, reactor: MemoryReactorClock) -> HTTPSender:
        return HTTPSender(aim(url="http://127.0.0.1:9000/hook"), reactor, "1.2")

    def test_connects_to_the_configured_host_and_port(self, sender: HTTPSender, connect: Callable[..., Any]) -> None:
        responded, transport, protocol, where = connect(sender)
        assert where == ("127.0.0.1", 9000)
        assert transport.value().startswith(b"POST /hook HTTP/1.1\r\n")
        assert transport.value().endswith(b"\r\n\r\n{}")
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert result_of(responded) == Response(204)

    @pytest.mark.parametrize(
        ("url", "line", "host"),
        [
            ("http://[::1]:9000/h", b"POST /h HTTP/1.1", b"Host: [::1]:9000"),
            ("http://[2001:db8::1]/h", b"POST /h HTTP/1.1", b"Host: [2001:db8::1]"),
            ("http://my_service:9000/h", b"POST /h HTTP/1.1", b"Host: my_service:9000"),
            ("http://xn--a/h", b"POST /h HTTP/1.1", b"Host: xn--a"),
            ("http://localhost?key=%ff", b"POST /?key=%ff HTTP/1.1", b"Host: localhost"),
            ("http://localhost/%ff//b", b"POST /%ff//b HTTP/1.1", b"Host: localhost"),
        ],
    )
    def test_sends_to_every_valid_url(
        self, aim: Target, reactor: MemoryReactorClock, connect: Callable[..., Any], url: str, line: bytes, host: str
    ) -> None:
        responded, transport, protocol, _ = connect(HTTPSender(aim(url=url), reactor, "1.2"))
        lines = transport.value().split(b"\r\n")
        assert lines[0] == line
        assert host in lines
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert result_of(responded) == Response(204)

    @pytest.mark.parametrize("url", ["http://my_service:9000/", "http://[::1]:9000/", "http://example.org./"])
    def test_resolves_the_host_of_the_url(self, aim: Target, connect: Callable[..., Any], url: str) -> None:
        names = []

        class Reactor(MemoryReactorClock):
            def __init__(self) -> None:
                super().__init__()
                resolver = self.nameResolver
                resolve = resolver.resolveHostName
                resolver.resolveHostName = lambda receiver, name, *more, **how: (
                    names.append(name) or resolve(receiver, name, *more, **how)
                )

        target = aim(url=url)
        HTTPSender(target, Reactor(), "1.2").post(b"{}", HEADERS).addErrback(lambda failure: None)
        assert names == [target.table.host]

    def test_limit_applies_to_each_response(self, sender: HTTPSender, connect: Callable[..., Any]) -> None:
        responded, transport, protocol, _ = connect(sender)
        body = b"x" * (MAX_RESPONSE_BYTES // 2)
        for _ in range(4):
            protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert result_of(responded) == Response(200)
            assert not transport.disconnecting
            responded = sender.post(b"{}", HEADERS)

    def test_reuses_the_connection_for_a_short_time(
        self, sender: HTTPSender, connect: Callable[..., Any], reactor: MemoryReactorClock
    ) -> None:
        responded, transport, protocol, _ = connect(sender)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        reactor.advance(1)
        transport.clear()
        again = sender.post(b"[]", HEADERS)
        assert len(reactor.tcpClients) == 1
        assert transport.value().endswith(b"[]")
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert result_of(again).status == 200
        reactor.advance(10)
        assert transport.disconnecting

    def test_close_closes_the_idle_connection(self, sender: HTTPSender, connect: Callable[..., Any]) -> None:
        responded, transport, protocol, _ = connect(sender)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        closed = sender.close()
        assert transport.disconnecting
        protocol.connectionLost(Failure(ConnectionLost()))
        assert closed.called

    @pytest.mark.parametrize(
        "answer",
        [b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyy\r\n" * (MAX_RESPONSE_BYTES // 10), b"x" * (MAX_RESPONSE_BYTES + 1)],
        ids=["headers", "not HTTP"],
    )
    def test_aborts_an_endless_head(self, sender: HTTPSender, connect: Callable[..., Any], answer: Any) -> None:
        responded, transport, protocol, _ = connect(sender)
        for start in range(0, len(answer), 16_384):
            if not transport.disconnecting:
                protocol.dataReceived(answer[start : start + 16_384])
        assert transport.disconnecting
        protocol.connectionLost(Failure(ConnectionLost()))
        assert isinstance(result_of(responded), Failure)

    def test_aborts_an_endless_body_and_keeps_the_status(self, sender: HTTPSender, connect: Callable[..., Any]) -> None:
        responded, transport, protocol, _ = connect(sender)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(4):
            protocol.dataReceived(b"x" * (MAX_RESPONSE_BYTES // 4))
        assert transport.aborted
        protocol.connectionLost(Failure(ConnectionLost()))
        assert result_of(responded) == Response(200)

    def test_aborts_an_incomplete_body_after_the_timeout(
        self, sender: HTTPSender, connect: Callable[..., Any], reactor: MemoryReactorClock
    ) -> None:
        responded, transport, protocol, _ = connect(sender)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nwell")
        reactor.advance(10)
        assert transport.aborted
        assert result_of(responded) == Response(200)
        protocol.connectionLost(Failure(ConnectionLost()))

    def test_closes_the_connection_without_a_response(
        self, sender: HTTPSender, connect: Callable[..., Any], reactor: MemoryReactorClock
    ) -> None:
        responded, transport, protocol, _ = connect(sender)
        reactor.advance(10)
        assert transport.disconnecting
        protocol.connectionLost(Failure(ConnectionLost()))
        assert isinstance(result_of(responded), Failure)


class TestCertificates:
    """A TLS handshake in memory with a receiver whose certificate was signed by the authority of the test."""

    @pytest.fixture
    def deliver(
        self, describe: Describe, reactor: MemoryReactorClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Any:
        """Returns the request as the receiver reads it, empty if the handshake failed, and the requested names."""

        monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: reactor)

        def deliver(url: str, host: str, **more: Any) -> Any:
            Authority(tmp_path).issue("receiver", "receiver", host=host)
            names = []
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "receiver.pem", tmp_path / "receiver.key")
            context.sni_callback = lambda connection, name, context: names.append(name)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_side=True)
            (target,) = read_targets([describe(url=url, **more)])
            HTTPSender(target, reactor, "1.2").post(b"{}", HEADERS).addErrback(lambda failure: None)
            protocol, transport = reactor.tcpClients[-1][2].buildProtocol(None), Transport()
            protocol.makeConnection(transport)
            for step in (tls.do_handshake, tls.do_handshake, tls.do_handshake, lambda: tls.read(1_000)):
                reactor.advance(0)  # Twisted gathers small writes of a turn
                incoming.write(transport.value())
                transport.clear()
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    result = b""
                except ssl.SSLError:
                    return b"", names
                if outgoing.pending:
                    protocol.dataReceived(outgoing.read())
                if transport.disconnecting:
                    return b"", names
            return result, names

        return deliver

    @pytest.mark.parametrize(
        ("url", "host", "names"),
        [
            ("https://127.0.0.1/hook", "127.0.0.1", [None]),
            ("https://[::1]/hook", "::1", [None]),
            ("https://example.org/hook", "example.org", ["example.org"]),
            ("https://example.org./hook", "example.org", ["example.org"]),
            ("https://my_service/hook", "my_service", ["my_service"]),
        ],
    )
    def test_accepts_a_certificate_of_the_named_authority(
        self, deliver: Callable[..., Any], tmp_path: Path, url: str, host: str, names: Any
    ) -> None:
        request, asked = deliver(url, host, ca_file=str(tmp_path / "authority.pem"))
        assert request.startswith(b"POST /hook HTTP/1.1\r\n")
        assert asked == names

    def test_accepts_a_certificate_of_an_authority_of_the_system(
        self, deliver: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        request, _ = deliver("https://example.org/hook", "example.org")
        assert request.startswith(b"POST /hook HTTP/1.1\r\n")

    def test_refuses_a_certificate_of_an_unknown_authority(self, deliver: Callable[..., Any]) -> None:
        assert deliver("https://example.org/hook", "example.org")[0] == b""

    def test_refuses_an_authority_of_the_system_if_another_is_named(
        self, deliver: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        Authority(tmp_path, "other")
        request, _ = deliver("https://example.org/hook", "example.org", ca_file=str(tmp_path / "other.pem"))
        assert request == b""

    @pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://example.org/", "https://my_a/"])
    def test_refuses_a_certificate_for_another_host(
        self, deliver: Callable[..., Any], tmp_path: Path, url: str
    ) -> None:
        assert deliver(url, "example.com", ca_file=str(tmp_path / "authority.pem"))[0] == b""


def test_body_is_written_at_once(aim: Target, reactor: MemoryReactorClock) -> None:
    body, written = BytesProducer(b"{}"), BytesIO()
    assert isinstance(body.startProducing(written), Deferred)
    body.pauseProducing()
    body.resumeProducing()
    body.stopProducing()
    assert (written.getvalue(), body.length) == (b"{}", 2)


# Host names in certificates.


@pytest.fixture
def accepts() -> Any:
    """Whether ``HostnameVerifier`` accepts a certificate with these names."""

    def accepts(host: str, *names: Any, trusted: int = 1, depth: int = 0) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(named(host), named(host), key.public_key(), 1, now, now + timedelta(days=1))
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = X509.from_cryptography(made.sign(key, hashes.SHA256()))
        return HostnameVerifier(host).verify(None, certificate, 0, depth, trusted)

    return accepts


DNS = x509.DNSName


def address(text: str) -> x509.IPAddress:
    return x509.IPAddress(ip_address(text))


@pytest.mark.parametrize(
    ("host", "names", "is_accepted"),
    [
        ("example.org", [DNS("example.org")], True),
        ("example.org", [DNS("example.com"), DNS("example.org")], True),
        ("hooks.example.org", [DNS("*.example.org")], True),
        ("example.org", [DNS("example.com")], False),
        ("example.org", [DNS("*.example.org")], False),
        ("example.org", [], False),
        ("example.org", [x509.RFC822Name("ann@example.org")], False),
        ("127.0.0.1", [address("127.0.0.1")], True),
        ("127.0.0.1", [address("127.0.0.2")], False),
        ("127.0.0.1", [DNS("example.org")], False),
        ("127.0.0.1", [], False),
        ("::1", [address("::1")], True),
        ("::1", [], False),
    ],
)
def test_certificate_must_name_the_host(accepts: Callable[..., bool], host: str, names: Any, is_accepted: bool) -> None:
    assert accepts(host, *names) is is_accepted


def test_rejects_an_untrusted_certificate(accepts: Callable[..., bool]) -> None:
    assert accepts("example.org", DNS("example.org"), trusted=0) is False


def test_certificate_of_an_authority_need_not_name_the_host(accepts: Callable[..., bool]) -> None:
    assert accepts("example.org", depth=1) is True
    assert accepts("example.org", depth=1, trusted=0) is False
