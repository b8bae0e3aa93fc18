"""Requests through treq: what is sent, and how little of an answer is taken."""

import gzip
import ssl
from io import BytesIO

import pytest
from treq.testing import RequestTraversalAgent, StringStubbingResource
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.authority import Authority
from twistedsock.webhooks.config import read_targets
from twistedsock.webhooks.delivery import Answer
from twistedsock.webhooks.http_client import ANSWER_BYTES, HTTPSender

HEADERS = {"Sockbridge-Delivery": "id1"}


@pytest.fixture
def reactor():
    return MemoryReactorClock()


@pytest.fixture
def poster_to(aim, reactor):
    """A poster whose receiver is ``answer(method, url, parameters, headers, body)``."""

    def poster_to(answer, **said):
        return HTTPSender(aim(**said), reactor, "1.2", RequestTraversalAgent(StringStubbingResource(answer)))

    return poster_to


def result_of(deferred):
    results = []
    deferred.addBoth(results.append)
    assert results, "it has not come yet"
    return results[0]


def test_what_is_sent(poster_to):
    heard = []

    def answer(*said):
        heard.append(said)
        return 200, {}, b"thanks"

    poster = poster_to(answer, url="https://example.org/hook?key=1")
    assert result_of(poster.post(b'{"a":1}', HEADERS)) == Answer(200, None)
    ((method, url, parameters, headers, body),) = heard
    assert (method, url, parameters, body) == (b"POST", "https://example.org/hook", {b"key": [b"1"]}, b'{"a":1}')
    told = {name.lower(): values for name, values in headers.items()}
    assert told[b"sockbridge-delivery"] == [b"id1"]
    assert told[b"content-type"] == [b"application/json"]
    assert told[b"user-agent"] == [b"sockbridge/1.2"]
    assert told[b"content-length"] == [b"7"]
    assert b"accept-encoding" not in told


def test_a_retry_after_that_is_not_utf8_is_no_failure(poster_to):
    poster = poster_to(lambda *said: (200, {b"Retry-After": b"\xff"}, b""))
    assert result_of(poster.post(b"{}", HEADERS)) == Answer(200, "\xff")


def test_what_is_heard(poster_to):
    poster = poster_to(lambda *said: (503, {b"Retry-After": b"7"}, b""))
    assert result_of(poster.post(b"{}", HEADERS)) == Answer(503, "7")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(poster_to, status):
    urls = []

    def answer(method, url, *others):
        urls.append(url)
        return status, {b"Location": b"https://example.com/other"}, b""

    assert result_of(poster_to(answer).post(b"{}", HEADERS)).status == status
    assert urls == ["https://example.org/hook"]


def test_cookies_are_not_kept(poster_to):
    cookies = []

    def answer(method, url, parameters, headers, body):
        cookies.append(headers.get(b"Cookie"))
        return 200, {b"Set-Cookie": b"a=b"}, b""

    poster = poster_to(answer)
    for _ in range(2):
        poster.post(b"{}", HEADERS)
    assert cookies == [None, None]


def test_answers_are_not_decompressed(poster_to, monkeypatch):
    def never(*arguments):
        raise AssertionError("somebody decompresses")

    monkeypatch.setattr("twisted.web.client.GzipDecoder.deliverBody", never)
    large = gzip.compress(b"x" * 100_000)
    poster = poster_to(lambda *said: (200, {b"Content-Encoding": b"gzip"}, large))
    assert result_of(poster.post(b"{}", HEADERS)).status == 200


class Silent(Resource):
    """Answers when it is told to, or begins and does not end."""

    isLeaf = True

    def __init__(self, begins=False):
        super().__init__()
        self.begins = begins

    def render(self, request):
        self.request = request
        if self.begins:
            request.write(b"well")
        return NOT_DONE_YET


def test_who_does_not_answer_in_time_has_failed(aim, reactor):
    poster = HTTPSender(aim(timeout=5), reactor, "1.2", RequestTraversalAgent(Silent()))
    results = []
    poster.post(b"{}", HEADERS).addBoth(results.append)
    reactor.advance(4.9)
    assert not results
    reactor.advance(0.2)
    (reason,) = results[0].value.reasons
    assert reason.check(CancelledError)


def test_a_status_holds_though_the_rest_does_not_come(aim, reactor):
    poster = HTTPSender(aim(timeout=5), reactor, "1.2", RequestTraversalAgent(Silent(begins=True)))
    answered = poster.post(b"{}", HEADERS)
    reactor.advance(5)
    assert result_of(answered).status == 200
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


class Transport(StringTransport):
    aborted = False

    def setTcpNoDelay(self, enabled):
        """Twisted asks for it where it can."""

    def abortConnection(self):
        self.aborted = True
        self.disconnecting = True


class TestOneConnection:
    """As it is made by the reactor, up to the bytes."""

    @pytest.fixture
    def connect(self, aim, reactor):
        """A request under way: its answer, its transport and its protocol."""

        def connect(poster):
            answered = poster.post(b"{}", HEADERS)
            host, port, factory, _, _ = reactor.tcpClients[-1]
            protocol, transport = factory.buildProtocol(None), Transport()
            protocol.makeConnection(transport)
            return answered, transport, protocol, (host, port)

        return connect

    @pytest.fixture
    def poster(self, aim, reactor):
        return HTTPSender(aim(url="http://127.0.0.1:9000/hook"), reactor, "1.2")

    def test_it_goes_where_it_was_told(self, poster, connect):
        answered, transport, protocol, where = connect(poster)
        assert where == ("127.0.0.1", 9000)
        assert transport.value().startswith(b"POST /hook HTTP/1.1\r\n")
        assert transport.value().endswith(b"\r\n\r\n{}")
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert result_of(answered) == Answer(204)

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
    def test_delivers_to_each_url_that_is_accepted(self, aim, reactor, connect, url, line, host):
        answered, transport, protocol, _ = connect(HTTPSender(aim(url=url), reactor, "1.2"))
        lines = transport.value().split(b"\r\n")
        assert lines[0] == line
        assert host in lines
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert result_of(answered) == Answer(204)

    @pytest.mark.parametrize("url", ["http://my_service:9000/", "http://[::1]:9000/", "http://example.org./"])
    def test_resolves_the_host_of_the_url(self, aim, connect, url):
        names = []

        class Reactor(MemoryReactorClock):
            def __init__(self):
                super().__init__()
                resolver = self.nameResolver
                resolve = resolver.resolveHostName
                resolver.resolveHostName = lambda receiver, name, *more, **how: (
                    names.append(name) or resolve(receiver, name, *more, **how)
                )

        target = aim(url=url)
        HTTPSender(target, Reactor(), "1.2").post(b"{}", HEADERS).addErrback(lambda failure: None)
        assert names == [target.table.host]

    def test_several_answers_together_may_be_longer_than_one(self, poster, connect):
        answered, transport, protocol, _ = connect(poster)
        body = b"x" * (ANSWER_BYTES // 2)
        for _ in range(4):
            protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert result_of(answered) == Answer(200)
            assert not transport.disconnecting
            answered = poster.post(b"{}", HEADERS)

    def test_it_is_kept_for_the_next_and_not_for_long(self, poster, connect, reactor):
        answered, transport, protocol, _ = connect(poster)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        reactor.advance(1)
        transport.clear()
        again = poster.post(b"[]", HEADERS)
        assert len(reactor.tcpClients) == 1
        assert transport.value().endswith(b"[]")
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert result_of(again).status == 200
        reactor.advance(10)
        assert transport.disconnecting

    def test_the_end_closes_it(self, poster, connect):
        answered, transport, protocol, _ = connect(poster)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        closed = poster.close()
        assert transport.disconnecting
        protocol.connectionLost(Failure(ConnectionLost()))
        assert closed.called

    @pytest.mark.parametrize(
        "answer",
        [b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyy\r\n" * (ANSWER_BYTES // 10), b"x" * (ANSWER_BYTES + 1)],
        ids=["headers", "nothing of HTTP"],
    )
    def test_a_head_without_end_is_cut_off(self, poster, connect, answer):
        answered, transport, protocol, _ = connect(poster)
        for start in range(0, len(answer), 16_384):
            if not transport.disconnecting:
                protocol.dataReceived(answer[start : start + 16_384])
        assert transport.disconnecting
        protocol.connectionLost(Failure(ConnectionLost()))
        assert isinstance(result_of(answered), Failure)

    def test_a_body_without_end_is_cut_off_and_the_status_holds(self, poster, connect):
        answered, transport, protocol, _ = connect(poster)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(4):
            protocol.dataReceived(b"x" * (ANSWER_BYTES // 4))
        assert transport.aborted
        protocol.connectionLost(Failure(ConnectionLost()))
        assert result_of(answered) == Answer(200)

    def test_a_connection_that_is_cut_by_time_is_closed(self, poster, connect, reactor):
        answered, transport, protocol, _ = connect(poster)
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\n\r\nwell")
        reactor.advance(10)
        assert transport.aborted
        assert result_of(answered) == Answer(200)
        protocol.connectionLost(Failure(ConnectionLost()))

    def test_who_never_answers_is_hung_up_on(self, poster, connect, reactor):
        answered, transport, protocol, _ = connect(poster)
        reactor.advance(10)
        assert transport.disconnecting
        protocol.connectionLost(Failure(ConnectionLost()))
        assert isinstance(result_of(answered), Failure)


class TestCertificates:
    """A real TLS handshake, in memory, with a receiver whose certificate an authority of ours has signed."""

    @pytest.fixture
    def deliver(self, describe, reactor, tmp_path, monkeypatch):
        """The request as the receiver reads it, and the server name that it was asked for; empty if the handshake
        fails: ``deliver(url, host of the certificate, …)``."""

        monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: reactor)

        def deliver(url, host, **more):
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
    def test_accepts_a_certificate_of_the_named_authority(self, deliver, tmp_path, url, host, names):
        request, asked = deliver(url, host, ca_file=str(tmp_path / "authority.pem"))
        assert request.startswith(b"POST /hook HTTP/1.1\r\n")
        assert asked == names

    def test_accepts_a_certificate_of_an_authority_of_the_system(self, deliver, tmp_path, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        request, _ = deliver("https://example.org/hook", "example.org")
        assert request.startswith(b"POST /hook HTTP/1.1\r\n")

    def test_refuses_a_certificate_of_an_unknown_authority(self, deliver):
        assert deliver("https://example.org/hook", "example.org")[0] == b""

    def test_refuses_an_authority_of_the_system_if_another_is_named(self, deliver, tmp_path, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        Authority(tmp_path, "other")
        request, _ = deliver("https://example.org/hook", "example.org", ca_file=str(tmp_path / "other.pem"))
        assert request == b""

    @pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://example.org/", "https://my_a/"])
    def test_refuses_a_certificate_for_another_host(self, deliver, tmp_path, url):
        assert deliver(url, "example.com", ca_file=str(tmp_path / "authority.pem"))[0] == b""


def test_the_body_is_written_whole(aim, reactor):
    from twistedsock.webhooks.http_client import _Whole

    body, written = _Whole(b"{}"), BytesIO()
    assert isinstance(body.startProducing(written), Deferred)
    body.pauseProducing()
    body.resumeProducing()
    body.stopProducing()
    assert (written.getvalue(), body.length) == (b"{}", 2)
