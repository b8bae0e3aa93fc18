"""Long polling: an answer comes when there is something to tell, or when the time is over."""

import json

import pytest

from tests.server.stream_client import web_port
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def ask(reactor, wire):
    """Ask once: gives the client, whose answer may be there or not."""

    def asking(server, target, **headers):
        return web_port(reactor, wire, server)().asks(target, **headers)

    return asking


def told(client):
    """What has been answered; None: nothing yet."""
    if not client.transport.value():
        return None
    status, _, body = client.answer()
    assert status == 200, body
    return json.loads(body)


def publish(server, channel, *payloads):
    server.line_client().send(*[f"PUB {channel} {payload}" for payload in payloads])
    server.turn()


def test_what_is_there_is_told_at_once(server, ask):
    publish(server, "k", "1", "2", "3")
    for target in (
        "/channels/k/events?wait=25&since=1&epoch=e1",
        "/channels/k/events?wait=25&last-event-id=e1:1",
        "/channels/k/events?lastEventId=e1:1",
    ):
        answer = told(ask(server, target))
        assert [event["data"] for event in answer["events"]] == ["2", "3"]
        assert (answer["channel"], answer["epoch"], answer["offset"], answer["recovered"]) == ("k", "e1", 3, True)
        assert answer["next"] == "e1:3" and "lost" not in answer
    assert told(ask(server, "/channels/k/events", Last_Event_ID="e1:2"))["events"][0]["data"] == "3"
    assert [event["data"] for event in told(ask(server, "/channels/k/events?wait=25&last=1"))["events"]] == ["3"]


def test_what_comes_is_told_when_it_comes(server, ask):
    publish(server, "k", "1")
    first, second = (
        ask(server, "/channels/k/events?wait=25"),
        ask(server, "/channels/k/events?wait=25&last-event-id=e1:1"),
    )
    assert told(first) is None and told(second) is None
    publish(server, "k", "2", "3")
    for client in (first, second):
        answer = told(client)
        assert [event["data"] for event in answer["events"]] == ["2", "3"] and answer["next"] == "e1:3"
    assert server.broker.channels[b"k"].waiters is None


def test_who_asks_while_something_is_on_its_way_hears_what_comes_behind_it(server, ask):
    """The look at what is there flushes the channel, which rings for those who wait: too early for this one."""
    publisher = server.line_client()
    publisher.send("PUB k 1", "PUB k 2")
    publisher.send("PUB k 3")
    assert server.broker.channels[b"k"].pending
    client = ask(server, "/channels/k/events?wait=25")
    assert told(client) is None
    server.turn()
    assert told(client) is None
    publish(server, "k", "4")
    assert [event["data"] for event in told(client)["events"]] == ["4"]


def test_who_knows_nothing_waits_for_what_comes_next(server, ask):
    client = ask(server, "/channels/new/events?wait=5")
    publish(server, "new", "x")
    answer = told(client)
    assert [event["offset"] for event in answer["events"]] == [1] and "recovered" not in answer


def test_when_the_time_is_over(server, ask, reactor):
    client = ask(server, "/channels/k/events?wait=2.5")
    reactor.advance(2.4)
    assert told(client) is None
    reactor.advance(0.2)
    answer = told(client)
    assert answer == {"channel": "k", "epoch": "e1", "offset": 0, "events": [], "next": "e1:0"}
    server.turn()
    assert not server.broker.channels
    assert client.asks("/healthz").answer()[0] == 200


def test_no_time_at_all(server, ask):
    assert told(ask(server, "/channels/k/events?wait=0"))["next"] == "e1:0"


def test_several_channels(server, ask):
    publish(server, "a", "1")
    client = ask(server, "/events?channel=a&channel=b&wait=25")
    assert told(client) is None
    publish(server, "b", "x")
    answer = told(client)
    assert [one["channel"] for one in answer["channels"]] == ["a", "b"]
    assert [len(one["events"]) for one in answer["channels"]] == [0, 1]
    assert answer["next"] == "e1:1,e2:1"
    publish(server, "a", "2")
    answer = told(ask(server, f"/events?channel=a&channel=b&wait=25&last-event-id={answer['next']}"))
    assert [[event["data"] for event in one["events"]] for one in answer["channels"]] == [["2"], []]
    now = told(ask(server, "/events?channel=a", Accept="application/json"))
    assert now["next"] == "e1:2"


def test_what_is_lost_is_told_at_once(ask):
    server = FakeServer(history_events=2)
    publish(server, "k", "1", "2", "3", "4")
    answer = told(ask(server, "/channels/k/events?wait=25&last-event-id=e1:1"))
    assert answer["recovered"] is False and answer["lost"] == {"first": 2, "last": 2}
    assert [event["data"] for event in answer["events"]] == ["3", "4"]
    answer = told(ask(server, "/channels/k/events?wait=25&last-event-id=zz:1"))
    assert answer["recovered"] is False and answer["events"] == [] and answer["next"] == "e1:4"


@pytest.mark.parametrize("channels", ["a,b", "b,a"])
def test_what_one_channel_pushes_out_of_another_is_told_as_lost(ask, channels):
    """What waits to be flushed to b makes the log of a give way, while the answer about a is being made."""
    server = FakeServer(history_total_bytes=10_000)
    publish(server, "a", *["x" * 1000] * 4)
    server.line_client().send("SUB b"), server.turn()
    publisher = server.line_client()
    publisher.send("PUB b start")  # at rest it would leave at once, the next waits for the end of the turn
    publisher.send("PUB b " + "y" * 7000)
    assert server.broker.channels[b"b"].pending
    names = channels.split(",")
    id = ",".join({"a": "e1:0", "b": "e2:0"}[name] for name in names)
    client = ask(server, f"/events?wait=25&last-event-id={id}&" + "&".join(f"channel={name}" for name in names))
    answer = {one["channel"]: one for one in told(client)["channels"]}
    first = answer["a"]["events"][0]["offset"]
    assert 1 < first <= 4 and [event["offset"] for event in answer["a"]["events"]] == [*range(first, 5)]
    assert answer["a"]["recovered"] is False and answer["a"]["lost"] == {"first": 1, "last": first - 1}
    assert answer["b"]["recovered"] is True and len(answer["b"]["events"]) == 2


def test_a_channel_that_vanishes_while_another_one_is_looked_at_is_waited_for(ask):
    """Its log gives way altogether, but the poll has to hear of its next event all the same."""
    server = FakeServer(history_total_bytes=10_000)
    publisher = server.line_client()
    publisher.send("PUB a x")
    publisher.send("PUB b " + "y" * 9600)
    client = ask(server, "/events?wait=25&channel=a&channel=b")
    assert told(client) is None and not server.broker.channels[b"a"].history
    publish(server, "a", "next")
    answer = told(client)["channels"][0]
    assert [(event["offset"], event["data"]) for event in answer["events"]] == [(2, "next")]


def test_a_long_answer_says_where_to_go_on(server, ask):
    publish(server, "k", *["x" * 60_000] * 7)
    first = told(ask(server, "/channels/k/events?wait=25&last-event-id=e1:0"))
    second = told(ask(server, f"/channels/k/events?wait=25&last-event-id={first['next']}"))
    offsets = [event["offset"] for answer in (first, second) for event in answer["events"]]
    assert offsets == list(range(1, 8)) and len(first["events"]) < 7


def test_who_goes_is_forgotten(server, ask, reactor):
    client = ask(server, "/channels/k/events?wait=25")
    client.goes()
    assert not server.broker.channels
    publish(server, "k", "1")
    reactor.advance(30)


def test_rights_are_looked_at_again(ask):
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    assert ask(server, "/channels/other/events?wait=2").answer()[0] == 401
    client = ask(server, "/channels/k/events?wait=25")
    server.context.change_policy(FakePolicy({"k": "w"}))
    publish(server, "k", "secret")
    status, _, body = client.answer()
    assert status == 401 and b"secret" not in body


@pytest.mark.parametrize(
    "target", ["/events?channel=k&channel=new&last=1&wait=25", "/events?channel=new&channel=k&last=1&wait=25"]
)
@pytest.mark.parametrize("loss", ["policy", "token"])
def test_a_right_that_is_lost_while_a_channel_opens_gets_no_events(ask, target, loss):
    tokens = {"t": ("ann", {"k": "r", "new": "r"}, 1_800_000_010.0)}
    server = FakeServer(late=True, policy=FakePolicy({"k": "w"}, tokens))
    server.line_client().send("PUB k secret")
    for _ in range(4):
        server.backplane.release()
        server.turn()
    client = ask(server, target, Authorization="Bearer t")
    assert len(server.backplane) == 1, "the other channel is being opened"
    if loss == "policy":
        server.context.change_policy(FakePolicy({"k": "w"}))
    else:
        server.wall += 11
    server.backplane.release()
    server.turn()
    status, _, body = client.answer()
    assert status == 401 and b"secret" not in body
    assert server.broker.channels[b"k"].waiters is None and b"new" not in server.broker.channels


def test_a_token_that_runs_out_meanwhile(ask):
    server = FakeServer(policy=FakePolicy({"k": "w"}, {"t": ("ann", {"k": "r"}, 1_800_000_010.0)}))
    client, other = (ask(server, "/channels/k/events?wait=25&token=t") for _ in range(2))
    server.context.change_policy(FakePolicy({"k": "w"}, {"t": ("ann", {"k": "r"}, 1_800_000_010.0)}))
    publish(server, "k", "1")
    assert [told(one)["events"][0]["data"] for one in (client, other)] == ["1", "1"]
    late = ask(server, "/channels/k/events?wait=25&token=t")
    server.wall += 11
    publish(server, "k", "2")
    assert late.answer()[0] == 401
    gone = ask(server, "/channels/k/events?wait=25&token=t")
    server.wall -= 11
    gone = ask(server, "/channels/k/events?wait=25&token=t")
    server.context.change_policy(FakePolicy({"k": "w"}))
    publish(server, "k", "3")
    assert gone.answer()[0] == 401


def test_a_token_that_runs_out_after_another_policy_came(ask):
    tokens = {"t": ("ann", {"k": "r"}, 1_800_000_010.0)}
    server = FakeServer(policy=FakePolicy({"k": "w"}, tokens))
    client = ask(server, "/channels/k/events?wait=25&token=t")
    server.context.change_policy(FakePolicy({"k": "w"}, tokens))
    server.wall += 11
    publish(server, "k", "secret")
    status, _, body = client.answer()
    assert status == 401 and b"secret" not in body


def test_nobody_waits_for_a_server_that_goes_away(server, ask):
    client = ask(server, "/channels/k/events?wait=25")
    server.context.draining = True
    client.protocol.handler.requests[0].on_shutdown()
    assert told(client)["events"] == []
    assert ask(server, "/channels/k/events?wait=25").answer()[0] == 503


@pytest.mark.parametrize(
    "target",
    [
        "/channels/k/events?wait=61",
        "/channels/k/events?wait=x",
        "/channels/k/events?wait=1&since=1",
        "/channels/k/events?wait=1&last-event-id=1",
        "/channels/%ff/events?wait=1",
        "/channels/a%20b/events?wait=1",
        "/channels/a%E2%80%8B/events?wait=1",
        "/events?wait=1",
        "/events?wait=1&channel=a&nick=x",
    ],
)
def test_what_is_refused(server, ask, target):
    assert ask(server, target).answer()[0] == 400
    assert not server.broker.channels


def test_where_there_is_no_room(ask):
    server = FakeServer(max_channels=1)
    assert ask(server, "/events?wait=1&channel=a&channel=b").answer()[0] == 503
    assert not server.broker.channels


def test_a_channel_that_vanishes_while_others_are_opened_is_opened_again(ask):
    server = FakeServer(late=True, history_age=10)
    publisher = server.line_client()

    def say(payload):
        publisher.send(f"PUB a {payload}"), server.backplane.release(1, backwards=True), server.turn()

    client = ask(server, "/events?wait=25&channel=a&channel=b")
    server.backplane.release(1)
    say("old")
    server.now += 20
    server.broker.expire_histories()
    assert b"a" not in server.broker.channels
    server.backplane.release(), server.backplane.release()
    assert told(client) is None
    say("new")
    answer = told(client)["channels"][0]
    assert [(event["offset"], event["data"]) for event in answer["events"]] == [(2, "new")]


def test_a_poll_hears_of_another_epoch(ask):
    """With a place, it learns that this is of another epoch; without one, it gets what comes next, as always."""
    server = FakeServer(late=True)
    publisher = server.line_client()

    def say(payload):
        publisher.send(f"PUB k {payload}")
        server.backplane.release(), server.turn()

    say("old")
    placed, new = (
        ask(server, "/channels/k/events?wait=25&last-event-id=e1:1"),
        ask(server, "/channels/k/events?wait=25"),
    )
    server.restart_backplane()
    say("x")
    answer = told(placed)
    assert answer["recovered"] is False and answer["events"] == [] and answer["next"] == "e2:1"
    answer = told(new)
    assert [event["data"] for event in answer["events"]] == ["x"] and answer["next"] == "e2:1"
    assert "recovered" not in answer


def test_a_poll_hears_of_what_the_backplane_has_skipped(ask):
    server = FakeServer(late=True)
    publisher = server.line_client()
    publisher.send("PUB k 1"), server.backplane.release(), server.turn()
    client = ask(server, "/channels/k/events?wait=25&last-event-id=e1:1")
    server.backplane.skipping = 1
    for payload in (2, 3):
        publisher.send(f"PUB k {payload}"), server.backplane.release(), server.turn()
    answer = told(client)
    assert answer["lost"] == {"first": 2, "last": 2} and [event["data"] for event in answer["events"]] == ["3"]


def test_a_distant_backplane(ask, reactor):
    server = FakeServer(late=True)
    client = ask(server, "/events?wait=5&channel=a&channel=b")
    refused = ask(server, "/channels/c/events?wait=5")
    gone = ask(server, "/channels/d/events?wait=5")
    gone.goes()
    server.backplane.release(1)
    server.backplane.failing = 1
    server.backplane.release(1)
    assert refused.answer()[0] == 503
    server.backplane.release()
    assert told(client) is None
    reactor.advance(6)
    assert [one["channel"] for one in told(client)["channels"]] == ["a", "b"]
    server.broker.expire_histories()
    assert not server.broker.channels
