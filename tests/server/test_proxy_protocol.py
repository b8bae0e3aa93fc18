"""PROXY headers are trusted from trusted proxies only, and come before all other input."""

from types import SimpleNamespace

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, formatEvent
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from tests.server.clients import Connection, upgrade
from tests.server.http.clients import WebClient
from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.server.proxy_protocol import DEFAULT_TIMEOUT_SECONDS, ProxyProtocolFactory, expect_proxy_headers
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.tcp import LineProtocol
from twistedsock.testing import FakeServer

PROXY, STRANGER = "10.0.0.1", "198.51.100.9"
LISTENING = ListenerConfig("tcp:8081", True, parse_trusted(["10.0.0.0/8", "unix"]))
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
BLOCK = bytes.fromhex("0d0a0d0a000d0a515549540a 2111000c cb007107 c0000201 1267 01bb")
UNKNOWN = b"PROXY UNKNOWN\r\n"
UNIX_CLIENT = bytes.fromhex("0d0a0d0a000d0a515549540a 213100d8") + bytes(216)


@pytest.fixture
def proxied_lines(make_lines, reactor, wire):
    """Connect to the proxied line port of a server: ``proxied_lines(server)(there=…)``."""

    def make(server, listening=LISTENING):
        factory = ProxyProtocolFactory(make_lines(server, listening).factory, reactor, listening)
        return lambda there=PROXY: Connection(factory, wire(there=there))

    return make


@pytest.fixture
def lines(proxied_lines, server):
    return proxied_lines(server)


@pytest.fixture
def web(make_web, server, reactor, wire):
    """Connect to a proxied web port: ``web(there=…)``."""
    factory = ProxyProtocolFactory(make_web(server, listening=LISTENING).factory, reactor, LISTENING)
    return lambda there=PROXY: WebClient(factory, wire(port=8082, there=there))


@pytest.mark.parametrize("header", [LINE, BLOCK])
def test_adopts_the_address_in_the_header_at_any_split(lines, header):
    for cut in range(len(header) + 1):
        client = lines()
        client.send_bytes(header[:cut])
        output = client.transport.output()
        assert output == b"" or cut == len(header)
        client.send_bytes(header[cut:] + b"INFO\n")
        welcome, info = (output + client.transport.output()).splitlines()
        assert welcome.split()[3] == b"from=203.0.113.7:4711"
        assert b" from=203.0.113.7:4711 to=127.0.0.1:8081 " in info
        client.disconnect()


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (b"PROXY TCP6 2001:DB8::7 2001:db8::1 4711 443\r\n", b"[2001:db8::7]:4711"),
        (UNIX_CLIENT, b"10.0.0.1:0"),
        (UNKNOWN, b"10.0.0.1:50000"),
        (bytes.fromhex("0d0a0d0a000d0a515549540a 20000000"), b"10.0.0.1:50000"),
    ],
)
def test_headers_of_other_address_families(lines, header, shown):
    client = lines()
    client.send_bytes(header)
    assert client.transport.output().split()[3] == b"from=" + shown


LOCAL_CLIENTS = [
    b"PROXY TCP4 127.0.0.1 192.0.2.1 4711 443\r\n",
    b"PROXY TCP4 127.9.9.9 127.0.0.1 4711 443\r\n",
    b"PROXY TCP6 ::1 ::1 4711 443\r\n",
    b"PROXY TCP6 ::ffff:127.0.0.1 ::1 4711 443\r\n",
    BLOCK.replace(bytes([203, 0, 113, 7]), bytes([127, 0, 0, 1])),
    UNIX_CLIENT,
]


@pytest.mark.parametrize("header", LOCAL_CLIENTS)
def test_client_of_a_remote_proxy_is_not_local(lines, server, header):
    client = lines()
    client.send_bytes(header + b"SUB $sys/peers\n")
    welcome, answer = client.transport.output().splitlines()
    assert welcome.split()[3].startswith(b"from=10.0.0.1:")
    assert answer.startswith(b"ERR forbidden ")
    (session,) = server.context.sessions
    assert session.client.principal == b"@10.0.0.1"


@pytest.mark.parametrize("header", LOCAL_CLIENTS)
def test_local_proxy_can_have_local_clients(proxied_lines, server, header):
    lines = proxied_lines(server, ListenerConfig("tcp:8081", True, parse_trusted(["127.0.0.1"])))
    client = lines(there="127.0.0.1")
    client.send_bytes(header + b"SUB $sys/figures\n")
    assert b"\nOK " in client.transport.output()


def test_frees_the_header_protocol(lines):
    client = lines()
    assert not isinstance(client.transport.protocol, LineProtocol)
    client.send_bytes(LINE)
    assert isinstance(client.transport.protocol, LineProtocol)


def test_counts_the_connection_for_the_reported_address(proxied_lines):
    server = FakeServer(max_connections_per_address=1)
    lines = proxied_lines(server)
    first, again, other = (lines() for _ in range(3))
    first.send_bytes(LINE)
    again.send_bytes(BLOCK)
    other.send_bytes(LINE.replace(b"113.7", b"113.8"))
    assert [client.transport.output().split()[0] for client in (first, again, other)] == [
        b"WELCOME",
        b"ERR",
        b"WELCOME",
    ]
    for client in (first, again, other):
        client.disconnect()
    assert server.context.connection_limiter.connections == 0
    last = lines()
    last.send_bytes(LINE)
    assert last.transport.output().startswith(b"WELCOME ")


def test_header_of_an_untrusted_client_is_no_command(lines):
    client = lines(STRANGER)
    assert client.transport.output().split()[3] == b"from=198.51.100.9:50000"
    client.send_bytes(LINE)
    assert client.transport.output().startswith(b"ERR unknown-command ")


def test_header_of_an_untrusted_client_is_no_request(web):
    client = web(STRANGER)
    client.send_bytes(LINE + upgrade())
    assert client.transport.output().startswith(b"HTTP/1.1 400 ")
    honest = web(STRANGER)
    honest.send_bytes(upgrade())
    assert honest.websocket_client() == "198.51.100.9:50000"


FORWARDED = {"X-Forwarded-For": "192.0.2.66"}


@pytest.mark.parametrize(
    ("header", "headers", "reported"),
    [
        (BLOCK, {}, "203.0.113.7:4711"),
        (BLOCK, {"upgrade": "also-by-autobahn"}, "203.0.113.7:4711"),
        (BLOCK, FORWARDED, "203.0.113.7:4711"),
        (LINE.replace(b"203.0.113.7", b"10.9.9.9"), FORWARDED, "192.0.2.66:0"),  # a proxy behind the proxy
        (UNKNOWN, FORWARDED, "10.0.0.1:50000"),
        *((header, FORWARDED, "10.0.0.1:4711") for header in LOCAL_CLIENTS if header != UNIX_CLIENT),
        (UNIX_CLIENT, FORWARDED, "192.0.2.66:0"),
    ],
)
def test_websocket_adopts_the_reported_address(web, header, headers, reported):
    client = web()
    client.send_bytes(header)
    client.send_bytes(upgrade(**headers))
    assert client.websocket_client() == reported


def test_closes_connections_without_a_header_and_logs_once(lines, server, logged):
    for data in (b"SUB kitchen\n", b"GET / HTTP/1.1\r\n"):
        client = lines()
        client.send_bytes(data)
        assert client.transport.aborted
        assert client.transport.output() == b""
        client.disconnect()
    (event,) = logged
    assert event["log_level"] is LogLevel.warn
    assert formatEvent(event) == (
        "the proxy at 10.0.0.1 sends no PROXY header to tcp:8081, so its connections are closed: "
        "enable the header in the proxy, or remove this endpoint from proxy-protocol"
    )
    assert len(server.context.sessions) == server.context.connection_limiter.connections == 0


def test_closes_connection_whose_header_is_late(lines, reactor, logged):
    client, swift = lines(), lines()
    client.send_bytes(LINE[:-1])
    swift.send_bytes(LINE)
    reactor.advance(DEFAULT_TIMEOUT_SECONDS)
    assert client.transport.aborted
    assert not swift.transport.aborted
    assert len(logged) == 1


def test_health_check_of_a_proxy_is_not_logged(lines, reactor, logged):
    client = lines()
    client.disconnect()
    reactor.advance(DEFAULT_TIMEOUT_SECONDS)
    assert not client.transport.aborted
    assert logged == []


def test_proxy_on_a_unix_socket(make_lines, server, reactor, wire, logged):
    factory = ProxyProtocolFactory(make_lines(server, LISTENING).factory, reactor, LISTENING)
    for data in (LINE, b"nonsense"):
        transport = wire()
        transport.peerAddr = UNIXAddress(b"")
        Connection(factory, transport).send_bytes(data)
    assert "the proxy at a Unix socket " in formatEvent(logged[0])


def test_header_comes_before_a_wrapping_protocol(make_lines, server, reactor, wire):
    port = SimpleNamespace(factory=WrappingFactory(make_lines(server, LISTENING).factory))
    expect_proxy_headers(port, reactor, LISTENING)
    client = Connection(port.factory, wire(there=PROXY))
    client.send_bytes(LINE)
    assert isinstance(client.transport.protocol, ProtocolWrapper)
    assert client.transport.output().split()[3] == b"from=203.0.113.7:4711"


def test_leaves_other_ports_unchanged(reactor):
    port = SimpleNamespace(factory=object())
    before = port.factory
    expect_proxy_headers(port, reactor, ListenerConfig("tcp:8081", False, LISTENING.trusted))
    assert port.factory is before


def test_stops_the_wrapped_factory(reactor):
    wrapped, ended = Factory.forProtocol(Protocol), []
    wrapped.stopFactory = lambda: ended.append(True)
    wrapped.doStart()
    ProxyProtocolFactory(wrapped, reactor, LISTENING).doStop()
    assert ended == [True]


def test_direct_connections_have_no_additional_attributes(make_lines, server):
    assert "proxied_address" not in vars(make_lines(server)().protocol)
