"""PROXY headers are trusted from trusted proxies only, and come before all other input."""

from types import SimpleNamespace

import pytest
import txaio
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, formatEvent
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from tests.server.clients import WebConnection
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.proxy_protocol import DEFAULT_TIMEOUT_SECONDS, ProxyProtocolFactory, expect_proxy_headers
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.tcp import LineFactory, LineProtocol
from twistedsock.server.web import WebFactory
from twistedsock.testing import FakeServer

PROXY, STRANGER = "10.0.0.1", "198.51.100.9"
LISTENING = ListenerConfig("tcp:8081", True, parse_trusted(["10.0.0.0/8", "unix"]))
LINE = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n"
BLOCK = bytes.fromhex("0d0a0d0a000d0a515549540a 2111000c cb007107 c0000201 1267 01bb")
UNKNOWN = b"PROXY UNKNOWN\r\n"
UNIX_CLIENT = bytes.fromhex("0d0a0d0a000d0a515549540a 213100d8") + bytes(216)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture
def lines(server, reactor, wire):
    """Connect to a proxied line port: ``lines(there=…)``."""
    factory = ProxyProtocolFactory(LineFactory(server.context, reactor, 0, listening=LISTENING), reactor, LISTENING)
    return lambda there=PROXY: WebConnection(factory, wire(there=there))


@pytest.fixture
def web(server, reactor, wire, monkeypatch):
    """Connect to a proxied web port: ``web(there=…)``."""
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", reactor)
    wrapped = WebFactory(server.context, reactor, OriginPolicy(AllowedOrigins()), 0, 0, 3, lambda: [], LISTENING)
    factory = ProxyProtocolFactory(wrapped, reactor, LISTENING)
    return lambda there=PROXY: WebConnection(factory, wire(port=8082, there=there))


@pytest.mark.parametrize("header", [LINE, BLOCK])
def test_adopts_the_address_in_the_header_at_any_split(lines, header):
    for cut in range(len(header) + 1):
        peer = lines()
        peer.send_bytes(header[:cut])
        output = peer.transport.output()
        assert output == b"" or cut == len(header)
        peer.send_bytes(header[cut:] + b"INFO\n")
        welcome, info = (output + peer.transport.output()).splitlines()
        assert welcome.split()[3] == b"from=203.0.113.7:4711"
        assert b" from=203.0.113.7:4711 to=127.0.0.1:8081 " in info
        peer.lose()


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
    peer = lines()
    peer.send_bytes(header)
    assert peer.transport.output().split()[3] == b"from=" + shown


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
    peer = lines()
    peer.send_bytes(header + b"SUB $sys/peers\n")
    welcome, answer = peer.transport.output().splitlines()
    assert welcome.split()[3].startswith(b"from=10.0.0.1:")
    assert answer.startswith(b"ERR forbidden ")
    (session,) = server.context.sessions
    assert session.client.principal == b"@10.0.0.1"


@pytest.mark.parametrize("header", LOCAL_CLIENTS)
def test_local_proxy_can_have_local_clients(server, reactor, wire, header):
    listening = ListenerConfig("tcp:8081", True, parse_trusted(["127.0.0.1"]))
    factory = ProxyProtocolFactory(LineFactory(server.context, reactor, 0, listening=listening), reactor, listening)
    peer = WebConnection(factory, wire(there="127.0.0.1"))
    peer.send_bytes(header + b"SUB $sys/figures\n")
    assert b"\nOK " in peer.transport.output()


@pytest.mark.parametrize("header", LOCAL_CLIENTS)
def test_forwarded_for_of_a_local_client_of_a_remote_proxy_is_ignored(web, header):
    peer = web()
    peer.send_bytes(header + UPGRADE + b"X-Forwarded-For: 192.0.2.66\r\n\r\n")
    assert peer.websocket_client().startswith("192.0.2.66:" if header == UNIX_CLIENT else "10.0.0.1:")


def test_frees_the_header_protocol(lines):
    peer = lines()
    assert not isinstance(peer.transport.protocol, LineProtocol)
    peer.send_bytes(LINE)
    assert isinstance(peer.transport.protocol, LineProtocol)


def test_counts_the_connection_for_the_reported_address(reactor, wire):
    server = FakeServer(max_connections_per_address=1)
    factory = ProxyProtocolFactory(LineFactory(server.context, reactor, 0, listening=LISTENING), reactor, LISTENING)
    first, again, other = (WebConnection(factory, wire(there=PROXY)) for _ in range(3))
    first.send_bytes(LINE)
    again.send_bytes(BLOCK)
    other.send_bytes(LINE.replace(b"113.7", b"113.8"))
    assert [peer.transport.output().split()[0] for peer in (first, again, other)] == [b"WELCOME", b"ERR", b"WELCOME"]
    for peer in (first, again, other):
        peer.lose()
    assert server.context.connection_limiter.connections == 0
    last = WebConnection(factory, wire(there=PROXY))
    last.send_bytes(LINE)
    assert last.transport.output().startswith(b"WELCOME ")


def test_header_of_an_untrusted_client_is_no_command(lines):
    peer = lines(STRANGER)
    assert peer.transport.output().split()[3] == b"from=198.51.100.9:50000"
    peer.send_bytes(LINE)
    assert peer.transport.output().startswith(b"ERR unknown-command ")


def test_header_of_an_untrusted_client_is_no_request(web):
    peer = web(STRANGER)
    peer.send_bytes(LINE + UPGRADE + b"\r\n")
    assert peer.transport.output().startswith(b"HTTP/1.1 400 ")
    honest = web(STRANGER)
    honest.send_bytes(UPGRADE + b"\r\n")
    assert honest.websocket_client() == "198.51.100.9:50000"


@pytest.mark.parametrize("extra", [b"", b"Upgrade: also-by-autobahn\r\n", b"X-Forwarded-For: 192.0.2.66\r\n"])
def test_websocket_adopts_the_address_in_the_header(web, extra):
    peer = web()
    peer.send_bytes(BLOCK)
    peer.send_bytes(UPGRADE + extra + b"\r\n")
    assert peer.websocket_client() == "203.0.113.7:4711"


def test_trusts_forwarded_for_of_a_proxy_behind_the_proxy(web):
    peer = web()
    peer.send_bytes(LINE.replace(b"203.0.113.7", b"10.9.9.9") + UPGRADE + b"X-Forwarded-For: 192.0.2.66\r\n\r\n")
    assert peer.websocket_client() == "192.0.2.66:0"


def test_ignores_forwarded_for_if_the_header_names_no_client(web):
    peer = web()
    peer.send_bytes(UNKNOWN + UPGRADE + b"X-Forwarded-For: 192.0.2.66\r\n\r\n")
    assert peer.websocket_client() == "10.0.0.1:50000"


def test_closes_connections_without_a_header_and_logs_once(lines, server, logged):
    for data in (b"SUB kitchen\n", b"GET / HTTP/1.1\r\n"):
        peer = lines()
        peer.send_bytes(data)
        assert peer.transport.aborted
        assert peer.transport.output() == b""
        peer.lose()
    (event,) = logged
    assert event["log_level"] is LogLevel.warn
    assert formatEvent(event) == (
        "the proxy at 10.0.0.1 sends no PROXY header to tcp:8081, so its connections are closed: "
        "enable the header in the proxy, or remove this endpoint from proxy-protocol"
    )
    assert len(server.context.sessions) == server.context.connection_limiter.connections == 0


def test_closes_connection_whose_header_is_late(lines, reactor, logged):
    peer, swift = lines(), lines()
    peer.send_bytes(LINE[:-1])
    swift.send_bytes(LINE)
    reactor.advance(DEFAULT_TIMEOUT_SECONDS)
    assert peer.transport.aborted
    assert not swift.transport.aborted
    assert len(logged) == 1


def test_health_check_of_a_proxy_is_not_logged(lines, reactor, logged):
    peer = lines()
    peer.lose()
    reactor.advance(DEFAULT_TIMEOUT_SECONDS)
    assert not peer.transport.aborted
    assert logged == []


def test_proxy_on_a_unix_socket(server, reactor, wire, logged):
    factory = ProxyProtocolFactory(LineFactory(server.context, reactor, 0, listening=LISTENING), reactor, LISTENING)
    for data in (LINE, b"nonsense"):
        transport = wire()
        transport.peerAddr = UNIXAddress(b"")
        peer = WebConnection(factory, transport)
        peer.send_bytes(data)
    assert "the proxy at a Unix socket " in formatEvent(logged[0])


def test_header_comes_before_a_wrapping_protocol(server, reactor, wire):
    lines = LineFactory(server.context, reactor, 0, listening=LISTENING)
    port = SimpleNamespace(factory=WrappingFactory(lines))
    expect_proxy_headers(port, reactor, LISTENING)
    peer = WebConnection(port.factory, wire(there=PROXY))
    peer.send_bytes(LINE)
    assert isinstance(peer.transport.protocol, ProtocolWrapper)
    assert peer.transport.output().split()[3] == b"from=203.0.113.7:4711"


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


def test_direct_connections_have_no_additional_attributes(server, reactor, wire):
    protocol = LineFactory(server.context, reactor, 0).buildProtocol(IPv4Address("TCP", STRANGER, 1))
    assert "proxied_address" not in vars(protocol)
