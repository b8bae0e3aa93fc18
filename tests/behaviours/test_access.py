"""Rights, tokens and verified nicks, in every protocol."""

from typing import Any

import pytest

from tests.behaviours.protocol_clients import ProtocolClient, outcome
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
def test_commands_without_the_right_fail_with_a_reason(
    publisher: ProtocolClient, verb: str, token: str, channel: str, rights: str
) -> None:
    if token:
        publisher.request("auth", token=token)
    allowed = ("w" if verb == "publish" else "r") in rights
    error = "forbidden" if token else "unauthorized"
    assert outcome(publisher.request(verb, channel=channel, **ASKED[verb])) == ("ok" if allowed else error)


def test_lists_only_channels_that_the_client_can_read(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    publisher.request("auth", token="bob")
    for channel in ("kitchen", "alerts.fire"):
        publisher.request("publish", channel=channel, data="x")
    reader.request("publish", channel="lobby", data="x")
    lobby = {"channel": "lobby", "readers": 0, "offset": 1}
    assert reader.request("list") == {"type": "ok", "channels": [lobby], "total": 1, "next": None}
    reader.request("auth", token="ann")
    assert [one["channel"] for one in reader.request("list")["channels"]] == ["alerts.fire", "kitchen"]


def test_token_gives_a_nick_that_no_other_client_can_use(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("auth", token="bob")
    reader.request("subscribe", channel="kitchen", presence=True)
    assert publisher.request("auth", token="ann") == {"type": "ok", "nick": "ann", "expires": 3600}
    publisher.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", data="as ann")
    assert publisher.request("nick", nick="bob")["nick"] == "~bob"
    publisher.request("publish", channel="kitchen", data="as bob")
    joined, first, second = reader.received()
    assert joined["peer"]["nick"] == "ann"
    assert (first["from"], second["from"]) == ("ann", "~bob")


def test_losing_a_right_ends_the_subscription_with_a_notice(
    server: FakeServer, publisher: ProtocolClient, reader: ProtocolClient
) -> None:
    reader.request("auth", token="ann")
    reader.request("subscribe", channel="alerts.fire")
    reader.request("subscribe", channel="kitchen")
    publisher.request("auth", token="bob")
    publisher.request("publish", channel="alerts.fire", data="before")
    reader.request("auth", token="less")
    publisher.request("publish", channel="alerts.fire", data="after")
    publisher.request("publish", channel="kitchen", data="still")
    message = reader.received()
    assert [message.get("data", message["type"]) for message in message] == ["before", "notice", "still"]
    assert "alerts.fire" in message[1]["text"]


def test_commands_behind_a_token_are_checked_against_it(publisher: ProtocolClient) -> None:
    publisher.send_together(
        ("publish", {"channel": "kitchen", "data": "a"}),
        ("auth", {"token": "ann"}),
        ("publish", {"channel": "kitchen", "data": "b"}),
    )
    assert [outcome(answer) for answer in publisher.received()] == ["unauthorized", "ok", "ok"]


def test_warns_before_a_token_expires_and_then_closes(server: FakeServer, reader: ProtocolClient) -> None:
    reader.request("auth", token="ann")
    server.wall += 3590
    server.context.expiry_watcher.check()
    (notice,) = reader.received()
    assert notice["type"] == "notice" and "60 seconds" in notice["text"]
    server.wall += 10
    server.context.expiry_watcher.check()
    assert "expired" in reader.received()[0]["text"]
    assert reader.client.close_reason is CloseReason.POLICY
