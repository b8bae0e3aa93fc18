"""The fallback for blocked WebSockets: a JSON session over a stream and requests."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import FakeReactor, Logged
from tests.server.http.clients import MakeWebPort, WebClient, WebPort
from twistedsock.codecs.websocket import CLOSE_CODES
from twistedsock.errors import CloseReason
from twistedsock.session.commands import ReadHistory
from twistedsock.session.handlers import handle
from twistedsock.testing import FakePolicy, FakeServer

Open = Callable[..., tuple[WebPort, WebClient, str]]


@pytest.fixture
def open_stream(make_web: MakeWebPort) -> Open:
    """Open a stream. Returns the web port, the stream and its key."""

    def opening(server: FakeServer, **headers: str) -> tuple[WebPort, WebClient, str]:
        web = make_web(server)
        client = web().open_stream("/stream", **headers)
        (welcome,) = client.received()
        return web, client, welcome.message["key"]

    return opening


def send(client: WebClient, key: str, *messages: Any, kind: str = "application/x-ndjson") -> Any:
    """Post commands. Returns the response, or None before it."""
    body = b"\n".join(json.dumps(message).encode() for message in messages)
    client.request("/stream", method="POST", body=body, Content_Type=kind, Sockbridge_Stream=key)
    return client.response() if client.transport.value() else None


SUBSCRIBE = {"type": "subscribe", "id": 1, "channel": "k"}
PING = {"type": "ping", "id": 7}


def test_runs_a_session(server: FakeServer, open_stream: Open) -> None:
    web, client, key = open_stream(server)
    sender = web()
    assert len(key) >= 22
    assert send(sender, key, SUBSCRIBE, {"type": "publish", "id": 2, "channel": "k", "data": "é\n"})[0] == 204
    server.turn()
    assert send(sender, key, PING, {"type": "history", "id": 8, "channel": "k"})[0] == 204
    server.turn()
    events = client.received()
    assert [event.kind for event in events] == ["ok", "ok", "message", "pong", "ok"]
    assert [event.message.get("id") for event in events] == [1, 2, None, 7, 8]
    assert events[2].message["data"] == "é\n" and not any(event.id for event in events)
    assert events[4].message["events"][0]["data"] == "é\n"
    assert [session.protocol for session in server.context.sessions] == ["events"]
    assert server.context.stats.opened["events"] - server.context.stats.closed["events"] == 1


def test_streams_share_an_encoding_group(server: FakeServer, open_stream: Open) -> None:
    for _ in range(3):
        web, _, key = open_stream(server)
        send(web(), key, SUBSCRIBE)
    assert len(server.broker.channels[b"k"].encoding_groups) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"\xff", "application/x-ndjson", 400, "not-utf8"),
        (b"{}", "image/png", 415, "bad-type"),
        (b"x" * 65_537, "text/plain", 413, "too-long"),
        (b"\n\r\n", "text/plain; charset=utf-8", 204, ""),
        (b"", "", 204, ""),
        (b"no json", "application/json", 204, ""),
    ],
)
def test_rejects_an_invalid_body(
    server: FakeServer, open_stream: Open, body: bytes, kind: str, status: int, code: Any
) -> None:
    """Errors of single messages are sent on the stream."""
    web, client, key = open_stream(server)
    sender = web().request("/stream", method="POST", body=body, Content_Type=kind, Sockbridge_Stream=key)
    received_status, _, answer = sender.response()
    assert received_status == status
    assert [event.kind for event in client.received()] == (["error"] if b"no json" in body else [])
    if code:
        assert json.loads(answer)["code"] == code


def test_limits_the_commands_of_a_request(server: FakeServer, open_stream: Open) -> None:
    web, _, key = open_stream(server)
    sender = web().request("/stream", method="POST", body=b"x\n" * 131_073, Sockbridge_Stream=key)
    assert sender.response()[0] == 413


@pytest.mark.parametrize("key", ["", "unknown"])
def test_rejects_an_unknown_key(server: FakeServer, open_stream: Open, key: str) -> None:
    web, client, _ = open_stream(server)
    status, _, body = send(web(), key, PING)
    assert status == 404 and "unknown stream key" in json.loads(body)["detail"]
    assert client.received() == []


def test_limits_concurrent_requests(open_stream: Open, reactor: FakeReactor) -> None:
    """One request whose commands are being run and one more can wait."""
    server = FakeServer(late=True)
    web, client, key = open_stream(server)
    senders = [web() for _ in range(3)]
    assert send(senders[0], key, SUBSCRIBE, PING) is None
    assert send(senders[1], key, {"type": "ping", "id": 9}) is None
    status, headers, body = send(senders[2], key, PING)
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "5", "limit")
    server.backplane.release()
    server.turn()
    assert [sender.response()[0] for sender in senders[:2]] == [204, 204]
    assert [event.message["id"] for event in client.received()] == [1, 7, 9]
    assert send(senders[2], key, PING)[0] == 204


def test_drops_the_commands_of_a_disconnected_request(open_stream: Open) -> None:
    server = FakeServer(late=True)
    web, client, key = open_stream(server)
    first, second, third = web(), web(), web()
    assert send(first, key, SUBSCRIBE) is None
    assert send(second, key, {"type": "ping", "id": 9}) is None
    second.disconnect()
    assert send(third, key, {"type": "ping", "id": 10}) is None
    server.backplane.release()
    server.turn()
    assert third.response()[0] == 204
    assert [event.message["id"] for event in client.received()] == [1, 10]


def test_closed_stream_rejects_waiting_requests(open_stream: Open) -> None:
    server = FakeServer(late=True)
    web, client, key = open_stream(server)
    first, second = web(), web()
    send(first, key, SUBSCRIBE), send(second, key, PING)
    client.disconnect()
    assert [sender.response()[0] for sender in (first, second)] == [404, 404]
    assert send(web(), key, PING)[0] == 404
    assert not len(server.context.sessions) and server.context.memory_budget.used == 0


@pytest.mark.parametrize("ending", [CloseReason.GOING_AWAY, CloseReason.POLICY])
def test_sends_the_reason_of_the_close(server: FakeServer, open_stream: Open, ending: CloseReason) -> None:
    web, client, key = open_stream(server)
    for session in server.context.sessions:
        session.close(ending, b"for a reason")
    notice, close = client.received()
    assert notice.kind == "notice"
    assert close.kind == "close"
    assert close.message == {"type": "close", "code": CLOSE_CODES[ending], "reason": "for a reason"}
    assert client.transport.half_closed
    assert send(web(), key, PING)[0] == 404


def test_sends_no_close_event_within_a_long_reply(server: FakeServer, open_stream: Open) -> None:
    """The client drops an incomplete event."""
    web, client, key = open_stream(server)
    server.line_client().send(*["PUB k " + "x" * 30_000] * 9)
    server.turn()
    client.transport.producer.pauseProducing()
    handle(client.protocol.handler.session, ReadHistory(b"k", tag=b"5"))
    (session,) = [session for session in server.context.sessions if session.protocol == "events"]
    session.close(CloseReason.GOING_AWAY, b"for a reason")
    assert client.received() == [] and client.text.startswith('event: ok\ndata: {"type":"ok","id":5')
    assert "close" not in client.text


def test_limits_the_rate_of_remote_clients(make_web: MakeWebPort) -> None:
    web = make_web(FakeServer(commands_per_second=1, commands_burst=3))
    client = web(there="192.0.2.7").open_stream("/stream")
    key = client.received()[0].message["key"]
    send(web(there="192.0.2.7"), key, *[PING] * 6)
    kinds = [event.kind for event in client.received()]
    assert "pong" in kinds and "error" in kinds


def test_closes_an_idle_stream(open_stream: Open, reactor: FakeReactor) -> None:
    server = FakeServer(idle_timeout=10.0)
    web, client, key = open_stream(server)
    reactor.advance(6)
    assert send(web(), key, PING)[0] == 204
    reactor.advance(6)
    assert [event.kind for event in client.received()] == ["pong"]
    reactor.advance(6)
    assert [event.kind for event in client.received()] == ["notice", "close"]


def test_checks_tokens_and_rights(open_stream: Open) -> None:
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {"k": "rw"}, None)}))
    web, client, key = open_stream(server, Authorization="Bearer t")
    assert web().request("/stream?token=x").response()[0] == 401
    assert send(web(), key, SUBSCRIBE, {"type": "subscribe", "id": 2, "channel": "other"})[0] == 204
    assert [event.kind for event in client.received()] == ["ok", "error"]


def test_does_not_log_the_key(server: FakeServer, open_stream: Open, logged: Logged) -> None:
    web, client, key = open_stream(server)
    send(web(), key, SUBSCRIBE)
    client.disconnect()
    assert not any(key in str(event) for event in logged)
