"""Packets of Engine.IO, protocol revision 4, the transport layer of Socket.IO.

A packet is a message or a control signal. Over WebSocket, each packet is one frame. Over HTTP long polling, a body
carries a payload: several packets with ``0x1e`` between them. ``codecs.engineio_session`` decides what the packets do.

Source: ``docs/engine.io-protocol/v4-current.md`` in the repository socketio/socket.io.
"""

import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, IntEnum
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from twistedsock.codecs.payload import is_utf8
from twistedsock.codecs.websocket import split_frames

PROTOCOL_REVISION = "4"
"""The value of the query parameter ``EIO``."""

PATH = "/socket.io/"
"""The default path of Socket.IO clients."""

POLLING = "polling"

WEBSOCKET = "websocket"

SEPARATOR = b"\x1e"
"""Between the packets of a payload. JSON cannot contain it, because it escapes control characters."""

MAX_PARAMETERS = 100
"""In one query, as in those of the HTTP API."""

POLL_TYPE = b"text/plain; charset=UTF-8"


class PacketType(IntEnum):
    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


MESSAGE = b"4"
"""The type of a text packet with a message, before its data."""


class Packet(msgspec.Struct, frozen=True, gc=False):
    """``data`` is valid UTF-8 unless the packet is a binary message."""

    type: PacketType
    data: bytes = b""
    is_binary: bool = False


CLOSE = Packet(PacketType.CLOSE)

PING = Packet(PacketType.PING)

UPGRADE = Packet(PacketType.UPGRADE)

NOOP = Packet(PacketType.NOOP)

PROBE = Packet(PacketType.PING, b"probe")
"""The first packet of a WebSocket to which a session moves."""

PROBE_ANSWER = Packet(PacketType.PONG, b"probe")


class InvalidPacket(Exception):
    """The client has violated the protocol. Its session must be closed. The message says how."""


class HandshakeError(Enum):
    """Errors of requests: the numbers and messages of the reference implementation."""

    UNKNOWN_TRANSPORT = (0, "Transport unknown")
    UNKNOWN_SESSION = (1, "Session ID unknown")
    BAD_METHOD = (2, "Bad handshake method")
    BAD_REQUEST = (3, "Bad request")
    FORBIDDEN = (4, "Forbidden")
    UNSUPPORTED_REVISION = (5, "Unsupported protocol version")

    @property
    def status(self) -> int:
        """The status of the HTTP response."""
        return 403 if self is HandshakeError.FORBIDDEN else 400

    @property
    def message(self) -> str:
        return self.value[1]

    @property
    def body(self) -> bytes:
        """The body of the HTTP response, in JSON."""
        number, message = self.value
        return b'{"code":%d,"message":"%b"}' % (number, message.encode())


_TYPES = {b"%d" % type: type for type in PacketType}

_PLAIN = [Packet(type) for type in PacketType]


def _decode_text(text: bytes) -> Packet:
    type = _TYPES.get(text[:1])
    if type is None:
        raise InvalidPacket("unknown packet type: the first character must be a digit from 0 to 6")
    return Packet(type, text[1:]) if len(text) > 1 else _PLAIN[type]


def decode_frame(data: bytes, is_binary: bool) -> Packet:
    """The packet in a WebSocket message. A text is valid UTF-8. Raises ``InvalidPacket``."""
    return Packet(PacketType.MESSAGE, data, True) if is_binary else _decode_part(data)


def encode_text(packet: Packet) -> bytes:
    """The packet as the text of a WebSocket message. Binary messages are sent as they are instead."""
    return b"%d%b" % (packet.type, packet.data)


def decode_payload(body: bytes) -> Iterator[Packet]:
    """The packets in the body of a POST request, one by one: a body of 1 MB can have 500,000. Raises
    ``InvalidPacket``."""
    if not is_utf8(body):
        raise InvalidPacket("invalid payload: not valid UTF-8")
    start = 0
    while start <= len(body):
        end = body.find(SEPARATOR, start)
        if end < 0:
            end = len(body)
        part = body[start:end]
        yield _decode_part(part)
        start = end + 1


def _decode_part(text: bytes) -> Packet:
    """One packet of a payload. Clients with ``forceBase64`` send the same over WebSocket."""
    return _decode_base64(text[1:]) if text.startswith(b"b") else _decode_text(text)


def _decode_base64(text: bytes) -> Packet:
    """A binary message (RFC 4648 section 4). Other decoders skip invalid characters, and a message with them removed is
    not the one that the client has sent."""
    try:
        return Packet(PacketType.MESSAGE, a2b_base64(text, strict_mode=True), True)
    except Base64Error:
        raise InvalidPacket("invalid binary message: not base64") from None


def encode_payload(packets: Iterable[Packet | bytes]) -> bytes:
    """The packets as the body of a response. ``bytes`` are packets that have been encoded as WebSocket frames. A packet
    can begin in one of them and end in the next; one that does not end is left out."""
    parts: list[bytes] = []
    frames: list[bytes] = []
    for packet in packets:
        if isinstance(packet, bytes):
            frames.append(packet)
            continue
        if frames:
            parts.append(_frames_to_payload(frames))
            frames = []
        parts.append(b"b" + b64encode(packet.data) if packet.is_binary else encode_text(packet))
    if frames:
        parts.append(_frames_to_payload(frames))
    return SEPARATOR.join([part for part in parts if part])


MAX_CACHED_BYTES = 131_072
"""Of frames. Longer ones are seldom sent to several clients, and the memory of the cache counts for no client."""


def _frames_to_payload(parts: Sequence[bytes]) -> bytes:
    """The packets in WebSocket frames as a payload. All clients that poll receive an event as the same object, which is
    encoded again once for them."""
    frames = parts[0] if len(parts) == 1 else b"".join(parts)
    return _encode_frames(frames) if len(frames) > MAX_CACHED_BYTES else _encode_cached_frames(frames)


def _encode_frames(frames: bytes) -> bytes:
    return SEPARATOR.join([b"b" + b64encode(data) if is_binary else data for data, is_binary in split_frames(frames)])


_encode_cached_frames = lru_cache(maxsize=16)(_encode_frames)


def open_packet(
    sid: bytes, upgrades: Iterable[str], ping_interval: float, ping_timeout: float, max_payload: int
) -> Packet:
    """The first packet of a session. Times are seconds; the packet has milliseconds."""
    return Packet(
        PacketType.OPEN,
        b'{"sid":"%b","upgrades":[%b],"pingInterval":%d,"pingTimeout":%d,"maxPayload":%d}'
        % (
            sid,
            b",".join([b'"%b"' % name.encode() for name in upgrades]),
            round(ping_interval * 1000),
            round(ping_timeout * 1000),
            max_payload,
        ),
    )


_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Query(msgspec.Struct, frozen=True):
    """The query of a request. ``sid`` is empty for a new session. ``parameters`` are all of them, for applications."""

    transport: str
    sid: str
    revision: str
    parameters: dict[str, str]


def read_query(query: bytes) -> Query | HandshakeError:
    """Parse the part of the URL after the ``?``. Other parameters than those of the protocol can occur; one that occurs
    twice is an error, because programs disagree on which value counts."""
    pairs = query.split(b"&") if query else []
    if len(pairs) > MAX_PARAMETERS:
        return HandshakeError.BAD_REQUEST
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, _, value = (unquote_to_bytes(part.replace(b"+", b" ")) for part in pair.partition(b"="))
        if not is_utf8(name) or not is_utf8(value) or name.decode() in parameters:
            return HandshakeError.BAD_REQUEST
        parameters[name.decode()] = value.decode()
    get = parameters.get
    transport, sid = get("transport", ""), get("sid", "")
    if transport not in (POLLING, WEBSOCKET):
        return HandshakeError.UNKNOWN_TRANSPORT
    if sid and not _SID.fullmatch(sid):
        return HandshakeError.UNKNOWN_SESSION
    revision = get("EIO", "")
    if not sid and revision != PROTOCOL_REVISION:
        return HandshakeError.UNSUPPORTED_REVISION
    return Query(transport, sid, revision, parameters)
