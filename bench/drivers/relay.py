"""The JSON that the relays of bench/relays speak, in WebSocket messages of text."""

from collections.abc import Sequence

from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import client_frame, server_frame, upgrade


class Relay:
    """Arrays, the smallest JSON that holds a command: ["subscribe", channel], ["publish", channel, data], and to every
    reader ["event", channel, data]. A publish is not answered."""

    is_predictable = True
    is_size_predictable = False
    reply_mark = b""
    keep_alive: ServerPing | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, host: str) -> Sequence[Exchange]:
        return [Exchange(upgrade("/", host), b'["welcome"]', b"HTTP/1.1 101 ")]

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(client_frame(b'["subscribe","%b"]' % channel), b'["subscribed","%b"]' % channel)

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [client_frame(b'["publish","%b","%b"]' % (channel, payload)) for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [server_frame(b'["event","%b","%b"]' % (channel, payload)) for payload in payloads]
