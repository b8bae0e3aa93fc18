"""Endpoints for administrators: connected clients and metrics."""

import gzip

import pytest

from tests.fakes import FakeReactor
from tests.server.http.clients import APIClient, FakeSite, MakeAPI
from twistedsock.errors import CloseReason
from twistedsock.metrics.sys_channels import Monitor
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


def test_lists_the_connection_log_by_kind_and_number(reactor: FakeReactor) -> None:
    server = FakeServer()
    monitor = Monitor(server.context, lambda: 0, lambda: 0.0)
    monitor.attach()
    site = FakeSite(reactor, server=server, journal=monitor.journal)
    for _ in range(3):
        server.line_client().pipeline.connection_lost("broken")

    def listed(query: str = "") -> tuple[list[int], int, int]:
        page = site().request(f"/log{query}").json
        return [entry["number"] for entry in page["log"]], page["total"], page["newest"]

    assert listed() == ([6, 5, 4, 3, 2, 1], 6, 6)
    assert listed("?kind=end&limit=2") == ([6, 4], 3, 6)
    assert listed("?after=4") == ([6, 5], 2, 6)
    assert listed("?after=6") == ([], 0, 6)
    assert listed("?after=7")[1] == 6, "numbers of a server before this one"
    entry = site().request("/log?limit=1").json["log"][0]
    assert (entry["kind"], entry["id"], entry["how"], entry["from"]) == ("end", "p3", "broken", "127.0.0.1:50000")
    for query in ("?kind=other", "?limit=0", "?after=x", "?page=1"):
        assert site().request(f"/log{query}").error == (400, "bad-argument")


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


@pytest.mark.parametrize(
    "method, path", [("GET", "/peers"), ("GET", "/peers/p1"), ("DELETE", "/peers/p1"), ("GET", "/log")]
)
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


def test_local_clients_can_read_metrics_without_a_policy(api: APIClient) -> None:
    response = api("GET", "/metrics")
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nsockbridge_channels 0.0\n" in response.body
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["cache-control"] == "no-store"
    assert "Vary: Accept, Accept-Encoding" in response.lines


def test_remote_clients_cannot_read_metrics_without_a_policy(api: APIClient) -> None:
    api.connect("192.0.2.7")
    response = api("GET", "/metrics")
    assert response.error == (403, "forbidden") and b"sockbridge_" not in response.body


@pytest.mark.parametrize("there", ["127.0.0.1", "192.0.2.7"])
@pytest.mark.parametrize(
    ("headers", "error", "challenge"),
    [
        ({"Authorization": "Bearer of-bob"}, (403, "forbidden"), None),
        ({}, (401, "unauthorized"), "Bearer"),
        ({"Authorization": "Bearer of-eve"}, (401, "unauthorized"), 'Bearer error="invalid_token"'),
    ],
)
def test_metrics_require_a_token_of_an_administrator(
    make_api: MakeAPI, there: str, headers: dict[str, str], error: tuple[int, str], challenge: str | None
) -> None:
    tokens = {"of-ann": ("ann", {}, None), "of-bob": ("bob", {}, None)}
    api = make_api(policy=FakePolicy({}, tokens, admins=["ann"]))
    api.connect(there)
    assert api("GET", "/metrics", Authorization="Bearer of-ann").status == 200
    response = api("GET", "/metrics", **headers)
    assert (response.error, response.headers.get("www-authenticate")) == (error, challenge)
    assert b"sockbridge_" not in response.body


def test_compresses_metrics_on_request(api: APIClient) -> None:
    response = api("GET", "/metrics", Accept_Encoding="gzip;q=0.8, br")
    assert response.headers["content-encoding"] == "gzip"
    assert b"\nsockbridge_channels 0.0\n" in gzip.decompress(response.body)
    assert len(response.body) < 5000
    assert "content-encoding" not in api("GET", "/metrics", Accept_Encoding="gzip;q=0").headers


def test_renders_openmetrics_on_request(api: APIClient) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
    response = api("GET", "/metrics", Accept=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.body.endswith(b"# EOF\n")


def test_head_of_metrics_has_no_body(api: APIClient) -> None:
    response = api("HEAD", "/metrics")
    assert (response.status, response.body) == (200, b"")
    assert int(response.headers["content-length"]) > 1000


def test_metrics_are_available_during_shutdown(api: APIClient) -> None:
    api.server.context.draining = True
    assert api("GET", "/metrics").status == 200


def test_counts_successful_and_rejected_requests(api: APIClient) -> None:
    for method in ("GET", "HEAD", "BREW"):
        response = api(method, "/metrics")
    assert response.headers["allow"] == "GET, HEAD"
    api.connect("192.0.2.7")
    api("GET", "/metrics")
    stats = api.server.context.stats
    assert stats.requests == {(b"GET", 200): 1, (b"HEAD", 200): 1, (b"other", 405): 1, (b"GET", 403): 1}
    assert {code.decode(): count for code, count in stats.errors.items()} == {"unknown-command": 1, "forbidden": 1}
