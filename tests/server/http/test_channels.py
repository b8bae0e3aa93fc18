"""Lists of channels and members over HTTP."""

from typing import Any

import pytest

from tests.server.http.clients import APIClient, MakeAPI, Response
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.testing import FakePolicy


@pytest.fixture
def api(make_api: MakeAPI) -> APIClient:
    return make_api()


def names(response: Response) -> list[str]:
    return [one["channel"] for one in response.json["channels"]]


def test_lists_channels_by_name_in_pages(api: APIClient) -> None:
    for name in ("b", "a1", "a2", "%C3%A9"):
        api("POST", f"/channels/{name}/events", b"xyz")
    api.server.line_client().send("SUB a1")
    first = api("GET", "/channels?limit=3")
    assert first.json["channels"][0] == {
        "channel": "a1",
        "readers": 1,
        "offset": 1,
        "epoch": "e2",
        "events": 1,
        "bytes": 3 + 280 + 48,
    }
    assert (names(first), first.json["total"], first.json["next"]) == (["a1", "a2", "b"], 4, "b")
    rest = api("GET", "/channels?limit=3&after=b")
    assert (names(rest), rest.json["total"], rest.json["next"]) == (["é"], 4, None)
    assert names(api("GET", "/channels?prefix=a&after=a1")) == ["a2"]
    assert api("HEAD", "/channels").status == 200


def test_lists_the_last_event_of_each_channel_on_request(api: APIClient) -> None:
    for text in (b"1", b"2"):
        api("POST", "/channels/a/events", text)
    api.server.line_client().send("SUB b")
    events = [(one["time"], one["last"]) for one in api("GET", "/channels?last=1").json["channels"]]
    [newest] = api("GET", "/channels/a/events?last=1").json["events"]
    assert events == [(newest["time"], newest), (None, None)]
    assert "last" not in api("GET", "/channels?last=0").json["channels"][0]
    assert api("GET", "/channels?last=2").error == (400, "bad-argument")


@pytest.mark.parametrize("path", ["/channels", "/channels/a/members"])
@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "page=1", "after=a&after=b"])
def test_rejects_an_invalid_query(api: APIClient, path: str, query: str) -> None:
    assert api("GET", f"{path}?{query}").error == (400, "bad-argument")


def test_lists_only_readable_channels(make_api: MakeAPI) -> None:
    api = make_api(policy=FakePolicy({"lobby": "rw", "box": "w"}, {"A": ("ann", {"kitchen": "rw"}, None)}))
    for path in ("lobby/events", "box/events", "kitchen/events?token=A"):
        assert api("POST", f"/channels/{path}", b"x").status == 201
    assert names(api("GET", "/channels")) == ["lobby"]
    assert names(api("GET", "/channels?token=A")) == ["kitchen"]
    assert api("GET", "/channels?token=B").error == (401, "unauthorized")


@pytest.mark.parametrize(("channel", "path"), [("c{}", "/channels"), ("a", "/channels/a/members")])
def test_charges_remote_clients_for_all_that_is_searched(make_api: MakeAPI, channel: str, path: str) -> None:
    api = make_api(commands_burst=20, commands_per_second=1)
    for number in range(1_000):
        api.server.line_client().send("SUB " + channel.format(number))
    api.server.turn()
    api.connect("192.0.2.7")
    assert [api("GET", path + "?limit=1").status for _ in range(3)] == [200, 200, 429]


def test_charges_for_patterns_with_wildcards(make_api: MakeAPI) -> None:
    """Two commands for each compiled pattern, and a fifth for each hundred channels."""
    policy = FakePolicy({"c*": "rw"}, {"A": ("ann", {f"x{number}*": "r" for number in range(50)}, None)})
    api = make_api(policy=policy, commands_burst=300, commands_per_second=1)
    for number in range(1_000):
        api.server.line_client().send(f"PUB c{number} x")
    api.server.turn()
    api.connect("192.0.2.7")
    assert [api("GET", "/channels?limit=1").status for _ in range(3)] == [200, 200, 200]
    assert [api("GET", "/channels?limit=1&token=A").status for _ in range(3)] == [200, 200, 429]
    assert api("GET", "/channels?limit=1").status == 200


def test_searches_of_clients_take_turns(make_api: MakeAPI) -> None:
    policy = FakePolicy({"c*": "rw"}, {"A": ("ann", {"c*": "r"}, None)})
    api = make_api(policy=policy)
    for number in range(300):
        api.server.line_client().send(f"PUB c{number} x")
    api.server.turn()
    asked: list[tuple[str, Any]] = []

    def tick() -> float:
        """A clock that advances by a time slice with each call."""
        api.server.now += TIME_SLICE_SECONDS
        return api.server.now

    api.server.clock = tick
    for name, query in (("first", "?token=A"), ("second", "?token=A"), ("other", "")):
        api.connect()
        api.send("GET", "/channels" + query)
        asked.append((name, api.transport))
    order: list[str] = []
    while asked:
        api.server.turns.step()
        order += [name for name, transport in asked if transport.value()]
        asked = [(name, transport) for name, transport in asked if not transport.value()]
    assert order == ["first", "other", "second"]


@pytest.mark.parametrize("late", [False, True])
def test_lists_members_by_id_in_pages(make_api: MakeAPI, late: bool) -> None:
    api = make_api(late=late)
    for nick in ("ann", "bob", "cleo"):
        api.server.line_client().send(f"NICK {nick}", "SUB kitchen")
        api.settle()
    first = api("GET", "/channels/kitchen/members?limit=2").json
    assert first == {
        "channel": "kitchen",
        "members": [{"id": "p1", "nick": "ann"}, {"id": "p2", "nick": "bob"}],
        "readers": 3,
        "next": "p2",
    }
    rest = api("GET", "/channels/kitchen/members?after=p2").json
    assert [member["nick"] for member in rest["members"]] == ["cleo"] and rest["next"] is None
    assert api("GET", "/channels/nothing/members").json["members"] == []
    assert api("GET", "/channels/a%20b/members").error == (400, "bad-channel")
    assert api("GET", "/channels/a%E2%80%8B/members").error == (400, "bad-channel")
    assert api("GET", "/channels/$sys/figures/members").status == 200
    api.connect("192.0.2.7")
    assert api("GET", "/channels/$sys/figures/members").error == (403, "forbidden")
