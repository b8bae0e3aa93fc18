"""Commands that take much time cost more of a client's rate, in every dialect."""

import pytest

from tests.behaviours.voices import Voice
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def server(late: bool) -> FakeServer:
    return FakeServer(late)


def left(voice: Voice, burst: int) -> int:
    """How many commands more are carried out at once."""
    for number in range(burst + 1):
        if voice.asks("ping")["type"] == "error":
            return number
    return burst + 1


def publish(server: FakeServer, count: int, size: int) -> None:
    peer = server.line_client()
    peer.send(*["PUB a " + "x" * size] * count)
    peer.received()


@pytest.mark.parametrize("last, price", [(1, 1), (100, 25), (400, 99)])
def test_history_costs_one_command_for_each_four_kib(
    server: FakeServer, publisher: Voice, last: int, price: int
) -> None:
    """Beside the one that each command costs."""
    publish(server, 400, 1_000)
    publisher.client.limit(commands_per_second=1, commands_burst=200)
    publisher.asks("history", channel="a", last=last)
    assert 200 - price * 1.3 - 1 <= left(publisher, 200) <= 200 - price + 1


@pytest.mark.parametrize("last, price", [(1, 1), (100, 26), (400, 103)])
def test_events_from_before_a_subscription_cost_as_much(
    server: FakeServer, publisher: Voice, last: int, price: int
) -> None:
    publish(server, 400, 1_000)
    publisher.client.limit(commands_per_second=1, commands_burst=200)
    publisher.asks("subscribe", channel="a", last=last)
    publisher.received()
    assert 200 - price * 1.3 - 1 <= left(publisher, 200) <= 200 - price + 1


def test_members_cost_as_much(server: FakeServer, publisher: Voice) -> None:
    for _ in range(500):
        server.line_client().send("SUB a")
    publisher.client.limit(commands_per_second=1, commands_burst=20)
    publisher.asks("who", channel="a")
    assert left(publisher, 20) <= 20 - 3


def test_a_nick_costs_by_the_channels_on_which_it_is_noted(server: FakeServer, publisher: Voice) -> None:
    for number in range(500):
        publisher.asks("subscribe", channel=f"c{number}")
    publisher.client.limit(commands_per_second=1, commands_burst=20)
    publisher.asks("nick", nick="ann")
    assert left(publisher, 20) == 20 - 11


@pytest.mark.parametrize("payload", [rb"\ud83d" * 1000, rb"\u" * 3000], ids=["halves of pairs", "no JSON"])
def test_a_message_that_cannot_be_read_costs_by_its_size(server: FakeServer, payload: bytes) -> None:
    """Its id and halves of surrogate pairs are looked for."""
    peer = server.json_client()
    peer.limit(commands_per_second=1, commands_burst=20)
    peer.send_messages(b'{"type":"publish","channel":"a","id":1,"data":"' + payload + b'"}')
    assert [error["code"] for error in peer.received()[1:]] == ["bad-json"]
    peer.send(*[{"type": "ping"}] * 20)
    assert [reply["type"] for reply in peer.received()].count("pong") == 20 - 12


def test_a_line_that_cannot_be_read_costs_by_its_size(server: FakeServer) -> None:
    peer = server.line_client()
    peer.limit(commands_per_second=1, commands_burst=20)
    peer.send("PING", 'PUB a {"a":"' + r"\ud83d" * 1000 + '"}', *["PING"] * 20)
    assert peer.received().count("PONG") == 1 + 20 - 13


def test_a_publish_costs_the_same_whoever_reads_it(server: FakeServer, publisher: Voice) -> None:
    for _ in range(500):
        server.line_client().send("SUB a")
    publisher.client.limit(commands_per_second=1, commands_burst=20)
    publisher.asks("publish", channel="a", data="x")
    assert left(publisher, 20) == 20 - 1


def test_a_token_costs_three_commands_of_the_address(server: FakeServer, publisher: Voice) -> None:
    """And more if it is long."""
    server.context.change_policy(FakePolicy({">": "rw"}))
    publisher.client.limit(commands_per_second=1, commands_burst=40)
    for token in ("wrong", "x" * 2048):
        assert publisher.asks("auth", token=token)["code"] == "unauthorized"
    assert left(publisher, 40) == 40 - 3 - 5


def test_rights_that_change_cost_by_the_channels_and_patterns_that_are_looked_up(
    server: FakeServer, publisher: Voice
) -> None:
    """That is charged to the identity that was proved."""
    server.context.change_policy(FakePolicy({">": "rw"}, {"A": ("ann", {f"c{n}*": "r" for n in range(100)}, None)}))
    for number in range(40):
        publisher.asks("subscribe", channel=f"c{number}")
    publisher.client.limit(commands_per_second=1, commands_burst=40)
    publisher.asks("auth", token="A")
    publisher.received()
    assert publisher.client.session.client.principal == b"=ann"
    assert left(publisher, 40) == 40 - 20
