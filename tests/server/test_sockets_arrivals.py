"""How a connection came in, and how it ended, as its session tells."""

from types import SimpleNamespace

import pytest
from OpenSSL.SSL import Error
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from twistedsock.server.connection import close_description
from twistedsock.server.sockets import handshake_info
from twistedsock.session.timeline import HandshakeInfo, Step


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
