"""Clients of the two ports, without sockets: sent bytes, and received messages."""

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fakes import FakeTransport, connect
from tests.fuzz.grammars import frame
from twistedsock.server.sockets import DEFAULT_LISTENER, ListenerConfig
from twistedsock.server.tcp import LineFactory
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.testing import FakeServer

HOST = "127.0.0.1:8082"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
PING_INTERVAL, PING_TIMEOUT = 20, 10


def request_bytes(path: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    """A request. Underscores in names of headers become hyphens."""
    headers = {"Host": HOST, **headers}
    if body and "Transfer_Encoding" not in headers:
        headers.setdefault("Content_Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def upgrade(path: str = "/ws", **headers: str) -> bytes:
    """The head of a WebSocket handshake."""
    return request_bytes(path, **UPGRADE, **headers)


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and payload of each frame. An incomplete frame is an error."""
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


class Connection:
    """A connection to a factory. Input goes to the present protocol of the transport."""

    def __init__(self, factory: Any, transport: FakeTransport) -> None:
        self.transport = transport
        transport.protocol = factory.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)

    @property
    def protocol(self) -> Any:
        return self.transport.protocol

    def send_bytes(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def half_close(self) -> None:
        """The client ends its stream. As in Twisted, protocols without a method for it lose the connection."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.disconnect()

    def disconnect(self) -> None:
        """The connection is lost."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


class LineConnection(Connection):
    """A connection to the line port."""

    def __init__(self, server: FakeServer, factory: LineFactory, transport: FakeTransport) -> None:
        self.server = server
        super().__init__(factory, transport)

    def send_bytes(self, data: bytes) -> None:
        super().send_bytes(data)
        self.server.turn()

    def send(self, *lines: str) -> None:
        self.send_bytes("".join(line + "\n" for line in lines).encode())

    def half_close(self) -> None:
        super().half_close()
        self.server.turn()

    def received(self) -> list[str]:
        """Complete lines since the last call."""
        data = self.transport.output()
        assert data.endswith(b"\n") or not data
        return data.decode().split("\n")[:-1]


class LinePort:
    """A line port. Calling it opens a connection."""

    def __init__(
        self,
        reactor: Any,
        server: FakeServer,
        listening: ListenerConfig = DEFAULT_LISTENER,
        web_address: str = "http://127.0.0.1:8082/",
    ) -> None:
        self.server = server
        self.factory = LineFactory(server.context, reactor, 0, web_address, listening)

    def __call__(self, there: str = "127.0.0.1") -> LineConnection:
        return LineConnection(self.server, self.factory, connect(there=there))


MakeLinePort = Callable[..., LinePort]
"""The fixture ``make_lines``."""


class WebSocketClient:
    """A client of a WebSocket factory."""

    def __init__(self, factory: WebSocketFactory) -> None:
        self.transport = connect(port=8082)
        self.server: Any = factory.buildProtocol(None)
        self.server.makeConnection(self.transport)

    def send_bytes(self, data: bytes) -> None:
        assert self.transport.is_reading
        self.server.dataReceived(data)

    def shake_hands(self, *protocols: str, extra: tuple[str, ...] = (), behind: bytes = b"") -> bytes:
        """Send a handshake, and ``behind`` in the same read. Returns the head of the response."""
        lines = ["GET /ws HTTP/1.1", f"Host: {HOST}", *(f"{name}: {value}" for name, value in UPGRADE.items()), *extra]
        if protocols:
            lines.append("Sec-WebSocket-Protocol: " + ", ".join(protocols))
        self.send_bytes("\r\n".join([*lines, "", ""]).encode() + behind)
        head, _, rest = self.transport.output().partition(b"\r\n\r\n")
        self.transport.write(rest)
        return head

    def frames(self) -> list[tuple[int, bytes]]:
        """The frames since the last call."""
        return split_frames(self.transport.output())

    def send(self, *messages: str | dict[str, Any]) -> None:
        texts = [message if isinstance(message, str) else json.dumps(message) for message in messages]
        self.send_bytes(b"".join(frame(TEXT, text.encode()) for text in texts))

    def received(self) -> list[Any]:
        """Messages since the last call, decoded if they are JSON. Other frames are an error."""
        frames = self.frames()
        assert all(first == TEXT for first, _ in frames), frames
        texts = [payload.decode() for _, payload in frames]
        return [json.loads(text) if text.startswith("{") else text for text in texts]

    def is_closed_with(self, code: int, *before: str) -> None:
        """Assert that these messages were received, then a close frame with that code, and nothing else."""
        *others, (first, payload) = self.frames()
        assert first == CLOSE and int.from_bytes(payload[:2], "big") == code, payload
        assert others == [(TEXT, text.encode()) for text in before]

    def answer_close(self, code: int) -> None:
        self.send_bytes(frame(CLOSE, code.to_bytes(2, "big")))

    def stall(self) -> None:
        """The socket is full."""
        assert self.transport.producer is not None
        self.transport.producer.pauseProducing()

    def drain(self) -> None:
        """The socket has room again."""
        if self.transport.producer is not None:
            self.transport.producer.resumeProducing()
        self.server.factory.reactor.advance(0)

    def disconnect(self) -> None:
        """The connection is lost."""
        self.transport.end_producer()
        self.server.connectionLost(Failure(ConnectionDone()))


class WebSocketPort:
    """A port to which WebSocket clients connect, without the web port before it."""

    def __init__(self, server: FakeServer, clock: Clock) -> None:
        self.factory = WebSocketFactory(server.context, clock, 0, PING_INTERVAL, PING_TIMEOUT)

    def connect(self) -> WebSocketClient:
        """A client before its handshake."""
        return WebSocketClient(self.factory)

    def open(self, *protocols: str) -> WebSocketClient:
        """A client that has received the welcome."""
        client = self.connect()
        assert client.shake_hands(*protocols).startswith(b"HTTP/1.1 101 ")
        assert len(client.received()) == 1
        return client


def pass_time(clock: Clock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
