"""The stream that stands in for a WebSocket: a whole conversation over plain HTTP."""

import json

import pytest

from tests.server.stream_client import web_port
from twistedsock.errors import CloseReason
from twistedsock.session.commands import History
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def open_one(reactor, wire):
    """Open a stream: gives what connects, the stream and its key."""

    def opening(server, **headers):
        connect = web_port(reactor, wire, server)
        client = connect().streams("/stream", **headers)
        (welcome,) = client.received()
        return connect, client, welcome.message["key"]

    return opening


def send(client, key, *messages, kind="application/x-ndjson"):
    """Post commands; gives what is answered."""
    body = b"\n".join(json.dumps(message).encode() for message in messages)
    client.asks("/stream", method="POST", body=body, Content_Type=kind, Sockbridge_Stream=key)
    return client.answer() if client.transport.value() else None


SUBSCRIBE = {"type": "subscribe", "id": 1, "channel": "k"}
PING = {"type": "ping", "id": 7}


def test_a_whole_conversation(server, open_one):
    connect, client, key = open_one(server)
    poster = connect()
    assert len(key) >= 22
    assert send(poster, key, SUBSCRIBE, {"type": "publish", "id": 2, "channel": "k", "data": "é\n"})[0] == 204
    server.turn()
    assert send(poster, key, PING, {"type": "history", "id": 8, "channel": "k"})[0] == 204
    server.turn()
    heard = client.received()
    assert [event.kind for event in heard] == ["ok", "ok", "message", "pong", "ok"]
    assert [event.message.get("id") for event in heard] == [1, 2, None, 7, 8]
    assert heard[2].message["data"] == "é\n" and not any(event.id for event in heard)
    assert heard[4].message["events"][0]["data"] == "é\n"
    assert [session.protocol for session in server.context.sessions] == ["events"]
    assert server.context.stats.opened["events"] - server.context.stats.closed["events"] == 1


def test_it_shares_its_bytes_with_all_its_kind(server, open_one):
    for _ in range(3):
        connect, _, key = open_one(server)
        send(connect(), key, SUBSCRIBE)
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
def test_what_is_refused_as_a_whole(server, open_one, body, kind, status, code):
    """What is wrong with one message is told on the stream."""
    connect, client, key = open_one(server)
    poster = connect().asks("/stream", method="POST", body=body, Content_Type=kind, Sockbridge_Stream=key)
    told, _, answer = poster.answer()
    assert told == status
    assert [event.kind for event in client.received()] == (["error"] if b"no json" in body else [])
    if code:
        assert json.loads(answer)["code"] == code


def test_more_than_may_come_at_once(server, open_one):
    connect, _, key = open_one(server)
    poster = connect().asks("/stream", method="POST", body=b"x\n" * 131_073, Sockbridge_Stream=key)
    assert poster.answer()[0] == 413


@pytest.mark.parametrize("key", ["", "nobody-has-this-key"])
def test_nobody_speaks_on_a_stream_whose_key_he_does_not_know(server, open_one, key):
    connect, client, _ = open_one(server)
    status, _, body = send(connect(), key, PING)
    assert status == 404 and "unknown stream key" in json.loads(body)["detail"]
    assert client.received() == []


def test_who_is_not_read_is_made_to_wait(open_one, reactor):
    """One request whose commands are being run, and one more; a third is turned away."""
    server = FakeServer(late=True)
    connect, client, key = open_one(server)
    posters = [connect() for _ in range(3)]
    assert send(posters[0], key, SUBSCRIBE, PING) is None
    assert send(posters[1], key, {"type": "ping", "id": 9}) is None
    status, headers, body = send(posters[2], key, PING)
    assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "5", "limit")
    server.backplane.release()
    server.turn()
    assert [poster.answer()[0] for poster in posters[:2]] == [204, 204]
    assert [event.message["id"] for event in client.received()] == [1, 7, 9]
    assert send(posters[2], key, PING)[0] == 204


def test_who_gives_up_waiting_is_forgotten(open_one):
    server = FakeServer(late=True)
    connect, client, key = open_one(server)
    first, second, third = connect(), connect(), connect()
    assert send(first, key, SUBSCRIBE) is None
    assert send(second, key, {"type": "ping", "id": 9}) is None
    second.goes()
    assert send(third, key, {"type": "ping", "id": 10}) is None
    server.backplane.release()
    server.turn()
    assert third.answer()[0] == 204
    assert [event.message["id"] for event in client.received()] == [1, 10]


def test_a_stream_that_ends_tells_those_who_wait(open_one):
    server = FakeServer(late=True)
    connect, client, key = open_one(server)
    first, second = connect(), connect()
    send(first, key, SUBSCRIBE), send(second, key, PING)
    client.goes()
    assert [poster.answer()[0] for poster in (first, second)] == [404, 404]
    assert send(connect(), key, PING)[0] == 404
    assert not len(server.context.sessions) and server.context.memory_budget.held == 0


@pytest.mark.parametrize("ending", [CloseReason.GOING_AWAY, CloseReason.POLICY])
def test_it_says_why_it_closes(server, open_one, ending):
    """As a close frame would."""
    connect, client, key = open_one(server)
    for session in server.context.sessions:
        session.close(ending, b"for a reason")
    notice, close = client.received()
    assert notice.kind == "notice"
    assert close.kind == "close"
    assert close.message == {"type": "close", "code": int(ending), "reason": "for a reason"}
    assert client.transport.half_closed
    assert send(connect(), key, PING)[0] == 404


def test_nothing_is_said_in_the_midst_of_a_long_answer(server, open_one):
    """The client throws away what has no end."""
    connect, client, key = open_one(server)
    server.line_client().send(*["PUB k " + "x" * 30_000] * 9)
    server.turn()
    client.protocol.handler._outlet.pauseProducing()
    client.protocol.handler.session.handle(History(b"k", tag=b"5"))
    (session,) = [guest for guest in server.context.sessions if guest.protocol == "events"]
    session.close(CloseReason.GOING_AWAY, b"for a reason")
    assert client.received() == [] and client._text.startswith('event: ok\ndata: {"type":"ok","id":5')
    assert "close" not in client._text


def test_it_is_as_fast_as_any_other_stranger(reactor, wire):
    server = FakeServer(commands_per_second=1, commands_burst=3)
    connect = web_port(reactor, lambda **ends: wire(there="192.0.2.7", **ends), server)
    client = connect().streams("/stream")
    key = client.received()[0].message["key"]
    poster = connect()
    send(poster, key, *[PING] * 6)
    kinds = [event.kind for event in client.received()]
    assert "pong" in kinds and "error" in kinds


def test_who_is_silent_for_too_long(open_one, reactor):
    server = FakeServer(idle_timeout=10.0)
    connect, client, key = open_one(server)
    reactor.advance(6)
    assert send(connect(), key, PING)[0] == 204
    reactor.advance(6)
    assert [event.kind for event in client.received()] == ["pong"]
    reactor.advance(6)
    assert [event.kind for event in client.received()] == ["notice", "close"]


def test_tokens_and_rights(open_one, reactor, wire):
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {"k": "rw"}, None)}))
    refused = web_port(reactor, wire, server)().asks("/stream?token=x")
    assert refused.answer()[0] in (400, 401)
    connect, client, key = open_one(server, Authorization="Bearer t")
    assert send(connect(), key, SUBSCRIBE, {"type": "subscribe", "id": 2, "channel": "other"})[0] == 204
    assert [event.kind for event in client.received()] == ["ok", "error"]


def test_no_more_than_an_identity_may_have(open_one, reactor, wire):
    server = FakeServer(policy=FakePolicy({}, {"t": ("ann", {"k": "rw"}, None)}), max_connections_per_identity=1)
    open_one(server, Authorization="Bearer t")
    assert web_port(reactor, wire, server)().asks("/stream", Authorization="Bearer t").answer()[0] == 503


def test_head_is_the_head_alone(server, reactor, wire):
    status, headers, body = web_port(reactor, wire, server)().asks("/stream", method="HEAD").answer()
    assert (status, headers["content-type"], body) == (200, "text/event-stream; charset=utf-8", b"")
    assert not len(server.context.sessions)


def test_a_fault_of_ours_ends_the_connection(server, reactor, wire, monkeypatch, logged):
    def fail(*arguments):
        raise RuntimeError("a fault")

    monkeypatch.setattr("twistedsock.session.session.Session.send_welcome", fail)
    client = web_port(reactor, wire, server)().asks("/stream")
    assert client.transport.aborted
    client.goes()
    assert logged.pop()["log_failure"].type is RuntimeError
    assert not len(server.context.sessions)


def test_the_key_is_in_no_log(server, open_one, logged):
    connect, client, key = open_one(server)
    send(connect(), key, SUBSCRIBE)
    client.goes()
    assert not any(key in str(event) for event in logged)
