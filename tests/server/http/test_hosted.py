"""Resources of twisted.web under the web port."""

from typing import Any
from unittest.mock import Mock, call

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.fakes import FakeReactor
from tests.server.clients import request_bytes
from tests.server.http.clients import FakeSite, SiteClient, read_response
from twistedsock.limits.rate import ENTRY_PRICE
from twistedsock.server.http.hosted import hosted_routes, own_segments
from twistedsock.server.http.routing import Route
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakeServer


class Echo(Resource):
    """Responds with what it has received."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        request.setHeader(b"x-secure", str(request.isSecure()).encode())
        request.setHeader(b"x-peer", f"{request.getClientAddress().host}->{request.getHost().port}".encode())
        parts = [request.method, request.path, request.getCookie(b"a") or b"", request.content.read()]
        return b"|".join([*parts, repr(sorted(request.args.items())).encode()])


class Later(Resource):
    """Responds when the test says so."""

    request: Any
    failures: list[Failure]

    def render_GET(self, request: Any) -> int:
        self.request, self.failures = request, []
        request.notifyFinish().addErrback(self.failures.append)
        return NOT_DONE_YET


class Failing(Resource):
    def render_GET(self, request: Any) -> bytes:
        raise RuntimeError("a fault")


@pytest.fixture
def resources() -> dict[str, Resource]:
    return {"echo": Echo(), "later": Later(), "failing": Failing()}


@pytest.fixture
def site(autobahn_reactor: FakeReactor, resources: dict[str, Resource]) -> FakeSite:
    return FakeSite(autobahn_reactor, hosted_routes(resources, ()))


@pytest.fixture
def client(site: FakeSite) -> SiteClient:
    return site()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/echo", "/echo/", "/echo/a%2Fb/c"])
def test_resource_receives_the_request(client: SiteClient, method: str, path: str) -> None:
    body = b"" if method == "GET" else b"body"
    response = client.request(f"{path}?a=1&a=2", method, body, Cookie="a=yes")
    assert response.status == 200
    assert response.body == b"|".join([method.encode(), path.encode(), b"yes", body, b"[(b'a', [b'1', b'2'])]"])
    assert response.headers["x-peer"] == "127.0.0.1->8082" and response.headers["x-secure"] == "False"
    assert not client.is_closing


def test_target_in_absolute_form_is_the_path(client: SiteClient) -> None:
    response = client.request("http://127.0.0.1:8082/echo/x?a=1")
    assert response.status == 200
    assert response.body == b"GET|/echo/x|||[(b'a', [b'1'])]"


def test_connection_is_kept_for_the_next_request(client: SiteClient) -> None:
    for path, status in (("/echo", 200), ("/healthz", 200), ("/echo", 200), ("/echoes", 404)):
        assert client.request(path).status == status
    assert client.request("/echo", Connection="close").headers["connection"] == "close"
    assert client.is_closing


def test_head_has_no_body(client: SiteClient) -> None:
    response = client.request("/echo", "HEAD")
    assert (response.status, response.body) == (200, b"") and int(response.headers["content-length"]) > 0


def test_forms_are_parsed(client: SiteClient) -> None:
    form = "application/x-www-form-urlencoded"
    assert client.request("/echo", "POST", b"a=1", Content_Type=form).body.endswith(b"[(b'a', [b'1'])]")
    response = client.request("/echo", "POST", b"x", Content_Type="multipart/form-data; boundary=y")
    assert response.status == 400 and response.json["code"] == "bad-argument"


def test_options_are_answered_by_the_web_port(client: SiteClient) -> None:
    response = client.request("/echo", "OPTIONS")
    assert (response.status, response.headers["allow"]) == (204, "GET, HEAD, POST, PUT, PATCH, DELETE")


@pytest.fixture
def later(client: SiteClient, resources: dict[str, Any]) -> Later:
    """A resource that has received a request of the client."""
    client.send_bytes(request_bytes("/later"))
    resource: Later = resources["later"]
    return resource


def test_resource_can_respond_later_and_in_pieces(client: SiteClient, site: FakeSite, later: Later) -> None:
    assert site.site.running_requests == 1
    later.request.write(b"one\n")
    assert site.site.running_requests == 1
    later.request.write(b"two\n")
    later.request.finish()
    response = read_response(client.transport.output())
    assert (response.status, response.body) == (200, b"one\ntwo\n")
    assert (site.site.running_requests, later.failures, client.is_closing) == (0, [], False)


def test_producer_of_a_resource_is_paused_with_the_connection(client: SiteClient, later: Later) -> None:
    producer = Mock()
    later.request.registerProducer(producer, True)
    client.protocol.pauseProducing()
    client.protocol.resumeProducing()
    later.request.unregisterProducer()
    client.protocol.pauseProducing()
    assert producer.method_calls == [call.pauseProducing(), call.resumeProducing()]


def test_pull_producer_waits_while_the_connection_is_full(client: SiteClient, later: Later) -> None:
    producer = Mock()
    client.protocol.pauseProducing()
    later.request.registerProducer(producer, False)
    assert producer.method_calls == [] and client.transport.output() == b""
    client.disconnect()


@pytest.mark.parametrize("has_begun", [False, True])
def test_resource_learns_that_the_client_has_disconnected(client: SiteClient, later: Later, has_begun: bool) -> None:
    if has_begun:
        later.request.write(b"one")
    client.disconnect()
    (failure,) = later.failures
    assert failure.check(ConnectionDone)


def test_resource_can_close_the_connection(client: SiteClient, later: Later) -> None:
    later.request.loseConnection()
    assert client.is_closing


def test_exception_of_a_resource_is_logged(client: SiteClient, logged: list[dict[str, Any]]) -> None:
    response = client.request("/failing")
    assert response.status == 500 and b"a fault" not in response.body
    assert [event["log_failure"].getErrorMessage() for event in logged] == ["a fault"]
    logged.clear()


def test_requests_pass_the_checks_of_the_web_port(site: FakeSite) -> None:
    client = site()
    assert client.request("/echo", Host="evil.example").status == 421
    assert client.request("/echo", Origin="https://evil.example").status == 403
    assert client.request("/echo", "POST", b"x" * 70_000).status == 413
    assert site().request("/healthz", "PUT", b"x").status == 405
    assert site().request("/echo", "GET", b"x").status == 400


def test_requests_are_charged(autobahn_reactor: FakeReactor) -> None:
    server = FakeServer(commands_per_second=ENTRY_PRICE, commands_burst=ENTRY_PRICE)
    client = FakeSite(autobahn_reactor, hosted_routes({"echo": Echo()}, ()), server=server)(there="192.0.2.1")
    statuses = [client.request("/echo").status for _ in range(2)]
    assert statuses == [200, 429]


def test_request_over_tls_is_secure(autobahn_reactor: FakeReactor) -> None:
    routes = hosted_routes({"echo": Echo()}, ())
    client = FakeSite(autobahn_reactor, routes, listener=ListenerConfig("ssl:8443"))()
    assert client.request("/echo").headers["x-secure"] == "True"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "é", "{x}", "channels", "events", "console", "sockbridge.js"])
def test_name_must_be_a_free_segment(site: FakeSite, name: str) -> None:
    segments = own_segments([Route("GET", "/channels/{channel}/events", print), Route("GET", "/events", print)])
    with pytest.raises(ValueError, match="invalid name of a resource"):
        hosted_routes({name: Echo()}, segments)
