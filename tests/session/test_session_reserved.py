"""Tests of the rights on the server's own channels: no client can publish. The right to read them is tested in
``tests/behaviours/test_monitoring.py``, for every protocol."""

import pytest

from twistedsock.auth.identity import Right, check_access
from twistedsock.errors import FOR_ADMINS
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
    assert check_access(None, b"$sys/a", Right.READ, False) == FOR_ADMINS


def test_counts_reserved_channels_separately(server: FakeServer) -> None:
    peer = server.line_client()
    peer.send("SUB $sys/figures", "SUB $sys/closed", "SUB kitchen")
    assert (len(server.broker.channels), server.broker.channels.own) == (3, 2)
    peer.send("UNSUB $sys/figures", "UNSUB kitchen")
    assert (len(server.broker.channels), server.broker.channels.own) == (1, 1)
