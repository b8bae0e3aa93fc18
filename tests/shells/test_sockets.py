"""How both ends of a connection are written, and what its socket is told."""

import socket
from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twistedsock.core.dialect import Ends
from twistedsock.shells.sockets import ends_of, host_of, show, tune

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
        (UNIXAddress(None), "unix:-", ""),
        (None, "unix:-", ""),
    ],
)
def test_an_address_is_shown_as_people_write_it(address, shown, host):
    assert show(address) == shown
    assert host_of(address) == host


def test_the_ends_of_a_connection_are_seen_from_the_client():
    transport = SimpleNamespace(getPeer=lambda: SIX, getHost=lambda: FOUR)
    assert ends_of(transport) == Ends(b"[::1]:8081", b"127.0.0.1:8081")


class RecordingSocket(socket.socket):
    """A socket that is told things, but asks nobody: no connection is made."""

    def setsockopt(self, *option):
        self.__dict__.setdefault("told", set()).add(option)


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
def test_the_lowest_socket_is_told_what_we_want(recording, layers):
    transport = SimpleNamespace(socket=recording)
    for _ in range(layers):
        transport = SimpleNamespace(transport=transport)
    tune(transport, 4096)
    size = {(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)}
    assert recording.told == (size if recording.family == socket.AF_UNIX else OF_TCP | size)


def test_the_send_buffer_may_be_left_to_the_kernel(recording):
    tune(SimpleNamespace(socket=recording), 0)
    assert getattr(recording, "told", set()) == (set() if recording.family == socket.AF_UNIX else OF_TCP)


def test_a_transport_without_a_socket_is_left_alone(wire):
    tune(wire(), 4096)
