"""Publishing and the history over HTTP: what is published, what is answered, and once under each key."""

import json

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.server.http_client import Asking
from twistedsock.pubsub.future import Future
from twistedsock.testing import FakePolicy, FakeServer

KITCHEN = "/channels/kitchen/events"
POLICY = FakePolicy(
    {"lobby": "rw"},
    {"A": ("ann", {"kitchen": "rw", "news": "r"}, None), "B": ("bob", {"kitchen": "rw"}, None)},
)


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def ask(request, reactor, wire):
    return Asking(FakeServer(late=request.param), reactor, wire)


def payloads(ask, channel="kitchen"):
    return [event["data"] for event in ask("GET", f"/channels/{channel}/events").json["events"]]


def test_what_is_posted_is_heard_by_readers_of_all_dialects(ask):
    line, page = ask.server.line_client(), ask.server.json_client()
    line.send("SUB kitchen")
    page.send({"type": "subscribe", "channel": "kitchen"})
    ask.settle()
    line.received(), page.received()
    answer = ask("POST", KITCHEN, b"hello", Content_Type="application/x-www-form-urlencoded")
    assert (answer.status, answer.json) == (201, {"channel": "kitchen", "offset": 1, "epoch": "e1"})
    ask("POST", KITCHEN + "?name=alarm&nick=bob", b'{"a": 1}', Content_Type="application/json")
    assert line.received() == ["MSG kitchen 1 p3 hello", 'EVENT kitchen 2 bob alarm {"a": 1}']
    assert [(event["from"], event["name"], event["data"]) for event in page.received()] == [
        ("p3", "message", "hello"),
        ("bob", "alarm", {"a": 1}),
    ]


def test_a_channel_may_have_slashes_and_whatever_is_percent_encoded(ask):
    assert ask("POST", "/channels/a/b%2Fc%C3%A9/events/events", b"x").json["channel"] == "a/b/cé/events"


@pytest.mark.parametrize(
    "path, body, kind, code",
    [
        ("/channels//events", b"x", "", (400, "bad-channel")),
        ("/channels/%ff/events", b"x", "", (400, "bad-channel")),
        ("/channels/a%20b/events", b"x", "", (400, "bad-channel")),
        ("/channels/a%E2%80%8B/events", b"x", "", (400, "bad-channel")),
        (KITCHEN + "?name=a%C2%AD", b"x", "", (400, "bad-name")),
        (KITCHEN + "?nick=a%E2%80%AEb", b"x", "", (400, "bad-name")),
        (KITCHEN + "?name=a%20b", b"x", "", (400, "bad-name")),
        (KITCHEN + "?name=", b"x", "", (400, "bad-argument")),
        (KITCHEN + "?nick=", b"x", "", (400, "bad-argument")),
        (KITCHEN + "?nick=a%20b", b"x", "", (400, "bad-name")),
        (KITCHEN + "?last=1", b"x", "", (400, "bad-argument")),
        (KITCHEN, b"{", "application/json", (400, "bad-json")),
        (KITCHEN, b"\xff", "text/plain", (400, "not-utf8")),
        (KITCHEN, b"x", "image/png", (415, "bad-type")),
        (KITCHEN, b"x", "text/plain; charset=latin1", (415, "bad-type")),
        (KITCHEN, b"x" * 65_537, "", (413, "too-long")),
        ("/channels/$sys/figures/events", b"x", "", (403, "forbidden")),
        ("/events", b"{", "application/json", (400, "bad-json")),
        ("/events?name=x", b'{"events":[]}', "", (400, "bad-argument")),
        ("/events?nick=a%20b", b'{"events":[]}', "", (400, "bad-name")),
    ],
)
def test_what_cannot_be_published_is_refused(ask, path, body, kind, code):
    headers = {"Content_Type": kind} if kind else {}
    assert ask("POST", path, body, **headers).code == code
    assert not ask.server.broker.channels


def test_a_message_may_be_as_long_as_anywhere(ask):
    assert ask("POST", KITCHEN, b"x" * 65_536).status == 201


def batch(*events, **more):
    return json.dumps({"events": events, **more}).encode()


def test_the_outcome_of_each_event_of_a_batch_is_told(ask):
    body = batch(
        {"channel": "kitchen", "data": "a"},
        {"channel": "kitchen", "data": "b"},
        {"channel": "no good", "data": 1},
        {"channel": "kitchen", "data": {"c": 1}, "name": "alarm"},
    )
    answer = ask("POST", "/events?nick=bob", body, Content_Type="application/json")
    assert answer.status == 200
    told = answer.json["results"]
    assert [one.get("offset") for one in told] == [1, 2, None, 3]
    assert (told[2]["channel"], told[2]["code"]) == ("no good", "bad-channel")
    assert payloads(ask) == ["a", "b", {"c": 1}]


def test_history_is_what_the_log_holds(ask):
    for number in range(5):
        ask("POST", KITCHEN, b"%d" % number, Content_Type="application/json")
    told = ask("GET", KITCHEN + "?last=2").json
    assert [event["offset"] for event in told.pop("events")] == [4, 5]
    assert told == {"channel": "kitchen", "epoch": "e1", "offset": 5, "next": "e1:5"}
    told = ask("GET", KITCHEN + "?since=3&epoch=e1").json
    assert [event["data"] for event in told["events"]] == [3, 4] and told["recovered"] is True
    assert ask("GET", KITCHEN + "?since=3&epoch=other").json["recovered"] is False
    assert len(ask("GET", KITCHEN + "?since=3").json["events"]) == 2
    assert ask("GET", "/channels/nothing/events").json == {
        "channel": "nothing",
        "epoch": "e2",
        "offset": 0,
        "events": [],
        "next": "e2:0",
    }
    assert [*ask.server.broker.channels] == [b"kitchen"]


@pytest.mark.parametrize("query", ["last=x", "since=-1", "epoch=e1", "last=1&last=2", "sinse=1", "since=%ff"])
def test_a_query_that_cannot_be_meant_is_refused(ask, query):
    assert ask("GET", f"{KITCHEN}?{query}").code == (400, "bad-argument")


def test_who_has_it_already_is_not_told_again(ask):
    ask("POST", KITCHEN, b"1")
    tag = ask("GET", KITCHEN).headers["etag"]
    assert tag == 'W/"e1:1-1"'
    answer = ask("GET", KITCHEN, If_None_Match=tag)
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    ask("POST", KITCHEN, b"2")
    assert ask("GET", KITCHEN, If_None_Match=tag).status == 200


def test_head_tells_what_get_would(ask):
    ask("POST", KITCHEN, b"1")
    answer = ask("HEAD", KITCHEN)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["etag"] == 'W/"e1:1-1"' and answer.headers["content-type"] == "application/json"
    assert ask("HEAD", "/channels//events").status == 400


class TestWithAKey:
    def test_what_was_done_is_not_done_again(self, ask):
        first = ask("POST", KITCHEN, b"x", Idempotency_Key="1")
        again = ask("POST", KITCHEN, b"x", Idempotency_Key="1")
        assert (again.status, again.json) == (201, first.json)
        assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
        assert payloads(ask) == ["x"]

    @pytest.mark.parametrize(
        "path, body, kind", [(KITCHEN, b"y", ""), (KITCHEN + "?name=a", b"x", ""), (KITCHEN, b"x", "text/plain")]
    )
    def test_it_stands_for_one_request(self, ask, path, body, kind):
        ask("POST", KITCHEN, b"x", Idempotency_Key="1")
        headers = {"Content_Type": kind} if kind else {}
        assert ask("POST", path, body, Idempotency_Key="1", **headers).code == (422, "bad-argument")

    @pytest.mark.parametrize("key", ["", "x" * 201, "ä"])
    def test_it_is_printable_and_short(self, ask, key):
        assert ask("POST", KITCHEN, b"x", Idempotency_Key=key).code == (400, "bad-argument")

    def test_there_is_only_one(self, ask):
        ask.protocol.dataReceived(
            f"POST {KITCHEN} HTTP/1.1\r\nHost: 127.0.0.1:8082\r\nContent-Length: 1\r\n"
            "Idempotency-Key: 1\r\nIdempotency-Key: 2\r\n\r\nx".encode()
        )
        ask.settle()
        assert ask.heard().code == (400, "bad-argument")
        assert payloads(ask) == []

    def test_each_client_has_its_own(self, ask):
        ask("POST", KITCHEN, b"x", Idempotency_Key="1")
        ask.connect("192.0.2.7")
        assert "idempotency-replayed" not in ask("POST", KITCHEN, b"x", Idempotency_Key="1").headers
        assert payloads(ask) == ["x", "x"]

    def test_the_hosts_of_one_ipv6_network_share_theirs(self, ask):
        ask.connect("2001:db8::1")
        ask("POST", KITCHEN, b"x", Idempotency_Key="1")
        ask.connect("2001:db8::ffff:1")
        assert "idempotency-replayed" in ask("POST", KITCHEN, b"x", Idempotency_Key="1").headers
        ask.connect("2001:db8:0:1::1")
        assert "idempotency-replayed" not in ask("POST", KITCHEN, b"x", Idempotency_Key="1").headers

    def test_a_batch_has_one_too(self, ask):
        body = batch({"channel": "kitchen", "data": "x"}, {"channel": "no good", "data": 1})
        first = ask("POST", "/events", body, Idempotency_Key="1")
        again = ask("POST", "/events", body, Idempotency_Key="1")
        assert again.json == first.json and again.headers["idempotency-replayed"] == "true"
        assert payloads(ask) == ["x"]

    def test_a_batch_of_which_nothing_was_published_may_be_asked_again(self, ask):
        body = batch({"channel": "no good", "data": 1})
        ask("POST", "/events", body, Idempotency_Key="1")
        assert "idempotency-replayed" not in ask("POST", "/events", body, Idempotency_Key="1").headers


def test_who_asks_again_while_it_is_under_way_gets_the_same_outcome(reactor, wire):
    ask = Asking(FakeServer(late=True), reactor, wire)
    ask.send("POST", KITCHEN, b"x", Idempotency_Key="1")
    first = ask.transport
    first_protocol = ask.protocol
    ask.connect()
    ask.send("POST", KITCHEN, b"x", Idempotency_Key="1")
    first_protocol.connectionLost(Failure(ConnectionDone()))
    assert (first.heard(), ask.transport.heard()) == (b"", b"")
    ask.settle()
    assert first.heard() == b""
    answer = ask.heard()
    assert (answer.status, answer.json["offset"]) == (201, 1)
    assert payloads(ask) == ["x"]


def test_a_long_history_for_a_client_that_has_gone_is_not_answered(reactor, wire, logged, monkeypatch):
    ask = Asking(FakeServer(), reactor, wire)
    for _ in range(3):
        ask("POST", KITCHEN, b"x" * 60_000)
    stats, opened = ask.server.context.stats, Future()
    before = stats.requests.copy()
    monkeypatch.setattr(ask.server.broker, "open", lambda *asked: opened)
    ask.send("GET", KITCHEN)
    ask.protocol.connectionLost(Failure(ConnectionDone()))
    opened.settle(ask.server.broker.channels[b"kitchen"])
    ask.settle()
    assert ask.transport.heard() == b"" and stats.requests == before and logged == []


def test_what_the_backplane_refused_may_be_asked_again(reactor, wire):
    ask = Asking(FakeServer(late=True), reactor, wire)
    ask.server.backplane.failing = 1
    answer = ask("POST", KITCHEN, b"x", Idempotency_Key="1")
    assert answer.code == (503, "unavailable")
    assert ask("POST", KITCHEN, b"x", Idempotency_Key="1").status == 201


class TestWithAPolicy:
    @pytest.fixture
    def ask(self, reactor, wire):
        return Asking(FakeServer(policy=POLICY), reactor, wire)

    def test_who_shows_nothing_is_asked_for_a_token(self, ask):
        for method, path in (("POST", KITCHEN), ("GET", KITCHEN), ("GET", "/channels/kitchen/members")):
            answer = ask(method, path, b"x" * (method == "POST"))
            assert answer.code == (401, "unauthorized") and answer.headers["www-authenticate"] == "Bearer"
        assert ask("POST", "/channels/lobby/events?nick=bob", b"x").status == 201

    @pytest.mark.parametrize("way", ["header", "query", "cookie"])
    def test_a_token_comes_in_three_ways(self, ask, way):
        query = "?token=A" if way == "query" else ""
        headers = {"header": {"Authorization": "Bearer A"}, "query": {}, "cookie": {"Cookie": "bridge-token=A"}}[way]
        assert ask("POST", KITCHEN + query, b"x", **headers).status == 201
        [event] = ask("GET", KITCHEN + query, **headers).json["events"]
        assert event["from"] == "ann"

    def test_who_may_not_is_told_so(self, ask):
        assert ask("POST", "/channels/news/events?token=A", b"x").code == (403, "forbidden")
        body = batch({"channel": "news", "data": 1}, {"channel": "kitchen", "data": 2})
        told = ask("POST", "/events?token=A&nick=al", body).json["results"]
        assert (told[0]["code"], told[1]["offset"]) == ("forbidden", 1)

    def test_keys_are_those_of_a_subject(self, ask):
        ask("POST", KITCHEN + "?token=A", b"x", Idempotency_Key="1")
        assert "idempotency-replayed" not in ask("POST", KITCHEN + "?token=B", b"x", Idempotency_Key="1").headers
        ask.connect("192.0.2.7")
        assert "idempotency-replayed" in ask("POST", KITCHEN + "?token=A", b"x", Idempotency_Key="1").headers


def test_a_batch_of_a_stranger_is_as_many_commands_as_it_has_events(reactor, wire):
    ask = Asking(FakeServer(commands_burst=10, commands_per_second=1), reactor, wire)
    ask.connect("192.0.2.7")
    body = batch(*[{"channel": "kitchen", "data": 1}] * 20)
    assert ask("POST", "/events", body).status == 200
    answer = ask("POST", "/events", body)
    assert answer.code == (429, "rate") and "retry-after" in answer.headers


def test_a_batch_counts_each_of_its_events_once(reactor, wire):
    ask = Asking(FakeServer(commands_burst=10, commands_per_second=1), reactor, wire)
    ask.connect("192.0.2.7")
    assert ask("POST", "/events", batch(*[{"channel": "kitchen", "data": 1}] * 10)).status == 200
    ask.server.now += 1
    assert ask("POST", KITCHEN, b"x").status == 201
    assert ask("POST", KITCHEN, b"x").code == (429, "rate")


@pytest.mark.parametrize("query", ["", "?wait=1&since=0&epoch=e1"])
@pytest.mark.parametrize("size, most", [(10, 10), (60_000, 3)])
def test_a_long_answer_costs_a_remote_client_more(reactor, wire, query, size, most):
    """One command for each four KiB, in pieces or whole."""
    ask = Asking(FakeServer(commands_burst=45, commands_per_second=1), reactor, wire)
    ask.server.line_client().send("PUB kitchen " + "x" * size)
    ask.server.turn()
    ask.connect("192.0.2.7")
    statuses = [ask("GET", KITCHEN + query).status for _ in range(10)]
    assert statuses == [200] * most + [429] * (10 - most)


def test_a_history_in_pieces_costs_a_remote_client_by_all_of_them(reactor, wire):
    ask = Asking(FakeServer(commands_burst=100, commands_per_second=1), reactor, wire)
    ask.server.line_client().send(*["PUB kitchen " + "x" * 60_000] * 7)
    ask.server.turn()
    ask.connect("192.0.2.7")
    assert [ask("GET", KITCHEN).status for _ in range(2)] == [200, 429]


def test_each_channel_of_a_poll_costs_a_remote_client_a_command(reactor, wire):
    ask = Asking(FakeServer(commands_burst=45, commands_per_second=1), reactor, wire)
    ask.server.line_client().send("PUB c0 x")
    ask.server.turn()
    ask.connect("192.0.2.7")
    several = "&".join(f"channel=c{number}" for number in range(20))
    assert [ask("GET", "/events?wait=1&last=1&" + several).status for _ in range(4)] == [200, 200, 200, 429]


def test_what_was_done_under_a_key_is_told_to_nobody_who_may_not_do_it_any_longer(reactor, wire):
    ask = Asking(FakeServer(policy=POLICY), reactor, wire)
    shown = {"Authorization": "Bearer A", "Idempotency_Key": "1"}
    assert ask("POST", KITCHEN, b"x", **shown).status == 201
    ask.server.context.change_policy(FakePolicy({}, {"A": ("ann", {}, None)}))
    assert ask("POST", KITCHEN, b"x", **shown).code == (403, "forbidden")
