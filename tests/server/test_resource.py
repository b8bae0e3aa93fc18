"""The web port as a resource in a site of another program."""

import json
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from twisted.web.test.requesthelper import DummyRequest
from twisted.web.util import DeferredResource
from twisted.web.vhost import VHostMonsterResource

from tests.fakes import FakeTransport, connect
from tests.fuzz.grammars import frame
from tests.server.clients import TEXT, Connection, request_bytes, upgrade
from tests.server.http.clients import MakeWebPort, Response, read_response
from twistedsock.auth.identity import Policy
from twistedsock.server.resource import WebPortResource
from twistedsock.server.web_endpoints import LINE_PROTOCOL
from twistedsock.testing import FakePolicy, FakeServer, read_frames


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"hello"


Mount = Callable[..., Site]


@pytest.fixture
def mount(make_web: MakeWebPort, server: FakeServer, autobahn_reactor: Any) -> Mount:
    """Return a site with the web port at ``/bridge``, or at the root."""

    def mount(at_root: bool = False, policy: Policy | None = None, allow_insecure: bool = False) -> Site:
        server.context.policy = policy
        resource, root = WebPortResource(make_web(server).factory, allow_insecure), Resource()
        root.putChild(b"bridge", resource)
        parent = resource if at_root else root
        parent.putChild(b"hello", Hello())
        site = Site(parent, reactor=autobahn_reactor)
        site.startFactory()
        return site

    return mount


def ask(site: Site, data: bytes, here: str = "127.0.0.1") -> tuple[Response, FakeTransport]:
    connection = Connection(site, connect(here, 8082))
    connection.send_bytes(data)
    return read_response(connection.transport.output()), connection.transport


@pytest.mark.parametrize(("at_root", "prefix"), [(False, "/bridge"), (True, "")])
def test_serves_the_http_api_and_closes(mount: Mount, at_root: bool, prefix: str) -> None:
    site = mount(at_root)
    published, transport = ask(site, request_bytes(f"{prefix}/channels/a%2Fb/events", "POST", b"21.5"))
    assert (published.status, published.json["channel"]) == (201, "a/b")
    assert published.headers["connection"] == "close" and transport.disconnecting
    read, _ = ask(site, request_bytes(f"{prefix}/channels/a%2Fb/events?last=1"))
    assert [event["data"] for event in read.json["events"]] == ["21.5"]
    assert ask(site, request_bytes("/hello"))[0].body == b"hello"


@pytest.mark.parametrize("path", ["/bridge", "/bridge/"])
def test_serves_the_page(mount: Mount, path: str) -> None:
    response, _ = ask(mount(), request_bytes(path))
    assert response.status == 200 and b"<title>" in response.body
    response, _ = ask(mount(at_root=True), request_bytes("/"))
    assert response.status == 200 and b"<title>" in response.body


def test_serves_websockets(mount: Mount, server: FakeServer) -> None:
    connection = Connection(mount(), connect())
    connection.send_bytes(upgrade("/bridge/ws"))
    server.turn()
    response = read_response(connection.transport.output())
    assert response.status == 101
    (welcome,) = read_frames(response.body)
    assert json.loads(welcome)["type"] == "welcome"
    assert len(server.context.sessions) == 1
    connection.disconnect()
    assert not len(server.context.sessions)


def test_serves_streams(mount: Mount, server: FakeServer) -> None:
    connection = Connection(mount(), connect())
    connection.send_bytes(request_bytes("/bridge/events?channel=kitchen"))
    server.line_client().send("PUB kitchen 21.5")
    server.turn()
    assert b'"data":"21.5"' in connection.transport.output()
    assert not connection.transport.is_closed


def test_request_that_waits_for_its_turn_is_handed_over(mount: Mount) -> None:
    """A connection of the site has answered another request before, and receives the body in pieces."""
    connection = Connection(mount(), connect())
    connection.send_bytes(request_bytes("/hello"))
    data = request_bytes("/bridge/channels/kitchen/events", "POST", b"21.5", Expect="100-continue")
    connection.send_bytes(data[:-2])
    connection.send_bytes(data[-2:])
    output = connection.transport.output()
    assert output.count(b"100 Continue") == 1
    assert b"HTTP/1.1 201 Created" in output


def test_site_under_tls_is_handed_over_too(mount: Mount) -> None:
    """As with TLS, the transport of the site is a wrapper."""
    connection = Connection(WrappingFactory(mount()), connect())
    connection.send_bytes(upgrade("/bridge/ws"))
    assert connection.transport.output().startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("size", [4, 20_000])
def test_input_behind_a_handshake_is_read(mount: Mount, server: FakeServer, size: int) -> None:
    """In the same read, also if it is more than the site would keep of the next requests."""
    connection = Connection(mount(), connect())
    ping = "PING " + "x" * size
    connection.send_bytes(upgrade("/bridge/ws", Sec_WebSocket_Protocol=LINE_PROTOCOL) + frame(TEXT, ping.encode()))
    connection.send_bytes(frame(TEXT, b"PING y"))
    server.turn()
    _, *answers = read_frames(read_response(connection.transport.output()).body)
    assert answers == ["PONG " + "x" * size, "PONG y"]
    assert connection.transport.is_reading


def test_input_behind_a_handshake_that_waits_is_read(mount: Mount, server: FakeServer) -> None:
    """The site has kept it while it looked for the resource."""
    site, found = mount(), Deferred[Resource]()
    site.resource.putChild(b"later", DeferredResource(found))
    connection = Connection(site, connect())
    connection.send_bytes(upgrade("/later/ws", Sec_WebSocket_Protocol=LINE_PROTOCOL))
    connection.send_bytes(frame(TEXT, b"PING x"))
    found.callback(site.resource.getStaticEntity(b"bridge"))
    server.turn()
    _, *answers = read_frames(read_response(connection.transport.output()).body)
    assert answers == ["PONG x"]


def test_end_of_a_stream_is_noticed_whatever_is_behind_its_request(mount: Mount, server: FakeServer) -> None:
    connection = Connection(mount(), connect())
    connection.send_bytes(request_bytes("/bridge/events?channel=kitchen") + b"x" * 20_000)
    assert connection.transport.is_reading


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"},
        {"Upgrade": "websocket"},
        {"Upgrade": "websocket", "Connection": "keep-alive"},
    ],
)
def test_upgrade_to_another_protocol_does_not_keep_the_connection(mount: Mount, headers: dict[str, str]) -> None:
    """The next request on it is for the site, and can be one of another client of a proxy."""
    connection = Connection(mount(), connect())
    connection.send_bytes(request_bytes("/bridge/healthz", **headers) + request_bytes("/hello"))
    response = read_response(connection.transport.output())
    assert response.headers["connection"] == "close"
    assert connection.transport.is_closed or connection.transport.half_closed
    assert response.is_complete, "the next request is not answered"


@pytest.mark.parametrize("path", ["/events", "/channels/kitchen/events", "/stream"])
def test_body_beyond_the_limit_is_not_copied(mount: Mount, path: str) -> None:
    body = b"x" * 8 * 1024 * 1024
    request = request_bytes(f"/bridge{path}", "POST", body)
    connection = Connection(mount(), connect())
    connection.send_bytes(request[: -len(body)])
    tracemalloc.start()
    connection.send_bytes(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read_response(connection.transport.output()).status == 413
    assert peak < len(body)


def test_request_of_the_site_is_freed_at_once(mount: Mount) -> None:
    site, requests = mount(), list["weakref.ref[Request]"]()

    def create(*arguments: Any) -> Request:
        request = Request(*arguments)
        requests.append(weakref.ref(request))
        return request

    site.requestFactory = create
    connection = Connection(site, connect())
    connection.send_bytes(upgrade("/bridge/ws"))
    assert [request() for request in requests] == [None]


def test_timeouts_of_the_site_do_not_end_websockets(mount: Mount, autobahn_reactor: Clock) -> None:
    connection = Connection(mount(), connect())
    connection.send_bytes(upgrade("/bridge/ws"))
    autobahn_reactor.pump([10] * 20)
    assert not connection.transport.is_closed


@pytest.mark.parametrize(
    ("here", "options", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("192.0.2.1", {}, 403),
        ("192.0.2.1", {"allow_insecure": True}, 200),
        ("192.0.2.1", {"policy": FakePolicy()}, 200),
    ],
)
def test_other_machines_need_an_access_policy(mount: Mount, here: str, options: dict[str, Any], status: int) -> None:
    response, _ = ask(mount(**options), request_bytes("/bridge/healthz", Host=f"{here}:8082"), here)
    assert response.status == status
    if status == 403:
        assert response.json["code"] == "forbidden"


def test_client_cannot_choose_the_address_that_it_reaches(mount: Mount) -> None:
    site = mount()
    site.resource.putChild(b"vhost", VHostMonsterResource())
    path = "/vhost/http/127.0.0.1:8082/bridge/healthz"
    assert ask(site, request_bytes(path, Host="192.0.2.1:8082"), "192.0.2.1")[0].status == 403


def test_checks_of_the_web_port_apply(mount: Mount) -> None:
    assert ask(mount(), request_bytes("/bridge/channels", Host="evil.example"))[0].status == 421
    assert ask(mount(), upgrade("/bridge/ws", Origin="https://evil.example"))[0].status == 403


def test_http_2_is_rejected(mount: Mount) -> None:
    request = DummyRequest([b"bridge"])
    request.channel, request.prepath = object(), [b"bridge"]
    resource = mount().resource.getStaticEntity(b"bridge")
    assert b"use HTTP/1.1" in resource.render(request)
    assert request.responseCode == 505
