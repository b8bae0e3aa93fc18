"""Long polls: answered at the next event, or after the time that they wait."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import FakeReactor
from tests.server.http.clients import MakeWebPort, WebClient
from twistedsock.testing import FakePolicy, FakeServer, LineClient

Ask = Callable[..., WebClient]


@pytest.fixture
def ask(make_web: MakeWebPort) -> Ask:
    """Send a request on a new connection. The response may come later."""
    return lambda server, target, **headers: make_web(server)().request(target, **headers)


def answer_of(client: WebClient) -> Any:
    """The JSON of the response. None: there is no response yet."""
    if not client.transport.value():
        return None
    status, _, body = client.response()
    assert status == 200, body
    return json.loads(body)


def publish(server: FakeServer, channel: str, *payloads: str) -> None:
    server.line_client().send(*[f"PUB {channel} {payload}" for payload in payloads])
    server.turn()


def publish_late(server: FakeServer, publisher: LineClient, payload: str) -> None:
    publisher.send(f"PUB k {payload}")
    server.backplane.release()
    server.turn()


def test_existing_events_are_returned_at_once(server: FakeServer, ask: Ask) -> None:
    publish(server, "k", "1", "2", "3")
    for target in (
        "/channels/k/events?wait=25&since=1&epoch=e1",
        "/channels/k/events?wait=25&last-event-id=e1:1",
        "/channels/k/events?lastEventId=e1:1",
    ):
        answer = answer_of(ask(server, target))
        assert [event["data"] for event in answer["events"]] == ["2", "3"]
        assert (answer["channel"], answer["epoch"], answer["offset"], answer["recovered"]) == ("k", "e1", 3, True)
        assert answer["next"] == "e1:3" and "lost" not in answer
    assert answer_of(ask(server, "/channels/k/events", Last_Event_ID="e1:2"))["events"][0]["data"] == "3"
    assert [event["data"] for event in answer_of(ask(server, "/channels/k/events?wait=25&last=1"))["events"]] == ["3"]


def test_new_events_are_returned_when_they_are_published(server: FakeServer, ask: Ask) -> None:
    publish(server, "k", "1")
    first = ask(server, "/channels/k/events?wait=25")
    second = ask(server, "/channels/k/events?wait=25&last-event-id=e1:1")
    assert answer_of(first) is None and answer_of(second) is None
    publish(server, "k", "2", "3")
    for client in (first, second):
        answer = answer_of(client)
        assert [event["data"] for event in answer["events"]] == ["2", "3"] and answer["next"] == "e1:3"
    assert server.broker.channels[b"k"].waiters is None


def test_request_during_a_pending_publication_gets_the_next_event(server: FakeServer, ask: Ask) -> None:
    """Reading the channel commits it, which notifies waiting requests: too early for this one."""
    publisher = server.line_client()
    publisher.send("PUB k 1", "PUB k 2")
    publisher.send("PUB k 3")
    assert server.broker.channels[b"k"].pending
    client = ask(server, "/channels/k/events?wait=25")
    assert answer_of(client) is None
    server.turn()
    assert answer_of(client) is None
    publish(server, "k", "4")
    assert [event["data"] for event in answer_of(client)["events"]] == ["4"]


def test_request_without_a_position_waits_for_the_next_event(server: FakeServer, ask: Ask) -> None:
    client = ask(server, "/channels/new/events?wait=5")
    publish(server, "new", "x")
    answer = answer_of(client)
    assert [event["offset"] for event in answer["events"]] == [1] and "recovered" not in answer


def test_returns_no_events_after_the_wait(server: FakeServer, ask: Ask, reactor: FakeReactor) -> None:
    client = ask(server, "/channels/k/events?wait=2.5")
    reactor.advance(2.4)
    assert answer_of(client) is None
    reactor.advance(0.2)
    answer = answer_of(client)
    assert answer == {"channel": "k", "epoch": "e1", "offset": 0, "events": [], "next": "e1:0"}
    server.turn()
    assert not server.broker.channels
    assert client.request("/healthz").response()[0] == 200


def test_wait_of_zero_returns_at_once(server: FakeServer, ask: Ask) -> None:
    assert answer_of(ask(server, "/channels/k/events?wait=0"))["next"] == "e1:0"


def test_reads_several_channels(server: FakeServer, ask: Ask) -> None:
    publish(server, "a", "1")
    client = ask(server, "/events?channel=a&channel=b&wait=25")
    assert answer_of(client) is None
    publish(server, "b", "x")
    answer = answer_of(client)
    assert [one["channel"] for one in answer["channels"]] == ["a", "b"]
    assert [len(one["events"]) for one in answer["channels"]] == [0, 1]
    assert answer["next"] == "e1:1,e2:1"
    publish(server, "a", "2")
    answer = answer_of(ask(server, f"/events?channel=a&channel=b&wait=25&last-event-id={answer['next']}"))
    assert [[event["data"] for event in one["events"]] for one in answer["channels"]] == [["2"], []]
    now = answer_of(ask(server, "/events?channel=a", Accept="application/json"))
    assert now["next"] == "e1:2"


def test_reports_a_loss_at_once(ask: Ask) -> None:
    server = FakeServer(history_events=2)
    publish(server, "k", "1", "2", "3", "4")
    answer = answer_of(ask(server, "/channels/k/events?wait=25&last-event-id=e1:1"))
    assert answer["recovered"] is False and answer["lost"] == {"first": 2, "last": 2}
    assert [event["data"] for event in answer["events"]] == ["3", "4"]
    answer = answer_of(ask(server, "/channels/k/events?wait=25&last-event-id=zz:1"))
    assert answer["recovered"] is False and answer["events"] == [] and answer["next"] == "e1:4"


@pytest.mark.parametrize("channels", ["a,b", "b,a"])
def test_reports_events_that_another_channel_displaced(ask: Ask, channels: str) -> None:
    """Committing b shortens the history of a."""
    server = FakeServer(history_total_bytes=10_000)
    publish(server, "a", *["x" * 1000] * 4)
    server.line_client().send("SUB b"), server.turn()
    publisher = server.line_client()
    publisher.send("PUB b start")  # an idle server flushes at once, the next event waits for the end of the turn
    publisher.send("PUB b " + "y" * 7000)
    assert server.broker.channels[b"b"].pending
    names = channels.split(",")
    id = ",".join({"a": "e1:0", "b": "e2:0"}[name] for name in names)
    client = ask(server, f"/events?wait=25&last-event-id={id}&" + "&".join(f"channel={name}" for name in names))
    answer = {one["channel"]: one for one in answer_of(client)["channels"]}
    first = answer["a"]["events"][0]["offset"]
    assert 1 < first <= 4 and [event["offset"] for event in answer["a"]["events"]] == [*range(first, 5)]
    assert answer["a"]["recovered"] is False and answer["a"]["lost"] == {"first": 1, "last": first - 1}
    assert answer["b"]["recovered"] is True and len(answer["b"]["events"]) == 2


def test_waits_for_a_channel_that_lost_its_history(ask: Ask) -> None:
    server = FakeServer(history_total_bytes=10_000)
    publisher = server.line_client()
    publisher.send("PUB a x")
    publisher.send("PUB b " + "y" * 9600)
    client = ask(server, "/events?wait=25&channel=a&channel=b")
    assert answer_of(client) is None and not server.broker.channels[b"a"].history
    publish(server, "a", "next")
    answer = answer_of(client)["channels"][0]
    assert [(event["offset"], event["data"]) for event in answer["events"]] == [(2, "next")]


def test_long_response_returns_where_to_continue(server: FakeServer, ask: Ask) -> None:
    publish(server, "k", *["x" * 60_000] * 7)
    first = answer_of(ask(server, "/channels/k/events?wait=25&last-event-id=e1:0"))
    second = answer_of(ask(server, f"/channels/k/events?wait=25&last-event-id={first['next']}"))
    offsets = [event["offset"] for answer in (first, second) for event in answer["events"]]
    assert offsets == list(range(1, 8)) and len(first["events"]) < 7


def test_disconnect_ends_the_wait(server: FakeServer, ask: Ask, reactor: FakeReactor) -> None:
    client = ask(server, "/channels/k/events?wait=25")
    client.disconnect()
    assert not server.broker.channels
    publish(server, "k", "1")
    reactor.advance(30)


def test_checks_rights_again_before_the_response(ask: Ask) -> None:
    server = FakeServer(policy=FakePolicy({"k": "rw"}))
    assert ask(server, "/channels/other/events?wait=2").response()[0] == 401
    client = ask(server, "/channels/k/events?wait=25")
    server.context.change_policy(FakePolicy({"k": "w"}))
    publish(server, "k", "secret")
    status, _, body = client.response()
    assert status == 401 and b"secret" not in body


@pytest.mark.parametrize(
    "target", ["/events?channel=k&channel=new&last=1&wait=25", "/events?channel=new&channel=k&last=1&wait=25"]
)
@pytest.mark.parametrize("loss", ["policy", "token"])
def test_right_lost_while_a_channel_opens_is_an_error(ask: Ask, target: str, loss: str) -> None:
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
    status, _, body = client.response()
    assert status == 401 and b"secret" not in body
    assert server.broker.channels[b"k"].waiters is None and b"new" not in server.broker.channels


def test_new_policy_decides_about_the_token_of_a_waiting_request(ask: Ask) -> None:
    server = FakeServer(policy=FakePolicy({"k": "w"}, {"t": ("ann", {"k": "r"}, 1_800_000_010.0)}))
    client, other = (ask(server, "/channels/k/events?wait=25&token=t") for _ in range(2))
    server.context.change_policy(FakePolicy({"k": "w"}, {"t": ("ann", {"k": "r"}, 1_800_000_010.0)}))
    publish(server, "k", "1")
    assert [answer_of(one)["events"][0]["data"] for one in (client, other)] == ["1", "1"]
    denied = ask(server, "/channels/k/events?wait=25&token=t")
    server.context.change_policy(FakePolicy({"k": "w"}))
    publish(server, "k", "2")
    assert denied.response()[0] == 401


@pytest.mark.parametrize("has_new_policy", [False, True])
def test_token_that_expires_during_the_wait_is_an_error(ask: Ask, has_new_policy: bool) -> None:
    tokens = {"t": ("ann", {"k": "r"}, 1_800_000_010.0)}
    server = FakeServer(policy=FakePolicy({"k": "w"}, tokens))
    client = ask(server, "/channels/k/events?wait=25&token=t")
    if has_new_policy:
        server.context.change_policy(FakePolicy({"k": "w"}, tokens))
    server.wall += 11
    publish(server, "k", "secret")
    status, _, body = client.response()
    assert status == 401 and b"secret" not in body


def test_shutdown_ends_the_wait(server: FakeServer, ask: Ask) -> None:
    client = ask(server, "/channels/k/events?wait=25")
    server.context.draining = True
    client.protocol.handler.requests[0].on_shutdown()
    assert answer_of(client)["events"] == []
    assert ask(server, "/channels/k/events?wait=25").response()[0] == 503


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
def test_rejects_an_invalid_request(server: FakeServer, ask: Ask, target: str) -> None:
    assert ask(server, target).response()[0] == 400
    assert not server.broker.channels


def test_rejects_more_channels_than_the_limit(ask: Ask) -> None:
    server = FakeServer(max_channels=1)
    assert ask(server, "/events?wait=1&channel=a&channel=b").response()[0] == 503
    assert not server.broker.channels


def test_reopens_a_channel_that_closed_while_others_opened(ask: Ask) -> None:
    server = FakeServer(late=True, history_age=10)
    publisher = server.line_client()

    def publish_late(payload: Any) -> None:
        publisher.send(f"PUB a {payload}"), server.backplane.release(1, backwards=True), server.turn()

    client = ask(server, "/events?wait=25&channel=a&channel=b")
    server.backplane.release(1)
    publish_late("old")
    server.now += 20
    server.broker.expire_histories()
    assert b"a" not in server.broker.channels
    server.backplane.release(), server.backplane.release()
    assert answer_of(client) is None
    publish_late("new")
    answer = answer_of(client)["channels"][0]
    assert [(event["offset"], event["data"]) for event in answer["events"]] == [(2, "new")]


def test_reports_a_new_epoch(ask: Ask) -> None:
    """A request with a position gets an empty response of the new epoch. Another one gets the next event as always."""
    server = FakeServer(late=True)
    publisher = server.line_client()
    publish_late(server, publisher, "old")
    placed = ask(server, "/channels/k/events?wait=25&last-event-id=e1:1")
    new = ask(server, "/channels/k/events?wait=25")
    server.restart_backplane()
    publish_late(server, publisher, "x")
    server.backplane.release()  # the new epoch is read
    server.turn()
    answer = answer_of(placed)
    assert answer["recovered"] is False and answer["events"] == [] and answer["next"] == "e2:1"
    answer = answer_of(new)
    assert [event["data"] for event in answer["events"]] == ["x"] and answer["next"] == "e2:1"
    assert "recovered" not in answer


def test_reports_events_that_the_backplane_skipped(ask: Ask) -> None:
    server = FakeServer(late=True)
    publisher = server.line_client()
    publish_late(server, publisher, "1")
    client = ask(server, "/channels/k/events?wait=25&last-event-id=e1:1")
    server.backplane.skipping = 1
    publish_late(server, publisher, "2")
    publish_late(server, publisher, "3")
    answer = answer_of(client)
    assert answer["lost"] == {"first": 2, "last": 2} and [event["data"] for event in answer["events"]] == ["3"]


def test_waits_for_a_late_backplane(ask: Ask, reactor: FakeReactor) -> None:
    server = FakeServer(late=True)
    client = ask(server, "/events?wait=5&channel=a&channel=b")
    refused = ask(server, "/channels/c/events?wait=5")
    denied = ask(server, "/channels/d/events?wait=5")
    denied.disconnect()
    server.backplane.release(1)
    server.backplane.failing = 1
    server.backplane.release(1)
    assert refused.response()[0] == 503
    server.backplane.release()
    assert answer_of(client) is None
    reactor.advance(6)
    assert [one["channel"] for one in answer_of(client)["channels"]] == ["a", "b"]
    server.broker.expire_histories()
    assert not server.broker.channels


# Events that only the backplane has.


@pytest.fixture
def kept() -> FakeServer:
    """The history holds three of 40 events, which fill three chunks; the backplane has all."""
    server = FakeServer(late=True, keeps_history=True, history_events=3)
    for _ in range(40):
        server.line_client().send("PUB k " + "x" * 4_000)
        settle(server)
    return server


def settle(server: FakeServer) -> None:
    while len(server.backplane) or len(server.turns):
        server.backplane.release()
        server.turn()


def test_position_can_be_older_than_the_history(kept: FakeServer, ask: Ask) -> None:
    """The response has a part of what is missing, and the next one continues."""
    position, offsets = "e1:2", list[int]()
    while position != "e1:40":
        client = ask(kept, f"/channels/k/events?wait=25&last-event-id={position}")
        settle(kept)
        answer = answer_of(client)
        assert answer["recovered"] is True and "lost" not in answer and answer["events"]
        offsets += [event["offset"] for event in answer["events"]]
        position = answer["next"]
    assert offsets == [*range(3, 41)]


def test_positions_of_several_channels_can_be_older_than_their_histories(kept: FakeServer, ask: Ask) -> None:
    client = ask(kept, "/events?channel=k&channel=j&wait=25&last-event-id=e1:2,e2:0", Accept="application/json")
    settle(kept)
    k, j = answer_of(client)["channels"]
    assert k["events"][0]["offset"] == 3 and j["events"] == []


def test_what_the_backplane_cannot_return_is_lost(kept: FakeServer, ask: Ask) -> None:
    client = ask(kept, "/channels/k/events?wait=25&last-event-id=e1:2")
    kept.backplane.failing = 1
    settle(kept)
    answer = answer_of(client)
    assert answer["recovered"] is False and answer["lost"] == {"first": 3, "last": 37}


def test_right_can_be_lost_while_the_backplane_reads(ask: Ask) -> None:
    server = FakeServer(late=True, keeps_history=True, history_events=1, policy=FakePolicy(anonymous={"k": "rw"}))
    server.line_client().send("PUB k 1", "PUB k 2")
    settle(server)
    client = ask(server, "/channels/k/events?wait=25&last-event-id=e1:0")
    server.context.policy = FakePolicy(anonymous={"k": "w"})
    settle(server)
    assert client.response()[0] == 401


def test_disconnection_ends_the_reading(kept: FakeServer, ask: Ask) -> None:
    client = ask(kept, "/channels/k/events?wait=25&last-event-id=e1:2")
    client.disconnect()
    settle(kept)
    assert client.transport.value() == b"" and kept.broker.memory_budget.used == 0
