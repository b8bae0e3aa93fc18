"""MQTT 3.1.1 with QoS 0 (docs.oasis-open.org/mqtt/mqtt/v3.1.1), over TCP and WebSocket."""

from collections.abc import Sequence

from bench.drivers.frames import binary_client_frame, binary_server_frame
from twistedsock.bench.clients import Exchange, ServerPing
from twistedsock.bench.wires import upgrade


def remaining_length(size: int) -> bytes:
    """Seven bits a byte, the lowest first, the eighth where more follow (section 2.2.3)."""
    data = bytearray()
    while True:
        size, low = divmod(size, 0x80)
        data.append(low | (0x80 if size else 0))
        if not size:
            return bytes(data)


def packet(first: int, *parts: bytes) -> bytes:
    """A control packet: its type and flags, its length, its body (section 2)."""
    body = b"".join(parts)
    return bytes((first,)) + remaining_length(len(body)) + body


def text(value: bytes) -> bytes:
    """A string with its length (section 1.5.3)."""
    return len(value).to_bytes(2, "big") + value


CLEAN_SESSION = 0x02
NO_KEEP_ALIVE = bytes(2)
CONNECT = packet(0x10, text(b"MQTT"), bytes((4, CLEAN_SESSION)), NO_KEEP_ALIVE, text(b""))
"""Section 3.1, level 4, which is 3.1.1: without a name of our own, and without pings."""
ACCEPTED = packet(0x20, bytes((0, 0)))
"""CONNACK, section 3.2."""


class Mqtt:
    """Over TCP. Publishes of QoS 0 are not answered."""

    name = "mqtt tcp"
    is_predictable = True
    is_size_predictable = False
    reply_mark = b""
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        return [Exchange(CONNECT, ACCEPTED)]

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        """SUBSCRIBE and SUBACK, sections 3.8 and 3.9."""
        identifier = number.to_bytes(2, "big")
        return Exchange(packet(0x82, identifier, text(channel), b"\0"), packet(0x90, identifier, b"\0"))

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """PUBLISH, section 3.3: with QoS 0 it has no identifier, so readers get what the publisher sent."""
        return [packet(0x30, text(channel), payload) for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [packet(0x30, text(channel), payload) for payload in payloads]


class MqttWebSocket(Mqtt):
    """Packets in binary messages (section 6)."""

    name = "mqtt websocket"

    def greet(self, host: str) -> Sequence[Exchange]:
        return [
            Exchange(upgrade("/mqtt", host, "mqtt"), b"\r\n\r\n", b"HTTP/1.1 101 "),
            Exchange(binary_client_frame(CONNECT), ACCEPTED),
        ]

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        step = super().subscribe(channel, number)
        return step._replace(request=binary_client_frame(step.request))

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [binary_client_frame(each) for each in super().publish(channel, payloads)]

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [binary_server_frame(each) for each in super().deliveries(channel, payloads, number)]
