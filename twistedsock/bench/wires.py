"""Drivers for the two protocols of sockbridge (docs/reference/line-protocol.md, docs/reference/json-protocol.md)."""

import base64
from collections.abc import Sequence

from twistedsock.bench.clients import Exchange, ServerPing

NICK = b"bench"
"""The nickname of every publisher, so that deliveries are predictable."""


def client_frame(message: bytes) -> bytes:
    """Return a text message of a client (RFC 6455, section 5.2). The mask is zero: the work of the server is the same
    with any mask, and the generator saves the work."""
    size = len(message)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + bytes(4) + message
    if size < 1 << 16:
        return b"\x81\xfe" + size.to_bytes(2, "big") + bytes(4) + message
    return b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + message


def server_frame(message: bytes) -> bytes:
    """Return a text message of a server, which is not masked."""
    size = len(message)
    if size < 126:
        return bytes((0x81, size)) + message
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + message
    return b"\x81\x7f" + size.to_bytes(8, "big") + message


def upgrade(path: str, host: str, subprotocol: str = "") -> bytes:
    """Return the request of a WebSocket handshake (RFC 6455, section 4.1). The key is constant, because no cache is on
    the way to the server."""
    key = base64.b64encode(bytes(range(16))).decode()
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode()


class Lines:
    """The line protocol over TCP, with a reply to every publication."""

    name = "lines"
    is_predictable = True
    is_size_predictable = False
    reply_mark = b"OK "
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        return [Exchange(b"", b"\n", b"WELCOME sockbridge/1 ")]

    def prepare(self) -> Sequence[Exchange]:
        return [Exchange(b"NICK %b\n" % NICK, b"OK %b\n" % NICK)]

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(b"SUB %b\n" % channel, b"\n", b"OK ")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [b"PUB %b %b\n" % (channel, payload) for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b"".join([b"OK %d\n" % offset for offset in range(1, count + 1)])

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [b"MSG %b %d %b %b\n" % (channel, offset, NICK, payload) for offset, payload in enumerate(payloads, 1)]


class Json:
    """The JSON protocol over WebSocket. Without an id, only failed publications are replied to."""

    name = "websocket"
    is_predictable = False
    is_size_predictable = True
    reply_mark = b""
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        return [Exchange(upgrade("/ws", host), b'"}', b"HTTP/1.1 101 ")]

    def prepare(self) -> Sequence[Exchange]:
        return [Exchange(client_frame(b'{"type":"nick","id":1,"nick":"%b"}' % NICK), b'"nick":"%b"}' % NICK)]

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        return Exchange(client_frame(b'{"type":"subscribe","id":%d,"channel":"%b"}' % (number, channel)), b"}")

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [
            client_frame(b'{"type":"publish","channel":"%b","data":"%b"}' % (channel, payload)) for payload in payloads
        ]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        """The messages. The time of publication cannot be predicted, but its length."""
        return [
            server_frame(
                b'{"type":"event","channel":"%b","offset":%d,"time":1764394200123,"from":"%b","name":"message","data":"%b"}'
                % (channel, offset, NICK, payload)
            )
            for offset, payload in enumerate(payloads, 1)
        ]
