"""Connections to the ports without sockets: their clients can stall, and a fake reactor has the time."""

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
        self.is_closed = False

    def send_bytes(self, data: bytes) -> bool:
        """Send bytes unless reading is paused. Returns whether they were read."""
        if self.is_closed or not self.transport.is_reading:
            return False
        self.protocol.dataReceived(data)
        self.close_if_server_closed()
        return True

    def stall(self) -> None:
        if self.transport.producer is not None and not self.is_closed:
            self.transport.producer.pauseProducing()

    def drain(self) -> None:
        if self.transport.producer is not None and not self.is_closed:
            self.transport.producer.resumeProducing()

    def half_close(self) -> None:
        """End the stream of the client. Protocols without half-close close the connection."""
        if not self.is_closed:
            if hasattr(self.protocol, "readConnectionLost"):
                self.protocol.readConnectionLost()
                self.close_if_server_closed()
            else:
                self.close()

    def close_if_server_closed(self) -> None:
        if self.transport.is_closed:
            self.close()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.transport.end_producer()
            self.protocol.connectionLost(Failure(ConnectionDone()))


@contextmanager
def quiet_reactor() -> Iterator[Clock]:
    """A fake reactor, which Autobahn uses too. Fails if an error is logged inside the context."""
    clock = Clock()
    errors: list[str] = []

    def collect_error(event: Any) -> None:
        if event["log_level"] in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            errors.append(f"{formatEvent(event)} {failure.getTraceback() if failure else ''}")

    globalLogPublisher.addObserver(collect_error)
    try:
        with autobahn_loop(clock):
            yield clock
    finally:
        globalLogPublisher.removeObserver(collect_error)
    assert not errors, errors[0]
