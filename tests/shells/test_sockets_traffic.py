"""What Linux tells of a connection's traffic, read from its very bytes."""

import socket
import struct
from errno import ENOTCONN
from types import SimpleNamespace

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from tests.shells.conftest import FakeSocket
from twistedsock.core.traffic import Traffic
from twistedsock.shells import sockets
from twistedsock.shells.outlets import BufferedOutlet, TCPSendAtOnce
from twistedsock.shells.sockets import traffic_of


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
    return TCPSendAtOnce(TalkativeSocket(), Protocol(), ("127.0.0.1", 50000), None, 1, reactor)


def test_it_is_read_where_linux_puts_it(transport):
    assert traffic_of(transport) == transport.traffic() == Traffic(1000, 200, 30, 0.0015)


def test_what_waits_in_user_space_is_unsent(transport):
    transport.socket.room = 1
    transport.write(b"12345")
    assert transport.traffic().unsent == 34


def test_of_tls_the_connection_below_is_asked(transport, reactor):
    """And what TLS itself keeps waits, too."""
    above = SimpleNamespace(transport=transport, _appSendBuffer=[b"123", b"45"], registerProducer=lambda *how: None)
    assert BufferedOutlet(above, reactor).traffic() == Traffic(1000, 200, 35, 0.0015)


@pytest.mark.parametrize("told", [ENOTCONN, tcp_info(1, 2, 3, 4)[:104]])
def test_where_it_is_not_told_there_is_nothing(transport, told):
    """A Unix socket, or an old kernel."""
    transport.socket.told = told
    assert transport.traffic() is None


def test_other_platforms_tell_nothing(transport, monkeypatch):
    monkeypatch.setattr(sockets, "_TCP_INFO", None)
    assert traffic_of(transport) is None


def test_a_transport_without_a_socket_has_no_traffic(wire):
    assert traffic_of(wire()) is None


def test_what_went_through_is_known_after_the_end(transport):
    transport.protocol.makeConnection(transport)
    transport.connectionLost(Failure(ConnectionDone()))
    assert transport.traffic() == Traffic(1000, 200, 30, 0.0015)
