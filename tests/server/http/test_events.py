"""Publishing and reading the history over HTTP, with idempotency keys, policies and prices."""

import json
from typing import Any

import pytest

from tests.fakes import FakeReactor, Logged
from tests.server.http.clients import APIClient, MakeAPI
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Publication
from twistedsock.session.idempotency import Idempotency
from twistedsock.testing import FakePolicy

KITCHEN = "/channels/kitchen/events"
POLICY = FakePolicy(
    {"lobby": "rw"},
    {"A": ("ann", {"kitchen": "rw", "news": "r"}, None), "B": ("bob", {"kitchen": "rw"}, None)},
)


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def api(request: pytest.FixtureRequest, make_api: MakeAPI) -> APIClient:
    return make_api(late=request.param)


def payloads(api: APIClient, channel: str = "kitchen") -> list[Any]:
    return [event["data"] for event in api("GET", f"/channels/{channel}/events").json["events"]]


def test_subscribers_of_all_protocols_receive_posted_events(api: APIClient) -> None:
    line, page = api.server.line_client(), api.server.json_client()
    line.send("SUB kitchen")
    page.send({"type": "subscribe", "channel": "kitchen"})
    api.settle()
    line.received(), page.received()
    response = api("POST", KITCHEN, b"hello", Content_Type="application/x-www-form-urlencoded")
    assert (response.status, response.json) == (201, {"channel": "kitchen", "offset": 1, "epoch": "e1"})
    api("POST", KITCHEN + "?name=alarm&nick=bob", b'{"a": 1}', Content_Type="application/json")
    assert line.received() == ["MSG kitchen 1 p3 hello", 'EVENT kitchen 2 bob alarm {"a": 1}']
    assert [(event["from"], event["name"], event["data"]) for event in page.received()] == [
        ("p3", "message", "hello"),
        ("bob", "alarm", {"a": 1}),
    ]


def test_decodes_the_name_of_a_channel(api: APIClient) -> None:
    assert api("POST", "/channels/a/b%2Fc%C3%A9/events/events", b"x").json["channel"] == "a/b/cé/events"


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
def test_rejects_an_invalid_publication(api: APIClient, path: str, body: bytes, kind: str, code: Any) -> None:
    headers = {"Content_Type": kind} if kind else {}
    assert api("POST", path, body, **headers).error == code
    assert not api.server.broker.channels


def test_accepts_a_payload_of_the_maximum_size(api: APIClient) -> None:
    assert api("POST", KITCHEN, b"x" * 65_536).status == 201


def batch(*events: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"events": events, **more}).encode()


def test_batch_returns_the_result_of_each_event(api: APIClient) -> None:
    body = batch(
        {"channel": "kitchen", "data": "a"},
        {"channel": "kitchen", "data": "b"},
        {"channel": "no good", "data": 1},
        {"channel": "kitchen", "data": {"c": 1}, "name": "alarm"},
    )
    response = api("POST", "/events?nick=bob", body, Content_Type="application/json")
    assert response.status == 200
    result = response.json["results"]
    assert [one.get("offset") for one in result] == [1, 2, None, 3]
    assert (result[2]["channel"], result[2]["code"]) == ("no good", "bad-channel")
    assert payloads(api) == ["a", "b", {"c": 1}]


def test_reads_the_history(api: APIClient) -> None:
    for number in range(5):
        api("POST", KITCHEN, b"%d" % number, Content_Type="application/json")
    result = api("GET", KITCHEN + "?last=2").json
    assert [event["offset"] for event in result.pop("events")] == [4, 5]
    assert result == {"channel": "kitchen", "epoch": "e1", "offset": 5, "next": "e1:5"}
    result = api("GET", KITCHEN + "?since=3&epoch=e1").json
    assert [event["data"] for event in result["events"]] == [3, 4] and result["recovered"] is True
    assert api("GET", KITCHEN + "?since=3&epoch=other").json["recovered"] is False
    assert len(api("GET", KITCHEN + "?since=3").json["events"]) == 2
    assert api("GET", "/channels/nothing/events").json == {
        "channel": "nothing",
        "epoch": "e2",
        "offset": 0,
        "events": [],
        "next": "e2:0",
    }
    assert [*api.server.broker.channels] == [b"kitchen"]


def publish_each_minute(api: APIClient, count: int) -> None:
    """Publish events, the last one now: at 8:00 UTC if there are no others."""
    for number in range(1, count + 1):
        api.server.wall += 60 * (number > 1)
        api("POST", KITCHEN, b"%d" % number, Content_Type="application/json")


@pytest.mark.parametrize(
    "query, offsets, following",
    [
        ("after=2", [3, 4, 5], "e1:5"),
        ("after=1&before=4", [2, 3], "e1:3"),
        ("after=1&before=4&last=1", [3], "e1:3"),
        ("after=2&since=3&before=99", [4, 5], "e1:5"),
        ("after=-150s", [3, 4, 5], "e1:5"),
        ("before=-150s&last=1", [2], "e1:2"),
        ("after=2027-01-15T08:02:00Z", [4, 5], "e1:5"),
        ("after=2027-01-15T10:02:00.000%2B02:00&last=1", [5], "e1:5"),
        ("after=2027-01-15T10:02:00+02:00", [4, 5], "e1:5"),
        ("after=-1h&before=2027-01-15T08:02:00Z", [1, 2], "e1:2"),
        ("before=2027-01-15T08:00:00Z", [], "e1:0"),
        ("after=-0s", [], "e1:5"),
    ],
)
def test_reads_history_between_offsets_and_times(
    api: APIClient, query: str, offsets: list[int], following: str
) -> None:
    publish_each_minute(api, 5)
    result = api("GET", f"{KITCHEN}?{query}").json
    assert [event["offset"] for event in result["events"]] == offsets
    assert (result["offset"], result["next"], "lost" in result) == (5, following, False)


def test_reports_events_that_may_be_newer_than_the_time_as_lost(make_api: MakeAPI) -> None:
    api = make_api(history_events=2)
    publish_each_minute(api, 5)
    assert api("GET", KITCHEN + "?after=-1h").json["lost"] == {"first": 1, "last": 3}
    assert api("GET", KITCHEN + "?after=-1h&since=2").json["lost"] == {"first": 3, "last": 3}
    assert "lost" not in api("GET", KITCHEN + "?after=-2m").json


def test_position_and_time_apply_together(make_api: MakeAPI) -> None:
    api = make_api(history_events=3)
    publish_each_minute(api, 5)
    result = api("GET", KITCHEN + "?since=0&epoch=e1&last=1&before=4").json
    assert (result["recovered"], result["lost"], result["next"]) == (False, {"first": 1, "last": 2}, "e1:3")
    result = api("GET", KITCHEN + "?since=2&epoch=e1&after=-90s").json
    assert [event["offset"] for event in result["events"]] == [4, 5] and result["recovered"] is True


@pytest.mark.parametrize("name", ["after", "before"])
def test_error_shows_the_invalid_bound(api: APIClient, name: str) -> None:
    response = api("GET", f"{KITCHEN}?{name}=yesterday")
    assert response.error == (400, "bad-argument")
    assert response.problem["detail"] == (
        f"{name}: invalid value 'yesterday': "
        "expected an offset such as 17, or a time such as 2026-11-29T05:00:00Z or -1h"
    )


@pytest.mark.parametrize("query", ["wait=1&after=-1h", "last-event-id=e1:1&before=5", "wait=0&after=1"])
def test_long_poll_rejects_bounds(api: APIClient, query: str) -> None:
    response = api("GET", f"{KITCHEN}?{query}")
    assert response.error == (400, "bad-argument") and "next of that response" in response.problem["detail"]


@pytest.mark.parametrize("query", ["last=x", "since=-1", "epoch=e1", "last=1&last=2", "sinse=1", "since=%ff"])
def test_rejects_an_invalid_query(api: APIClient, query: str) -> None:
    assert api("GET", f"{KITCHEN}?{query}").error == (400, "bad-argument")


def test_unchanged_history_is_304(api: APIClient) -> None:
    api("POST", KITCHEN, b"1")
    tag = api("GET", KITCHEN).headers["etag"]
    assert tag == 'W/"e1:1-1"'
    response = api("GET", KITCHEN, If_None_Match=tag)
    assert (response.status, response.body, response.headers["etag"]) == (304, b"", tag)
    api("POST", KITCHEN, b"2")
    assert api("GET", KITCHEN, If_None_Match=tag).status == 200


def test_part_of_a_history_is_304_until_its_response_changes(make_api: MakeAPI) -> None:
    api = make_api(history_events=2)
    publish_each_minute(api, 3)
    early, recent = KITCHEN + "?after=1&before=3", KITCHEN + "?after=-150s"
    tags = {path: api("GET", path).headers["etag"] for path in (early, recent)}
    assert [api("GET", path, If_None_Match=tag).status for path, tag in tags.items()] == [304, 304]
    api.server.wall += 100
    # All events of the second response are as before, but nothing is lost any more.
    assert [api("GET", path, If_None_Match=tag).status for path, tag in tags.items()] == [304, 200]
    api("POST", "/channels/garden/events", b"1")
    assert api("GET", early, If_None_Match=tags[early]).status == 304
    api("POST", KITCHEN, b"4")
    assert api("GET", early, If_None_Match=tags[early]).status == 200


def test_head_has_the_headers_of_get(api: APIClient) -> None:
    api("POST", KITCHEN, b"1")
    response = api("HEAD", KITCHEN)
    assert (response.status, response.body) == (200, b"")
    assert response.headers["etag"] == 'W/"e1:1-1"' and response.headers["content-type"] == "application/json"
    assert api("HEAD", "/channels//events").status == 400


class TestIdempotencyKey:
    def test_repeats_the_response_without_publishing(self, api: APIClient) -> None:
        first = api("POST", KITCHEN, b"x", Idempotency_Key="1")
        again = api("POST", KITCHEN, b"x", Idempotency_Key="1")
        assert (again.status, again.json) == (201, first.json)
        assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
        assert payloads(api) == ["x"]

    @pytest.mark.parametrize(
        "path, body, kind", [(KITCHEN, b"y", ""), (KITCHEN + "?name=a", b"x", ""), (KITCHEN, b"x", "text/plain")]
    )
    def test_rejects_another_request_with_the_same_key(self, api: APIClient, path: str, body: bytes, kind: str) -> None:
        api("POST", KITCHEN, b"x", Idempotency_Key="1")
        headers = {"Content_Type": kind} if kind else {}
        assert api("POST", path, body, Idempotency_Key="1", **headers).error == (422, "bad-argument")

    @pytest.mark.parametrize("key", ["", "x" * 201, "ä"])
    def test_rejects_an_invalid_key(self, api: APIClient, key: str) -> None:
        assert api("POST", KITCHEN, b"x", Idempotency_Key=key).error == (400, "bad-argument")

    def test_rejects_two_keys(self, api: APIClient) -> None:
        api.protocol.dataReceived(
            f"POST {KITCHEN} HTTP/1.1\r\nHost: 127.0.0.1:8082\r\nContent-Length: 1\r\n"
            "Idempotency-Key: 1\r\nIdempotency-Key: 2\r\n\r\nx".encode()
        )
        api.settle()
        assert api.response().error == (400, "bad-argument")
        assert payloads(api) == []

    def test_keys_of_different_clients_are_independent(self, api: APIClient) -> None:
        api("POST", KITCHEN, b"x", Idempotency_Key="1")
        api.connect("192.0.2.7")
        assert "idempotency-replayed" not in api("POST", KITCHEN, b"x", Idempotency_Key="1").headers
        assert payloads(api) == ["x", "x"]

    def test_hosts_of_an_ipv6_network_share_keys(self, api: APIClient) -> None:
        api.connect("2001:db8::1")
        api("POST", KITCHEN, b"x", Idempotency_Key="1")
        api.connect("2001:db8::ffff:1")
        assert "idempotency-replayed" in api("POST", KITCHEN, b"x", Idempotency_Key="1").headers
        api.connect("2001:db8:0:1::1")
        assert "idempotency-replayed" not in api("POST", KITCHEN, b"x", Idempotency_Key="1").headers

    def test_batch_can_have_a_key(self, api: APIClient) -> None:
        body = batch({"channel": "kitchen", "data": "x"}, {"channel": "no good", "data": 1})
        first = api("POST", "/events", body, Idempotency_Key="1")
        again = api("POST", "/events", body, Idempotency_Key="1")
        assert again.json == first.json and again.headers["idempotency-replayed"] == "true"
        assert payloads(api) == ["x"]

    def test_failed_batch_can_be_repeated(self, api: APIClient) -> None:
        body = batch({"channel": "no good", "data": 1})
        api("POST", "/events", body, Idempotency_Key="1")
        assert "idempotency-replayed" not in api("POST", "/events", body, Idempotency_Key="1").headers


def test_repeated_request_gets_the_result_of_a_pending_one(make_api: MakeAPI) -> None:
    api = make_api(late=True)
    api.send("POST", KITCHEN, b"x", Idempotency_Key="1")
    first, disconnect = api.transport, api.disconnect
    api.connect()
    api.send("POST", KITCHEN, b"x", Idempotency_Key="1")
    disconnect()
    assert (first.output(), api.transport.output()) == (b"", b"")
    api.settle()
    assert first.output() == b""
    response = api.response()
    assert (response.status, response.json["offset"]) == (201, 1)
    assert payloads(api) == ["x"]


def test_does_not_send_a_long_history_after_a_disconnect(
    make_api: MakeAPI, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api()
    for _ in range(3):
        api("POST", KITCHEN, b"x" * 60_000)
    stats, opened = api.server.context.stats, Future()
    before = stats.requests.copy()
    monkeypatch.setattr(api.server.broker.channels, "open", lambda *asked: opened)
    api.send("GET", KITCHEN)
    api.disconnect()
    opened.settle(api.server.broker.channels[b"kitchen"])
    api.settle()
    assert api.transport.output() == b"" and stats.requests == before and logged == []


def test_request_that_the_backplane_refused_can_be_repeated(make_api: MakeAPI) -> None:
    api = make_api(late=True)
    api.server.backplane.failing = 1
    response = api("POST", KITCHEN, b"x", Idempotency_Key="1")
    assert response.error == (503, "unavailable")
    assert api("POST", KITCHEN, b"x", Idempotency_Key="1").status == 201


class TestPolicy:
    @pytest.fixture
    def api(self, make_api: MakeAPI) -> APIClient:
        return make_api(policy=POLICY)

    def test_requires_a_token(self, api: APIClient) -> None:
        for method, path in (("POST", KITCHEN), ("GET", KITCHEN), ("GET", "/channels/kitchen/members")):
            response = api(method, path, b"x" * (method == "POST"))
            assert response.error == (401, "unauthorized") and response.headers["www-authenticate"] == "Bearer"
            assert "send the header Authorization: Bearer <token>" in response.problem["detail"]
        assert api("POST", "/channels/lobby/events?nick=bob", b"x").status == 201

    @pytest.mark.parametrize("way", ["header", "query", "cookie"])
    def test_accepts_a_token_in_header_query_or_cookie(self, api: APIClient, way: str) -> None:
        query = "?token=A" if way == "query" else ""
        headers = {"header": {"Authorization": "Bearer A"}, "query": {}, "cookie": {"Cookie": "bridge-token=A"}}[way]
        assert api("POST", KITCHEN + query, b"x", **headers).status == 201
        [event] = api("GET", KITCHEN + query, **headers).json["events"]
        assert event["from"] == "ann"

    def test_rejects_a_client_without_the_right(self, api: APIClient) -> None:
        assert api("POST", "/channels/news/events?token=A", b"x").error == (403, "forbidden")
        body = batch({"channel": "news", "data": 1}, {"channel": "kitchen", "data": 2})
        result = api("POST", "/events?token=A&nick=al", body).json["results"]
        assert (result[0]["code"], result[1]["offset"]) == ("forbidden", 1)

    def test_idempotency_keys_belong_to_the_subject(self, api: APIClient) -> None:
        api("POST", KITCHEN + "?token=A", b"x", Idempotency_Key="1")
        assert "idempotency-replayed" not in api("POST", KITCHEN + "?token=B", b"x", Idempotency_Key="1").headers
        api.connect("192.0.2.7")
        assert "idempotency-replayed" in api("POST", KITCHEN + "?token=A", b"x", Idempotency_Key="1").headers


def test_charges_a_command_for_each_event_of_a_batch(make_api: MakeAPI) -> None:
    api = make_api(commands_burst=10, commands_per_second=1)
    api.connect("192.0.2.7")
    body = batch(*[{"channel": "kitchen", "data": 1}] * 20)
    assert api("POST", "/events", body).status == 200
    response = api("POST", "/events", body)
    assert response.error == (429, "rate") and "retry-after" in response.headers


def test_rejects_a_batch_whose_first_event_uses_up_the_rate(make_api: MakeAPI) -> None:
    api = make_api(commands_burst=1, commands_per_second=1)
    api.connect("192.0.2.7")
    assert api("POST", "/events", batch(*[{"channel": "kitchen", "data": 1}] * 2)).error == (429, "rate")
    assert not api.server.broker.channels


def test_charges_each_event_of_a_batch_once(make_api: MakeAPI) -> None:
    api = make_api(commands_burst=10, commands_per_second=1)
    api.connect("192.0.2.7")
    assert api("POST", "/events", batch(*[{"channel": "kitchen", "data": 1}] * 10)).status == 200
    api.server.now += 1
    assert api("POST", KITCHEN, b"x").status == 201
    assert api("POST", KITCHEN, b"x").error == (429, "rate")


@pytest.mark.parametrize(
    "query, count, size, burst, allowed",
    [
        ("", 1, 10, 45, 10),
        ("?wait=1&since=0&epoch=e1", 1, 10, 45, 10),
        ("", 1, 60_000, 45, 3),
        ("?wait=1&since=0&epoch=e1", 1, 60_000, 45, 3),
        ("", 7, 60_000, 100, 1),
    ],
)
def test_charges_a_remote_client_for_long_responses(
    make_api: MakeAPI, query: str, count: int, size: int, burst: int, allowed: int
) -> None:
    """A command for each 4 KiB."""
    api = make_api(commands_burst=burst, commands_per_second=1)
    api.server.line_client().send(*["PUB kitchen " + "x" * size] * count)
    api.server.turn()
    api.connect("192.0.2.7")
    statuses = [api("GET", KITCHEN + query).status for _ in range(10)]
    assert statuses == [200] * allowed + [429] * (10 - allowed)


def test_charges_a_command_for_each_channel_of_a_long_poll(make_api: MakeAPI) -> None:
    api = make_api(commands_burst=45, commands_per_second=1)
    api.server.line_client().send("PUB c0 x")
    api.server.turn()
    api.connect("192.0.2.7")
    several = "&".join(f"channel=c{number}" for number in range(20))
    assert [api("GET", "/events?wait=1&last=1&" + several).status for _ in range(4)] == [200, 200, 200, 429]


def test_does_not_repeat_a_response_after_the_right_is_lost(make_api: MakeAPI) -> None:
    api = make_api(policy=POLICY)
    shown = {"Authorization": "Bearer A", "Idempotency_Key": "1"}
    assert api("POST", KITCHEN, b"x", **shown).status == 201
    api.server.context.change_policy(FakePolicy({}, {"A": ("ann", {}, None)}))
    assert api("POST", KITCHEN, b"x", **shown).error == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "body"), [(KITCHEN, b"x"), ("/events", b'{"events":[{"channel":"kitchen","data":1}]}')]
)
def test_nodes_share_idempotency_keys(make_api: MakeAPI, path: str, body: bytes) -> None:
    """Attempts that reach different nodes have the same key for the backplane; other requests have other keys."""
    keys: list[bytes] = []
    for attempt in ("1", "1", "2"):
        api = make_api(late=True, node_name=b"n1")
        observe_keys(api, keys)
        assert api("POST", path, body, Idempotency_Key=attempt).status in (200, 201)
    assert keys[0] == keys[1] != keys[2] and len(keys[0]) >= 16


class TestKeyOfAnotherProcess:
    """The backplane remembers a key that another node, or the process before a restart, has used."""

    @pytest.fixture
    def apis(self, make_api: MakeAPI, reactor: FakeReactor) -> tuple[APIClient, APIClient]:
        """Of two processes."""
        api = make_api(late=True, node_name=b"n1")
        context = api.server.context
        context.idempotency = Idempotency(context.broker.clock, is_shared=True)
        return api, APIClient(api.server, reactor)

    def test_repeats_the_response_without_publishing(self, apis: tuple[APIClient, APIClient]) -> None:
        first, again = [api("POST", KITCHEN, b"x", Idempotency_Key="1") for api in apis]
        assert (again.status, again.json) == (201, first.json)
        assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
        assert payloads(apis[0]) == ["x"]

    @pytest.mark.parametrize("path, body", [(KITCHEN, b"y"), (KITCHEN + "?name=a", b"x"), (KITCHEN + "?nick=a", b"x")])
    def test_rejects_another_request(self, apis: tuple[APIClient, APIClient], path: str, body: bytes) -> None:
        one, other = apis
        first = one("POST", KITCHEN, b"x", Idempotency_Key="1")
        assert other("POST", path, body, Idempotency_Key="1").error == (422, "bad-argument")
        assert other("POST", KITCHEN, b"x", Idempotency_Key="1").json == first.json and payloads(one) == ["x"]

    def test_repeats_the_response_to_a_batch(self, apis: tuple[APIClient, APIClient]) -> None:
        events = [{"channel": channel, "data": "x"} for channel in ("no good", "kitchen", "yard", "kitchen")]
        first, again = [api("POST", "/events", batch(*events), Idempotency_Key="1") for api in apis]
        assert (again.status, again.json) == (200, first.json) and len(first.json["results"]) == 4
        assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
        assert payloads(apis[0]) == ["x", "x"]

    @pytest.mark.parametrize("channels", [["kitchen"], ["kitchen", "yard", "attic"], ["kitchen", "yard", "attic", "a"]])
    def test_rejects_another_batch(self, apis: tuple[APIClient, APIClient], channels: list[str]) -> None:
        """However many events it has, and publishes none of them."""
        one, other = apis
        events = [{"channel": channel, "data": "x"} for channel in ("kitchen", "yard", "cellar")]
        one("POST", "/events", batch(*events), Idempotency_Key="1")
        body = batch(*[{"channel": channel, "data": "x"} for channel in channels])
        assert other("POST", "/events", body, Idempotency_Key="1").error == (422, "bad-argument")
        assert [payloads(one, channel) for channel in ("kitchen", "yard", "attic", "a")] == [["x"], ["x"], [], []]

    def test_publishes_the_rest_of_a_batch(self, apis: tuple[APIClient, APIClient]) -> None:
        """The process ended before it was published."""
        one, other = apis
        body = batch({"channel": "kitchen", "data": "x"}, {"channel": "yard", "data": "x"})
        one.send("POST", "/events", body, Idempotency_Key="1")
        for _ in range(2):  # the first channel is opened, and its event published
            one.server.backplane.release(1)
        one.server.backplane.failing = 1
        one.settle()
        assert [result.get("code") for result in one.response().json["results"]] == [None, "unavailable"]
        again = other("POST", "/events", body, Idempotency_Key="1")
        assert [result["offset"] for result in again.json["results"]] == [1, 1]
        assert "idempotency-replayed" not in again.headers
        assert payloads(one) == payloads(one, "yard") == ["x"]


def observe_keys(api: APIClient, keys: list[bytes]) -> None:
    broker = api.server.broker
    publish = broker.publish

    def observed(client: Client, publication: Publication) -> Any:
        keys.append(publication.key)
        return publish(client, publication)

    broker.publish = observed  # type: ignore[method-assign]
