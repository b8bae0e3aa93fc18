"""What work costs of a client's rate, and that a session charges it."""

import pytest

from twistedsock.limits.rate import (
    RateLimiter,
    answer_price,
    member_price,
    rename_price,
    rights_price,
    search_price,
    token_price,
)
from twistedsock.session.request import RequestClient
from twistedsock.testing import FakePolicy, FakeServer, LineClient

BURST = 100


def limited(server: FakeServer) -> LineClient:
    """A remote client, with its whole burst."""
    peer = server.line_client()
    peer.limit(commands_per_second=1, commands_burst=BURST)
    return peer


def owes(peer: LineClient) -> float:
    """The cost that has been charged to the client."""
    meter = peer.session.rate_limiter
    assert isinstance(meter, RateLimiter)
    return meter.recovery(peer.server.now)


def test_cost_of_each_command() -> None:
    assert answer_price(8192) == 2
    assert member_price(1_000) == 10
    assert rename_price(100) == 2
    assert rights_price(100, 4) == 4
    assert token_price(1024) == 3
    assert [search_price(99, 0), search_price(1_000, 0), search_price(1_000, 10)] == [0, 10, 50]


@pytest.mark.parametrize("command", ["HIST a", "SUB a last=100", "SUB a last=1000"])
def test_history_is_charged_by_its_size(command: str) -> None:
    server = FakeServer()
    server.line_client().send(*["PUB a " + "x" * 1_000] * 100)
    server.turn()
    peer = limited(server)
    peer.send(command)
    server.turn()
    assert 25 <= owes(peer) <= 28


def test_does_not_charge_for_missing_events() -> None:
    peer = limited(FakeServer())
    peer.send("SUB a last=5", "HIST b")
    assert owes(peer) == pytest.approx(2, abs=0.1)


def test_member_list_is_charged_by_its_size() -> None:
    server = FakeServer()
    for _ in range(500):
        server.line_client().send("SUB a")
    peer = limited(server)
    peer.send("WHO a")
    assert 2 < owes(peer) < 4


def test_nick_and_token_are_charged_by_subscriptions() -> None:
    policy = FakePolicy({">": "rw"}, {"A": ("ann", {f"x{number}": "r" for number in range(99)}, None)})
    server = FakeServer(policy=policy)
    peer = server.line_client()
    peer.send(*(f"SUB c{number}" for number in range(50)))
    peer.limit(commands_per_second=1, commands_burst=BURST)
    peer.send("NICK cleo")
    assert owes(peer) == 2
    peer.send("AUTH A")
    assert peer.session.client.principal == b"=ann" and owes(peer) == pytest.approx(50 * 103 / 200)


def test_does_not_charge_clients_on_this_machine() -> None:
    peer = FakeServer().line_client()
    peer.send("PUB a x", "HIST a", "WHO a", "NICK ann")
    assert peer.session.rate_limiter is None and not peer.server.context.rate_limiters


def test_waiting_command_is_charged_at_the_time_of_its_run() -> None:
    """Its client is not read meanwhile, so nothing else would fill its meter."""
    server = FakeServer(late=True)
    peer = server.line_client()
    peer.limit(commands_per_second=1, commands_burst=2)
    peer.send("SUB a", "PING", "PING")
    server.now += 10
    server.backplane.release()
    server.turn()
    assert peer.received()[-2:] == ["PONG", "PONG"]


def test_request_caches_the_rights_on_channels() -> None:
    server = FakeServer()
    assert RequestClient(server.context, "", b"127.0.0.1:1").readable() is None
    server.context.policy = FakePolicy({"a": "r", "b": "w"})
    readable = RequestClient(server.context, "", b"127.0.0.1:1").readable()
    assert readable is not None and readable.select([b"a", b"b", b"c"]) == [b"a"]
