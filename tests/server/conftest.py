"""Sockets and reactors that are none, for the shells."""

from errno import EAGAIN, EOPNOTSUPP
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from tests.server.websocket_client import Port, autobahn_clock
from twistedsock.testing import FakeServer


class FakeSocket:
    """A socket that takes ``room`` bytes (None: all), or raises ``error``, and gives what is in ``incoming``."""

    def __init__(self):
        self.sent = bytearray()
        self.room = None
        self.error = None
        self.sends = 0
        self.incoming = []
        self.shut_down = self.closed = False

    def send(self, data):
        self.sends += 1
        if self.error is not None:
            raise OSError(self.error, "as the test wants it")
        taken = len(data) if self.room is None else min(self.room, len(data))
        if not taken and data:
            raise OSError(EAGAIN, "full")
        self.sent += data[:taken]
        if self.room is not None:
            self.room -= taken
        return taken

    def recv(self, most):
        if not self.incoming:
            raise OSError(EAGAIN, "nothing there")
        data = self.incoming.pop(0)
        if isinstance(data, int):
            raise OSError(data, "as the test wants it")
        return data

    def fileno(self):
        return 77

    def setblocking(self, flag):
        assert flag == 0

    def shutdown(self, how):
        self.shut_down = True

    def setsockopt(self, *arguments):
        """Linger, when it is aborted."""

    def getsockopt(self, *arguments):
        """As a socket of a kind of which nothing is told."""
        raise OSError(EOPNOTSUPP, "not supported")

    def close(self):
        self.closed = True


class FakeReactor(Clock):
    """Time, turns, and who waits to read or to write."""

    def __init__(self):
        super().__init__()
        self.readers, self.writers = set(), set()

    def addReader(self, selectable):
        self.readers.add(selectable)

    def removeReader(self, selectable):
        self.readers.discard(selectable)

    def addWriter(self, selectable):
        self.writers.add(selectable)

    def removeWriter(self, selectable):
        self.writers.discard(selectable)

    def turn(self):
        """What was to be called soon."""
        self.advance(0)


@implementer(ITCPTransport)
class Wire(StringTransport):
    """A transport for a protocol under test: what it writes, how it ends, and whether it reads."""

    def __init__(self, here: Any, there: Any):
        super().__init__(hostAddress=here, peerAddress=there)
        self.half_closed = self.aborted = False

    def loseWriteConnection(self):
        assert self.producer is None, "Twisted does not end the stream while a producer is paused"
        self.half_closed = True

    def abortConnection(self):
        self.aborted = True
        self.disconnected = True

    def resumeProducing(self):
        self.producerState = "producing"

    def unregisterProducer(self):
        """As Twisted's transports, without an error if there is no producer."""
        self.producer = None

    def getTcpNoDelay(self):
        return True

    def setTcpNoDelay(self, enabled):
        """Yes."""

    def getTcpKeepAlive(self):
        return True

    def setTcpKeepAlive(self, enabled):
        """Yes."""

    @property
    def reads(self):
        return self.producerState == "producing"

    def heard(self):
        """What was written since the last look."""
        data = self.value()
        self.clear()
        return data


@pytest.fixture
def reactor():
    return FakeReactor()


@pytest.fixture
def fake_socket():
    return FakeSocket()


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def clock(monkeypatch):
    """The time of Autobahn's timers."""
    return autobahn_clock(monkeypatch)


@pytest.fixture
def port(server, clock):
    """A WebSocket port, to open clients on."""
    return Port(server, clock)


@pytest.fixture
def wire():
    """Make a transport: ``wire(here="127.0.0.1", port=8081, there="127.0.0.1")``."""

    def make(here="127.0.0.1", port=8081, there="127.0.0.1"):
        far: Any = IPv6Address if ":" in there else IPv4Address
        return Wire(IPv4Address("TCP", here, port), far("TCP", there, 50000))

    return make
