"""Endpoints for administrators: connected clients and metrics."""

import gzip
from collections.abc import Callable

import pytest

from tests.fakes import FakeReactor
from tests.server.http.clients import APIClient, FakeSite, MakeAPI, Response
from twistedsock.errors import CloseReason
from twistedsock.pubsub.values import DisconnectClient
from twistedsock.testing import FakePolicy, FakeServer


@pytest.fixture
def api(make_api: MakeAPI) -> APIClient:
    return make_api()


def test_lists_clients_by_id_in_pages(api: APIClient) -> None:
    for nick in ("ann", "bob", "cleo"):
        api.server.line_client().send(f"NICK {nick}")
    first = api("GET", "/peers?limit=2").json
    assert ([client["nick"] for client in first["peers"]], first["total"], first["next"]) == (["ann", "bob"], 3, "p2")
    rest = api("GET", "/peers?after=p2").json
    assert [client["id"] for client in rest["peers"]] == ["p3"] and rest["next"] is None
    assert api("GET", "/peers?page=2").error == (400, "bad-argument")
    assert api("HEAD", "/peers").status == 200


def test_shows_one_client(api: APIClient) -> None:
    client = api.server.line_client()
    client.send("SUB kitchen")
    info = api("GET", "/peers/p1").json
    assert (info["id"], info["dialect"], info["from"], info["state"]) == ("p1", "line", "127.0.0.1:50000", "open")
    assert api("GET", "/peers/p1?x=1").error == (400, "bad-argument")


@pytest.mark.parametrize("id", ["p9", "", "%ff", "p1/x"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_unknown_id_is_404(api: APIClient, id: str, method: str) -> None:
    api.server.line_client()
    assert api(method, f"/peers/{id}").error == (404, "bad-argument")


@pytest.mark.parametrize("query, words", [("", ""), ("?reason=too%20loud%C3%A9", ": too loudé")])
def test_disconnected_client_receives_the_reason(api: APIClient, query: str, words: str) -> None:
    client = api.server.line_client()
    client.received()
    response = api("DELETE", "/peers/p1" + query)
    assert (response.status, response.body) == (204, b"")
    assert client.received() == [f"NOTICE disconnected by an administrator{words}", "BYE"]
    assert client.close_reason is CloseReason.POLICY
    client.disconnect()
    assert api("DELETE", "/peers/p1").status == 404


def test_client_of_another_node_is_disconnected_by_that_node(make_api: MakeAPI) -> None:
    api = make_api(late=True, node_name=b"n1")
    server = api.server
    response = api("DELETE", "/peers/n2-abc?reason=bye")
    (command,) = server.backplane.sent
    assert response.status == 202
    assert command == DisconnectClient(b"n2-abc", b"disconnected by an administrator: bye", b"disconnected")
    client = server.line_client()
    assert client.received()[0].split(" ")[2] == "id=n1-p1"
    server.backplane.run_command(DisconnectClient(b"n1-p1", b"bye", b"disconnected"))
    server.backplane.run_command(DisconnectClient(b"n1-p9", b"bye", b"disconnected"))
    assert client.received() == ["NOTICE bye", "BYE"] and client.close_reason is CloseReason.POLICY


@pytest.mark.parametrize("reason", ["", "a%0Ab", "%1b[2J", "%C2%85", "x" * 81, "%E2%80%A8", "%ff"])
def test_rejects_an_invalid_reason(api: APIClient, reason: str) -> None:
    client = api.server.line_client()
    assert api("DELETE", f"/peers/p1?reason={reason}").error == (400, "bad-argument")
    assert client.close_reason is None


@pytest.mark.parametrize("method, path", [("GET", "/peers"), ("GET", "/peers/p1"), ("DELETE", "/peers/p1")])
class TestAdministrators:
    def test_local_clients_are_administrators_without_a_policy(self, api: APIClient, method: str, path: str) -> None:
        api.server.line_client()
        api.connect("192.0.2.7")
        assert api(method, path).error == (403, "forbidden")
        api.connect()
        assert api(method, path).status in (200, 204)

    def test_policy_decides_who_is_an_administrator(self, make_api: MakeAPI, method: str, path: str) -> None:
        tokens = {"A": ("ann", {}, None), "ROOT": ("root", {}, None)}
        api = make_api(policy=FakePolicy({"lobby": "rw"}, tokens, admins=["root"]))
        api.server.line_client()
        assert api(method, path).error == (401, "unauthorized")
        assert api(method, path + "?token=A").error == (403, "forbidden")
        assert api(method, path + "?token=ROOT").status in (200, 204)


# Metrics.


Scrape = Callable[..., Response]


@pytest.fixture
def scrape(server: FakeServer, reactor: FakeReactor) -> Scrape:
    """Request the metrics on a new connection: ``scrape(method="GET", there="127.0.0.1", **headers)``."""
    site = FakeSite(reactor, server=server)

    def scrape(method: str = "GET", there: str = "127.0.0.1", **headers: str) -> Response:
        return site(there=there).request("/metrics", method, **headers)

    return scrape


def test_local_clients_can_read_metrics_without_a_policy(scrape: Scrape) -> None:
    response = scrape()
    assert response.status == 200
    assert response.headers.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nsockbridge_channels 0.0\n" in response.body
    assert response.headers.get("content-length") == str(len(response.body))
    assert response.headers.get("cache-control") == "no-store"
    assert "Vary: Accept, Accept-Encoding" in response.lines


def test_remote_clients_cannot_read_metrics_without_a_policy(scrape: Scrape) -> None:
    response = scrape(there="192.0.2.7")
    assert response.status == 403
    assert b'"forbidden"' in response.body and b"sockbridge_" not in response.body


@pytest.fixture
def policy(server: FakeServer) -> None:
    server.context.policy = FakePolicy({}, {"of-ann": ("ann", {}, None), "of-bob": ("bob", {}, None)}, admins=["ann"])


@pytest.mark.parametrize("there", ["127.0.0.1", "192.0.2.7"])
def test_metrics_require_a_token_of_an_administrator(scrape: Scrape, policy: None, there: str) -> None:
    assert scrape(there=there, Authorization="Bearer of-ann").status == 200
    other = scrape(there=there, Authorization="Bearer of-bob")
    assert (other.status, b'"forbidden"' in other.body) == (403, True)
    anonymous = scrape(there=there)
    assert (anonymous.status, anonymous.headers.get("www-authenticate")) == (401, "Bearer")
    wrong = scrape(there=there, Authorization="Bearer of-eve")
    assert (wrong.status, wrong.headers.get("www-authenticate")) == (401, 'Bearer error="invalid_token"')
    assert all(b"sockbridge_" not in response.body for response in (other, anonymous, wrong))


def test_compresses_metrics_on_request(scrape: Scrape) -> None:
    response = scrape(Accept_Encoding="gzip;q=0.8, br")
    assert response.headers.get("content-encoding") == "gzip"
    assert b"\nsockbridge_channels 0.0\n" in gzip.decompress(response.body)
    assert len(response.body) < 5000
    assert scrape(Accept_Encoding="gzip;q=0").headers.get("content-encoding") is None


def test_renders_openmetrics_on_request(scrape: Scrape) -> None:
    response = scrape(Accept="application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5")
    assert response.headers.get("content-type").startswith("application/openmetrics-text; version=1.0.0")
    assert response.body.endswith(b"# EOF\n")


def test_head_of_metrics_has_no_body(scrape: Scrape) -> None:
    response = scrape("HEAD")
    assert (response.status, response.body) == (200, b"")
    assert int(response.headers.get("content-length")) > 1000


def test_metrics_are_available_during_shutdown(scrape: Scrape, server: FakeServer) -> None:
    server.context.draining = True
    assert scrape().status == 200


def test_counts_successful_and_rejected_requests(scrape: Scrape, server: FakeServer) -> None:
    scrape()
    scrape("HEAD")
    scrape("BREW")
    scrape(there="192.0.2.7")
    stats = server.context.stats
    assert stats.requests == {(b"GET", 200): 1, (b"HEAD", 200): 1, (b"other", 405): 1, (b"GET", 403): 1}
    assert {code.decode(): count for code, count in stats.errors.items()} == {"unknown-command": 1, "forbidden": 1}
