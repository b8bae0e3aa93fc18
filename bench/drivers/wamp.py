"""WAMP 2 in JSON over WebSocket (wamp-proto.org/spec.html)."""

from collections.abc import Sequence

from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import client_frame, upgrade

REALM = b"realm1"


class Wamp:
    """Publications are not acknowledged. Every event has a random id of its publication, so it is not predictable."""

    name = "wamp websocket"
    is_predictable = False
    is_size_predictable = False
    reply_mark = b""
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        """HELLO and WELCOME, section 4.1: its last words are those of the details' dictionary."""
        hello = b'[1,"%b",{"roles":{"publisher":{},"subscriber":{}}}]' % REALM
        return [
            Exchange(upgrade("/ws", host, "wamp.2.json"), b"\r\n\r\n", b"HTTP/1.1 101 "),
            Exchange(client_frame(hello), b"}]"),
        ]

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        """SUBSCRIBE and SUBSCRIBED."""
        return Exchange(client_frame(b'[32,%d,{},"%b"]' % (number, channel)), b"]")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """PUBLISH. The number of the request counts from 1, as it must; blanks before it give all one length."""
        return [
            client_frame(b'[16,%9d,{},"%b",["%b"]]' % (number, channel, payload))
            for number, payload in enumerate(payloads, 1)
        ]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        """EVENT, but for what cannot be is_predictable."""
        return [b'["%b"]' % payload for payload in payloads]
