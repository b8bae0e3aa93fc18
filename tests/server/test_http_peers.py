"""Peers over HTTP: who is connected, and sending somebody away."""

import pytest

from tests.server.http_client import Asking
from twistedsock.errors import CloseReason
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def ask(reactor, wire):
    return Asking(FakeServer(), reactor, wire)


def test_peers_come_by_id_a_page_at_a_time(ask):
    for nick in ("ann", "bob", "cleo"):
        ask.server.line_client().send(f"NICK {nick}")
    first = ask("GET", "/peers?limit=2").json
    assert ([peer["nick"] for peer in first["peers"]], first["total"], first["next"]) == (["ann", "bob"], 3, "p2")
    rest = ask("GET", "/peers?after=p2").json
    assert [peer["id"] for peer in rest["peers"]] == ["p3"] and rest["next"] is None
    assert ask("GET", "/peers?page=2").code == (400, "bad-argument")
    assert ask("HEAD", "/peers").status == 200


def test_one_peer_is_told_of(ask):
    peer = ask.server.line_client()
    peer.send("SUB kitchen")
    told = ask("GET", "/peers/p1").json
    assert (told["id"], told["dialect"], told["from"], told["state"]) == ("p1", "line", "127.0.0.1:50000", "open")
    assert ask("GET", "/peers/p1?x=1").code == (400, "bad-argument")


@pytest.mark.parametrize("id", ["p9", "", "%ff", "p1/x"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_who_is_not_there_is_not_found(ask, id, method):
    ask.server.line_client()
    assert ask(method, f"/peers/{id}").code == (404, "bad-argument")


@pytest.mark.parametrize("query, words", [("", ""), ("?reason=too%20loud%C3%A9", ": too loudé")])
def test_a_peer_is_told_why_it_is_sent_away(ask, query, words):
    peer = ask.server.line_client()
    peer.received()
    answer = ask("DELETE", "/peers/p1" + query)
    assert (answer.status, answer.body) == (204, b"")
    assert peer.received() == [f"NOTICE disconnected by an administrator{words}", "BYE"]
    assert peer.close_reason is CloseReason.POLICY
    peer.disconnect()
    assert ask("DELETE", "/peers/p1").status == 404


@pytest.mark.parametrize("reason", ["", "a%0Ab", "%1b[2J", "%C2%85", "x" * 81, "%E2%80%A8", "%ff"])
def test_a_reason_is_one_short_line(ask, reason):
    peer = ask.server.line_client()
    assert ask("DELETE", f"/peers/p1?reason={reason}").code == (400, "bad-argument")
    assert peer.close_reason is None


@pytest.mark.parametrize("method, path", [("GET", "/peers"), ("GET", "/peers/p1"), ("DELETE", "/peers/p1")])
class TestAdministrators:
    def test_without_a_policy_they_are_on_this_machine(self, ask, method, path):
        ask.server.line_client()
        ask.connect("192.0.2.7")
        assert ask(method, path).code == (403, "forbidden")
        ask.connect()
        assert ask(method, path).status in (200, 204)

    def test_with_a_policy_they_have_a_token_that_says_so(self, reactor, wire, method, path):
        tokens = {"A": ("ann", {}, None), "ROOT": ("root", {}, None)}
        ask = Asking(FakeServer(policy=FakePolicy({"lobby": "rw"}, tokens, admins=["root"])), reactor, wire)
        ask.server.line_client()
        assert ask(method, path).code == (401, "unauthorized")
        assert ask(method, path + "?token=A").code == (403, "forbidden")
        assert ask(method, path + "?token=ROOT").status in (200, 204)
