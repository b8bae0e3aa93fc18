"""Packets of Socket.IO, protocol revision 5.

A packet is one Engine.IO message of text, ``<type>[<attachments>-][<namespace>,][<id>][JSON]``, and a binary message
for each attachment. The JSON has an object ``{"_placeholder":true,"num":0}`` in place of each attachment.

Source: ``docs/socket.io-protocol/v5-current.md`` in the repository socketio/socket.io.
"""

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from twistedsock.codecs.payload import MAX_DEPTH, is_too_deep, replace_unpaired_surrogates

MAIN_NAMESPACE = "/"

MAX_ATTACHMENTS = 10
"""Of one packet, as in the reference implementation. Without a limit, a client could let the server wait for any number
of them (CVE-2026-33151)."""

MAX_NAMESPACE_BYTES = 500
"""Error messages repeat the name of a namespace."""

RESERVED_NAMES = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
"""Names of events that clients and servers emit locally. A program could take an event of that name for its own."""

NAMES_OF_LIBRARIES = RESERVED_NAMES | {"*", "__disconnect_final"}
"""Names that a client cannot take for an event: those, a handler for all events in ``python-socketio``, and an event
that this library emits locally."""

TOO_DEEP = f"data too deep: at most {MAX_DEPTH} levels are allowed"

PLACEHOLDER = b'{"_placeholder":true,"num":0}'
"""The JSON in place of the only attachment of a packet."""

# The characters that Socket.IO programs use in names of events and this server does not allow, except #: the server
# uses that for its own events, and no client can send them.
_ESCAPES = {" ": "%20", "*": "%2A", "+": "%2B", ">": "%3E", "?": "%3F", "%": "%25"}

_TO_ESCAPE = re.compile("[ *+>?]|%(?=20|2A|2B|3E|3F|25)")

_ESCAPED = re.compile("%(20|2A|2B|3E|3F|25)")


def event_name_to_server(name: str) -> bytes:
    """The name of an event as other protocols write it: ``chat message`` is ``chat%20message``."""
    return _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], name).encode()


def event_name_to_client(name: bytes) -> str:
    """The reverse of ``event_name_to_server``."""
    text = name.decode()
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "%" in text else text


class PacketType(IntEnum):
    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class InvalidPacket(Exception):
    """The client has violated the protocol. Its connection must be closed. The message says how."""


class _InvalidData(Exception):
    """The packet can be answered, but its data are invalid. The message says how."""


class SocketPacket(msgspec.Struct, frozen=True):
    """``items`` are JSON texts: the elements of the array of an event or ack, or the only value of another packet. The
    first element of an event is its name. Events and acks with attachments have the types EVENT and ACK too.

    ``error`` says why the data are invalid, and is empty if they are not. Their brackets are those that the type
    requires, so the packet can be answered. It has no items then."""

    type: PacketType
    namespace: str = MAIN_NAMESPACE
    items: tuple[bytes, ...] = ()
    id: int | None = None
    attachments: tuple[bytes, ...] = ()
    error: str = ""

    @property
    def event_name(self) -> str:
        """The name of an event. A number is a name too, as it is written."""
        name = self.items[0]
        return _read_text(name) if name.startswith(b'"') else name.decode()

    @property
    def values(self) -> list[Any]:
        """The values of the items, with attachments as ``bytes``; for an event without its name. Raises
        ``InvalidPacket``."""
        items = self.items[1:] if self.type is PacketType.EVENT else self.items
        values = [_decode(item) for item in items]
        return [_restore(value, self.attachments) for value in values] if self.attachments else values


# Possessive quantifiers: no text makes this backtrack.
_HEAD = re.compile(rb"([0-6])(?:([0-9]++)-)?(/[^,]*+,?+)?([0-9]++)?", re.DOTALL)

_TYPES = {b"%d" % type: type for type in PacketType}

_QUOTE = b'"'[0]

_MAX_DIGITS = 15
"""Of ids, so that they are exact in JavaScript."""

_read_items = msgspec.json.Decoder(tuple[msgspec.Raw, ...]).decode

_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_read_text = msgspec.json.Decoder(str).decode

_read = msgspec.json.Decoder().decode

_write = msgspec.json.Encoder().encode


def _decode(text: bytes) -> Any:
    try:
        return _read(text)
    except msgspec.DecodeError:
        raise InvalidPacket("invalid JSON") from None


def _restore(value: Any, attachments: Sequence[bytes]) -> Any:
    """The value with attachments in place of placeholders. The depth of values is limited."""
    if isinstance(value, list):
        return [_restore(item, attachments) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("_placeholder") is not True:
        return {name: _restore(item, attachments) for name, item in value.items()}
    number = value.get("num")
    if type(number) is not int or not 0 <= number < len(attachments):
        raise InvalidPacket("invalid placeholder: it refers to no attachment")
    return attachments[number]


class PacketDecoder:
    """Joins the messages of packets. ``max_bytes`` is the maximum size of a packet with its attachments."""

    __slots__ = ("_attachments", "_expected", "_max_attachments", "_max_bytes", "_packet", "buffered_bytes")

    def __init__(self, max_bytes: int, max_attachments: int = MAX_ATTACHMENTS) -> None:
        self._max_bytes = max_bytes
        self._max_attachments = max_attachments
        self._packet: SocketPacket | None = None
        self._attachments: list[bytes] = []
        self._expected = 0
        self.buffered_bytes = 0
        """The size of a packet that waits for attachments."""

    def feed(self, data: bytes, is_binary: bool) -> SocketPacket | None:
        """One message. Returns a packet if it is complete now. Raises ``InvalidPacket``."""
        packet = self._packet
        if not is_binary:
            if packet is not None:
                raise InvalidPacket("unexpected text: attachments are missing")
            packet, attachments = decode_text(data)
            if not attachments:
                return packet
            if attachments > self._max_attachments:
                raise InvalidPacket(f"too many attachments: at most {self._max_attachments} are allowed")
            self._packet, self._expected, self.buffered_bytes = packet, attachments, len(data)
            return None
        if packet is None:
            raise InvalidPacket("unexpected binary message: no packet waits for an attachment")
        self.buffered_bytes += len(data)
        if self.buffered_bytes > self._max_bytes:
            raise InvalidPacket(f"packet too long: at most {self._max_bytes} bytes are allowed with attachments")
        self._attachments.append(data)
        if len(self._attachments) < self._expected:
            return None
        complete = msgspec.structs.replace(packet, attachments=tuple(self._attachments))
        self._packet, self._attachments, self.buffered_bytes = None, [], 0
        return complete


def decode_text(text: bytes) -> tuple[SocketPacket, int]:
    """The packet in a text, which is valid UTF-8, and the number of attachments that it still waits for. Raises
    ``InvalidPacket``."""
    head = _HEAD.match(text)
    if head is None:
        raise InvalidPacket("unknown packet type: the first character must be a digit from 0 to 6")
    number, count, namespace, id = head.groups()
    type, attachments = _TYPES[number], 0
    if type in (PacketType.BINARY_EVENT, PacketType.BINARY_ACK):
        # A packet that waits for no attachment would be complete and kept nevertheless (CVE-2026-69185).
        if count is None or len(count) > _MAX_DIGITS or (attachments := int(count)) < 1:
            raise InvalidPacket("invalid number of attachments: at least 1 is required")
        type = PacketType.EVENT if type is PacketType.BINARY_EVENT else PacketType.ACK
    elif count is not None:
        raise InvalidPacket("unexpected number of attachments: the packet is not binary")
    if id is not None and len(id) > _MAX_DIGITS:
        raise InvalidPacket(f"invalid id: at most {_MAX_DIGITS} digits are allowed")
    if type is PacketType.ACK and id is None:
        raise InvalidPacket("invalid ack: the id is missing")
    items, error = tuple[bytes, ...](), ""
    try:
        items = _decode_items(type, text[head.end() :])
    except _InvalidData as invalid:
        error = str(invalid)
    name = MAIN_NAMESPACE if namespace is None else _name(namespace)
    return SocketPacket(type, name, items, None if id is None else int(id), error=error), attachments


def _name(namespace: bytes) -> str:
    """The name of a namespace. Clients can send a query behind it."""
    if len(namespace) > MAX_NAMESPACE_BYTES:
        raise InvalidPacket(f"namespace too long: at most {MAX_NAMESPACE_BYTES} bytes are allowed")
    return namespace.removesuffix(b",").partition(b"?")[0].decode()


def _decode_items(type: PacketType, data: bytes) -> tuple[bytes, ...]:
    if b"\\u" in data:
        data = replace_unpaired_surrogates(data)
    try:
        match type:
            case PacketType.EVENT | PacketType.ACK:
                items = tuple(map(bytes, _read_items(data)))
                # The array around them is not a level. How deep msgspec can read depends on the version of Python.
                if len(data) > 2 * MAX_DEPTH and any(map(is_too_deep, items)):
                    raise _InvalidData(TOO_DEEP)
            case PacketType.CONNECT:
                items = (data,) if data else ()
                if data:
                    _read_object(data)
                    if is_too_deep(data):
                        raise _InvalidData(TOO_DEEP)
            case PacketType.DISCONNECT if not data:
                items = ()
            case _:
                raise InvalidPacket(f"unexpected packet or data: {type.name.lower()}")
    except RecursionError:
        raise _InvalidData(TOO_DEEP) from None
    except msgspec.DecodeError as error:
        if data[:1] + data[-1:] != (b"{}" if type is PacketType.CONNECT else b"[]"):
            raise InvalidPacket(f"invalid data: {type.name.lower()}") from None
        raise _InvalidData(f"invalid JSON: {error}") from None
    if type is PacketType.EVENT:
        _check_name(items)
    return items


_NAME_STARTS = frozenset(b'"-0123456789')


def _check_name(items: Sequence[bytes]) -> None:
    if not items:
        raise InvalidPacket("invalid event: the name is missing")
    name = items[0]
    if name[0] not in _NAME_STARTS or (name[0] == _QUOTE and _read_text(name) in RESERVED_NAMES):
        raise InvalidPacket("invalid event name: send a string that is not reserved, or a number")


def encode_packet(packet: SocketPacket) -> tuple[bytes, ...]:
    """The messages of a packet: a text, and the binary ones behind it."""
    type, attachments = packet.type, b""
    if packet.attachments:
        type = PacketType.BINARY_EVENT if type is PacketType.EVENT else PacketType.BINARY_ACK
        attachments = b"%d-" % len(packet.attachments)
    data = b",".join(packet.items)
    if packet.type in (PacketType.EVENT, PacketType.ACK):
        data = b"[%b]" % data
    namespace = b"" if packet.namespace == MAIN_NAMESPACE else packet.namespace.encode() + b","
    id = b"" if packet.id is None else b"%d" % packet.id
    return (b"%d%b%b%b%b" % (type, attachments, namespace, id, data), *packet.attachments)


def encode_values(values: Iterable[Any]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The items and the attachments of a packet. ``bytes``, ``bytearray`` and ``memoryview`` become attachments. Raises
    ``TypeError`` or ``ValueError`` for values that JSON cannot represent."""
    attachments: list[bytes] = []
    items: list[bytes] = []
    for value in values:
        try:
            item = _write(_extract(value, attachments))
        except RecursionError:
            raise ValueError(TOO_DEEP) from None
        if is_too_deep(item):
            raise ValueError(TOO_DEEP)
        items.append(item)
    return tuple(items), tuple(attachments)


def _extract(value: Any, attachments: list[bytes]) -> Any:
    """The value with placeholders for what is binary."""
    if isinstance(value, bytes | bytearray | memoryview):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {name: _extract(item, attachments) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_extract(item, attachments) for item in value]
    return value
