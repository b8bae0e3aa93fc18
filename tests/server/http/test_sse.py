"""Server-sent events at the web port: opening a stream, its events, limits and close."""

import gc
import json
from types import FrameType
from typing import Any

import pytest

from tests.event_streams import ServerSent, Stream
from tests.fakes import FakeReactor, Logged
from tests.server.http.clients import MakeWebPort, WebPort
from twistedsock.errors import CloseReason
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.sse import INCOMPLETE, MAX_IGNORED_BYTES, EventStream
from twistedsock.session.session import Session, SessionState
from twistedsock.testing import FakePolicy, FakeServer


def publish(server: FakeServer, channel: str, *payloads: Any) -> None:
    server.line_client().send(*[f"PUB {channel} {payload}" for payload in payloads])
    server.turn()


def kinds(events: list[ServerSent]) -> list[str]:
    return [event.kind for event in events]


def test_opens_a_stream_of_one_channel(server: FakeServer, web: WebPort) -> None:
    client = web().open_stream("/channels/kitchen/events")
    assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert client.headers["cache-control"] == "no-cache, no-transform"
    assert client.headers["x-accel-buffering"] == "no" and client.headers["connection"] == "close"
    assert client.headers["x-content-type-options"] == "nosniff"
    assert "content-length" not in client.headers and "transfer-encoding" not in client.headers
    assert client.text.startswith("retry: 2000\n\nevent: welcome\n")
    publish(server, "kitchen", "21.5")
    welcome, ok, event = client.received()
    assert (welcome.message["from"], welcome.message["to"]) == ("127.0.0.1:50000", "127.0.0.1:8082")
    assert ok.kind == "ok" and ok.id == "e1:0"
    assert event.kind == "message" and event.message["data"] == "21.5" and event.id == "e1:1"


def test_stream_is_a_session_with_presence(server: FakeServer, web: WebPort) -> None:
    client = web().open_stream("/channels/kitchen/events?nick=ann&presence=on")
    watcher = server.line_client()
    watcher.send("WHO kitchen", "SUB kitchen presence=on")
    server.turn()
    assert any(line.endswith(" ann") and line.startswith("MEMBER") for line in watcher.received())
    assert kinds(client.received()) == ["welcome", "ok", "join"]
    assert [session.protocol for session in server.context.sessions] == ["events", "line"]
    client.disconnect()
    server.turn()
    assert any(line.startswith("LEAVE kitchen") for line in watcher.received())
    assert server.context.connection_limiter.connections == 0 and len(server.context.sessions) == 1


def test_opens_a_stream_of_several_channels(server: FakeServer, web: WebPort) -> None:
    client = web().open_stream("/events?channel=a&channel=k%C3%BCche&channel=a")
    publish(server, "küche", "x")
    publish(server, "a", "y")
    *_, first, second = client.received()
    assert (first.message["channel"], first.id) == ("küche", "e1:0,e2:1")
    assert (second.message["channel"], second.id) == ("a", "e1:1,e2:1")


def test_reconnected_stream_recovers_missed_events(server: FakeServer, web: WebPort) -> None:
    client = web().open_stream("/channels/k/events")
    publish(server, "k", "1", "2")
    id = client.received()[-2].id
    client.disconnect()
    publish(server, "k", "3")
    for again in (
        web().open_stream("/channels/k/events", Last_Event_ID=id),
        web().open_stream(f"/channels/k/events?last-event-id={id}"),
        web().open_stream("/channels/k/events?since=1&epoch=e1"),
        web().open_stream("/channels/k/events?since=9&epoch=zz", Last_Event_ID=id),
    ):
        server.turn()
        _, ok, *events = again.received()
        assert ok.message["recovered"] is True
        assert [event.message["data"] for event in events] == ["2", "3"]
    last = web().open_stream("/channels/k/events?last=1")
    server.turn()
    assert [event.message.get("data") for event in last.received()][2:] == ["3"]
    other = web().open_stream("/channels/k/events", Last_Event_ID="e9:1")
    assert other.received()[1].message["recovered"] is False


def test_kept_alive_connection_becomes_a_stream_and_frees_its_http_state(server: FakeServer, web: WebPort) -> None:
    client = web()
    client.request("/healthz")
    assert client.response()[0] == 200
    connection = client.protocol.handler
    client.open_stream("/channels/k/events")
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
    assert kinds(client.received()) == ["welcome", "ok"]


@pytest.mark.parametrize(
    ("target", "headers", "code"),
    [
        ("/channels/a%20b/events", {}, "bad-channel"),
        ("/channels/%ff/events", {}, "bad-channel"),
        ("/channels/a%E2%80%8B/events", {}, "bad-channel"),
        ("/events?channel=a&channel=a%C2%AD", {}, "bad-channel"),
        ("/channels/k/events?nick=a%E2%80%8B", {}, "bad-name"),
        ("/events", {}, "bad-argument"),
        ("/events?" + "&".join(f"channel=c{n}" for n in range(33)), {}, "bad-argument"),
        ("/channels/k/events", {"Last_Event_ID": "17"}, "bad-argument"),
        ("/events?channel=a&channel=b", {"Last_Event_ID": "e1:17"}, "bad-argument"),
        ("/events?channel=a&channel=b&since=1&epoch=e1", {}, "bad-argument"),
        ("/channels/k/events?since=1", {}, "bad-argument"),
        ("/channels/k/events?presense=on", {}, "bad-argument"),
        ("/channels/k/events?after=-1h", {}, "bad-argument"),
        ("/events?channel=k&before=17", {}, "bad-argument"),
        ("/events?channel=k&presense=on", {}, "bad-argument"),
        ("/events?channel=k&presence=on&presence=on", {}, "bad-argument"),
        ("/channels/k/events?nick=a%20b", {}, "bad-name"),
        ("/channels/k/events?nick=p1", {}, "bad-name"),
        ("/channels/k/events?presence=yes", {}, "bad-argument"),
        ("/channels/k/events?wait=3", {}, "bad-argument"),
    ],
)
def test_rejects_an_invalid_request(
    server: FakeServer, web: WebPort, target: str, headers: dict[str, str], code: str
) -> None:
    server.line_client()
    status, _, body = web().request(target, Accept="text/event-stream", **headers).response()
    assert (status, json.loads(body)["code"]) == (400, code)
    assert not server.broker.channels and len(server.context.sessions) == 1


def test_checks_rights_at_the_start_and_later(make_web: MakeWebPort) -> None:
    server = FakeServer(policy=FakePolicy({"open": "r"}, {"t": ("ann", {"*": "r"}, None)}))
    web = make_web(server)
    assert web().request("/channels/k/events", Accept="text/event-stream").response()[0] == 401
    wrong = {"Authorization": "Bearer wrong"}
    assert web().request("/channels/k/events", Accept="text/event-stream", **wrong).response()[0] == 401
    client = web().open_stream("/channels/k/events?token=t")
    assert [session.client.nick for session in server.context.sessions] == [b"ann"]
    server.context.change_policy(FakePolicy({}, {"t": ("ann", {"open": "r"}, None)}))
    assert kinds(client.received()) == ["welcome", "ok", "notice"]
    assert client.transport.half_closed
    forbidden = web().request("/channels/k/events?token=t", Accept="text/event-stream").response()
    assert forbidden[0] == 403 and json.loads(forbidden[2])["code"] == "forbidden"


@pytest.mark.parametrize(
    "limits",
    [{"max_subscriptions_per_client": 1}, {"max_subscriptions": 1}, {"max_channels": 1}],
    ids=lambda each: str(each),
)
def test_rejects_a_stream_over_the_limits(make_web: MakeWebPort, limits: Any) -> None:
    server = FakeServer(**limits)
    client = make_web(server)().request("/events?channel=a&channel=b", Accept="text/event-stream")
    status, headers, body = client.response()
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "5", "limit")
    assert not server.broker.channels


@pytest.mark.parametrize("target", ["/channels/k/events", "/stream"])
def test_limits_the_streams_of_an_identity(make_web: MakeWebPort, target: str) -> None:
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {"*": "r"}, None)}), max_connections_per_identity=1)
    web = make_web(server)
    first = web().open_stream(target, Authorization="Bearer t")
    assert web().request(target, Authorization="Bearer t", Accept="text/event-stream").response()[0] == 503
    first.disconnect()
    web().open_stream(target, Authorization="Bearer t")


@pytest.mark.parametrize("target", ["/channels/k/events", "/stream"])
def test_head_opens_no_stream(server: FakeServer, web: WebPort, target: str) -> None:
    client = web().request(target, method="HEAD", Accept="text/event-stream")
    status, headers, body = client.response()
    assert (status, headers["content-type"], body) == (200, "text/event-stream; charset=utf-8", b"")
    assert "content-length" not in headers and not server.broker.channels and not len(server.context.sessions)
    assert client.request("/healthz").response()[0] == 200


def test_opens_a_stream_for_http_1_0(server: FakeServer, web: WebPort) -> None:
    client = web()
    client.send_bytes(b"GET /events?channel=k HTTP/1.0\r\nHost: 127.0.0.1:8082\r\n\r\n")
    status, headers, body = client.response()
    assert status == 200 and headers["connection"] == "close" and b"event: ok" in body


def test_slow_client_receives_the_remaining_events_later(
    server: FakeServer, web: WebPort, reactor: FakeReactor
) -> None:
    client = web().open_stream("/channels/k/events")
    client.received()
    client.transport.producer.pauseProducing()
    publish(server, "k", *range(5))
    assert client.received() == []
    client.transport.producer.resumeProducing()
    reactor.turn()
    server.turn()
    assert [event.message["data"] for event in client.received()] == ["0", "1", "2", "3", "4"]


def test_limits_input_after_the_request(server: FakeServer, web: WebPort) -> None:
    client = web().open_stream("/channels/k/events")
    client.received()
    client.send_bytes(b"GET /healthz HTTP/1.1\r\n\r\n")
    client.send_bytes(b"x" * (MAX_IGNORED_BYTES - 100))
    assert not client.received() and not client.transport.half_closed
    client.send_bytes(b"x" * 100)
    assert kinds(client.received()) == ["notice"] and client.transport.half_closed
    client.send_bytes(b"x" * MAX_IGNORED_BYTES)
    client.disconnect()
    assert not len(server.context.sessions)


def test_drops_pipelined_input(server: FakeServer, web: WebPort) -> None:
    client = web()
    client.send_bytes(
        b"GET /events?channel=k HTTP/1.1\r\nHost: 127.0.0.1:8082\r\n\r\n" + b"GET /healthz HTTP/1.1\r\n" * 2_000
    )
    assert client.response()[2].count(b"HTTP/1.1") == 0
    assert client.transport.is_reading


def test_sends_keep_alive_comments_spread_over_time(
    make_web: MakeWebPort, server: FakeServer, reactor: FakeReactor
) -> None:
    web = make_web(server, ping_interval=30)
    clients = [web().open_stream("/channels/k/events") for _ in range(4)]
    for client in clients:
        client.received()
    spoken = []
    for _ in range(30):
        reactor.advance(1)
        spoken.append([client.transport.output() for client in clients])
    for index in range(4):
        assert b"".join(piece[index] for piece in spoken) == b":\n\n"
    assert max(len([piece for piece in second if piece]) for second in spoken) == 1
    for client in clients:
        client.disconnect()
    assert not reactor.getDelayedCalls() or all(call.time - reactor.seconds() > 1 for call in reactor.getDelayedCalls())


@pytest.mark.parametrize(
    ("target", "failing"),
    [
        ("/channels/k/events", "twistedsock.server.http.sse.subscribe_stream"),
        ("/stream", "twistedsock.session.session.Session.send_welcome"),
    ],
)
def test_exception_aborts_the_connection(
    server: FakeServer, web: WebPort, monkeypatch: pytest.MonkeyPatch, logged: Logged, target: str, failing: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(failing, fail)
    client = web().request(target, Accept="text/event-stream")
    assert client.transport.aborted
    client.disconnect()
    assert logged.pop()["log_failure"].type is RuntimeError
    assert not len(server.context.sessions)


@pytest.mark.parametrize("target", ["/channels/k/events", "/events?channel=a&channel=b", "/stream"])
@pytest.mark.usefixtures("no_collector")
def test_lost_connection_is_freed(web: WebPort, target: str) -> None:
    """Without a run of the garbage collector, which is rare."""

    def left() -> list[type]:
        kinds_of = (EventStream, Session, HTTPConnection, HTTPRequest)
        return [type(each) for each in gc.get_objects() if isinstance(each, kinds_of)]

    client = web()
    client.request("/healthz")
    client.response()
    client.open_stream(target)
    assert len(left()) == 2
    client.disconnect()
    client.transport.protocol = None
    del client
    assert left() == []


# Sessions of streams, without HTTP.


@pytest.mark.parametrize("channels", [["a", "b"], ["b", "a"]])
def test_stream_session_closes_if_a_subscription_fails(channels: list[str]) -> None:
    server = FakeServer(max_subscriptions_per_client=1)
    stream = Stream(server, channels)
    events = stream.received()
    assert [event.kind for event in events] == ["welcome", "ok", "error", "notice"]
    assert events[2].message["code"] == "limit" and events[3].message["text"] == INCOMPLETE.decode()
    assert stream.endings == [CloseReason.TRY_AGAIN] and stream.session.state is SessionState.CLOSING


def test_stream_session_waits_for_a_late_backplane() -> None:
    server = FakeServer(late=True)
    stream = Stream(server, ["a", "b"])
    assert [event.kind for event in stream.received()] == ["welcome"]
    server.backplane.release(1)
    server.turn()
    server.backplane.release()
    server.turn()
    assert [event.kind for event in stream.received()] == ["ok", "ok"]
    assert not stream.endings and server.context.memory_budget.used == 0


def test_stream_session_closes_if_the_backplane_fails() -> None:
    server = FakeServer(late=True)
    stream = Stream(server, ["a"])
    server.backplane.failing = 1
    server.backplane.release()
    assert [event.kind for event in stream.received()] == ["welcome", "error", "notice"]
    assert stream.endings == [CloseReason.TRY_AGAIN]


def test_stream_session_can_disconnect_before_its_subscriptions() -> None:
    server = FakeServer(late=True)
    stream = Stream(server, ["a", "b"])
    stream.session.connection_lost()
    server.backplane.release()
    server.turn()
    server.broker.expire_histories()
    assert stream.session.state is SessionState.CLOSED and not server.broker.channels


def test_stream_session_reports_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer()

    def fail(name: bytes) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(server.broker.channels, "open", fail)
    stream = Stream(server, ["a"])
    assert [event.kind for event in stream.received()] == ["welcome", "error", "notice"]
    assert len(stream.faults) == 1
