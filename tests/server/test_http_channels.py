"""Which channels there are, and who reads one, over HTTP."""

import pytest

from tests.server.http_client import Asking
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def ask(reactor, wire):
    return Asking(FakeServer(), reactor, wire)


def names(answer):
    return [one["channel"] for one in answer.json["channels"]]


def test_channels_come_by_name_a_page_at_a_time(ask):
    for name in ("b", "a1", "a2", "%C3%A9"):
        ask("POST", f"/channels/{name}/events", b"xyz")
    ask.server.line_client().send("SUB a1")
    first = ask("GET", "/channels?limit=3")
    assert first.json["channels"][0] == {
        "channel": "a1",
        "readers": 1,
        "offset": 1,
        "epoch": "e2",
        "events": 1,
        "bytes": 3 + 240 + 48,
    }
    assert (names(first), first.json["total"], first.json["next"]) == (["a1", "a2", "b"], 4, "b")
    rest = ask("GET", "/channels?limit=3&after=b")
    assert (names(rest), rest.json["total"], rest.json["next"]) == (["é"], 4, None)
    assert names(ask("GET", "/channels?prefix=a&after=a1")) == ["a2"]
    assert ask("HEAD", "/channels").status == 200


@pytest.mark.parametrize("path", ["/channels", "/channels/a/members"])
@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "page=1", "after=a&after=b"])
def test_a_query_that_cannot_be_meant_is_refused(ask, path, query):
    assert ask("GET", f"{path}?{query}").code == (400, "bad-argument")


def test_only_those_that_may_be_read_are_there(reactor, wire):
    ask = Asking(
        FakeServer(policy=FakePolicy({"lobby": "rw", "box": "w"}, {"A": ("ann", {"kitchen": "rw"}, None)})),
        reactor,
        wire,
    )
    for path in ("lobby/events", "box/events", "kitchen/events?token=A"):
        assert ask("POST", f"/channels/{path}", b"x").status == 201
    assert names(ask("GET", "/channels")) == ["lobby"]
    assert names(ask("GET", "/channels?token=A")) == ["kitchen"]
    assert ask("GET", "/channels?token=B").code == (401, "unauthorized")


def test_a_stranger_pays_for_what_must_be_looked_through(reactor, wire):
    ask = Asking(FakeServer(commands_burst=20, commands_per_second=1), reactor, wire)
    for number in range(1_000):
        ask.server.line_client().send(f"SUB c{number}")
    ask.server.turn()
    ask.connect("192.0.2.7")
    assert [ask("GET", "/channels?limit=1").status for _ in range(3)] == [200, 200, 429]


def test_patterns_with_stars_are_paid_for_as_well(reactor, wire):
    """Two commands for each that is compiled, and a fifth for each hundred channels."""
    policy = FakePolicy({"c*": "rw"}, {"A": ("ann", {f"x{number}*": "r" for number in range(50)}, None)})
    ask = Asking(FakeServer(policy=policy, commands_burst=300, commands_per_second=1), reactor, wire)
    for number in range(1_000):
        ask.server.line_client().send(f"PUB c{number} x")
    ask.server.turn()
    ask.connect("192.0.2.7")
    assert [ask("GET", "/channels?limit=1").status for _ in range(3)] == [200, 200, 200]
    assert [ask("GET", "/channels?limit=1&token=A").status for _ in range(3)] == [200, 200, 429]
    assert ask("GET", "/channels?limit=1").status == 200


def test_searches_of_one_client_wait_for_each_other_and_not_for_those_of_others(reactor, wire):
    policy = FakePolicy({"c*": "rw"}, {"A": ("ann", {"c*": "r"}, None)})
    ask = Asking(FakeServer(policy=policy), reactor, wire)
    for number in range(300):
        ask.server.line_client().send(f"PUB c{number} x")
    ask.server.turn()
    asked = []

    def tick():
        """Each look at the clock takes a time slice."""
        ask.server.now += TIME_SLICE_SECONDS
        return ask.server.now

    ask.server.clock = tick
    for name, query in (("first", "?token=A"), ("second", "?token=A"), ("other", "")):
        ask.connect()
        ask.send("GET", "/channels" + query)
        asked.append((name, ask.transport))
    order = []
    while asked:
        ask.server.turns.step()
        order += [name for name, transport in asked if transport.value()]
        asked = [(name, transport) for name, transport in asked if not transport.value()]
    assert order == ["first", "other", "second"]


def test_a_page_of_many_members_costs_by_all_of_them(reactor, wire):
    ask = Asking(FakeServer(commands_burst=20, commands_per_second=1), reactor, wire)
    for _ in range(1_000):
        ask.server.line_client().send("SUB a")
    ask.server.turn()
    ask.connect("192.0.2.7")
    statuses = [ask("GET", "/channels/a/members?limit=1").status for _ in range(3)]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize("late", [False, True])
def test_members_come_by_id_a_page_at_a_time(reactor, wire, late):
    ask = Asking(FakeServer(late=late), reactor, wire)
    for nick in ("ann", "bob", "cleo"):
        ask.server.line_client().send(f"NICK {nick}", "SUB kitchen")
        ask.settle()
    first = ask("GET", "/channels/kitchen/members?limit=2").json
    assert first == {
        "channel": "kitchen",
        "members": [{"id": "p1", "nick": "ann"}, {"id": "p2", "nick": "bob"}],
        "readers": 3,
        "next": "p2",
    }
    rest = ask("GET", "/channels/kitchen/members?after=p2").json
    assert [member["nick"] for member in rest["members"]] == ["cleo"] and rest["next"] is None
    assert ask("GET", "/channels/nothing/members").json["members"] == []
    assert ask("GET", "/channels/a%20b/members").code == (400, "bad-channel")
    assert ask("GET", "/channels/a%E2%80%8B/members").code == (400, "bad-channel")
    assert ask("GET", "/channels/$sys/figures/members").status == 200
    ask.connect("192.0.2.7")
    assert ask("GET", "/channels/$sys/figures/members").code == (403, "forbidden")
