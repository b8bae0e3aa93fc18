"""X-Forwarded-For is trusted from trusted proxies only, and only the part that they wrote."""

from functools import partial

import pytest

from tests.server.clients import request_bytes, upgrade
from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.server.proxy_protocol import DEFAULT_TIMEOUT_SECONDS
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakeServer

PROXY, STRANGER = "10.0.0.1", "198.51.100.9"
LISTENING = ListenerConfig("tcp:8082", False, parse_trusted(["10.0.0.0/8"]))


@pytest.fixture
def build(make_web):
    """Connect to a new server from a proxy: ``build(**limits)(there=PROXY)``."""
    return lambda **limits: partial(make_web(FakeServer(**limits), listening=LISTENING), there=PROXY)


@pytest.fixture
def connect(build):
    return build()


@pytest.fixture
def context(connect):
    return connect.func.server.context


def reported(client, **headers):
    """The address of the client in the welcome of a WebSocket."""
    client.send_bytes(upgrade(**headers))
    return client.websocket_client()


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"X-Forwarded-For": "203.0.113.7"}, "203.0.113.7:0"),
        ({"x-forwarded-for": "203.0.113.7:4711"}, "203.0.113.7:4711"),
        ({"X-Forwarded-For": "2001:DB8::7"}, "[2001:db8::7]:0"),
        ({"X-Forwarded-For": "192.0.2.66, 203.0.113.7, 10.2.2.2"}, "203.0.113.7:0"),
        ({"X-Forwarded-For": "192.0.2.66", "x-forwarded-for": "203.0.113.7"}, "203.0.113.7:0"),
        ({"X-Forwarded-For": "203.0.113.7", "upgrade": "also-by-autobahn"}, "203.0.113.7:0"),
        ({"X-Forwarded-For": "<script>, 203.0.113.7"}, "203.0.113.7:0"),
        ({"X-Forwarded-For": ""}, "10.0.0.1:50000"),
        ({"Forwarded": "for=203.0.113.7"}, "10.0.0.1:50000"),
        ({}, "10.0.0.1:50000"),
    ],
)
def test_adopts_the_address_of_a_trusted_proxy(connect, headers, shown):
    assert reported(connect(), **headers) == shown


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1", "[::1]:80", "::ffff:127.0.0.1", "127.0.0.1, 10.0.0.1"])
def test_client_of_a_remote_proxy_is_not_local(connect, context, loopback):
    assert reported(connect(), X_Forwarded_For=loopback).startswith("10.0.0.1:")
    (session,) = context.sessions
    assert session.client.principal == b"@10.0.0.1"
    assert connect().ask(request_bytes("/peers", X_Forwarded_For=loopback))[0] == 403


@pytest.mark.parametrize("value", ["203.0.113.7", "unknown"])
def test_ignores_header_of_other_clients(connect, value):
    assert reported(connect(there=STRANGER), X_Forwarded_For=value) == "198.51.100.9:50000"


@pytest.mark.parametrize("make", [request_bytes, upgrade])
@pytest.mark.parametrize("garbage", ["unknown", "203.0.113.7, client.example", "203.0.113.7 10.0.0.1", "\xff", ","])
def test_rejects_invalid_header(connect, context, make, garbage):
    client = connect()
    status, _, body = client.ask(make(X_Forwarded_For=garbage))
    assert (status, body) == (400, b"X-Forwarded-For does not end with the address of a client\n")
    assert len(context.sessions) == 0
    client.disconnect()
    assert context.connection_limiter.connections == 0


def test_counts_the_connection_for_the_reported_address(build):
    connect = build(max_connections_per_address=1)
    limiter = connect.func.server.context.connection_limiter
    first, again, other, silent = (connect() for _ in range(4))
    assert limiter.connections == 4
    assert reported(first, X_Forwarded_For="203.0.113.7") == "203.0.113.7:0"
    status, headers, _ = again.ask(upgrade(X_Forwarded_For="192.0.2.1, 203.0.113.7:99"))
    assert (status, headers["retry-after"]) == (503, "5")
    assert reported(other, X_Forwarded_For="203.0.113.8") == "203.0.113.8:0"
    assert limiter.connections == 3
    assert limiter.acquire("203.0.113.8") is not None
    for client in (first, again, other, silent):
        client.disconnect()
    assert limiter.connections == 0
    assert reported(connect(), X_Forwarded_For="203.0.113.7") == "203.0.113.7:0"


def test_does_not_count_an_untrusted_address(build):
    connect = build(max_connections_per_address=1)
    reported(connect(there=STRANGER), X_Forwarded_For="203.0.113.7")
    assert connect(there=STRANGER).response()[0] == 503
    assert reported(connect(), X_Forwarded_For="203.0.113.7") == "203.0.113.7:0"


def test_connections_of_proxies_count_in_total(build):
    connect = build(max_connections=1)
    connect()
    assert connect().response()[0] == 503


def test_releases_connection_without_a_request(connect, context, reactor):
    client = connect()
    reactor.advance(DEFAULT_TIMEOUT_SECONDS)
    assert client.response()[0] == 408
    client.disconnect()
    assert context.connection_limiter.connections == 0


@pytest.mark.parametrize(
    "headers", [{"X-Forwarded-For": "203.0.113.7"}, {"Via": "1.1 proxy"}, {"Forwarded": "for=203.0.113.7"}]
)
@pytest.mark.parametrize("there", [PROXY, STRANGER])
def test_connection_of_a_proxy_serves_one_request(connect, headers, there):
    """A proxy could send the handshake of another client after it."""
    client = connect(there=there)
    client.send_bytes(request_bytes(**headers))
    answer = client.transport.output()
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"\r\nConnection: close\r\n") == 1
    assert client.transport.disconnecting
    client.send_bytes(request_bytes(**headers))
    assert client.transport.output() == b""


def test_keeps_the_connection_of_a_browser(connect):
    client = connect(there=STRANGER)
    for _ in range(2):
        status, headers, _ = client.ask(request_bytes())
        assert status == 200 and "connection" not in headers
    assert not client.transport.disconnecting
