"""WAMP 2 in JSON over WebSocket (wamp-proto.org/spec.html)."""

from collections.abc import Sequence

from twistedsock.bench.clients import Noise, Step
from twistedsock.bench.wires import client_frame, upgrade

REALM = b"realm1"


class Wamp:
    """Publishes ask for no acknowledgement. Every event bears a random id of its publication, so it is not foretold."""

    name = "wamp websocket"
    foretold = False
    reply_mark = b""
    noise: Noise | None = None

    def greet(self, host: str) -> Sequence[Step]:
        """HELLO and WELCOME, section 4.1: its last words are those of the details' dictionary."""
        hello = b'[1,"%b",{"roles":{"publisher":{},"subscriber":{}}}]' % REALM
        return [
            Step(upgrade("/ws", host, "wamp.2.json"), b"\r\n\r\n", b"HTTP/1.1 101 "),
            Step(client_frame(hello), b"}]"),
        ]

    def prepare(self) -> Sequence[Step]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Step:
        """SUBSCRIBE and SUBSCRIBED."""
        return Step(client_frame(b'[32,%d,{},"%b"]' % (number, channel)), b"]")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """PUBLISH. The number of the request counts from 1, as it must; blanks before it give all one length."""
        return [
            client_frame(b'[16,%9d,{},"%b",["%b"]]' % (number, channel, payload))
            for number, payload in enumerate(payloads, 1)
        ]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        """EVENT, but for what cannot be foretold."""
        return [b'["%b"]' % payload for payload in payloads]
