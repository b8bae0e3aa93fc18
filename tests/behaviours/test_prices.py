"""Commands that take much time cost more of a client's rate, in every protocol."""

from typing import Any

import pytest

from tests.behaviours.protocol_clients import ProtocolClient
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late)


def left(client: ProtocolClient, burst: int) -> int:
    """The number of further commands that run at once."""
    for number in range(burst + 1):
        if client.request("ping")["type"] == "error":
            return number
    return burst + 1


def cost(client: ProtocolClient, burst: int, verb: str, **fields: Any) -> int:
    """How many of ``burst`` commands one command costs."""
    client.client.limit(commands_per_second=1, commands_burst=burst)
    client.request(verb, **fields)
    client.received()
    return burst - left(client, burst)


@pytest.mark.parametrize(
    "verb, last, price",
    [("history", 1, 1), ("history", 100, 25), ("history", 400, 99)]
    + [("subscribe", 1, 1), ("subscribe", 100, 26), ("subscribe", 400, 103)],
)
def test_older_events_cost_one_command_for_each_four_kib(
    server: FakeServer, publisher: ProtocolClient, verb: str, last: int, price: int
) -> None:
    """In addition to the one that each command costs."""
    server.line_client().send(*["PUB a " + "x" * 1_000] * 400)
    assert price - 1 <= cost(publisher, 200, verb, channel="a", last=last) <= price * 1.3 + 1


def test_members_cost_as_much(server: FakeServer, publisher: ProtocolClient) -> None:
    for _ in range(500):
        server.line_client().send("SUB a")
    assert cost(publisher, 20, "who", channel="a") >= 3


def test_nick_costs_by_the_number_of_subscriptions(server: FakeServer, publisher: ProtocolClient) -> None:
    for number in range(500):
        publisher.request("subscribe", channel=f"c{number}")
    assert cost(publisher, 20, "nick", nick="ann") == 11


@pytest.mark.parametrize("payload", [rb"\ud83d" * 1000, rb"\u" * 3000], ids=["halves of pairs", "no JSON"])
def test_invalid_message_costs_by_its_size(server: FakeServer, payload: bytes) -> None:
    """The server searches it for an id and for unpaired surrogates."""
    peer = server.json_client()
    peer.limit(commands_per_second=1, commands_burst=20)
    peer.send_messages(b'{"type":"publish","channel":"a","id":1,"data":"' + payload + b'"}')
    assert [error["code"] for error in peer.received()[1:]] == ["bad-json"]
    peer.send(*[{"type": "ping"}] * 20)
    assert [reply["type"] for reply in peer.received()].count("pong") == 20 - 12


def test_invalid_line_costs_by_its_size(server: FakeServer) -> None:
    peer = server.line_client()
    peer.limit(commands_per_second=1, commands_burst=20)
    peer.send("PING", 'PUB a {"a":"' + r"\ud83d" * 1000 + '"}', *["PING"] * 20)
    assert peer.received().count("PONG") == 1 + 20 - 13


def test_publish_costs_the_same_with_any_number_of_subscribers(server: FakeServer, publisher: ProtocolClient) -> None:
    for _ in range(500):
        server.line_client().send("SUB a")
    assert cost(publisher, 20, "publish", channel="a", data="x") == 1


@pytest.mark.parametrize("size, price", [(5, 3), (2048, 5)])
def test_token_costs_at_least_three_commands_of_the_address(
    server: FakeServer, publisher: ProtocolClient, size: int, price: int
) -> None:
    """A long token costs more."""
    server.context.change_policy(FakePolicy({">": "rw"}))
    assert cost(publisher, 40, "auth", token="x" * size) == price


def test_change_of_rights_costs_by_channels_and_patterns(server: FakeServer, publisher: ProtocolClient) -> None:
    """The new identity is charged."""
    server.context.change_policy(FakePolicy({">": "rw"}, {"A": ("ann", {f"c{n}*": "r" for n in range(100)}, None)}))
    for number in range(40):
        publisher.request("subscribe", channel=f"c{number}")
    assert cost(publisher, 40, "auth", token="A") == 20
    assert publisher.client.session.client.principal == b"=ann"
