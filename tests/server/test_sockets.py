"""Addresses, socket options, handshake information and TCP statistics."""

import socket
import struct
from errno import ENOTCONN
from types import SimpleNamespace

import pytest
from OpenSSL.SSL import Error
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

from tests.fakes import FakeSocket
from twistedsock.auth.origins import ListenerScope
from twistedsock.server import sockets
from twistedsock.server.connection import close_description
from twistedsock.server.sockets import (
    LocalAddress,
    endpoints_of,
    format_address,
    handshake_info,
    host_of,
    local_address_of,
    prepare_listening_socket,
    seconds_unanswered,
    tcp_stats_of,
    tune_socket,
)
from twistedsock.server.transport import (
    CHECKS_PER_TURN,
    BufferedOutlet,
    DirectTCPTransport,
    Reachability,
    install_direct_writes,
)
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import HandshakeInfo, Step
from twistedsock.stats import TcpStats

FOUR = IPv4Address("TCP", "127.0.0.1", 8081)
SIX = IPv6Address("TCP", "::1", 8081)
LOCAL = UNIXAddress(b"/run/bridge")


@pytest.mark.parametrize(
    ("address", "shown", "host"),
    [
        (FOUR, "127.0.0.1:8081", "127.0.0.1"),
        (SIX, "[::1]:8081", "::1"),
        (LOCAL, "unix:/run/bridge", ""),
        (UNIXAddress(b"/run/my bridge"), "unix:/run/my%20bridge", ""),
        (UNIXAddress("/run/brücke".encode()), "unix:/run/brücke", ""),
        (UNIXAddress(b"/c\nforged \x1b[2J\r\t\x7f"), "unix:/c%0Aforged%20%1B[2J%0D%09%7F", ""),
        (UNIXAddress("\x85\u2028\u202e\u200b".encode()), "unix:%C2%85%E2%80%A8%E2%80%AE%E2%80%8B", ""),
        (UNIXAddress(None), "unix:-", ""),
        (None, "unix:-", ""),
    ],
)
def test_formats_addresses(address, shown, host):
    assert format_address(address) == shown
    assert host_of(address) == host


def test_endpoints_of_a_connection():
    transport = SimpleNamespace(getHost=lambda: FOUR)
    assert endpoints_of(transport, SIX) == Endpoints(b"[::1]:8081", b"127.0.0.1:8081")


class RecordingSocket(socket.socket):
    """Records socket options. It is not connected."""

    def setsockopt(self, *option):
        self.__dict__.setdefault("options", set()).add(option)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def recording(request):
    with RecordingSocket(request.param, socket.SOCK_STREAM) as recording:
        yield recording


OF_TCP = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
}


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_tunes_the_innermost_socket(recording, layers):
    transport = SimpleNamespace(socket=recording)
    for _ in range(layers):
        transport = SimpleNamespace(transport=transport)
    tune_socket(transport, 4096)
    size = {(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)}
    assert recording.options == (size if recording.family == socket.AF_UNIX else OF_TCP | size)


def test_send_buffer_can_be_left_to_the_kernel(recording):
    tune_socket(SimpleNamespace(socket=recording), 0)
    assert getattr(recording, "options", set()) == (set() if recording.family == socket.AF_UNIX else OF_TCP)


def test_ignores_transport_without_a_socket(wire):
    tune_socket(wire(), 4096)


class ListeningPort:
    """A listening port at ``address``, which may have a socket."""

    def __init__(self, address, handle=None):
        self.address = address
        self.socket = handle
        self.asked = 0

    def getHost(self):
        self.asked += 1
        return self.address


def accepted(port, handle=None, here=FOUR):
    return SimpleNamespace(server=port, socket=handle, getHost=lambda: here)


@pytest.mark.parametrize("inherits", [True, False])
def test_tunes_the_listening_socket_if_options_are_inherited(recording, monkeypatch, inherits):
    monkeypatch.setattr(sockets, "OPTIONS_ARE_INHERITED", inherits)
    port = ListeningPort(FOUR, recording)
    prepare_listening_socket(port, 4096)
    is_tcp = recording.family != socket.AF_UNIX
    size = {(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)}
    assert getattr(recording, "options", set()) == (OF_TCP | size if inherits and is_tcp else set())
    with RecordingSocket(recording.family, socket.SOCK_STREAM) as connection:
        tune_socket(accepted(port, connection), 4096)
        assert hasattr(connection, "options") is not (inherits and is_tcp)


def test_formats_the_address_of_a_port_once():
    port = ListeningPort(FOUR)
    prepare_listening_socket(port, 0)
    for _ in range(3):
        assert local_address_of(accepted(port, here=None)) == LocalAddress(b"127.0.0.1:8081", ListenerScope(True, 8081))
    assert port.asked == 1


@pytest.mark.parametrize(
    "address",
    [
        IPv4Address("TCP", "0.0.0.0", 8081),
        IPv6Address("TCP", "::", 8081),
        IPv6Address("TCP", "fe80::1", 8081, 0, 3),
        LOCAL,
        UNIXAddress(None),
    ],
)
def test_formats_the_address_of_each_connection_of_other_ports(address):
    port = ListeningPort(address)
    prepare_listening_socket(port, 0)
    assert local_address_of(accepted(port, here=FOUR)) == LocalAddress(b"127.0.0.1:8081", ListenerScope(True, 8081))
    assert local_address_of(accepted(port, here=IPv4Address("TCP", "192.0.2.1", 80))) == LocalAddress(
        b"192.0.2.1:80", ListenerScope(False, 80)
    )
    assert local_address_of(accepted(port, here=LOCAL)) == LocalAddress(b"unix:/run/bridge", ListenerScope(False, 0))
    assert local_address_of(accepted(None, here=SIX)) == LocalAddress(b"[::1]:8081", ListenerScope(True, 8081))


SIGNS_OF_LIFE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3}


def test_keepalive_options_add_up_to_the_timeout(recording):
    """Half of it without traffic, then three probes."""
    tune_socket(SimpleNamespace(socket=recording), 0, 120)
    options = {
        option: value for level, option, value in getattr(recording, "options", ()) if level == socket.IPPROTO_TCP
    }
    if recording.family == socket.AF_UNIX:
        assert options == {}
    else:
        assert options == {socket.TCP_NODELAY: 1} | {
            getattr(socket, name): value for name, value in SIGNS_OF_LIFE.items()
        }


def test_omits_options_that_the_platform_lacks(recording, monkeypatch):
    for name in SIGNS_OF_LIFE:
        monkeypatch.delattr(socket, name)
    tune_socket(SimpleNamespace(socket=recording), 0, 120)
    assert getattr(recording, "options", set()) == (set() if recording.family == socket.AF_UNIX else OF_TCP)


@pytest.mark.skipif(not sockets.OPTIONS_ARE_INHERITED, reason="as on Linux")
def test_connections_inherit_keepalive_options():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        prepare_listening_socket(ListeningPort(FOUR, listening), 0, 120)
        with socket.create_connection(listening.getsockname()):
            accepted_one, _ = listening.accept()
            with accepted_one:
                assert accepted_one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                for name, value in SIGNS_OF_LIFE.items():
                    assert accepted_one.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value, name


def test_shortest_timeout_has_valid_options():
    assert all(value >= 1 for _, value in sockets.keepalive_options(1))


def test_handshake_info_of_a_plain_connection():
    assert handshake_info(SimpleNamespace(), 5.0) == HandshakeInfo(5.0)


def test_handshake_info_includes_the_time_of_a_handshake():
    assert handshake_info(SimpleNamespace(), 5.0, "TLS", 3.0) == HandshakeInfo(3.0, "TLS")


def test_handshake_info_begins_with_the_proxy_header():
    """The time is on the transport that has the socket, below TLS."""
    transport = SimpleNamespace(transport=SimpleNamespace(accepted_at=1.0))
    assert handshake_info(transport, 5.0, "TLS", 3.0) == HandshakeInfo(1.0, "TLS", (Step(3.0, "proxied"),))


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        (Failure(ConnectionDone()), "cleanly"),
        (Failure(ConnectionAborted()), "aborted"),
        (Failure(ConnectionLost()), "broken"),
        (Failure(Error()), "broken"),
        (None, "broken"),
    ],
)
def test_close_description(reason, how):
    assert close_description(reason) == how


def tcp_info(rtt: int, acked: int, received: int, notsent: int) -> bytes:
    """The layout of <linux/tcp.h>: eight bytes, 24 words of four of which the rtt is the 16th …"""
    words = [0] * 24
    words[15] = rtt
    return struct.pack("=8B24I2Q2Q2II", *[1] * 8, *words, 7, 7, acked, received, 9, 9, notsent) + bytes(60)


class TalkativeSocket(FakeSocket):
    info = tcp_info(1500, 1000, 200, 30)

    def getsockopt(self, level, option, size):
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        if isinstance(self.info, int):
            raise OSError(self.info, "set by the test")
        return self.info[:size]


@pytest.fixture
def transport(reactor):
    return DirectTCPTransport(TalkativeSocket(), Protocol(), ("127.0.0.1", 50000), None, 1, reactor)


def test_reads_tcp_info(transport):
    assert tcp_stats_of(transport) == transport.tcp_stats() == TcpStats(1000, 200, 30, 0.0015)


def test_buffered_bytes_are_unsent(transport):
    transport.socket.room = 1
    transport.write(b"12345")
    assert transport.tcp_stats().unsent == 34


def test_tcp_stats_of_tls_include_its_buffer(transport, reactor):
    above = SimpleNamespace(transport=transport, _appSendBuffer=[b"123", b"45"], registerProducer=lambda *how: None)
    assert BufferedOutlet(above, reactor).tcp_stats() == TcpStats(1000, 200, 35, 0.0015)


@pytest.mark.parametrize("info", [ENOTCONN, tcp_info(1, 2, 3, 4)[:104]])
def test_no_tcp_stats_of_unix_sockets_and_old_kernels(transport, info):
    transport.socket.info = info
    assert transport.tcp_stats() is None


def test_no_tcp_stats_on_other_platforms(transport, monkeypatch):
    monkeypatch.setattr(sockets, "TCP_INFO", None)
    assert tcp_stats_of(transport) is None


def test_no_tcp_stats_without_a_socket(wire):
    assert tcp_stats_of(wire()) is None


def test_keeps_tcp_stats_after_the_end(transport):
    transport.protocol.makeConnection(transport)
    transport.connectionLost(Failure(ConnectionDone()))
    assert transport.tcp_stats() == TcpStats(1000, 200, 30, 0.0015)


def unanswered_info(retransmits: int, probes: int, milliseconds: int) -> bytes:
    """The layout of <linux/tcp.h>: state, ca_state, retransmits and probes are the first bytes, last_ack_recv is the
    13th word."""
    return struct.pack("=8B24I", 1, 1, retransmits, probes, 1, 1, 1, 1, *[1] * 12, milliseconds, *[1] * 11) + bytes(100)


@pytest.mark.parametrize(
    ("info", "seconds"),
    [
        (unanswered_info(0, 0, 9000), 0),
        (unanswered_info(1, 0, 9000), 0),
        (unanswered_info(0, 1, 9000), 0),
        (unanswered_info(2, 0, 9000), 9),
        (unanswered_info(0, 2, 1500), 1.5),
        (unanswered_info(2, 2, 9000)[:56], 0),
    ],
)
def test_connection_is_unanswered_since_its_last_acknowledgement(transport, info, seconds):
    transport.socket.info = info
    assert seconds_unanswered(transport) == seconds


def test_no_connection_is_unanswered_without_tcp_info(transport, monkeypatch):
    monkeypatch.setattr(sockets, "TCP_INFO", None)
    assert seconds_unanswered(transport) == 0


def test_closed_connection_is_not_unanswered(transport):
    del transport.socket
    assert seconds_unanswered(transport) == 0


@pytest.fixture
def turns():
    """Calls that were deferred to later turns."""
    return []


@pytest.fixture
def reachability(turns):
    return Reachability(120, turns.append)


@pytest.fixture
def aborted():
    """The connections that were aborted."""
    return []


def connect(reactor, reachability, info, aborted=None):
    """A connection of a listening port, with this TCP_INFO."""
    port = SimpleNamespace(transport=Server)
    install_direct_writes(port, None, reachability)
    connection = port.transport(TalkativeSocket(), Protocol(), ("127.0.0.1", 50000), None, 1, reactor)
    connection.socket.info = info
    connection.abortConnection = lambda: aborted.append(connection)
    connection.protocol.makeConnection(connection)
    return connection


def test_aborts_connections_unanswered_for_the_timeout(reactor, reachability, aborted):
    infos = [(5, 0, 120_000), (0, 2, 500_000), (5, 0, 119_000), (0, 0, 500_000)]
    connections = [connect(reactor, reachability, unanswered_info(*info), aborted) for info in infos]
    reachability.check()
    assert set(aborted) == set(connections[:2])


def test_does_not_check_closed_connections(reactor, reachability, turns, aborted):
    late = unanswered_info(5, 0, 120_000)
    closed, *others = (connect(reactor, reachability, late, aborted) for _ in range(CHECKS_PER_TURN + 1))
    reachability.check()
    closed.connectionLost(Failure(ConnectionDone()))
    turns.pop()()
    assert set(aborted) == set(others)
    assert turns == []
    aborted.clear()
    reachability.check()
    assert closed not in aborted


def test_checks_many_connections_in_several_turns(reactor, reachability, turns):
    connections = [connect(reactor, reachability, unanswered_info(0, 0, 0)) for _ in range(2 * CHECKS_PER_TURN + 1)]
    asked = []
    for connection in connections:
        connection.socket.getsockopt = lambda *option: asked.append(1) or unanswered_info(0, 0, 0)[:60]
    reachability.check()
    assert len(asked) == CHECKS_PER_TURN
    reachability.check()  # the previous check has not ended
    assert len(asked) == CHECKS_PER_TURN
    while turns:
        turns.pop()()
    assert len(asked) == 2 * CHECKS_PER_TURN + 1


def test_checks_continue_after_an_exception(reactor, reachability, turns):
    asked = []
    connections = [connect(reactor, reachability, unanswered_info(0, 0, 0)) for _ in range(CHECKS_PER_TURN + 1)]

    def fail(*option):
        asked.append(1)
        raise OSError("set by the test")

    for connection in connections:
        connection.socket.getsockopt = fail
    for _ in range(2):
        with pytest.raises(OSError):
            reachability.check()
        with pytest.raises(OSError):
            turns.pop()()
    assert len(asked) == 4


def test_checks_nothing_without_a_timeout(reactor, turns):
    reachability = Reachability(0, turns.append)
    connect(reactor, reachability, unanswered_info(5, 0, 500_000))
    reachability.check()
    assert reachability.interval == 0
