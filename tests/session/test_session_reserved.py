"""Tests of the rights on the server's own channels: reading requires a right, and no client can publish."""

import pytest

from twistedsock.auth.identity import Right, check_access
from twistedsock.session.encoder import Endpoints
from twistedsock.testing import FakePolicy, FakeServer, LineClient

TOKENS = {
    "ROOT": ("root", {}, None),
    "ALL": ("ann", {">": "rw"}, None),
    "SOME": ("bob", {"$sys/figures": "rw"}, None),
}


def answers(peer: LineClient, *said: str) -> list[str]:
    peer.received()
    peer.send(*said)
    peer.server.turn()
    return [" ".join(line.split(" ")[:2]) for line in peer.received()]


def test_clients_on_this_machine_can_read_without_a_policy() -> None:
    peer = FakeServer().line_client()
    assert answers(peer, "SUB $sys/figures", "WHO $sys/figures", "HIST $sys/figures") == [
        "OK $sys/figures",
        "MEMBER $sys/figures",
        "OK 1",
        "OK 0",
    ]


def test_remote_clients_cannot_read_without_a_policy() -> None:
    peer = FakeServer().line_client()
    peer.session.endpoints = Endpoints(b"192.0.2.7:5000", b"192.0.2.1:8081")
    assert answers(peer, "SUB $sys/figures", "HIST $sys/figures", "WHO $sys/figures", "SUB a") == [
        "ERR forbidden",
        "ERR forbidden",
        "ERR forbidden",
        "OK a",
    ]


@pytest.mark.parametrize(
    "token, figures, peers",
    [("", "ERR unauthorized", "ERR unauthorized"), ("AUTH ROOT", "OK", "OK")]
    + [("AUTH ALL", "ERR forbidden", "ERR forbidden"), ("AUTH SOME", "OK", "ERR forbidden")],
)
def test_policy_requires_an_administrator_or_an_explicit_right(token: str, figures: str, peers: str) -> None:
    peer = FakeServer(policy=FakePolicy({">": "rw"}, TOKENS, admins=["root"])).line_client()
    answers(peer, *[token] if token else [])
    assert answers(peer, "SUB $sys/figures")[0].startswith(figures)
    assert answers(peer, "SUB $sys/peers/newest/0")[0].startswith(peers)


@pytest.mark.parametrize("policy", [None, FakePolicy({">": "rw"}, TOKENS, admins=["root"])])
@pytest.mark.parametrize("token", ["AUTH ROOT", "AUTH ALL", "AUTH SOME"])
def test_rejects_all_publishes(policy: FakePolicy | None, token: str) -> None:
    peer = FakeServer(policy=policy).line_client()
    answers(peer, token)
    assert answers(peer, "PUB $sys/figures 1", "EMIT $sys/x y 1") == ["ERR forbidden"] * 2
    assert not peer.server.broker.channels


def test_checks_reserved_channels_without_a_policy() -> None:
    assert check_access(None, b"a", Right.BOTH, False) is None
    assert check_access(None, b"$sys/a", Right.WRITE, True) is not None
    assert check_access(None, b"$sys/a", Right.READ, True) is None


def test_counts_reserved_channels_separately(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB $sys/figures", "SUB $sys/closed", "SUB kitchen")
    assert (len(server.broker.channels), server.broker.own_channels) == (3, 2)
    peer.send("UNSUB $sys/figures", "UNSUB kitchen")
    assert (len(server.broker.channels), server.broker.own_channels) == (1, 1)
