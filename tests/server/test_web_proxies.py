"""X-Forwarded-For is trusted from trusted proxies only, and only the part that they wrote."""

import pytest
import txaio

from tests.server.clients import WebConnection
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.proxy_protocol import DEFAULT_TIMEOUT_SECONDS
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.web import WebFactory
from twistedsock.testing import FakeServer

PROXY, STRANGER = "10.0.0.1", "198.51.100.9"
LISTENING = ListenerConfig("tcp:8082", False, parse_trusted(["10.0.0.0/8"]))
WEBSOCKET = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def page(*headers):
    return b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8082\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


def websocket(*headers):
    return page(*headers)[:-2] + WEBSOCKET + b"\r\n"


class Connection(WebConnection):
    def exchange(self, data):
        self.send_bytes(data)
        return self.transport.output()

    def reported(self, *headers):
        """The address of the client in the welcome of a WebSocket."""
        self.send_bytes(websocket(*headers))
        return self.websocket_client()


@pytest.fixture
def build(reactor, wire, monkeypatch):
    """Make a factory and connect to it: ``build(**limits)(there)``."""
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)

    def make(**limits):
        server = FakeServer(**limits)
        factory = WebFactory(server.context, reactor, OriginPolicy(AllowedOrigins()), 0, 0, 3, lambda: [], LISTENING)

        def visit(there=PROXY):
            return Connection(factory, wire(port=8082, there=there))

        visit.server, visit.factory = server, factory
        return visit

    return make


@pytest.fixture
def visit(build):
    return build()


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([b"X-Forwarded-For: 203.0.113.7"], "203.0.113.7:0"),
        ([b"x-forwarded-for:203.0.113.7:4711"], "203.0.113.7:4711"),
        ([b"X-Forwarded-For: 2001:DB8::7"], "[2001:db8::7]:0"),
        ([b"X-Forwarded-For: 192.0.2.66, 203.0.113.7, 10.2.2.2"], "203.0.113.7:0"),
        ([b"X-Forwarded-For: 192.0.2.66", b"X-Forwarded-For: 203.0.113.7"], "203.0.113.7:0"),
        ([b"X-Forwarded-For: 203.0.113.7", b"Upgrade: also-by-autobahn"], "203.0.113.7:0"),
        ([b"X-Forwarded-For: <script>, 203.0.113.7"], "203.0.113.7:0"),
        ([b"X-Forwarded-For: "], "10.0.0.1:50000"),
        ([b"Forwarded: for=203.0.113.7"], "10.0.0.1:50000"),
        ([], "10.0.0.1:50000"),
    ],
)
def test_adopts_the_address_of_a_trusted_proxy(visit, headers, shown):
    assert visit().reported(*headers) == shown


@pytest.mark.parametrize("loopback", [b"127.0.0.1", b"::1", b"[::1]:80", b"::ffff:127.0.0.1", b"127.0.0.1, 10.0.0.1"])
def test_client_of_a_remote_proxy_is_not_local(visit, loopback):
    peer = visit()
    assert peer.reported(b"X-Forwarded-For: " + loopback).startswith("10.0.0.1:")
    (session,) = visit.server.context.sessions
    assert session.client.principal == b"@10.0.0.1"
    answer = visit().exchange(page(b"X-Forwarded-For: " + loopback).replace(b"GET / ", b"GET /peers "))
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("header", [b"X-Forwarded-For: 203.0.113.7", b"X-Forwarded-For: unknown"])
def test_ignores_header_of_other_clients(visit, header):
    assert visit(STRANGER).reported(header) == "198.51.100.9:50000"


@pytest.mark.parametrize("make", [page, websocket])
@pytest.mark.parametrize(
    "garbage", [b"unknown", b"203.0.113.7, client.example", b"203.0.113.7 10.0.0.1", b"\xff", b","]
)
def test_rejects_invalid_header(visit, make, garbage):
    peer = visit()
    answer = peer.exchange(make(b"X-Forwarded-For: " + garbage))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\nX-Forwarded-For does not end with the address of a client\n")
    assert len(visit.server.context.sessions) == 0
    peer.lose()
    assert visit.server.context.connection_limiter.connections == 0


def test_counts_the_connection_for_the_reported_address(build):
    visit = build(max_connections_per_address=1)
    admission = visit.server.context.connection_limiter
    first, again, other, silent = visit(), visit(), visit(), visit()
    assert admission.connections == 4
    assert first.reported(b"X-Forwarded-For: 203.0.113.7") == "203.0.113.7:0"
    refused = again.exchange(websocket(b"X-Forwarded-For: 192.0.2.1, 203.0.113.7:99"))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in refused
    assert other.reported(b"X-Forwarded-For: 203.0.113.8") == "203.0.113.8:0"
    assert admission.connections == 3
    assert admission.acquire("203.0.113.8") is not None
    for peer in (first, again, other, silent):
        peer.lose()
    assert admission.connections == 0
    assert visit().reported(b"X-Forwarded-For: 203.0.113.7") == "203.0.113.7:0"


def test_does_not_count_an_untrusted_address(build):
    visit = build(max_connections_per_address=1)
    visit(STRANGER).reported(b"X-Forwarded-For: 203.0.113.7")
    assert visit(STRANGER).transport.output().startswith(b"HTTP/1.1 503 ")
    assert visit().reported(b"X-Forwarded-For: 203.0.113.7") == "203.0.113.7:0"


def test_connections_of_proxies_count_in_total(build):
    visit = build(max_connections=1)
    visit()
    assert visit().transport.output().startswith(b"HTTP/1.1 503 ")


def test_releases_connection_without_a_request(visit, reactor):
    peer = visit()
    reactor.advance(DEFAULT_TIMEOUT_SECONDS)
    assert peer.transport.output().startswith(b"HTTP/1.1 408 ")
    peer.lose()
    assert visit.server.context.connection_limiter.connections == 0


@pytest.mark.parametrize("header", [b"X-Forwarded-For: 203.0.113.7", b"Via: 1.1 proxy", b"Forwarded: for=203.0.113.7"])
@pytest.mark.parametrize("there", [PROXY, STRANGER])
def test_connection_of_a_proxy_serves_one_request(visit, header, there):
    """A proxy could send the handshake of another client after it."""
    peer = visit(there)
    answer = peer.exchange(page(header))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"\r\nConnection: close\r\n") == 1
    assert peer.transport.disconnecting
    assert peer.exchange(page(header)) == b""


def test_keeps_the_connection_of_a_browser(visit):
    peer = visit(STRANGER)
    for _ in range(2):
        answer = peer.exchange(page())
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" not in answer
    assert not peer.transport.disconnecting
