"""Commands that take much time cost more of a client's rate, in every dialect."""

import pytest

from tests.behaviours.voices import Voice
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def hall(late: bool) -> FakeServer:
    return FakeServer(late)


def left(voice: Voice, burst: int) -> int:
    """How many commands more are carried out at once."""
    for number in range(burst + 1):
        if voice.asks("ping")["type"] == "error":
            return number
    return burst + 1


def publish(hall: FakeServer, count: int, size: int) -> None:
    peer = hall.line_peer()
    peer.says(*["PUB a " + "x" * size] * count)
    peer.hears()


@pytest.mark.parametrize("last, price", [(1, 1), (100, 25), (400, 99)])
def test_history_costs_one_command_for_each_four_kib(hall: FakeServer, publisher: Voice, last: int, price: int) -> None:
    """Beside the one that each command costs."""
    publish(hall, 400, 1_000)
    publisher.peer.limit(commands_per_second=1, commands_burst=200)
    publisher.asks("history", channel="a", last=last)
    assert 200 - price * 1.3 - 1 <= left(publisher, 200) <= 200 - price + 1


@pytest.mark.parametrize("last, price", [(1, 1), (100, 26), (400, 103)])
def test_events_from_before_a_subscription_cost_as_much(
    hall: FakeServer, publisher: Voice, last: int, price: int
) -> None:
    publish(hall, 400, 1_000)
    publisher.peer.limit(commands_per_second=1, commands_burst=200)
    publisher.asks("subscribe", channel="a", last=last)
    publisher.hears()
    assert 200 - price * 1.3 - 1 <= left(publisher, 200) <= 200 - price + 1


def test_members_cost_as_much(hall: FakeServer, publisher: Voice) -> None:
    for _ in range(500):
        hall.line_peer().says("SUB a")
    publisher.peer.limit(commands_per_second=1, commands_burst=20)
    publisher.asks("who", channel="a")
    assert left(publisher, 20) <= 20 - 3


def test_a_nick_costs_by_the_channels_on_which_it_is_noted(hall: FakeServer, publisher: Voice) -> None:
    for number in range(500):
        publisher.asks("subscribe", channel=f"c{number}")
    publisher.peer.limit(commands_per_second=1, commands_burst=20)
    publisher.asks("nick", nick="ann")
    assert left(publisher, 20) == 20 - 11


@pytest.mark.parametrize("payload", [rb"\ud83d" * 1000, rb"\u" * 3000], ids=["halves of pairs", "no JSON"])
def test_a_message_that_cannot_be_read_costs_by_its_size(hall: FakeServer, payload: bytes) -> None:
    """Its id and halves of surrogate pairs are looked for."""
    peer = hall.json_peer()
    peer.limit(commands_per_second=1, commands_burst=20)
    peer.receives(b'{"type":"publish","channel":"a","id":1,"data":"' + payload + b'"}')
    assert [error["code"] for error in peer.hears()[1:]] == ["bad-json"]
    peer.says(*[{"type": "ping"}] * 20)
    assert [reply["type"] for reply in peer.hears()].count("pong") == 20 - 12


def test_a_line_that_cannot_be_read_costs_by_its_size(hall: FakeServer) -> None:
    peer = hall.line_peer()
    peer.limit(commands_per_second=1, commands_burst=20)
    peer.says("PING", 'PUB a {"a":"' + r"\ud83d" * 1000 + '"}', *["PING"] * 20)
    assert peer.hears().count("PONG") == 1 + 20 - 13


def test_a_publish_costs_the_same_whoever_reads_it(hall: FakeServer, publisher: Voice) -> None:
    for _ in range(500):
        hall.line_peer().says("SUB a")
    publisher.peer.limit(commands_per_second=1, commands_burst=20)
    publisher.asks("publish", channel="a", data="x")
    assert left(publisher, 20) == 20 - 1


def test_a_token_costs_three_commands_of_the_address(hall: FakeServer, publisher: Voice) -> None:
    """And more if it is long."""
    hall.context.change_policy(FakePolicy({">": "rw"}))
    publisher.peer.limit(commands_per_second=1, commands_burst=40)
    for token in ("wrong", "x" * 2048):
        assert publisher.asks("auth", token=token)["code"] == "unauthorized"
    assert left(publisher, 40) == 40 - 3 - 5


def test_rights_that_change_cost_by_the_channels_and_patterns_that_are_looked_up(
    hall: FakeServer, publisher: Voice
) -> None:
    """That is charged to the identity that was proved."""
    hall.context.change_policy(FakePolicy({">": "rw"}, {"A": ("ann", {f"c{n}*": "r" for n in range(100)}, None)}))
    for number in range(40):
        publisher.asks("subscribe", channel=f"c{number}")
    publisher.peer.limit(commands_per_second=1, commands_burst=40)
    publisher.asks("auth", token="A")
    publisher.hears()
    assert publisher.peer.session.peer.principal == b"=ann"
    assert left(publisher, 40) == 40 - 20
