"""What Linux tells of a connection's traffic, read from its very bytes."""

import socket
import struct
from errno import ENOTCONN
from types import SimpleNamespace

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

from tests.fakes import FakeSocket
from twistedsock.server import sockets
from twistedsock.server.sockets import seconds_unanswered, tcp_stats_of
from twistedsock.server.transport import (
    CHECKS_PER_TURN,
    BufferedOutlet,
    DirectTCPTransport,
    Reachability,
    install_direct_writes,
)
from twistedsock.stats import TcpStats


def tcp_info(rtt: int, acked: int, received: int, notsent: int) -> bytes:
    """As <linux/tcp.h> lays it out: eight bytes, 24 words of four, six of which the rtt is the 16th …"""
    words = [0] * 24
    words[15] = rtt
    return struct.pack("=8B24I2Q2Q2II", *[1] * 8, *words, 7, 7, acked, received, 9, 9, notsent) + bytes(60)


class TalkativeSocket(FakeSocket):
    told = tcp_info(1500, 1000, 200, 30)

    def getsockopt(self, level, option, size):
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        if isinstance(self.told, int):
            raise OSError(self.told, "as the test wants it")
        return self.told[:size]


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


@pytest.mark.parametrize("told", [ENOTCONN, tcp_info(1, 2, 3, 4)[:104]])
def test_no_tcp_stats_of_unix_sockets_and_old_kernels(transport, told):
    transport.socket.told = told
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
    """As <linux/tcp.h> lays it out: state, ca_state, retransmits and probes are the first bytes, last_ack_recv is the
    13th word."""
    return struct.pack("=8B24I", 1, 1, retransmits, probes, 1, 1, 1, 1, *[1] * 12, milliseconds, *[1] * 11) + bytes(100)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (unanswered_info(0, 0, 9000), 0),
        (unanswered_info(1, 0, 9000), 0),
        (unanswered_info(0, 1, 9000), 0),
        (unanswered_info(2, 0, 9000), 9),
        (unanswered_info(0, 2, 1500), 1.5),
        (unanswered_info(2, 2, 9000)[:56], 0),
    ],
)
def test_connection_is_unanswered_since_its_last_acknowledgement(transport, told, seconds):
    transport.socket.told = told
    assert seconds_unanswered(transport) == seconds


def test_no_connection_is_unanswered_without_tcp_info(transport, monkeypatch):
    monkeypatch.setattr(sockets, "TCP_INFO", None)
    assert seconds_unanswered(transport) == 0


def test_closed_connection_is_not_unanswered(transport):
    del transport.socket
    assert seconds_unanswered(transport) == 0


@pytest.fixture
def turns():
    """What was postponed to later turns."""
    return []


@pytest.fixture
def reachability(turns):
    return Reachability(120, turns.append)


def connect(reactor, reachability, told):
    """A connection of a listening port, of which the kernel tells this."""
    port = SimpleNamespace(transport=Server)
    install_direct_writes(port, None, reachability)
    connection = port.transport(TalkativeSocket(), Protocol(), ("127.0.0.1", 50000), None, 1, reactor)
    connection.socket.told = told
    connection.protocol.makeConnection(connection)
    return connection


def test_aborts_connections_unanswered_for_the_timeout(reactor, reachability):
    gone = connect(reactor, reachability, unanswered_info(5, 0, 120_000))
    gone_while_full = connect(reactor, reachability, unanswered_info(0, 2, 500_000))
    connect(reactor, reachability, unanswered_info(5, 0, 119_000))
    connect(reactor, reachability, unanswered_info(0, 0, 500_000))
    aborted = []
    for connection in reachability._connections:
        connection.abortConnection = lambda connection=connection: aborted.append(connection)
    reachability.check()
    assert set(aborted) == {gone, gone_while_full}


def test_does_not_check_closed_connections(reactor, reachability, turns):
    connections = [connect(reactor, reachability, unanswered_info(5, 0, 120_000)) for _ in range(CHECKS_PER_TURN + 1)]
    closed, *others = connections
    aborted = []
    for connection in connections:
        connection.abortConnection = lambda connection=connection: aborted.append(connection)
    reachability.check()
    closed.connectionLost(Failure(ConnectionDone()))
    turns.pop()()
    assert set(aborted) == set(others)
    assert turns == []
    aborted.clear()
    reachability.check()
    assert closed not in aborted


def test_checks_many_connections_in_several_turns(reactor, reachability, turns):
    for _ in range(2 * CHECKS_PER_TURN + 1):
        connect(reactor, reachability, unanswered_info(0, 0, 0))
    asked = []
    for connection in reachability._connections:
        connection.socket.getsockopt = lambda *option: asked.append(1) or unanswered_info(0, 0, 0)[:60]
    reachability.check()
    assert len(asked) == CHECKS_PER_TURN
    reachability.check()  # the one before has not ended
    assert len(asked) == CHECKS_PER_TURN
    while turns:
        turns.pop()()
    assert len(asked) == 2 * CHECKS_PER_TURN + 1


def test_checks_continue_after_an_exception(reactor, reachability, turns):
    asked = []
    for _ in range(CHECKS_PER_TURN + 1):
        connect(reactor, reachability, unanswered_info(0, 0, 0))

    def fail(*option):
        asked.append(1)
        raise OSError("as the test wants it")

    for connection in reachability._connections:
        connection.socket.getsockopt = fail
    for _ in range(2):
        with pytest.raises(OSError):
            reachability.check()
        with pytest.raises(OSError):
            turns.pop()()
    assert len(asked) == 4


def test_checks_nothing_without_a_timeout(reactor, turns):
    reachability = Reachability(0, turns.append)
    connect(reactor, reachability, unanswered_info(5, 0, 500_000)).abortConnection = pytest.fail
    reachability.check()
    assert reachability.interval == 0
