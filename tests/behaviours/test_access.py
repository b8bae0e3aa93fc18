"""Rights, tokens and vouched nicks: the same for every dialect."""

from typing import Any

import pytest

from tests.behaviours.voices import Voice
from twistedsock.errors import CloseReason
from twistedsock.testing import FakePolicy, FakeServer

WALL = FakeServer().wall
TOKENS: dict[str, Any] = {
    "ann": ("ann", {"kitchen": "rw", "alerts.*": "r"}, WALL + 3600),
    "bob": ("bob", {"kitchen": "rw", "alerts.*": "w"}, None),
    "less": ("ann", {"kitchen": "rw"}, None),
}


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late, policy=FakePolicy({"lobby": "rw", "news": "r"}, TOKENS))


def code(answer: dict[str, Any]) -> Any:
    return answer["code"] if answer["type"] == "error" else answer["type"]


ASKED = {
    "subscribe": {},
    "history": {},
    "who": {},
    "publish": {"data": "x"},
}


@pytest.mark.parametrize("verb", ASKED)
@pytest.mark.parametrize(
    "token, channel, rights",
    [
        ("", "lobby", "rw"),
        ("", "news", "r"),
        ("", "kitchen", ""),
        ("ann", "kitchen", "rw"),
        ("ann", "alerts.fire", "r"),
        ("ann", "alerts.fire.cellar", ""),
        ("bob", "alerts.fire", "w"),
        ("bob", "lobby", ""),
    ],
)
def test_who_has_the_right_is_served_and_who_has_not_is_told_why(
    publisher: Voice, verb: str, token: str, channel: str, rights: str
) -> None:
    if token:
        publisher.asks("auth", token=token)
    allowed = ("w" if verb == "publish" else "r") in rights
    refused = "forbidden" if token else "unauthorized"
    assert code(publisher.asks(verb, channel=channel, **ASKED[verb])) == ("ok" if allowed else refused)


def test_a_token_gives_a_nick_that_others_see_and_nobody_else_can_take(publisher: Voice, reader: Voice) -> None:
    reader.asks("auth", token="bob")
    reader.asks("subscribe", channel="kitchen", presence=True)
    assert publisher.asks("auth", token="ann") == {"type": "ok", "nick": "ann", "expires": 3600}
    publisher.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", data="as ann")
    assert publisher.asks("nick", nick="bob")["nick"] == "~bob"
    publisher.asks("publish", channel="kitchen", data="as bob")
    joined, first, second = reader.received()
    assert joined["peer"]["nick"] == "ann"
    assert (first["from"], second["from"]) == ("ann", "~bob")


def test_who_loses_a_right_loses_the_subscription_and_hears_why(
    server: FakeServer, publisher: Voice, reader: Voice
) -> None:
    reader.asks("auth", token="ann")
    reader.asks("subscribe", channel="alerts.fire")
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("auth", token="bob")
    publisher.asks("publish", channel="alerts.fire", data="before")
    reader.asks("auth", token="less")
    publisher.asks("publish", channel="alerts.fire", data="after")
    publisher.asks("publish", channel="kitchen", data="still")
    heard = reader.received()
    assert [message.get("data", message["type"]) for message in heard] == ["before", "notice", "still"]
    assert "alerts.fire" in heard[1]["text"]


def test_commands_that_come_together_with_the_token_are_judged_by_it(publisher: Voice) -> None:
    publisher.says_together(
        ("publish", {"channel": "kitchen", "data": "a"}),
        ("auth", {"token": "ann"}),
        ("publish", {"channel": "kitchen", "data": "b"}),
    )
    assert [code(answer) for answer in publisher.received()] == ["unauthorized", "ok", "ok"]


def test_warns_before_a_token_expires_and_closes_then(server: FakeServer, reader: Voice) -> None:
    reader.asks("auth", token="ann")
    server.wall += 3590
    server.context.expiry_watcher.check()
    (notice,) = reader.received()
    assert notice["type"] == "notice" and "60 seconds" in notice["text"]
    server.wall += 10
    server.context.expiry_watcher.check()
    assert "expired" in reader.received()[0]["text"]
    assert reader.client.close_reason is CloseReason.POLICY
