"""Fake sockets, transports and reactors for tests of the server, built on ``twisted.internet.testing``."""

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EOPNOTSUPP
from typing import Any

import txaio
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

Logged = list[dict[str, Any]]
"""The fixture ``logged``: events of the log."""


class FakeSocket:
    """A socket that accepts ``room`` bytes (None: all), or raises ``error``. ``incoming`` are the results of ``recv``:
    bytes, or the number of an error."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.room: int | None = None
        self.error: int | None = None
        self.sends = 0
        self.incoming: list[bytes | int] = []
        self.shut_down = self.closed = False

    def send(self, data: bytes) -> int:
        self.sends += 1
        if self.error is not None:
            raise OSError(self.error, "set by the test")
        accepted = len(data) if self.room is None else min(self.room, len(data))
        if not accepted and data:
            raise OSError(EAGAIN, "full")
        self.sent += data[:accepted]
        if self.room is not None:
            self.room -= accepted
        return accepted

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise OSError(EAGAIN, "empty")
        data = self.incoming.pop(0)
        if isinstance(data, int):
            raise OSError(data, "set by the test")
        return data

    def fileno(self) -> int:
        return 77

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 8081)

    def setblocking(self, flag: int) -> None:
        assert flag == 0

    def shutdown(self, how: int) -> None:
        self.shut_down = True

    def setsockopt(self, *arguments: Any) -> None:
        """SO_LINGER, when the connection is aborted."""

    def getsockopt(self, *arguments: Any) -> Any:
        raise OSError(EOPNOTSUPP, "not supported")

    def close(self) -> None:
        self.closed = True


class FakeReactor(Clock):
    """A clock that records which descriptors wait. ``system_calls`` would each be an epoll_ctl of a real reactor."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.system_calls = 0

    def addReader(self, selectable: Any) -> None:
        self.system_calls += 1
        self.readers.add(selectable)

    def removeReader(self, selectable: Any) -> None:
        self.system_calls += 1
        self.readers.discard(selectable)

    def addWriter(self, selectable: Any) -> None:
        self.system_calls += 1
        self.writers.add(selectable)

    def removeWriter(self, selectable: Any) -> None:
        self.system_calls += 1
        self.writers.discard(selectable)

    def turn(self) -> None:
        """Run what was scheduled for the next turn."""
        self.advance(0)


@implementer(ITCPTransport)
class FakeTransport(StringTransport):
    """A TCP connection that accepts all writes. As Twisted's, it does not close before its producer is unregistered."""

    def __init__(self, host: Any = None, peer: Any = None) -> None:
        super().__init__(
            hostAddress=host or IPv4Address("TCP", "127.0.0.1", 8081),
            peerAddress=peer or IPv4Address("TCP", "127.0.0.1", 50000),
        )
        self.protocol: Any = None
        self.half_closed = self.aborted = False

    def output(self) -> bytes:
        """The bytes written since the last call."""
        data: bytes = self.value()
        self.clear()
        return data

    @property
    def is_reading(self) -> bool:
        return self.producerState == "producing" and not self.is_closed

    @property
    def is_closed(self) -> bool:
        """Closed or aborted, but not half-closed."""
        return self.disconnecting or self.aborted

    def loseConnection(self) -> None:
        assert self.producer is None, "Twisted does not close while a producer is registered"
        super().loseConnection()

    def loseWriteConnection(self) -> None:
        assert self.producer is None, "Twisted does not end the stream while a producer is paused"
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = self.disconnected = True

    def resumeProducing(self) -> None:
        self.producerState = "producing"

    def unregisterProducer(self) -> None:
        """Unlike the base, as Twisted's transports, it accepts that there is no producer."""
        self.producer = None

    def end_producer(self) -> None:
        """Called when the connection is lost."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Always set."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Always set."""


def connect(here: str = "127.0.0.1", port: int = 8081, there: str = "127.0.0.1") -> FakeTransport:
    """A transport between two IP addresses: the server's, and the client's."""
    family: Any = IPv6Address if ":" in there else IPv4Address
    return FakeTransport(IPv4Address("TCP", here, port), family("TCP", there, 50000))


@contextmanager
def autobahn_loop(reactor: Any) -> Iterator[None]:
    """Let Autobahn's timers, which use txaio, run on a fake reactor."""
    txaio.use_twisted()
    loop, txaio.config.loop = txaio.config.loop, reactor
    try:
        yield
    finally:
        txaio.config.loop = loop


class Ticking:
    """A clock that advances by ``step`` seconds each time it is read."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now
