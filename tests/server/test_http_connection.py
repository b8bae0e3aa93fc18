"""A connection of HTTP: bodies with bounds, nothing taken for the next request, and turns that are fair."""

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.server.http_visits import HOST, Place, ask
from twistedsock.codecs.http import MAX_CHUNKS
from twistedsock.codecs.query import ApiError
from twistedsock.errors import BAD_NICK
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.server.connection import LINGER_SECONDS
from twistedsock.server.http.connection import IDLE_TIMEOUT_SECONDS, MAX_PIPELINED_BYTES, MAX_REQUESTS
from twistedsock.server.http.routing import Route
from twistedsock.testing import FakeServer

CHUNKED = {"Transfer_Encoding": "chunked"}
BODY = b"POST /echo HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n"


def chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@pytest.fixture
def build(reactor, wire):
    """Make a place with operations of our own: ``/echo`` gives back what it gets, ``/later`` waits to be answered."""

    def make(**limits):
        waiting, order = [], []

        def echo(request):
            order.append(request.body)
            request.respond(200, b"text/plain", request.body)

        def fail(request):
            raise ZeroDivisionError

        def refuse(request):
            raise ApiError(BAD_NICK)

        routes = [
            Route("POST", "/echo", echo),
            Route("POST", "/little", echo, max_body=10),
            Route("POST", "/large", echo, max_body=1_000_000),
            Route("GET", "/later", waiting.append),
            Route("POST", "/later", waiting.append),
            Route("GET", "/fails", fail),
            Route("GET", "/refuses", refuse),
        ]
        place = Place(reactor, wire, routes, server=FakeServer(**limits))
        place.waiting, place.order = waiting, order
        return place

    return make


@pytest.fixture
def place(build):
    return build()


@pytest.fixture
def visit(place):
    return place()


# Bodies.


@pytest.mark.parametrize("headers", [{}, CHUNKED])
def test_a_body_is_read_whatever_the_cut(place, headers):
    body = b"hello\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    sent = ask("/echo", "POST", chunks(body[:7], body[7:]) if headers else body, **headers)
    for cut in range(1, len(sent)):
        visit = place()
        first, second = visit.send_bytes(sent[:cut]), visit.send_bytes(sent[cut:])
        assert [answer.body for answer in (*first, *second)] == [body]
        assert not visit.is_closing


def test_a_body_may_be_empty(visit):
    assert visit.asks("/echo", "POST").body == b""
    assert visit.asks("/echo", "POST", Content_Length="0").body == b""
    assert visit.asks("/echo", "POST", chunks(), **CHUNKED).body == b""


def test_what_stands_behind_a_body_is_the_next_request(visit):
    sent = ask("/echo", "POST", b"one") + ask("/echo", "POST", chunks(b"t", b"wo"), **CHUNKED) + ask("/healthz")
    assert [answer.body for answer in visit.send_bytes(sent)] == [b"one", b"two", b"ok\n"]


@pytest.mark.parametrize(("path", "most"), [("/echo", 65_536), ("/little", 10), ("/large", 1_000_000)])
def test_each_route_bounds_its_bodies(place, path, most):
    assert place().asks(path, "POST", b"x" * most).status == 200
    visit = place()
    (answer,) = visit.send_bytes(ask(path, "POST", Content_Length=str(most + 1)))
    assert (answer.status, answer.code) == (413, "too-long")
    assert str(most) in answer.problem["detail"]
    assert visit.is_closing and answer.headers["connection"] == "close"
    assert visit.send_bytes(b"x" * (most + 1) + ask()) == []


def test_a_body_in_chunks_is_refused_when_it_is_too_long(visit):
    visit.protocol.dataReceived(ask("/little", "POST", b"6\r\nabcdef\r\n", **CHUNKED))
    assert visit.received() == []
    (answer,) = visit.send_bytes(b"6\r\nabcdef\r\n0\r\n\r\n" + ask())
    assert (answer.status, answer.code) == (413, "too-long")
    assert visit.is_closing
    assert visit.send_bytes(ask()) == []


def test_a_body_is_in_so_many_chunks_at_most(place):
    """Each costs microseconds, 64 KiB hold ten thousand of a byte each, and there would be no end to them."""
    assert place().asks("/echo", "POST", chunks(*[b"a"] * (MAX_CHUNKS - 1)), **CHUNKED).status == 200
    visit = place()
    answer = visit.asks("/echo", "POST", chunks(*[b"a"] * 10_000), **CHUNKED)
    assert (answer.status, answer.code) == (400, "bad-argument")
    assert visit.is_closing and visit.send_bytes(ask()) == []


def test_who_expects_to_be_told_is_told(place):
    visit = place()
    visit.protocol.dataReceived(ask("/echo", "POST", Content_Length="5", Expect="100-continue"))
    assert visit.transport.heard() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert [answer.body for answer in visit.send_bytes(b"hello")] == [b"hello"]
    assert visit.asks().status == 200


def test_who_speaks_http_1_0_is_not_told(visit):
    """It would take that for the answer (RFC 9110 section 10.1.1)."""
    said = ask("/echo", "POST", Content_Length="5", Expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    visit.protocol.dataReceived(said)
    assert visit.transport.heard() == b""
    assert [answer.body for answer in visit.send_bytes(b"hello")] == [b"hello"]


@pytest.mark.parametrize(("path", "status"), [("/little", 413), ("/nothing", 404), ("/healthz", 405)])
def test_who_expects_to_be_told_is_told_that_it_must_not(visit, path, status):
    """Whether it sends the body all the same nobody knows, so the connection ends."""
    (answer,) = visit.send_bytes(ask(path, "POST", Content_Length="50", Expect="100-continue"))
    assert answer.status == status
    assert visit.is_closing
    assert visit.send_bytes(b"x" * 50 + ask()) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PUT", "OPTIONS", "QUARREL"])
@pytest.mark.parametrize("headers", [{"Content_Length": "3"}, CHUNKED])
def test_only_a_post_has_a_body(visit, method, headers):
    visit.protocol.dataReceived(ask("/", method, b"abc", **headers))
    (answer,) = visit.received(method)
    assert answer.status == (400 if method in ("GET", "HEAD", "OPTIONS") else 405) and visit.is_closing
    assert visit.send_bytes(ask()) == []


def test_a_short_body_that_nobody_wants_is_dropped_and_the_connection_kept(visit):
    assert visit.asks("/nothing", "POST", b"x" * 1000).status == 404
    assert visit.asks("/", "POST", ask()).status == 405
    assert visit.asks().status == 200
    assert visit.protocol.requests == []


def test_a_long_body_that_nobody_wants_is_not_waited_for(visit):
    (answer,) = visit.send_bytes(ask("/nothing", "POST", Content_Length="70000"))
    assert answer.status == 404 and visit.is_closing


def test_what_is_held_of_a_body_is_counted_until_it_is_answered(place):
    memory_budget = place.server.context.memory_budget
    visit = place()
    visit.protocol.dataReceived(ask("/later", "POST", b"x" * 60_000)[:-1])
    assert memory_budget.held == 59_999
    visit.protocol.dataReceived(b"x")
    (request,) = place.waiting
    assert request.body == b"x" * 60_000
    visit.protocol.dataReceived(b"GET")
    assert memory_budget.held == 60_003
    request.respond(200, b"text/plain", b"")
    assert memory_budget.held == 0


def test_a_body_is_not_counted_any_longer_when_its_connection_is_lost(place):
    for sent in (ask("/later", "POST", b"x" * 60_000), ask("/echo", "POST", b"x" * 60_000)[:-1]):
        visit = place()
        visit.protocol.dataReceived(sent)
        assert place.server.context.memory_budget.held >= 59_999
        visit.is_lost()
        assert place.server.context.memory_budget.held == 0


def test_who_asks_for_more_than_all_may_hold_gives_way(build):
    place = build(max_buffered_bytes=1024 * 1024)
    place.server.context.memory_budget.recount(0, 1024 * 1024, LOCAL)
    for sent in (ask("/echo", "POST", b"x" * 60_000)[:-1], b"GET /" + b"x" * 10_000):
        visit = place()
        assert visit.transport.heard() == b""
        visit.protocol.dataReceived(sent)
        assert visit.transport.heard().startswith(b"HTTP/1.1 503 ")
        assert visit.is_closing
        visit.is_lost()
    assert place().asks("/echo", "POST", b"x" * 1000).status == 200, "a little is not counted"
    assert place.server.context.memory_budget.held == 1024 * 1024


@pytest.mark.parametrize("sent", [b"", b"GET", BODY, BODY + b"Content-Length: 9\r\n\r\nhello"])
def test_what_has_begun_must_end_in_time(build, reactor, sent):
    place = build(read_timeout=20.0)
    visit = place()
    assert visit.asks().status == 200
    if not sent:
        reactor.advance(21)
        assert not visit.is_closing, "nothing has begun"
        return
    for piece in (sent[:-2], sent[-2:-1], sent[-1:]):
        reactor.advance(6)
        assert visit.send_bytes(piece) == []
    reactor.advance(8)
    assert visit.transport.heard().startswith(b"HTTP/1.1 408 ")
    assert visit.transport.half_closed
    assert visit.send_bytes(b"hello" + ask()) == []
    reactor.advance(LINGER_SECONDS)
    assert visit.transport.aborted
    visit.is_lost()
    assert reactor.getDelayedCalls() == []


def test_each_request_has_its_own_time(build, reactor):
    place = build(read_timeout=20.0)
    visit, sent = place(), ask("/echo", "POST", b"hello")
    visit.send_bytes(sent[:9])
    for _ in range(5):
        reactor.advance(15)
        assert len(visit.send_bytes(sent[9:] + sent[:9])) == 1


# Smuggling.


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 30\r\n",
        b"Content-Length: 0\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b" Content-Length: 3\r\n",
        b"Content-Length: 3 \x0b\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: " + b"9" * 20 + b"\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Host: 127.0.0.1\r\n",
        b"Origin: http://a\r\nOrigin: http://127.0.0.1:8082\r\n",
        b"X: a\x00b\r\n",
        b"X: a\nContent-Length: 3\r\n",
        b"no colon\r\n",
        b"bad name: x\r\n",
    ],
)
def test_nothing_is_smuggled(place, head):
    visit = place()
    visit.protocol.dataReceived(BODY + head + b"\r\n" + b"abc" + ask("/healthz"))
    heard = visit.transport.heard()
    assert heard.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")) and heard.count(b"HTTP/1.1 ") == 1
    assert visit.is_closing and place.order == []
    visit.protocol.dataReceived(ask("/healthz"))
    assert visit.transport.heard() == b""


@pytest.mark.parametrize("line", [b"chunked\x20", b"\tchunked", b"Chunked"])
def test_chunks_are_chunks_however_they_are_written(visit, line):
    visit.protocol.dataReceived(BODY + b"Transfer-Encoding:" + line + b"\r\n\r\n" + chunks(b"abc") + ask("/healthz"))
    assert [answer.body for answer in visit.received()] == [b"abc", b"ok\n"]


@pytest.mark.parametrize(
    "sent",
    [
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"-1\r\n",
        b"0\r\n" + b"X: y\r\n" * 10_000,
        b"3;" + b"x" * 1000 + b"\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_odd_chunks_end_the_connection(visit, sent):
    visit.protocol.dataReceived(BODY + b"Transfer-Encoding: chunked\r\n\r\n" + sent + ask("/healthz"))
    (answer,) = visit.received()
    assert (answer.status, answer.code) == (400, "bad-argument")
    assert visit.is_closing and visit.send_bytes(ask()) == []


def test_chunks_are_not_for_http_1_0(visit):
    visit.protocol.dataReceived(
        b"POST /echo HTTP/1.0\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"abc")
    )
    assert visit.transport.heard().startswith(b"HTTP/1.1 400 ")
    assert visit.is_closing


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nX: "])
def test_a_line_of_a_head_is_not_endless(visit, begun):
    visit.protocol.dataReceived(begun + b"x" * 20_000)
    assert visit.transport.heard().startswith(b"HTTP/1.1 431 ")
    assert visit.is_closing
    visit.protocol.dataReceived(b"\r\n\r\n")
    assert visit.transport.heard() == b""


# One after the other.


def test_http_1_0_gets_one_answer(visit):
    (answer,) = visit.send_bytes(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert visit.is_closing


@pytest.mark.parametrize("said", ["close", "Keep-Alive, Close", "close,x"])
def test_who_wants_to_close_is_closed(visit, said):
    assert visit.asks(Connection=said).headers["connection"] == "close"
    assert visit.is_closing


def test_a_close_in_any_line_of_the_header_closes(visit):
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"
    (answer,) = visit.send_bytes(head)
    assert answer.headers["connection"] == "close" and visit.is_closing


def test_a_connection_is_kept_for_long(visit):
    for number in range(1, MAX_REQUESTS + 1):
        answer = visit.asks("/healthz")
        assert (answer.headers.get("connection") == "close") is (number == MAX_REQUESTS)
    assert visit.is_closing


def test_an_answer_leaves_in_one_send(visit):
    writes = []
    visit.transport.write, visit.transport.writeSequence = writes.append, writes.append
    visit.protocol.dataReceived(ask("/healthz"))
    assert len(writes) == 1 and writes[0].endswith(b"ok\n")


def test_what_comes_together_is_run_in_shares(place):
    """A read has room for two thousand requests, and all others would wait for them."""
    place.server.clock = lambda: place.server.now
    visit = place()
    answer_one = place.site.routes.find(b"/healthz").methods[b"GET"].handler

    def slow(request):
        place.server.now += TIME_SLICE_SECONDS / 4
        answer_one(request)

    place.site.routes.find(b"/healthz").methods[b"GET"] = Route("GET", "/healthz", slow)
    visit.protocol.dataReceived(ask("/healthz") * 10 + b"GET /heal")
    assert len(visit.received()) == 4
    assert not visit.transport.reads
    visit.protocol.dataReceived(b"thz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    heard = []
    while len(place.server.turns):
        place.server.turns.step()
        heard.append(len(visit.received()))
    assert [count for count in heard if count] == [4, 3]
    assert visit.transport.reads
    assert visit.asks("/healthz").status == 200


def test_who_does_not_read_its_answer_is_not_read_either(place):
    visit = place()
    write = visit.transport.write
    visit.transport.write = lambda data: (write(data), visit.protocol.pauseProducing())
    visit.protocol.dataReceived(ask("/healthz"))
    assert len(visit.received()) == 1 and not visit.transport.reads
    visit.protocol.dataReceived(ask("/healthz"))  # over TLS some may come all the same
    place.server.turn()
    assert visit.received() == []
    visit.protocol.resumeProducing()
    place.server.turn()
    assert len(visit.received()) == 1


def test_who_does_not_read_is_not_answered_further(place, reactor):
    """A read has room for a thousand requests, and an answer can be thousands of times as long as its question."""
    visit = place()
    write = visit.transport.write
    visit.transport.write = lambda data: (write(data), visit.protocol.pauseProducing())
    visit.protocol.dataReceived(ask("/healthz") * 3)
    for _ in range(3):
        place.server.turn()
        assert len(visit.received()) == 1 and not visit.transport.reads
        reactor.advance(IDLE_TIMEOUT_SECONDS - 1)
        visit.protocol.resumeProducing()
    place.server.turn()
    assert visit.received() == [] and visit.transport.reads
    reactor.advance(IDLE_TIMEOUT_SECONDS - 1)
    assert not visit.is_closing
    reactor.advance(1)
    assert visit.is_closing


def test_half_a_request_behind_an_answer_that_was_not_read_has_its_deadline(build, reactor):
    place = build(read_timeout=10.0)
    visit = place()
    visit.protocol.pauseProducing()
    visit.protocol.dataReceived(ask("/healthz") + b"GET /healthz HTTP/1.1\r\n")
    assert [answer.status for answer in visit.received()] == [200]
    visit.protocol.resumeProducing()
    place.server.turn()
    reactor.advance(9)
    assert visit.received() == []
    reactor.advance(1)
    assert [answer.status for answer in visit.received()] == [408]


def test_who_never_reads_its_answers_is_closed(place, reactor):
    visit = place()
    visit.protocol.pauseProducing()
    visit.protocol.dataReceived(ask("/healthz") * 3)
    place.server.turn()
    assert len(visit.received()) == 1
    reactor.advance(IDLE_TIMEOUT_SECONDS)
    assert visit.is_closing
    visit.protocol.resumeProducing()
    place.server.turn()
    assert visit.received() == []


def test_what_is_behind_an_answer_that_is_not_read_waits_for_it_too(place):
    visit = place()
    visit.protocol.dataReceived(ask("/later"))
    visit.protocol.pauseProducing()
    visit.protocol.dataReceived(b"x" * (MAX_PIPELINED_BYTES + 1))
    assert not visit.transport.reads


def test_a_connection_that_is_lost_while_it_waits_for_its_turn_is_left_alone(place):
    place.server.clock = iter(float(number) for number in range(1000)).__next__
    visit = place()
    visit.protocol.dataReceived(ask("/healthz") * 3)
    assert len(visit.received()) == 1
    visit.is_lost()
    place.server.turn()
    assert visit.received() == []


def test_what_is_behind_an_answer_that_takes_long_waits(place):
    visit = place()
    visit.protocol.dataReceived(ask("/later") + ask("/healthz"))
    assert visit.received() == [] and visit.transport.reads
    visit.protocol.dataReceived(b"x" * MAX_PIPELINED_BYTES + b"\r\n")
    assert not visit.transport.reads
    place.waiting.pop().respond(200, b"text/plain", b"at last")
    first, second, third = visit.received()
    assert (first.body, second.body, third.status) == (b"at last", b"ok\n", 400)


def test_an_answer_that_takes_long_is_waited_for(place, reactor):
    visit = place()
    visit.protocol.dataReceived(ask("/later"))
    reactor.advance(10 * IDLE_TIMEOUT_SECONDS)
    assert not visit.is_closing
    place.waiting.pop().respond(200, b"text/plain", b"at last")
    assert visit.received()[0].body == b"at last"
    reactor.advance(IDLE_TIMEOUT_SECONDS)
    assert visit.is_closing


def test_who_has_gone_is_told_to_the_operation_and_answers_are_thrown_away(place, logged):
    visit = place()
    visit.protocol.dataReceived(ask("/later"))
    (request,) = place.waiting
    gone = []
    request.on_disconnect = lambda: gone.append(request.is_finished)
    visit.is_lost()
    assert gone == [True]
    request.respond_json(200, b"{}")
    request.respond_error(BAD_NICK)
    assert visit.received() == [] and logged == []
    assert place.site.running_requests == 0 and not place.site.connections


def test_who_was_answered_is_not_told_to_be_gone(place):
    visit = place()
    visit.protocol.dataReceived(ask("/later"))
    (request,) = place.waiting
    request.on_disconnect = lambda: 1 / 0
    request.respond_json(200, b"{}")
    assert request.is_finished
    visit.is_lost()


def test_an_operation_can_refuse(visit):
    answer = visit.asks("/refuses")
    assert (answer.status, answer.code) == (400, "bad-name")
    assert not visit.is_closing


def test_a_fault_of_ours_is_told_and_logged(visit, logged):
    answer = visit.asks("/fails")
    assert (answer.status, answer.code) == (500, "internal")
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    logged.clear()
    assert visit.asks().status == 200


# The end.


def test_who_is_still_sending_has_its_words_taken(place, reactor):
    """A reset would take the answer from it."""
    visit = place()
    visit.protocol.dataReceived(ask("/echo", "POST", Content_Length="100000"))
    assert visit.transport.half_closed and not visit.transport.disconnecting
    assert visit.transport.reads
    reactor.advance(LINGER_SECONDS)
    assert visit.transport.aborted
    visit.is_lost()
    assert reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    "last",
    [b"", b"GET", ask("/later"), ask("/echo", "POST", b"hello")[:-1], ask("/nothing", "POST", Content_Length="1")],
)
def test_nothing_is_left_of_a_connection(place, reactor, last):
    visit = place()
    visit.asks()
    if last:
        visit.protocol.dataReceived(last)
    visit.protocol.connectionLost(Failure(ConnectionDone()))
    assert reactor.getDelayedCalls() == []
    assert not place.site.connections and place.site.running_requests == 0


def test_while_the_server_goes_away_nobody_new_is_served(place):
    visit, other = place(), place()
    assert visit.asks().status == other.asks().status == 200
    place.server.context.draining = True
    answer = visit.asks("/echo", "POST", b"hello")
    assert (answer.status, answer.code) == (503, "unavailable")
    assert answer.headers["connection"] == "close" and visit.is_closing
    answer = other.asks("/healthz")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert place().asks().status == 503
    assert place().asks("/readyz").code == "unavailable"


def test_who_is_being_answered_when_the_server_goes_away_may_hear_it(place):
    idle, busy, hurried, failing = (place() for _ in range(4))
    idle.asks()
    for visit in (busy, hurried, failing):
        visit.protocol.dataReceived(ask("/later"))
    first, second, third = place.waiting
    second.on_shutdown = lambda: second.respond(200, b"text/plain", b"so far")
    over = []
    place.server.context.draining = True
    place.site.shut_down(lambda: over.append(place.site.running_requests))
    assert idle.is_closing and not busy.is_closing
    assert [answer.body for answer in hurried.received()] == [b"so far"]
    assert over == []
    failing.is_lost()
    first.respond(200, b"text/plain", b"all")
    assert [answer.body for answer in busy.received()] == [b"all"]
    assert over == [0]


def test_a_fault_of_one_that_is_hurried_does_not_keep_the_others_waiting(place, logged):
    visit, other = place(), place()
    for one in (visit, other):
        one.protocol.dataReceived(ask("/later"))
    first, second = place.waiting
    first.on_shutdown = lambda: 1 / 0
    second.on_shutdown = lambda: second.respond_json(200, b"{}")
    place.site.shut_down(lambda: None)
    assert other.received()[0].status == 200
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    logged.clear()
    visit.is_lost()


def test_if_nobody_asks_for_anything_the_end_is_at_once(place):
    over = []
    place.site.shut_down(lambda: over.append(True))
    assert over == [True]
