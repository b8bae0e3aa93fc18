"""NATS: its client protocol (docs.nats.io/reference/reference-protocols/nats-protocol), over TCP and WebSocket."""

from collections.abc import Sequence

from bench.drivers.frames import binary_client_frame, binary_server_frame
from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import upgrade

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nPING\r\n'
"""Not verbose, so that publications are not replied to: the usual way of its clients. PONG confirms it."""

VERBOSE_CONNECT = CONNECT.replace(b'"verbose":false', b'"verbose":true')


class Nats:
    """Over TCP. If ``is_acknowledged``, each command is replied to with +OK."""

    name = "nats tcp"
    is_predictable = True
    is_size_predictable = False
    # The server measures the way to each client once, a second or two after it has connected.
    keep_alive: ServerPing | None = ServerPing(b"PING\r\n", b"PONG\r\n")

    def __init__(self, is_acknowledged: bool = False) -> None:
        self.reply_mark = b"+OK" if is_acknowledged else b""
        self._connect = VERBOSE_CONNECT if is_acknowledged else CONNECT

    def greet(self, host: str) -> Sequence[Exchange]:
        return [Exchange(b"", b"\r\n", b"INFO "), Exchange(self._connect, b"PONG\r\n")]

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(b"SUB %b %d\r\nPING\r\n" % (channel, number), b"PONG\r\n")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [b"PUB %b %d\r\n%b\r\n" % (channel, len(payload), payload) for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [b"MSG %b %d %d\r\n%b\r\n" % (channel, number, len(payload), payload) for payload in payloads]


class NatsWebSocket(Nats):
    """The same bytes in binary messages. The server puts as many lines into one message as wait, so how it cuts cannot
    be is_predictable."""

    name = "nats websocket"
    is_predictable = False
    is_size_predictable = False
    # To a publisher it comes alone in a message; readers need not answer within any load.
    keep_alive: ServerPing | None = ServerPing(binary_server_frame(b"PING\r\n"), binary_client_frame(b"PONG\r\n"))

    def greet(self, host: str) -> Sequence[Exchange]:
        return [
            Exchange(upgrade("/", host), b"INFO", b"HTTP/1.1 101 "),
            Exchange(binary_client_frame(self._connect), b"PONG\r\n"),
        ]

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        step = super().subscribe(channel, number)
        return step._replace(request=binary_client_frame(step.request))

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [binary_client_frame(line) for line in super().publish(channel, payloads)]
