"""The other end of a WebSocket, without a socket: what a client of the shell's sends, and what it hears."""

import json
from typing import Any

import pytest
import txaio
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.server.websocket_streams import frame
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.testing import FakeServer

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
PING_INTERVAL, PING_TIMEOUT = 20, 10


def autobahn_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of Autobahn's timers, which it takes from txaio."""
    clock = Clock()
    txaio.use_twisted()
    monkeypatch.setattr(txaio.config, "loop", clock)
    return clock


def pass_time(clock: Clock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)


class Transport:
    """A connection whose socket can be full. As Twisted's, it does not close before a producer has let go of it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.producer: Any = None
        self.reading = True
        self.ending: str | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = self.ending is None

    def loseConnection(self) -> None:
        assert self.producer is None, "a producer that is paused would hold the connection open"
        self.ending, self.reading = self.ending or "closed", False

    def abortConnection(self) -> None:
        self.ending, self.reading = "aborted", False

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8082)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class Client:
    """The other end of a WebSocket: ``send`` messages and ``received`` what has come since the last look."""

    def __init__(self, factory: WebSocketFactory) -> None:
        self.transport = Transport()
        self.server: Any = factory.buildProtocol(None)
        self.server.makeConnection(self.transport)

    def send_bytes(self, data: bytes) -> None:
        """Bytes come in at the server, if it reads."""
        assert self.transport.reading
        self.server.dataReceived(data)

    def asks(self, *protocols: str, extra: tuple[str, ...] = (), behind: bytes = b"") -> bytes:
        """Begin the handshake; gives the head of the answer."""
        lines = ["GET /ws HTTP/1.1", "Host: 127.0.0.1:8082", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *extra]
        if protocols:
            lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
        self.send_bytes("\r\n".join([*lines, "", ""]).encode() + behind)
        head, _, rest = bytes(self.transport.written).partition(b"\r\n\r\n")
        self.transport.written[:] = rest
        return head

    def frames(self) -> list[tuple[int, bytes]]:
        """First byte and payload of each frame since the last look; half a frame is an error."""
        data, self.transport.written = bytes(self.transport.written), bytearray()
        frames = []
        while data:
            size, start = data[1], 2
            assert size <= 126
            if size == 126:
                size, start = int.from_bytes(data[2:4], "big"), 4
            assert len(data) >= start + size
            frames.append((data[0], data[start : start + size]))
            data = data[start + size :]
        return frames

    def send(self, *messages: str | dict[str, Any]) -> None:
        texts = [message if isinstance(message, str) else json.dumps(message) for message in messages]
        self.send_bytes(b"".join(frame(TEXT, text.encode()) for text in texts))

    def received(self) -> list[Any]:
        """Messages, JSON where they are; all that was heard must be messages."""
        frames = self.frames()
        assert all(first == TEXT for first, _ in frames), frames
        texts = [payload.decode() for _, payload in frames]
        return [json.loads(text) if text.startswith("{") else text for text in texts]

    def is_closed_with(self, code: int, *before: str) -> None:
        """What was heard are these messages and then a close frame with that code, and nothing else."""
        *others, (first, payload) = self.frames()
        assert first == CLOSE and int.from_bytes(payload[:2], "big") == code, payload
        assert others == [(TEXT, text.encode()) for text in before]

    def answers_close(self, code: int) -> None:
        self.send_bytes(frame(CLOSE, code.to_bytes(2, "big")))

    def stalls(self) -> None:
        """The socket is full."""
        self.transport.producer.pauseProducing()

    def drains(self) -> None:
        """There is room in the socket again."""
        if self.transport.producer is not None:
            self.transport.producer.resumeProducing()
        self.server.factory.reactor.advance(0)

    def goes(self) -> None:
        """The connection is gone."""
        self.transport.reading = False
        if self.transport.producer is not None:
            self.transport.producer.stopProducing()
            self.transport.producer = None
        self.server.connectionLost(Failure(ConnectionDone()))


class Port:
    """Where clients connect."""

    def __init__(self, server: FakeServer, clock: Clock) -> None:
        self.factory = WebSocketFactory(server.context, clock, 0, PING_INTERVAL, PING_TIMEOUT)

    def connect(self) -> Client:
        """A client before its handshake."""
        return Client(self.factory)

    def open(self, *protocols: str) -> Client:
        """A client that has shaken hands and heard its welcome."""
        client = self.connect()
        assert client.asks(*protocols).startswith(b"HTTP/1.1 101 ")
        assert len(client.received()) == 1
        return client
