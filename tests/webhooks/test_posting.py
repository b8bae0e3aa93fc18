"""Requests through treq: what is sent, and how little of an answer is taken."""

import gzip
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
from twistedsock.webhooks.delivery import Answer
from twistedsock.webhooks.posting import ANSWER_BYTES, Poster
from twistedsock.webhooks.target import read_targets

HEADERS = {"Sockbridge-Delivery": "id1"}


@pytest.fixture
def reactor():
    return MemoryReactorClock()


@pytest.fixture
def poster_to(aim, reactor):
    """A poster whose receiver is ``answer(method, url, parameters, headers, body)``."""

    def poster_to(answer, **said):
        return Poster(aim(**said), reactor, "1.2", RequestTraversalAgent(StringStubbingResource(answer)))

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
    poster = Poster(aim(timeout=5), reactor, "1.2", RequestTraversalAgent(Silent()))
    results = []
    poster.post(b"{}", HEADERS).addBoth(results.append)
    reactor.advance(4.9)
    assert not results
    reactor.advance(0.2)
    (reason,) = results[0].value.reasons
    assert reason.check(CancelledError)


def test_a_status_holds_though_the_rest_does_not_come(aim, reactor):
    poster = Poster(aim(timeout=5), reactor, "1.2", RequestTraversalAgent(Silent(begins=True)))
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
        return Poster(aim(url="http://127.0.0.1:9000/hook"), reactor, "1.2")

    def test_it_goes_where_it_was_told(self, poster, connect):
        answered, transport, protocol, where = connect(poster)
        assert where == ("127.0.0.1", 9000)
        assert transport.value().startswith(b"POST /hook HTTP/1.1\r\n")
        assert transport.value().endswith(b"\r\n\r\n{}")
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert result_of(answered) == Answer(204)

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


@pytest.mark.parametrize("with_authorities", [True, False])
def test_certificates_are_checked_by_the_system_or_by_authorities_that_were_named(
    describe, reactor, tmp_path, with_authorities
):
    Authority(tmp_path)
    more = {"ca_file": str(tmp_path / "authority.pem")} if with_authorities else {}
    (target,) = read_targets([describe(url="https://127.0.0.1/", **more)])
    Poster(target, reactor, "1.2").post(b"{}", HEADERS).addErrback(lambda failure: None)
    host, port, factory, _, _ = reactor.tcpClients[-1]
    assert (host, port) == ("127.0.0.1", 443)
    protocol, transport = factory.buildProtocol(None), Transport()
    protocol.makeConnection(transport)
    assert transport.value().startswith(b"\x16\x03")  # a ClientHello


def test_the_body_is_written_whole(aim, reactor):
    from twistedsock.webhooks.posting import _Whole

    body, written = _Whole(b"{}"), BytesIO()
    assert isinstance(body.startProducing(written), Deferred)
    body.pauseProducing()
    body.resumeProducing()
    body.stopProducing()
    assert (written.getvalue(), body.length) == (b"{}", 2)
