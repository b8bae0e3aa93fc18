"""Addresses, socket options, handshake information and TCP statistics."""

import socket
from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twistedsock.auth.origins import ListenerScope
from twistedsock.server import sockets
from twistedsock.server.sockets import (
    LocalAddress,
    endpoints_of,
    format_address,
    host_of,
    local_address_of,
    prepare_listening_socket,
    tune_socket,
)
from twistedsock.session.encoder import Endpoints

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
def test_tunes_the_innermost_socket(recording, layers):
    transport = SimpleNamespace(socket=recording)
    for _ in range(layers):
        transport = SimpleNamespace(transport=transport)
    tune_socket(transport, 4096)
    size = {(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)}
    assert recording.told == (size if recording.family == socket.AF_UNIX else OF_TCP | size)


def test_send_buffer_can_be_left_to_the_kernel(recording):
    tune_socket(SimpleNamespace(socket=recording), 0)
    assert getattr(recording, "told", set()) == (set() if recording.family == socket.AF_UNIX else OF_TCP)


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
    assert getattr(recording, "told", set()) == (OF_TCP | size if inherits and is_tcp else set())
    with RecordingSocket(recording.family, socket.SOCK_STREAM) as connection:
        tune_socket(accepted(port, connection), 4096)
        assert hasattr(connection, "told") is not (inherits and is_tcp)


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
    told = {option: value for level, option, value in getattr(recording, "told", ()) if level == socket.IPPROTO_TCP}
    if recording.family == socket.AF_UNIX:
        assert told == {}
    else:
        assert told == {socket.TCP_NODELAY: 1} | {getattr(socket, name): value for name, value in SIGNS_OF_LIFE.items()}


def test_omits_options_that_the_platform_lacks(recording, monkeypatch):
    for name in SIGNS_OF_LIFE:
        monkeypatch.delattr(socket, name)
    tune_socket(SimpleNamespace(socket=recording), 0, 120)
    assert getattr(recording, "told", set()) == (set() if recording.family == socket.AF_UNIX else OF_TCP)


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
