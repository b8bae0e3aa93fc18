"""Server-sent events at the web port: how a stream begins, what it costs whom, and how it ends."""

import gc
import json
from types import FrameType

import pytest

from tests.server.stream_client import web_port
from twistedsock.errors import CloseReason
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.sse import MAX_IGNORED_BYTES, EventStream
from twistedsock.session.session import Session
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def make(reactor, wire):
    """A web port: ``make(server)``, then ``connect()``."""
    return lambda server, interval=0: web_port(reactor, wire, server, interval)


@pytest.fixture
def connect(server, make):
    return make(server)


def publish(server, channel, *payloads):
    server.line_client().send(*[f"PUB {channel} {payload}" for payload in payloads])
    server.turn()


def kinds(events):
    return [event.kind for event in events]


def test_a_stream_of_one_channel(server, connect):
    client = connect().streams("/channels/kitchen/events")
    assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert client.headers["cache-control"] == "no-cache, no-transform"
    assert client.headers["x-accel-buffering"] == "no" and client.headers["connection"] == "close"
    assert client.headers["x-content-type-options"] == "nosniff"
    assert "content-length" not in client.headers and "transfer-encoding" not in client.headers
    assert client._text.startswith("retry: 2000\n\nevent: welcome\n")
    publish(server, "kitchen", "21.5")
    welcome, ok, event = client.received()
    assert (welcome.message["from"], welcome.message["to"]) == ("127.0.0.1:50000", "127.0.0.1:8082")
    assert ok.kind == "ok" and ok.id == "e1:0"
    assert event.kind == "message" and event.message["data"] == "21.5" and event.id == "e1:1"


def test_it_is_a_session_as_any_other(server, connect):
    client = connect().streams("/channels/kitchen/events?nick=ann&presence=on")
    watcher = server.line_client()
    watcher.send("WHO kitchen", "SUB kitchen presence=on")
    server.turn()
    assert any(line.endswith(" ann") and line.startswith("MEMBER") for line in watcher.received())
    assert kinds(client.received()) == ["welcome", "ok", "join"]
    assert [session.protocol for session in server.context.sessions] == ["events", "line"]
    client.goes()
    server.turn()
    assert any(line.startswith("LEAVE kitchen") for line in watcher.received())
    assert server.context.connection_limiter.connections == 0 and len(server.context.sessions) == 1


def test_several_channels(server, connect):
    client = connect().streams("/events?channel=a&channel=k%C3%BCche&channel=a")
    publish(server, "küche", "x")
    publish(server, "a", "y")
    *_, first, second = client.received()
    assert (first.message["channel"], first.id) == ("küche", "e1:0,e2:1")
    assert (second.message["channel"], second.id) == ("a", "e1:1,e2:1")


def test_who_comes_back_hears_what_it_has_missed(server, connect):
    client = connect().streams("/channels/k/events")
    publish(server, "k", "1", "2")
    id = client.received()[-2].id
    client.goes()
    publish(server, "k", "3")
    for again in (
        connect().streams("/channels/k/events", Last_Event_ID=id),
        connect().streams(f"/channels/k/events?last-event-id={id}"),
        connect().streams("/channels/k/events?since=1&epoch=e1"),
        connect().streams("/channels/k/events?since=9&epoch=zz", Last_Event_ID=id),
    ):
        server.turn()
        _, ok, *events = again.received()
        assert ok.message["recovered"] is True
        assert [event.message["data"] for event in events] == ["2", "3"]
    last = connect().streams("/channels/k/events?last=1")
    server.turn()
    assert [event.message.get("data") for event in last.received()][2:] == ["3"]
    other = connect().streams("/channels/k/events", Last_Event_ID="e9:1")
    assert other.received()[1].message["recovered"] is False


def test_a_kept_alive_connection_becomes_a_stream_and_nothing_of_http_is_held(server, connect):
    """As browsers open an EventSource."""
    client = connect()
    client.asks("/healthz")
    assert client.answer()[0] == 200
    connection = client.protocol.handler
    client.streams("/channels/k/events")
    stream = client.protocol.handler
    assert isinstance(stream, EventStream)
    gc.disable()
    try:
        assert connection.requests == [] and connection.replace_protocol is None
        # The frame of this test may be among them, depending on the version of Python.
        holders = [held for held in gc.get_referrers(connection) if not isinstance(held, FrameType)]
        assert holders == []
    finally:
        gc.enable()
    client.transport.protocol = None
    assert kinds(client.received()) == ["welcome", "ok"]


@pytest.mark.parametrize(
    ("target", "headers", "status", "code"),
    [
        ("/channels/a%20b/events", {}, 400, "bad-channel"),
        ("/channels/%ff/events", {}, 400, "bad-channel"),
        ("/channels/a%E2%80%8B/events", {}, 400, "bad-channel"),
        ("/events?channel=a&channel=a%C2%AD", {}, 400, "bad-channel"),
        ("/channels/k/events?nick=a%E2%80%8B", {}, 400, "bad-name"),
        ("/events", {}, 400, "bad-argument"),
        ("/events?" + "&".join(f"channel=c{n}" for n in range(33)), {}, 400, "bad-argument"),
        ("/channels/k/events", {"Last_Event_ID": "17"}, 400, "bad-argument"),
        ("/events?channel=a&channel=b", {"Last_Event_ID": "e1:17"}, 400, "bad-argument"),
        ("/events?channel=a&channel=b&since=1&epoch=e1", {}, 400, "bad-argument"),
        ("/channels/k/events?since=1", {}, 400, "bad-argument"),
        ("/channels/k/events?presense=on", {}, 400, "bad-argument"),
        ("/events?channel=k&presense=on", {}, 400, "bad-argument"),
        ("/events?channel=k&presence=on&presence=on", {}, 400, "bad-argument"),
        ("/channels/k/events?nick=a%20b", {}, 400, "bad-name"),
        ("/channels/k/events?nick=p1", {}, 400, "bad-name"),
        ("/channels/k/events?presence=yes", {}, 400, "bad-argument"),
        ("/channels/k/events?wait=3", {}, 400, "bad-argument"),
    ],
)
def test_what_is_refused_before_the_stream_begins(server, connect, target, headers, status, code):
    server.line_client()
    client = connect().asks(target, Accept="text/event-stream", **headers)
    told, _, body = client.answer()
    assert told == status
    if code:
        assert json.loads(body)["code"] == code
        assert not server.broker.channels and len(server.context.sessions) == 1


def test_rights_are_looked_at_first_and_later(make, server):
    server = FakeServer(policy=FakePolicy({"open": "r"}, {"t": ("ann", {"*": "r"}, None)}))
    connect = make(server)
    assert connect().asks("/channels/k/events", Accept="text/event-stream").answer()[0] == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert connect().asks("/channels/k/events", Accept="text/event-stream", **wrong).answer()[0] == 401
    client = connect().streams("/channels/k/events?token=t")
    assert [session.client.nick for session in server.context.sessions] == [b"ann"]
    server.context.change_policy(FakePolicy({}, {"t": ("ann", {"open": "r"}, None)}))
    assert kinds(client.received()) == ["welcome", "ok", "notice"]
    assert client.transport.half_closed
    forbidden = connect().asks("/channels/k/events?token=t", Accept="text/event-stream").answer()
    assert forbidden[0] == 403 and json.loads(forbidden[2])["code"] == "forbidden"


@pytest.mark.parametrize(
    "limits",
    [{"max_subscriptions_per_client": 1}, {"max_subscriptions": 1}, {"max_channels": 1}],
    ids=lambda each: str(each),
)
def test_where_there_is_no_room(make, limits):
    server = FakeServer(**limits)
    client = make(server)().asks("/events?channel=a&channel=b", Accept="text/event-stream")
    status, headers, body = client.answer()
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "5", "limit")
    assert not server.broker.channels


def test_no_more_than_an_identity_may_have(make):
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {"*": "r"}, None)}), max_connections_per_identity=1)
    connect = make(server)
    first = connect().streams("/channels/k/events?token=t")
    assert connect().asks("/channels/k/events?token=t", Accept="text/event-stream").answer()[0] == 503
    first.goes()
    connect().streams("/channels/k/events?token=t")


def test_head_is_the_head_alone(server, connect):
    client = connect().asks("/channels/k/events", method="HEAD", Accept="text/event-stream")
    status, headers, body = client.answer()
    assert (status, headers["content-type"], body) == (200, "text/event-stream; charset=utf-8", b"")
    assert "content-length" not in headers and not server.broker.channels and not len(server.context.sessions)
    assert client.asks("/healthz").answer()[0] == 200


def test_old_clients_get_it_too(server, connect):
    client = connect()
    client.protocol.dataReceived(b"GET /events?channel=k HTTP/1.0\r\nHost: 127.0.0.1:8082\r\n\r\n")
    status, headers, body = client.answer()
    assert status == 200 and headers["connection"] == "close" and b"event: ok" in body


def test_who_does_not_read_hears_the_rest_when_it_does(server, connect, reactor):
    client = connect().streams("/channels/k/events")
    client.received()
    client.transport.producer.pauseProducing()
    publish(server, "k", *range(5))
    assert client.received() == []
    client.transport.producer.resumeProducing()
    reactor.turn()
    server.turn()
    assert [event.message["data"] for event in client.received()] == ["0", "1", "2", "3", "4"]


def test_what_the_client_still_says_is_dropped_and_bounded(server, connect):
    client = connect().streams("/channels/k/events")
    client.received()
    client.protocol.dataReceived(b"GET /healthz HTTP/1.1\r\n\r\n")
    client.protocol.dataReceived(b"x" * (MAX_IGNORED_BYTES - 100))
    assert not client.received() and not client.transport.half_closed
    client.protocol.dataReceived(b"x" * 100)
    assert kinds(client.received()) == ["notice"] and client.transport.half_closed
    client.protocol.dataReceived(b"x" * MAX_IGNORED_BYTES)
    client.goes()
    assert not len(server.context.sessions)


def test_what_came_right_behind_the_request_is_dropped(server, connect):
    client = connect()
    client.asks("/channels/k/events", Accept="text/event-stream", body=b"")
    other = connect()
    other.protocol.dataReceived(
        b"GET /events?channel=k HTTP/1.1\r\nHost: 127.0.0.1:8082\r\n\r\n" + b"GET /healthz HTTP/1.1\r\n" * 2_000
    )
    assert other.answer()[2].count(b"HTTP/1.1") == 0
    assert other.transport.reads


def test_silence_is_broken_now_and_then(make, server, reactor):
    connect = make(server, interval=30)
    clients = [connect().streams("/channels/k/events") for _ in range(4)]
    for client in clients:
        client.received()
    spoken = []
    for _ in range(30):
        reactor.advance(1)
        spoken.append([client.transport.heard() for client in clients])
    for index in range(4):
        assert b"".join(heard[index] for heard in spoken) == b":\n\n"
    assert max(len([heard for heard in second if heard]) for second in spoken) == 1
    for client in clients:
        client.goes()
    assert not reactor.getDelayedCalls() or all(call.time - reactor.seconds() > 1 for call in reactor.getDelayedCalls())


def test_a_server_that_goes_away_says_so(server, connect):
    client = connect().streams("/channels/k/events")
    for session in server.context.sessions:
        session.close(CloseReason.GOING_AWAY, b"this server is going away")
    assert kinds(client.received())[-1] == "notice" and client.transport.half_closed


def test_a_fault_of_ours_ends_the_connection(server, connect, monkeypatch, logged):
    def fail(*arguments):
        raise RuntimeError("a fault")

    monkeypatch.setattr("twistedsock.server.http.sse.subscribe_stream", fail)
    client = connect().asks("/channels/k/events", Accept="text/event-stream")
    assert client.transport.aborted
    assert logged.pop()["log_failure"].type is RuntimeError


@pytest.mark.parametrize("target", ["/channels/k/events", "/events?channel=a&channel=b", "/stream"])
def test_who_has_gone_leaves_nothing_behind(server, connect, target):
    """Without a full collection, which hardly ever comes."""
    kinds_of = (EventStream, Session, HTTPConnection, HTTPRequest)
    gc.collect()
    before = len([each for each in gc.get_objects() if isinstance(each, kinds_of)])
    gc.disable()
    try:
        client = connect()
        client.asks("/healthz")
        client.answer()
        client.streams(target)
        open_ones = [type(each) for each in gc.get_objects() if isinstance(each, kinds_of)]
        assert len(open_ones) == before + 2, open_ones
        client.transport.protocol = None
        client.goes()
        del client
        left = [each for each in gc.get_objects() if isinstance(each, kinds_of)]
        assert len(left) == before, left
    finally:
        gc.enable()
