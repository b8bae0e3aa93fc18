"""Properties of the kernel's sockets that the server relies on."""

import socket
import sys
from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address

from twistedsock.server.sockets import prepare_listening_socket

OPTIONS = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.SOL_SOCKET, socket.SO_OOBINLINE): 1,
    (socket.SOL_SOCKET, socket.SO_SNDBUF): 2 * 65_536,  # Linux includes its own overhead
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems set options per connection")
def test_a_connection_inherits_the_options_of_its_listening_socket():
    """Otherwise a stalled reader could hold megabytes of the kernel's memory."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        prepare_listening_socket(
            SimpleNamespace(socket=listener, getHost=lambda: IPv4Address("TCP", *listener.getsockname())), 65_536
        )
        with socket.create_connection(listener.getsockname()) as client:
            connection, _ = listener.accept()
            with connection:
                client.sendall(b"x" * 200_000)
                assert {option: connection.getsockopt(*option) for option in OPTIONS} == OPTIONS
