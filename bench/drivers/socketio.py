"""Socket.IO 5 (the protocol of Socket.IO 4) in Engine.IO 4, over the WebSocket transport from the start
(socket.io/docs/v4/engine-io-protocol and socket-io-protocol)."""

from collections.abc import Sequence

from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import client_frame, server_frame, upgrade

MESSAGE = b"4"
"""The Engine.IO packet that holds one of Socket.IO: 0 connects, 2 is an event, 3 acknowledges one."""


class SocketIo:
    """Events "subscribe", acknowledged, and "publish", not acknowledged; to every reader "event"."""

    name = "socket.io websocket"
    is_predictable = True
    is_size_predictable = False
    reply_mark = b""
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        """Engine.IO opens, then Socket.IO connects, answered by an object that ends with our id there."""
        return [
            Exchange(upgrade("/socket.io/?EIO=4&transport=websocket", host), b'"maxPayload"', b"HTTP/1.1 101 "),
            Exchange(client_frame(MESSAGE + b"0"), b'"}'),
        ]

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(
            client_frame(MESSAGE + b'2%d["subscribe","%b"]' % (number, channel)), MESSAGE + b"3%d[]" % number
        )

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [client_frame(MESSAGE + b'2["publish","%b","%b"]' % (channel, payload)) for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [server_frame(MESSAGE + b'2["event","%b","%b"]' % (channel, payload)) for payload in payloads]
