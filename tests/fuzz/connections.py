"""Connections to the ports, without sockets, for random tests: a client that can stall, and a fake reactor."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from tests.fakes import autobahn_loop, connect


class Connection:
    """A connection of one client to a port."""

    def __init__(self, factory: Any, port: int) -> None:
        self.transport = connect(port=port)
        self.protocol = factory.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self.transport)
        self.gone = False

    def send_bytes(self, data: bytes) -> bool:
        """Send bytes unless reading is paused. Returns whether they were read."""
        if self.gone or not self.transport.is_reading:
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
        """End the stream of the client. Protocols without half-close take it for the end of the connection."""
        if not self.gone:
            if hasattr(self.protocol, "readConnectionLost"):
                self.protocol.readConnectionLost()
                self.ends_if_closed()
            else:
                self.goes()

    def ends_if_closed(self) -> None:
        if self.transport.is_closed:
            self.goes()

    def goes(self) -> None:
        if not self.gone:
            self.gone = True
            self.transport.end_producer()
            self.protocol.connectionLost(Failure(ConnectionDone()))


@contextmanager
def quiet_reactor() -> Iterator[Clock]:
    """A reactor that Autobahn uses too. An error that is logged meanwhile is a failure."""
    clock = Clock()
    errors: list[str] = []

    def note(event: Any) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            errors.append(f"{formatEvent(event)} {failure.getTraceback() if failure else ''}")

    globalLogPublisher.addObserver(note)
    try:
        with autobahn_loop(clock):
            yield clock
    finally:
        globalLogPublisher.removeObserver(note)
    assert not errors, errors[0]
