"""HTTP connections: bodies, pipelining, timeouts and close."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import FakeReactor, Logged
from tests.server.clients import HOST, request_bytes
from tests.server.http.clients import FakeSite, SiteClient
from twistedsock.codecs.http import MAX_CHUNKS, MAX_HEADERS
from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import BAD_NICK
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.http.connection import IDLE_TIMEOUT_SECONDS, MAX_PIPELINED_BYTES, MAX_REQUESTS
from twistedsock.server.http.routing import Route
from twistedsock.testing import FakeServer

CHUNKED = {"Transfer_Encoding": "chunked"}
BODY = b"POST /echo HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n"


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class EchoSite(FakeSite):
    waiting: list[Any]
    """The requests of ``/later``."""


Build = Callable[..., EchoSite]


@pytest.fixture
def build(reactor: FakeReactor) -> Build:
    """Build a site with more routes: ``/echo`` returns the body, ``/later`` waits until the test responds."""

    def make(**limits: Any) -> EchoSite:
        def echo(request: Any) -> None:
            request.respond(200, b"text/plain", request.body)

        def fail(request: Any) -> None:
            raise ZeroDivisionError

        def refuse(request: Any) -> None:
            raise ApiError(BAD_NICK)

        waiting: list[Any] = []
        routes = [
            Route("POST", "/echo", echo),
            Route("POST", "/little", echo, max_body=10),
            Route("POST", "/large", echo, max_body=1_000_000),
            Route("GET", "/later", waiting.append),
            Route("POST", "/later", waiting.append),
            Route("GET", "/fails", fail),
            Route("GET", "/refuses", refuse),
        ]
        site = EchoSite(reactor, routes, server=FakeServer(**limits))
        site.waiting = waiting
        return site

    return make


@pytest.fixture
def site(build: Build) -> EchoSite:
    return build()


@pytest.fixture
def client(site: EchoSite) -> SiteClient:
    return site()


# Bodies.


@pytest.mark.parametrize("headers", [{}, CHUNKED])
def test_reads_a_body_cut_anywhere(site: EchoSite, headers: dict[str, str]) -> None:
    body = b"hello\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    sent = request_bytes("/echo", "POST", chunks(body[:7], body[7:]) if headers else body, **headers)
    for cut in range(1, len(sent)):
        client = site()
        first, second = client.send_bytes(sent[:cut]), client.send_bytes(sent[cut:])
        assert [response.body for response in (*first, *second)] == [body]
        assert not client.is_closing


def test_accepts_an_empty_body(client: SiteClient) -> None:
    assert client.request("/echo", "POST").body == b""
    assert client.request("/echo", "POST", Content_Length="0").body == b""
    assert client.request("/echo", "POST", chunks(), **CHUNKED).body == b""


def test_input_after_a_body_is_the_next_request(client: SiteClient) -> None:
    sent = (
        request_bytes("/echo", "POST", b"one")
        + request_bytes("/echo", "POST", chunks(b"t", b"wo"), **CHUNKED)
        + request_bytes("/healthz")
    )
    assert [response.body for response in client.send_bytes(sent)] == [b"one", b"two", b"ok\n"]


@pytest.mark.parametrize(("path", "max_bytes"), [("/echo", 65_536), ("/little", 10), ("/large", 1_000_000)])
def test_each_route_limits_its_bodies(site: EchoSite, path: str, max_bytes: int) -> None:
    assert site().request(path, "POST", b"x" * max_bytes).status == 200
    client = site()
    (response,) = client.send_bytes(request_bytes(path, "POST", Content_Length=str(max_bytes + 1)))
    assert response.error == (413, "too-long")
    assert str(max_bytes) in response.problem["detail"]
    assert client.is_closing and response.headers["connection"] == "close"
    assert client.send_bytes(b"x" * (max_bytes + 1) + request_bytes()) == []


def test_rejects_a_chunked_body_when_it_becomes_too_long(client: SiteClient) -> None:
    assert client.send_bytes(request_bytes("/little", "POST", b"6\r\nabcdef\r\n", **CHUNKED)) == []
    (response,) = client.send_bytes(b"6\r\nabcdef\r\n0\r\n\r\n" + request_bytes())
    assert response.error == (413, "too-long")
    assert client.is_closing
    assert client.send_bytes(request_bytes()) == []


def test_limits_the_number_of_chunks(site: EchoSite) -> None:
    """Each chunk costs microseconds, and 64 KiB contain ten thousand of them."""
    assert site().request("/echo", "POST", chunks(*[b"a"] * (MAX_CHUNKS - 1)), **CHUNKED).status == 200
    client = site()
    response = client.request("/echo", "POST", chunks(*[b"a"] * 10_000), **CHUNKED)
    assert response.error == (400, "bad-argument")
    assert client.is_closing and client.send_bytes(request_bytes()) == []


def test_sends_100_continue(site: EchoSite) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/echo", "POST", Content_Length="5", Expect="100-continue"))
    assert client.transport.output() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert [response.body for response in client.send_bytes(b"hello")] == [b"hello"]
    assert client.request().status == 200


def test_does_not_send_100_continue_to_http_1_0(client: SiteClient) -> None:
    """It would take the interim response for the final one (RFC 9110 section 10.1.1)."""
    said = request_bytes("/echo", "POST", Content_Length="5", Expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    client.protocol.dataReceived(said)
    assert client.transport.output() == b""
    assert [response.body for response in client.send_bytes(b"hello")] == [b"hello"]


@pytest.mark.parametrize(("path", "status"), [("/little", 413), ("/nothing", 404), ("/healthz", 405)])
def test_rejects_a_request_instead_of_100_continue(client: SiteClient, path: str, status: int) -> None:
    (response,) = client.send_bytes(request_bytes(path, "POST", Content_Length="50", Expect="100-continue"))
    assert response.status == status
    assert client.is_closing
    assert client.send_bytes(b"x" * 50 + request_bytes()) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "OPTIONS", "QUARREL"])
@pytest.mark.parametrize("headers", [{"Content_Length": "3"}, CHUNKED])
def test_rejects_a_body_without_post(client: SiteClient, method: str, headers: dict[str, str]) -> None:
    client.protocol.dataReceived(request_bytes("/", method, b"abc", **headers))
    (response,) = client.responses(method)
    assert response.status == (400 if method in ("GET", "HEAD", "OPTIONS") else 405) and client.is_closing
    assert client.send_bytes(request_bytes()) == []


def test_drops_a_short_rejected_body_and_keeps_the_connection(client: SiteClient) -> None:
    assert client.request("/nothing", "POST", b"x" * 1000).status == 404
    assert client.request("/", "POST", request_bytes()).status == 405
    assert client.request().status == 200
    assert client.protocol.requests == []


def test_closes_before_a_long_rejected_body(client: SiteClient) -> None:
    (response,) = client.send_bytes(request_bytes("/nothing", "POST", Content_Length="70000"))
    assert response.status == 404 and client.is_closing


def test_counts_buffered_bodies_until_the_response(site: EchoSite) -> None:
    memory_budget = site.server.context.memory_budget
    client = site()
    client.protocol.dataReceived(request_bytes("/later", "POST", b"x" * 60_000)[:-1])
    assert memory_budget.used == 59_999
    client.protocol.dataReceived(b"x")
    (request,) = site.waiting
    assert request.body == b"x" * 60_000
    client.protocol.dataReceived(b"GET")
    assert memory_budget.used == 60_003
    request.respond(200, b"text/plain", b"")
    assert memory_budget.used == 0


def test_stops_counting_a_body_when_the_connection_is_lost(site: EchoSite) -> None:
    for sent in (request_bytes("/later", "POST", b"x" * 60_000), request_bytes("/echo", "POST", b"x" * 60_000)[:-1]):
        client = site()
        client.protocol.dataReceived(sent)
        assert site.server.context.memory_budget.used >= 59_999
        client.disconnect()
        assert site.server.context.memory_budget.used == 0


def test_rejects_input_over_the_memory_limit(build: Build) -> None:
    site = build(max_buffered_bytes=1024 * 1024)
    site.server.context.memory_budget.adjust(0, 1024 * 1024, LOCAL)
    for sent in (request_bytes("/echo", "POST", b"x" * 60_000)[:-1], b"GET /" + b"x" * 10_000):
        client = site()
        assert client.transport.output() == b""
        client.protocol.dataReceived(sent)
        assert client.transport.output().startswith(b"HTTP/1.1 503 ")
        assert client.is_closing
        client.disconnect()
    assert site().request("/echo", "POST", b"x" * 1000).status == 200, "a little is not counted"
    assert site.server.context.memory_budget.used == 1024 * 1024


@pytest.mark.parametrize("sent", [b"", b"GET", BODY, BODY + b"Content-Length: 9\r\n\r\nhello"])
def test_incomplete_request_times_out(build: Build, reactor: FakeReactor, sent: bytes) -> None:
    site = build(read_timeout=20.0)
    client = site()
    assert client.request().status == 200
    if not sent:
        reactor.advance(21)
        assert not client.is_closing, "nothing has begun"
        return
    for piece in (sent[:-2], sent[-2:-1], sent[-1:]):
        reactor.advance(6)
        assert client.send_bytes(piece) == []
    reactor.advance(8)
    assert client.transport.output().startswith(b"HTTP/1.1 408 ")
    assert client.transport.half_closed
    assert client.send_bytes(b"hello" + request_bytes()) == []
    reactor.advance(LINGER_SECONDS)
    assert client.transport.aborted
    client.disconnect()
    assert reactor.getDelayedCalls() == []


def test_each_request_has_its_own_timeout(build: Build, reactor: FakeReactor) -> None:
    site = build(read_timeout=20.0)
    client, sent = site(), request_bytes("/echo", "POST", b"hello")
    client.send_bytes(sent[:9])
    for _ in range(5):
        reactor.advance(15)
        assert len(client.send_bytes(sent[9:] + sent[:9])) == 1


# One after the other.


def test_closes_after_a_response_to_http_1_0(client: SiteClient) -> None:
    (response,) = client.send_bytes(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert (response.status, response.headers["connection"]) == (200, "close")
    assert client.is_closing


@pytest.mark.parametrize("said", ["close", "Keep-Alive, Close", "close,x"])
def test_closes_if_the_client_asks_for_it(client: SiteClient, said: str) -> None:
    assert client.request(Connection=said).headers["connection"] == "close"
    assert client.is_closing


def test_closes_if_any_connection_header_asks_for_it(client: SiteClient) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"
    (response,) = client.send_bytes(head)
    assert response.headers["connection"] == "close" and client.is_closing


def test_limits_the_requests_of_a_connection(client: SiteClient) -> None:
    for number in range(1, MAX_REQUESTS + 1):
        response = client.request("/healthz")
        assert (response.headers.get("connection") == "close") is (number == MAX_REQUESTS)
    assert client.is_closing


def test_sends_head_and_body_in_one_write(client: SiteClient) -> None:
    writes = []
    client.transport.write, client.transport.writeSequence = writes.append, writes.append
    client.protocol.dataReceived(request_bytes("/healthz"))
    assert len(writes) == 1 and writes[0].endswith(b"ok\n")


def test_handles_pipelined_requests_in_time_slices(site: EchoSite) -> None:
    site.server.clock = lambda: site.server.now
    client = site()
    answer_one = site.site.routes.find(b"/healthz").methods[b"GET"].handler

    def slow(request: Any) -> None:
        site.server.now += TIME_SLICE_SECONDS / 4
        answer_one(request)

    site.site.routes.find(b"/healthz").methods[b"GET"] = Route("GET", "/healthz", slow)
    client.protocol.dataReceived(request_bytes("/healthz") * 10 + b"GET /heal")
    assert len(client.responses()) == 4
    assert not client.transport.is_reading
    client.protocol.dataReceived(b"thz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    counts = []
    while len(site.server.turns):
        site.server.turns.step()
        counts.append(len(client.responses()))
    assert [count for count in counts if count] == [4, 3]
    assert client.transport.is_reading
    assert client.request("/healthz").status == 200


def test_stops_reading_while_a_response_is_unread(site: EchoSite) -> None:
    client = site()
    write = client.transport.write
    client.transport.write = lambda data: (write(data), client.protocol.pauseProducing())
    client.protocol.dataReceived(request_bytes("/healthz"))
    assert len(client.responses()) == 1 and not client.transport.is_reading
    client.protocol.dataReceived(request_bytes("/healthz"))  # TLS may deliver more
    site.server.turn()
    assert client.responses() == []
    client.protocol.resumeProducing()
    site.server.turn()
    assert len(client.responses()) == 1


def test_does_not_handle_pipelined_requests_while_a_response_is_unread(site: EchoSite, reactor: FakeReactor) -> None:
    client = site()
    write = client.transport.write
    client.transport.write = lambda data: (write(data), client.protocol.pauseProducing())
    client.protocol.dataReceived(request_bytes("/healthz") * 3)
    for _ in range(3):
        site.server.turn()
        assert len(client.responses()) == 1 and not client.transport.is_reading
        reactor.advance(IDLE_TIMEOUT_SECONDS - 1)
        client.protocol.resumeProducing()
    site.server.turn()
    assert client.responses() == [] and client.transport.is_reading
    reactor.advance(IDLE_TIMEOUT_SECONDS - 1)
    assert not client.is_closing
    reactor.advance(1)
    assert client.is_closing


def test_incomplete_pipelined_request_times_out_after_the_response_is_read(build: Build, reactor: FakeReactor) -> None:
    site = build(read_timeout=10.0)
    client = site()
    client.protocol.pauseProducing()
    client.protocol.dataReceived(request_bytes("/healthz") + b"GET /healthz HTTP/1.1\r\n")
    assert [response.status for response in client.responses()] == [200]
    client.protocol.resumeProducing()
    site.server.turn()
    reactor.advance(9)
    assert client.responses() == []
    reactor.advance(1)
    assert [response.status for response in client.responses()] == [408]


def test_closes_a_client_that_never_reads(site: EchoSite, reactor: FakeReactor) -> None:
    client = site()
    client.protocol.pauseProducing()
    client.protocol.dataReceived(request_bytes("/healthz") * 3)
    site.server.turn()
    assert len(client.responses()) == 1
    reactor.advance(IDLE_TIMEOUT_SECONDS)
    assert client.is_closing
    client.protocol.resumeProducing()
    site.server.turn()
    assert client.responses() == []


def test_stops_reading_pipelined_input_during_an_unread_response(site: EchoSite) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/later"))
    client.protocol.pauseProducing()
    client.protocol.dataReceived(b"x" * (MAX_PIPELINED_BYTES + 1))
    assert not client.transport.is_reading


def test_ignores_the_turn_of_a_lost_connection(site: EchoSite) -> None:
    site.server.clock = iter(float(number) for number in range(1000)).__next__
    client = site()
    client.protocol.dataReceived(request_bytes("/healthz") * 3)
    assert len(client.responses()) == 1
    client.disconnect()
    site.server.turn()
    assert client.responses() == []


def test_pipelined_requests_wait_for_a_slow_response(site: EchoSite) -> None:
    client = site()
    assert client.send_bytes(request_bytes("/later") + request_bytes("/healthz")) == [] and client.transport.is_reading
    client.protocol.dataReceived(b"x" * MAX_PIPELINED_BYTES + b"\r\n")
    assert not client.transport.is_reading
    site.waiting.pop().respond(200, b"text/plain", b"at last")
    first, second, third = client.responses()
    assert (first.body, second.body, third.status) == (b"at last", b"ok\n", 400)


def test_slow_response_does_not_time_out(site: EchoSite, reactor: FakeReactor) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/later"))
    reactor.advance(10 * IDLE_TIMEOUT_SECONDS)
    assert not client.is_closing
    site.waiting.pop().respond(200, b"text/plain", b"at last")
    assert client.responses()[0].body == b"at last"
    reactor.advance(IDLE_TIMEOUT_SECONDS)
    assert client.is_closing


def test_reports_a_disconnect_to_the_handler_and_drops_its_response(site: EchoSite, logged: Logged) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/later"))
    (request,) = site.waiting
    gone = []
    request.on_disconnect = lambda: gone.append(request.is_finished)
    client.disconnect()
    assert gone == [True]
    request.respond_json(200, b"{}")
    request.respond_error(BAD_NICK)
    assert client.responses() == [] and logged == []
    assert site.site.running_requests == 0 and not site.site.connections


def test_does_not_report_a_disconnect_after_the_response(site: EchoSite) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/later"))
    (request,) = site.waiting
    request.on_disconnect = lambda: 1 / 0
    request.respond_json(200, b"{}")
    assert request.is_finished
    client.disconnect()


def test_handler_can_raise_an_error(client: SiteClient) -> None:
    response = client.request("/refuses")
    assert response.error == (400, "bad-name")
    assert not client.is_closing


def test_exception_of_a_handler_is_logged(client: SiteClient, logged: Logged) -> None:
    response = client.request("/fails")
    assert response.error == (500, "internal")
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    logged.clear()
    assert client.request().status == 200


# The end.


def test_reads_and_drops_input_after_the_last_response(site: EchoSite, reactor: FakeReactor) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/echo", "POST", Content_Length="100000"))
    assert client.transport.half_closed and not client.transport.disconnecting
    assert client.transport.is_reading
    reactor.advance(LINGER_SECONDS)
    assert client.transport.aborted
    client.disconnect()
    assert reactor.getDelayedCalls() == []


def test_rejects_requests_during_shutdown(site: EchoSite) -> None:
    client, other = site(), site()
    assert client.request().status == other.request().status == 200
    site.server.context.draining = True
    response = client.request("/echo", "POST", b"hello")
    assert response.error == (503, "unavailable")
    assert response.headers["connection"] == "close" and client.is_closing
    response = other.request("/healthz")
    assert (response.status, response.headers["connection"]) == (200, "close")
    assert site().request().status == 503
    assert site().request("/readyz").code == "unavailable"


def test_running_requests_are_completed_during_shutdown(site: EchoSite) -> None:
    idle, busy, hurried, failing = (site() for _ in range(4))
    idle.request()
    for client in (busy, hurried, failing):
        client.protocol.dataReceived(request_bytes("/later"))
    first, second, third = site.waiting
    second.on_shutdown = lambda: second.respond(200, b"text/plain", b"so far")
    over = []
    site.server.context.draining = True
    site.site.shut_down(lambda: over.append(site.site.running_requests))
    assert idle.is_closing and not busy.is_closing
    assert [response.body for response in hurried.responses()] == [b"so far"]
    assert over == []
    failing.disconnect()
    first.respond(200, b"text/plain", b"all")
    assert [response.body for response in busy.responses()] == [b"all"]
    assert over == [0]


def test_last_response_is_complete_if_the_server_ends_with_it(site: EchoSite) -> None:
    client = site()
    client.protocol.dataReceived(request_bytes("/later"))
    site.site.shut_down(client.disconnect)
    site.waiting[0].respond(200, b"text/plain", b"all")
    assert [response.body for response in client.responses()] == [b"all"]
    assert site.site.running_requests == 0 and not site.site.connections


def test_exception_of_one_request_does_not_block_the_shutdown(site: EchoSite, logged: Logged) -> None:
    client, other = site(), site()
    for one in (client, other):
        one.protocol.dataReceived(request_bytes("/later"))
    first, second = site.waiting
    first.on_shutdown = lambda: 1 / 0
    second.on_shutdown = lambda: second.respond_json(200, b"{}")
    site.site.shut_down(lambda: None)
    assert other.responses()[0].status == 200
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    logged.clear()
    client.disconnect()


def test_idle_site_shuts_down_at_once(site: EchoSite) -> None:
    over = []
    site.site.shut_down(lambda: over.append(True))
    assert over == [True]


def test_limits_the_headers_of_every_request(client: SiteClient) -> None:
    assert client.request("/", **{f"X{number}": "" for number in range(MAX_HEADERS - 1)}).status == 200
    assert client.request("/", **{f"X{number}": "" for number in range(MAX_HEADERS)}).status == 400


def test_aborts_a_client_that_does_not_close(client: SiteClient, reactor: FakeReactor, logged: Logged) -> None:
    """A client could keep a TLS connection by not completing its close."""
    client.request("/", Connection="close")
    assert client.transport.disconnecting
    reactor.advance(IDLE_TIMEOUT_SECONDS - 1)
    assert not client.transport.disconnected
    reactor.advance(1)
    assert client.transport.disconnected
    assert logged == []


def test_closes_an_idle_connection_without_logging(client: SiteClient, reactor: FakeReactor, logged: Logged) -> None:
    client.request("/")
    reactor.advance(IDLE_TIMEOUT_SECONDS)
    assert client.transport.disconnecting and not client.transport.disconnected
    reactor.advance(15)
    assert client.transport.disconnected
    assert logged == []


@pytest.mark.parametrize(
    "last",
    [
        b"",
        b"GET",
        b"nonsense\r\n",
        request_bytes(Connection="close"),
        request_bytes("/later"),
        request_bytes("/echo", "POST", b"hello")[:-1],
        request_bytes("/nothing", "POST", Content_Length="1"),
    ],
)
@pytest.mark.parametrize("later", [0, IDLE_TIMEOUT_SECONDS - 1, IDLE_TIMEOUT_SECONDS, IDLE_TIMEOUT_SECONDS + 20])
@pytest.mark.parametrize("before", [b"", request_bytes()], ids=["first", "second"])
def test_lost_connection_leaves_nothing(
    site: EchoSite, reactor: FakeReactor, before: bytes, last: bytes, later: int
) -> None:
    client = site()
    client.send_bytes(before)
    client.protocol.dataReceived(last)
    reactor.advance(later)
    client.disconnect()
    assert reactor.getDelayedCalls() == []
    assert not site.site.connections and site.site.running_requests == 0
