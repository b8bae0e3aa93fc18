"""Checks of requests: origins, hosts, tokens, rates, proxies, and the health endpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from twisted.internet.address import IPv4Address

from tests.authority import Authority
from tests.fakes import FakeReactor, Logged
from tests.server.clients import HOST, request_bytes
from tests.server.http.clients import FakeSite
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.errors import TOO_FAST
from twistedsock.limits.principal import LOCAL
from twistedsock.server.http.routing import Route
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakePolicy, FakeServer

OWN = "http://" + HOST
FRIEND = "https://app.example"
FOREIGN = ["https://evil.example", "null", "http://127.0.0.1:8083", "http://127.0.0.1.evil.example:8082", ""]
STRANGER, PROXY = "198.51.100.9", "10.0.0.1"
POLICY = FakePolicy({"lobby": "r"}, {"good": ("ann", {"kitchen": "rw"}, None)})


class Recorder:
    """A handler that records the requests it receives."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def __call__(self, request: Any) -> None:
        self.requests.append((request.identity, request.endpoints.client, request.captured))
        request.respond_json(200, b"{}")


class RecordingSite(FakeSite):
    seen: Recorder


Build = Callable[..., RecordingSite]


@pytest.fixture
def build(reactor: FakeReactor) -> Build:
    """Build a site with more routes: ``/who`` authenticates, ``/open`` does not."""

    def make(
        policy: FakePolicy | None = None, origins: AllowedOrigins | None = None, listener: Any = None, **limits: Any
    ) -> RecordingSite:
        seen = Recorder()
        routes = [
            Route("GET", "/who", seen),
            Route("POST", "/who", seen),
            Route("POST", "/things/{thing}/parts", seen),
            Route("GET", "/open", seen, authenticates=False),
        ]
        server = FakeServer(policy=policy, **limits)
        site = RecordingSite(reactor, routes, origins, listener or ListenerConfig("tcp:8082"), server)
        site.seen = seen
        return site

    return make


@pytest.fixture
def site(build: Build) -> RecordingSite:
    return build()


# Origins.


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize(("path", "method"), [("/who", "GET"), ("/who", "POST"), ("/healthz", "GET"), ("/none", "GET")])
def test_rejects_requests_of_other_origins(site: RecordingSite, origin: str, path: str, method: str) -> None:
    response = site().request(path, method, Origin=origin)
    assert response.error == (403, "forbidden")
    assert "access-control-allow-origin" not in response.headers
    assert site.seen.requests == []


@pytest.mark.parametrize("origin", [*FOREIGN, OWN, FRIEND])
def test_pages_of_every_origin_can_ask_whether_their_origin_is_allowed(build: Build, origin: str) -> None:
    """The answer says nothing else, and does not contain the origin, which is text of the client."""
    site = build(origins=AllowedOrigins((FRIEND,)))
    fetched = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}
    response = site().request("/origin", Origin=origin, **fetched)
    assert response.json == {"allowed": origin in (OWN, FRIEND)}
    assert [line for line in response.lines if line.startswith("Access-Control")] == ["Access-Control-Allow-Origin: *"]
    assert (response.headers["vary"], response.headers["cache-control"]) == ("Origin", "no-store")
    assert response.headers["content-type"] == "application/json"


def test_origin_of_programs_is_allowed(site: RecordingSite) -> None:
    assert site().request("/origin").json == {"allowed": True}


def test_checks_requests_for_the_origin_like_others(build: Build) -> None:
    site = build()
    assert site().request("/origin", Origin=FRIEND, Host="evil.example").error == (421, "forbidden")
    assert site().request("/origin?origin=x", Origin=FRIEND).error == (400, "bad-argument")
    assert site().request("/origin", "POST", Origin=FRIEND).error == (405, "unknown-command")
    assert site().request("/origin", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").error == (403, "forbidden")
    remote = build(commands_per_second=1, commands_burst=3)(here="10.0.0.1", there=STRANGER)
    statuses = [remote.request("/origin", Origin="https://evil.example").status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_does_not_log_origins_that_ask(site: RecordingSite, logged: Logged) -> None:
    site().request("/origin", Origin="https://evil.example")
    assert logged == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_rejects_a_cross_site_form_post(site: RecordingSite, kind: str) -> None:
    """Browsers send these without a preflight request ("simple requests")."""
    page = site.server.json_client()
    page.send({"type": "subscribe", "id": 1, "channel": "kitchen"})
    assert page.received()[-1]["type"] == "ok"
    response = site().request(
        "/channels/kitchen/events", "POST", b"hello", Origin="https://evil.example", Content_Type=kind
    )
    assert response.status == 403
    site.server.turn()
    assert page.received() == []


def test_rejects_dns_rebinding_without_credentials(build: Build) -> None:
    """Such a page sends no origin, because the server has the host name of the page."""
    site = build(policy=POLICY)
    client = site(here="10.0.0.1")
    for path in ("/who", "/channels/lobby/events", "/channels", "/stream", "/events?channel=lobby&wait=9"):
        response = client.request(path, Host="evil.example:8082")
        assert response.error == (421, "forbidden"), path
    assert site.seen.requests == []
    for host, token in (("10.0.0.1:8082", ""), ("evil.example:8082", "Bearer good")):
        shown = {"Authorization": token} if token else {}
        assert client.request("/who", Host=host, **shown).status == 200
    assert client.request("/open", Host="evil.example:8082").status == 200


@pytest.mark.parametrize("from_site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest"),
    [("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("navigate", "document"), ("", "")],
)
def test_rejects_embedding_by_other_sites_except_for_files(
    site: RecordingSite, from_site: str, mode: str, dest: str
) -> None:
    """The request has no origin but the cookie of the user, and could open a stream with a nick."""
    page = site.server.json_client()
    page.send({"type": "subscribe", "channel": "kitchen", "presence": True})
    page.received()
    fetched = {
        "Sec_Fetch_Site": from_site,
        "Sec_Fetch_Mode": mode,
        "Sec_Fetch_Dest": dest,
        "Accept": "text/event-stream",
    }
    for path in ("/events?channel=kitchen&nick=evil", "/stream", "/channels/kitchen/events?wait=9", "/who", "/none"):
        response = site().request(path, **fetched)
        assert response.error == (403, "forbidden")
    site.server.turn()
    assert page.received() == [] and site.seen.requests == []
    assert site().request("/sockbridge.js", **fetched).status == 200


@pytest.mark.parametrize(
    "fetched",
    [
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty", "Origin": FRIEND},
    ],
)
def test_accepts_requests_of_the_user_and_of_allowed_pages(build: Build, fetched: dict[str, str]) -> None:
    assert build(origins=AllowedOrigins((FRIEND,)))().request("/who", **fetched).status == 200


HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "navigation",
    [
        # A link in a mail, or a typed address.
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Accept": HTML},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe", "Accept": HTML},
        # Over plain HTTP from another machine, browsers do not send Fetch Metadata.
        {"Accept": HTML},
    ],
)
@pytest.mark.parametrize("path", ["/events?channel=kitchen&nick=fool", "/stream"])
def test_rejects_navigation_to_a_stream(site: RecordingSite, navigation: dict[str, str], path: str) -> None:
    member = site.server.json_client()
    member.send({"type": "subscribe", "channel": "kitchen", "presence": True})
    member.received()
    response = site().request(path, **navigation)
    assert response.error == (403, "forbidden")
    site.server.turn()
    assert member.received() == []
    assert len(site.server.context.sessions) == 1


def test_logs_a_refused_origin_once(site: RecordingSite, logged: Logged) -> None:
    for _ in range(3):
        site().request("/who", Origin="https://evil.example")
    (event,) = logged
    assert event["shown"] == "'https://evil.example'" and "--allow-origin" in event["log_format"]


@pytest.mark.parametrize("origin", [OWN, FRIEND])
def test_allowed_page_can_read_responses(build: Build, origin: str) -> None:
    site = build(origins=AllowedOrigins((FRIEND,)))
    for path in ("/who", "/none"):
        response = site().request(path, Origin=origin)
        assert response.headers["access-control-allow-origin"] == origin
        exposed = "Allow, ETag, Idempotency-Replayed, Retry-After, WWW-Authenticate"
        assert response.headers["access-control-expose-headers"] == exposed
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", [OWN, FRIEND])
@pytest.mark.parametrize("path", ["/openapi.json", "/", "/page.js"])
def test_allowed_page_can_read_files(build: Build, path: str, origin: str) -> None:
    response = build(origins=AllowedOrigins((FRIEND,)))().request(path, Origin=origin)
    assert (response.status, response.headers["access-control-allow-origin"]) == (200, origin)
    assert "ETag" in response.headers["access-control-expose-headers"] and "Origin" in response.headers["vary"]


def test_other_page_cannot_read_files(site: RecordingSite, logged: Logged) -> None:
    response = site().request("/openapi.json", Origin="https://evil.example")
    assert response.status == 200 and "access-control-allow-origin" not in response.headers
    assert logged == []


@pytest.mark.parametrize("origin", [OWN, "https://evil.example"])
def test_javascript_client_is_for_all_origins(site: RecordingSite, origin: str) -> None:
    response = site().request("/sockbridge.js", Origin=origin)
    allowed = [line for line in response.lines if line.startswith("Access-Control-Allow-Origin")]
    assert response.status == 200 and allowed == ["Access-Control-Allow-Origin: *"]


def test_allowed_page_can_read_retry_after(build: Build) -> None:
    site = build(origins=AllowedOrigins((FRIEND,)), commands_per_second=1, commands_burst=1)
    client = site(there=STRANGER)
    responses = [client.request("/who", Origin=FRIEND) for _ in range(3)]
    assert responses[-1].status == 429 and int(responses[-1].headers["retry-after"]) > 0
    assert responses[-1].headers["access-control-allow-origin"] == FRIEND
    assert "Retry-After" in responses[-1].headers["access-control-expose-headers"]


def test_response_without_origin_varies_by_origin(site: RecordingSite) -> None:
    response = site().request("/who")
    assert "access-control-allow-origin" not in response.headers and response.headers["vary"] == "Origin"


def preflight(site: RecordingSite, path: str = "/who", origin: str = FRIEND, method: str = "POST") -> Any:
    return site().request(path, "OPTIONS", Origin=origin, Access_Control_Request_Method=method)


def test_answers_a_preflight_request(build: Build) -> None:
    site = build(origins=AllowedOrigins((FRIEND,)))
    response = preflight(site)
    assert (response.status, response.body) == (204, b"")
    assert response.headers["access-control-allow-origin"] == FRIEND
    assert response.headers["access-control-allow-methods"] == "GET, HEAD, POST"
    allowed = (
        "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Sockbridge-Stream"
    )
    assert response.headers["access-control-allow-headers"] == allowed
    assert response.headers["access-control-max-age"] == "600"
    assert response.headers["vary"] == "Origin"
    assert "content-length" not in response.headers
    assert site.seen.requests == []


def test_rejects_a_preflight_request_of_another_origin(site: RecordingSite) -> None:
    response = preflight(site)
    assert response.status == 403 and "access-control-allow-methods" not in response.headers


def test_preflight_request_for_an_unknown_path_is_404(build: Build) -> None:
    assert preflight(build(origins=AllowedOrigins((FRIEND,))), "/none").status == 404


def test_options_lists_the_methods(site: RecordingSite) -> None:
    response = site().request("/who", "OPTIONS", Origin=OWN)
    assert (response.status, response.headers["allow"]) == (204, "GET, HEAD, POST")
    assert "access-control-allow-methods" not in response.headers


def test_preflight_request_allows_conditional_requests_for_files(build: Build) -> None:
    response = preflight(build(origins=AllowedOrigins((FRIEND,))), "/openapi.json", method="GET")
    assert (response.status, response.headers["access-control-allow-methods"]) == (204, "GET, HEAD")
    assert "If-None-Match" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize("path", ["/who", "/", "/none"])
def test_rejects_an_unknown_host(site: RecordingSite, path: str) -> None:
    client = site()
    assert client.request("/who").status == 200
    response = client.request(path, Host="evil.example", Origin="http://evil.example")
    assert response.error == (421, "forbidden")


# Authentication.


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/who?token=good", {}),
        ("/who", {"Authorization": "Bearer good"}),
        ("/who", {"Cookie": "other=x; bridge-token=good"}),
    ],
)
def test_authenticates_by_token(build: Build, path: str, headers: dict[str, str]) -> None:
    site = build(POLICY)
    assert site().request(path, **headers).status == 200
    ((identity, _, _),) = site.seen.requests
    assert identity.subject == b"ann"


@pytest.mark.parametrize("path", ["/who?token=bad", "/who"])
def test_rejects_an_invalid_token(build: Build, path: str) -> None:
    site = build(POLICY)
    response = site().request(path, **({} if "?" in path else {"Authorization": "Bearer bad"}))
    assert response.error == (401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert "bad" not in response.problem["detail"]
    assert site.seen.requests == []


def test_authenticates_each_request(build: Build) -> None:
    site = build(POLICY)
    client = site()
    client.request("/who", Authorization="Bearer good")
    client.request("/who")
    assert [identity and identity.subject for identity, _, _ in site.seen.requests] == [b"ann", None]


@pytest.mark.parametrize("policy", [POLICY, None])
@pytest.mark.parametrize("path", ["/open?token=bad", "/?token=bad", "/healthz?token=bad"])
def test_ignores_tokens_on_routes_without_authentication(build: Build, policy: FakePolicy | None, path: str) -> None:
    assert build(policy)().request(path).status == 200


def test_ignores_tokens_without_a_policy(build: Build) -> None:
    site = build()
    assert site().request("/who?token=bad").status == 200
    assert site.seen.requests[0][0] is None


@pytest.mark.parametrize("change", ["gone", "expired", "later expired"])
def test_rechecks_the_token_after_the_body(build: Build, change: str) -> None:
    expires = None if change == "gone" else 1_800_000_010.0
    tokens = {"good": ("ann", {"kitchen": "rw"}, expires)}
    policy = FakePolicy({}, tokens)
    site = build(policy)
    client = site()
    client.send_bytes(request_bytes("/who?token=good", "POST", Content_Length="2"))
    if change != "expired":
        site.server.context.change_policy(FakePolicy({}, {} if change == "gone" else tokens))
    if change != "gone":
        site.server.wall += 10
    (response,) = client.send_bytes(b"{}")
    assert response.error == (401, "unauthorized")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert site.seen.requests == []


def test_uses_the_grants_at_the_end_of_the_body(build: Build) -> None:
    site = build(POLICY)
    client = site()
    client.send_bytes(request_bytes("/who?token=good", "POST", Content_Length="2"))
    site.server.context.change_policy(FakePolicy({}, {"good": ("ann", {"hall": "rw"}, None)}))
    (response,) = client.send_bytes(b"{}")
    ((identity, _, _),) = site.seen.requests
    assert response.status == 200 and not identity.grants.on(b"kitchen") and identity.grants.on(b"hall")


def test_authenticates_by_client_certificate(build: Build, tmp_path: Path) -> None:
    site = build(POLICY, listener=ListenerConfig("ssl:8082"))
    Authority(tmp_path).issue("meter", "meter")
    client = site()
    certificate = load_certificate(FILETYPE_PEM, (tmp_path / "meter.pem").read_bytes())
    client.transport.getPeerCertificate = lambda: certificate
    client.request("/who")
    assert site.seen.requests[0][0].subject == b"meter"


def test_decodes_the_variable_segment_of_a_path(site: RecordingSite) -> None:
    for path in ("/things/a%20b/parts", "/things/x/y%2Fz/parts", "/things/parts/parts", "/things//parts"):
        assert site().request(path, "POST").status == 200
    assert [captured for _, _, captured in site.seen.requests] == [b"a b", b"x/y/z", b"parts", b""]
    for path in ("/things/parts", "/things/a/parts/", "/things/a", "/things"):
        assert site().request(path, "POST").status == 404


def test_unknown_path_and_method_say_how_to_publish(site: RecordingSite) -> None:
    for path, method in (("/kitchen?token=secret", "GET"), ("/channels/kitchen/events", "PUT")):
        response = site().request(path, method)
        assert response.headers["content-type"] == "application/problem+json"
        assert b"publish with POST /channels/kitchen/events" in response.body and b"secret" not in response.body


def test_rejects_other_methods_with_allow(site: RecordingSite) -> None:
    response = site().request("/things/a/parts", "GET")
    assert (response.status, response.code, response.headers["allow"]) == (405, "unknown-command", "POST")


# Rates.


def test_each_request_of_a_remote_client_counts_as_a_command(build: Build) -> None:
    site = build(commands_per_second=1, commands_burst=3)
    statuses = [site(there=STRANGER).request("/open").status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    response = site(there=STRANGER).request("/open")
    assert response.code == "rate" and response.headers["retry-after"] == "1"
    site.server.now += 2
    assert site(there=STRANGER).request("/open").status == 200
    assert site(there="198.51.100.10").request("/open").status == 200, "another address"


def test_closes_a_client_that_exceeds_the_rate_repeatedly(build: Build) -> None:
    site = build(commands_per_second=1, commands_burst=3)
    client = site(there=STRANGER)
    responses = client.send_bytes(request_bytes("/open") * 20)
    assert [response.status for response in responses] == [200] * 3 + [429] * 4
    assert client.is_closing and responses[-1].headers["connection"] == "close"
    (response,) = site(there=STRANGER).send_bytes(request_bytes("/open"))
    assert response.headers["connection"] == "close"


def test_errors_count_as_commands(build: Build) -> None:
    site = build(commands_per_second=1, commands_burst=3)
    statuses = [site(there=STRANGER).request(path).status for path in ("/none", "/none", "/none", "/none", "/")]
    assert statuses == [404, 404, 404, 429, 429]


def test_counts_the_bytes_of_remote_clients(build: Build) -> None:
    site = build(bytes_per_second=100, bytes_burst=10_000)
    client = site(there=STRANGER)
    assert client.request("/who", "POST", b"x" * 20_000).status == 200
    response = client.request("/who", "POST", b"x" * 20_000)
    assert response.status == 429 and int(response.headers["retry-after"]) >= 100
    client.protocol.dataReceived(request_bytes("/who", "POST", b"x" * 20_000))
    assert client.transport.output().startswith(b"HTTP/1.1 429 ")
    assert client.is_closing


def test_closes_a_client_that_exceeds_the_byte_rate_in_a_body(build: Build) -> None:
    site = build(bytes_per_second=100, bytes_burst=10_000)
    client = site(there=STRANGER)
    client.protocol.dataReceived(request_bytes("/who", "POST", Content_Length="60000"))
    for _ in range(4):
        client.protocol.dataReceived(b"x" * 11_000)
    (response,) = client.responses()
    assert response.error == (429, "rate")
    assert client.is_closing


# Proxies.

BEHIND = ListenerConfig("tcp:8082", False, parse_trusted(["10.0.0.0/8"]))


def test_trusted_proxy_reports_the_client_of_each_request(build: Build) -> None:
    site = build(listener=BEHIND)
    client = site(there=PROXY, is_trusted_proxy=True)
    client.request("/who")
    assert not client.is_closing
    response = client.request("/who", X_Forwarded_For="192.0.2.66, 203.0.113.7")
    assert response.headers["connection"] == "close" and client.is_closing
    assert [client for _, client, _ in site.seen.requests] == [b"10.0.0.1:50000", b"203.0.113.7:0"]


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1", "127.0.0.1, 127.0.0.1"])
def test_loopback_address_behind_a_remote_proxy_is_not_local(build: Build, loopback: str) -> None:
    site = build(listener=BEHIND, commands_per_second=1, commands_burst=1)
    client = site(there=PROXY, is_trusted_proxy=True)
    client.request("/who")
    assert client.request("/who", X_Forwarded_For=loopback).status == 429
    another = site(there=PROXY, is_trusted_proxy=True)
    assert another.request("/peers", X_Forwarded_For=loopback).status == 429
    assert another.protocol.principal != LOCAL
    assert [client for _, client, _ in site.seen.requests] == [b"10.0.0.1:50000"]


def test_limits_the_rate_of_the_reported_address(build: Build) -> None:
    site = build(listener=BEHIND, commands_per_second=1, commands_burst=1)
    statuses = []
    for client in ("203.0.113.7", "203.0.113.7", "203.0.113.8"):
        statuses.append(site(there=PROXY, is_trusted_proxy=True).request("/who", X_Forwarded_For=client).status)
    assert statuses == [200, 429, 200]


def test_rejects_an_invalid_forwarded_address(build: Build) -> None:
    client = build(listener=BEHIND)(there=PROXY, is_trusted_proxy=True)
    response = client.request("/who", X_Forwarded_For="unknown")
    assert response.error == (400, "bad-argument") and client.is_closing


def test_ignores_forwarded_addresses_of_untrusted_clients(build: Build) -> None:
    site = build(listener=BEHIND)
    site(there=STRANGER).request("/who", X_Forwarded_For="203.0.113.7")
    assert site.seen.requests[0][1] == b"198.51.100.9:50000"


def test_keeps_the_address_reported_with_the_first_request(build: Build) -> None:
    site = build(listener=BEHIND)
    client = site()
    client.protocol.set_client_address(IPv4Address("TCP", "203.0.113.7", 0))
    client.request("/who", X_Forwarded_For="203.0.113.7")
    assert site.seen.requests[0][1] == b"203.0.113.7:0"


@pytest.mark.parametrize("value", [b"a\r\nb", b"a\n", b"a\rb"])
def test_header_with_a_line_break_is_an_internal_error(site: RecordingSite, logged: Logged, value: bytes) -> None:
    site.site.routes.find(b"/open").methods[b"GET"] = Route(
        "GET", "/open", lambda request: request.respond_error(TOO_FAST, headers={b"X": value})
    )
    client = site()
    client.protocol.dataReceived(request_bytes("/open"))
    assert client.transport.output().startswith(b"HTTP/1.1 500 ")
    (event,) = logged
    assert event["log_failure"].check(ValueError)
    logged.clear()


# Health.


def test_liveness(site: RecordingSite) -> None:
    response = site().request("/healthz")
    assert (response.status, response.body, response.headers["content-type"]) == (
        200,
        b"ok\n",
        "text/plain; charset=utf-8",
    )


def test_readiness_depends_on_shutdown_and_backplane(reactor: FakeReactor) -> None:
    server = FakeServer(late=True)
    site = FakeSite(reactor, server=server)
    response = site().request("/readyz")
    assert (response.status, response.body.strip()) == (200, b'{"ready":true}')
    server.backplane.is_ready = False
    response = site().request("/readyz")
    assert response.error == (503, "unavailable")
    server.backplane.is_ready = True
    server.context.draining = True
    assert site().request("/readyz").status == 503
    assert site().request("/healthz").status == 200


def test_counts_errors_and_bytes(site: RecordingSite) -> None:
    stats = site.server.context.stats
    client = site()
    client.protocol.dataReceived(request_bytes("/none"))
    assert stats.received == len(request_bytes("/none"))
    assert stats.sent == len(client.transport.output())
    assert {code.decode(): times for code, times in stats.errors.items()} == {"unknown-command": 1}
