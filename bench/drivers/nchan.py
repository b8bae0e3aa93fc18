"""Nchan (nchan.io): publishers send HTTP requests, and subscribers are WebSocket connections, each to one channel."""

from collections.abc import Sequence

from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import server_frame, upgrade

PUBLISH, SUBSCRIBE = "/publish/", "/subscribe/"
"""Locations of the configuration (bench/peers/nchan.py). The number of the channel follows."""


def number_of(channel: bytes) -> bytes:
    """The number at the end of a name. A connection cannot change its channel, so all loads use the same channels."""
    return channel.rpartition(b"-")[2]


class Nchan:
    """Each publication is a request, which is replied to."""

    name = "nchan websocket"
    is_predictable = True
    is_size_predictable = False
    reply_mark = b"HTTP/1.1 20"
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        return []

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        if number > 1:
            return Exchange(b"")
        path = SUBSCRIBE + number_of(channel).decode()
        return Exchange(upgrade(path, "bench"), b"\r\n\r\n", b"HTTP/1.1 101 ")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        head = b"POST %b%b HTTP/1.1\r\nHost: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        return [head % (PUBLISH.encode(), number_of(channel), len(payload)) + payload for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [server_frame(payload) for payload in payloads]
