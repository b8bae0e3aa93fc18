"""Connections without sockets, for the shells: a transport that can stall, and a reactor whose time is ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import txaio
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Transport:
    """Takes all that is written, and tells its producer what a full socket would. As Twisted's, it does not close
    before the producer has let go of it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.written = bytearray()
        self.producer: Any = None
        self.reading = True
        self.half_closed = False
        self.disconnecting = False

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not (self.half_closed or self.disconnecting):
            self.written += data

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = not self.disconnecting

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self.disconnecting, self.reading = True, False

    def abortConnection(self) -> None:
        self.disconnecting, self.reading = True, False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.port)

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Yes."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Yes."""


class Connection:
    """One peer of a listening port, and what becomes of it."""

    def __init__(self, factory: Any, port: int) -> None:
        self.transport = Transport(port)
        self.protocol = factory.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self.transport)
        self.gone = False

    def send_bytes(self, data: bytes) -> bool:
        """Bytes come in, if they are read; whether they were."""
        if self.gone or not self.transport.reading:
            return False
        self.protocol.dataReceived(data)
        self.ends_if_closed()
        return True

    def stalls(self) -> None:
        if self.transport.producer is not None and not self.gone:
            self.transport.producer.pauseProducing()

    def drains(self) -> None:
        if self.transport.producer is not None and not self.gone:
            self.transport.producer.resumeProducing()

    def half_closes(self) -> None:
        """The peer says no more, but reads; to who does not know that, it is the end."""
        if not self.gone:
            if hasattr(self.protocol, "readConnectionLost"):
                self.protocol.readConnectionLost()
                self.ends_if_closed()
            else:
                self.goes()

    def ends_if_closed(self) -> None:
        if self.transport.disconnecting:
            self.goes()

    def goes(self) -> None:
        if not self.gone:
            self.gone, self.transport.reading = True, False
            producer, self.transport.producer = self.transport.producer, None
            if producer is not None:
                producer.stopProducing()
            self.protocol.connectionLost(Failure(ConnectionDone()))


@contextmanager
def quiet_reactor() -> Iterator[Clock]:
    """A reactor; Autobahn's timers follow it, and an error that is logged meanwhile is a failure."""
    clock = Clock()
    txaio.use_twisted()
    loop, txaio.config.loop = txaio.config.loop, clock
    errors: list[str] = []

    def note(event: Any) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            errors.append(f"{formatEvent(event)} {failure.getTraceback() if failure else ''}")

    globalLogPublisher.addObserver(note)
    try:
        yield clock
    finally:
        txaio.config.loop = loop
        globalLogPublisher.removeObserver(note)
    assert not errors, errors[0]
