"""Packets of Socket.IO. Each rejection is one of the official suite, or an advisory about another implementation."""

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.grammars import damaged
from tests.fuzz.properties import buffer_limit, buffered_bytes, holds
from twistedsock.codecs.payload import MAX_DEPTH
from twistedsock.codecs.socketio import (
    MAX_ATTACHMENTS,
    MAX_NAMESPACE_BYTES,
    RESERVED_NAMES,
    InvalidPacket,
    PacketDecoder,
    PacketType,
    SocketPacket,
    encode_packet,
    encode_values,
)

MAX_BYTES = 10_000

CONNECT, DISCONNECT, EVENT, ACK, ERROR = (
    PacketType.CONNECT,
    PacketType.DISCONNECT,
    PacketType.EVENT,
    PacketType.ACK,
    PacketType.CONNECT_ERROR,
)


def decode(text: str, *attachments: bytes, decoder: PacketDecoder | None = None) -> SocketPacket:
    """The packet of these messages."""
    decoder = decoder or PacketDecoder(MAX_BYTES)
    packet = decoder.feed(text.encode(), False)
    for attachment in attachments:
        assert packet is None
        packet = decoder.feed(attachment, True)
    assert packet is not None
    return packet


def event(*values: Any, **fields: Any) -> SocketPacket:
    items, attachments = encode_values(values)
    return SocketPacket(EVENT, items=items, attachments=attachments, **fields)


PACKETS = [
    ("0", SocketPacket(CONNECT)),
    ('0{"token":"123"}', SocketPacket(CONNECT, items=(b'{"token":"123"}',))),
    ("0/custom,", SocketPacket(CONNECT, "/custom")),
    ('0/custom,{"a":1}', SocketPacket(CONNECT, "/custom", (b'{"a":1}',))),
    ("1", SocketPacket(DISCONNECT)),
    ("1/custom,", SocketPacket(DISCONNECT, "/custom")),
    ('2["message",1,"2",{"3":[true]}]', event("message", 1, "2", {"3": [True]})),
    ('2/custom,["a"]', event("a", namespace="/custom")),
    ('2456["a"]', event("a", id=456)),
    ('2/custom,0["a"]', event("a", namespace="/custom", id=0)),
    ("2[5]", event(5)),
    ("3456[]", SocketPacket(ACK, id=456)),
    ('3/custom,7["ok",null]', SocketPacket(ACK, "/custom", (b'"ok"', b"null"), 7)),
]


@pytest.mark.parametrize(("text", "packet"), PACKETS)
def test_packets_of_text(text: str, packet: SocketPacket) -> None:
    assert decode(text) == packet
    assert encode_packet(packet) == (text.encode(),)


@pytest.mark.parametrize(
    ("text", "namespace"),
    [
        ("0/custom", "/custom"),
        ("1/custom", "/custom"),
        ("0/custom?token=abc,", "/custom"),
        ("0/a?b", "/a"),
        ("0/,", "/"),
    ],
)
def test_other_forms_of_namespaces(text: str, namespace: str) -> None:
    assert decode(text).namespace == namespace


def test_error_is_encoded() -> None:
    packet = SocketPacket(ERROR, "/random", (b'{"message":"Invalid namespace"}',))
    assert encode_packet(packet) == (b'4/random,{"message":"Invalid namespace"}',)


def test_attachments_replace_their_placeholders() -> None:
    text = '52-/custom,789["image",{"a":[{"_placeholder":true,"num":1}]},{"_placeholder":true,"num":0}]'
    packet = decode(text, b"\x01", b"\x02")
    assert (packet.type, packet.namespace, packet.id, packet.event_name) == (EVENT, "/custom", 789, "image")
    assert packet.values == [{"a": [b"\x02"]}, b"\x01"]
    assert encode_packet(packet) == (text.encode(), b"\x01", b"\x02")


def test_ack_with_an_attachment() -> None:
    packet = decode('61-7[{"_placeholder":true,"num":0}]', b"\x01")
    assert (packet.type, packet.id, packet.values) == (ACK, 7, [b"\x01"])
    assert encode_packet(packet) == (b'61-7[{"_placeholder":true,"num":0}]', b"\x01")


def test_values_without_attachments() -> None:
    assert decode('2["a",{"_placeholder":true,"num":0}]').values == [{"_placeholder": True, "num": 0}]
    assert decode('2[17,"b"]').event_name == "17"


def test_bytes_become_attachments() -> None:
    items, attachments = encode_values(["a", {"b": bytearray(b"1"), "c": (memoryview(b"2"), 3)}, b"4"])
    assert attachments == (b"1", b"2", b"4")
    assert [json.loads(item) for item in items] == [
        "a",
        {"b": {"_placeholder": True, "num": 0}, "c": [{"_placeholder": True, "num": 1}, 3]},
        {"_placeholder": True, "num": 2},
    ]


INVALID = {
    "nothing": "",
    "an unknown type": "9",
    "a type that is no ASCII digit": "٢[]",
    "no digit": "abc",
    "an object as event": "2{}",
    "an event without data": "2",
    "an event without name": "2[]",
    "an event in another JSON value": '2"a"',
    "JSON with something behind it": '2["a"]x',
    "an unfinished event": '2["a"',
    "a name that is an object (CVE-2023-32695)": '2[{"toString":"x"}]',
    "a name that is an array": '2[["a"]]',
    "a name that is a boolean": "2[true]",
    "a name that is null": "2[null]",
    "an ack without id": "3[]",
    "an ack without data": "37",
    "an ack with an object": "37{}",
    "a long id": "2" + "1" * 16 + '["a"]',
    "a connect with an array": "0[]",
    "a connect with a string": '0"a"',
    "a connect with broken JSON": "0{",
    "a disconnect with data": "1[]",
    "an error, which only servers send": '4{"message":"x"}',
    "a number of attachments in an event": '21-["a"]',
    "no attachments (CVE-2026-69185)": '50-["a"]',
    "no attachments of an ack (CVE-2026-69185)": "60-7[]",
    "no number of attachments": '5["a"]',
    "a binary event without a number": '5-["a"]',
    "a negative number of attachments": '5-1-["a"]',
    "many attachments (CVE-2026-33151)": f'5{MAX_ATTACHMENTS + 1}-["a"]',
    "a huge number of attachments": "5" + "9" * 5000 + '-["a"]',
    "digits of another script": '5١-["a"]',
    "a long namespace": "0/" + "a" * MAX_NAMESPACE_BYTES + ",",
}


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID)
def test_rejects_invalid_text(text: str) -> None:
    with pytest.raises(InvalidPacket):
        decode(text)


DEEP = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)

# More than some versions of Python read.
DEEPER = "[" * 4000 + "]" * 4000


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (f'2/a,7["b",{DEEP}]', "data too deep: at most 100 levels are allowed"),
        (f'2/a,7["b",{DEEPER}]', "data too deep"),
        ('2/a,7["b",NaN]', "invalid JSON: JSON is malformed"),
        ("2/a,7[NaN]", "invalid JSON"),
        ('2/a,7["b",01]', "invalid JSON"),
        ('2/a,7["b"],[]', "invalid JSON"),
        (f"3/a,7[1,{DEEP}]", "data too deep"),
        (f"3/a,7[{DEEPER}]", "data too deep"),
        ('0/a,{"b":Infinity}', "invalid JSON"),
        (f'0/a,{{"b":{DEEP}}}', "data too deep"),
        (f'0/a,{{"b":{DEEPER}}}', "data too deep"),
    ],
)
def test_packet_with_invalid_data_can_be_answered(packet: str, error: str) -> None:
    found = decode(packet)
    id = None if packet.startswith("0") else 7
    assert (found.type, found.namespace, found.id, found.items) == (int(packet[0]), "/a", id, ())
    assert found.error.startswith(error)


def test_attachments_follow_invalid_data() -> None:
    decoder = PacketDecoder(MAX_BYTES)
    packet = decode('51-7["a",{"_placeholder":true,"num":0},NaN]', b"1", decoder=decoder)
    assert packet.error and packet.id == 7
    assert decode('2["a"]', decoder=decoder) == event("a")


def test_rejects_values_that_cannot_be_read() -> None:
    packet = decode('2["a",1e400]')
    assert packet.items[1] == b"1e400"
    with pytest.raises(InvalidPacket):
        _ = packet.values


@pytest.mark.parametrize("name", ["-1", "1.5", "1e400", "9" * 400])
def test_numbers_are_names(name: str) -> None:
    assert decode(f"2[{name}]").event_name == name


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_rejects_reserved_names(name: str) -> None:
    with pytest.raises(InvalidPacket, match="invalid event name"):
        decode(f'2["{name}"]')


@pytest.mark.parametrize(
    "placeholder",
    ["", *(f',"num":{number}' for number in ("1", "-1", '"0"', "0.0", "true"))],
)
def test_rejects_placeholders_without_an_attachment(placeholder: str) -> None:
    """CVE-2022-2421: the index could be any value."""
    packet = decode(f'51-["a",{{"_placeholder":true{placeholder}}}]', b"\x01")
    with pytest.raises(InvalidPacket, match="invalid placeholder"):
        _ = packet.values


def test_rejects_values_that_are_no_json() -> None:
    packet = SocketPacket(EVENT, items=(b'"a"', b"\xff"))
    with pytest.raises(InvalidPacket, match="invalid JSON"):
        _ = packet.values


def test_unpaired_surrogates_are_replaced() -> None:
    """JavaScript can send them, and UTF-8 cannot represent them."""
    assert decode('2["a","\\ud83d"]').values == ["\ufffd"]


def test_rejects_a_binary_message_without_packet() -> None:
    with pytest.raises(InvalidPacket, match="unexpected binary message"):
        PacketDecoder(MAX_BYTES).feed(b"\x01", True)


def test_rejects_text_instead_of_an_attachment() -> None:
    decoder = PacketDecoder(MAX_BYTES)
    assert decoder.feed(b'52-["a"]', False) is None
    assert decoder.feed(b"\x01", True) is None
    with pytest.raises(InvalidPacket, match="attachments are missing"):
        decoder.feed(b'2["b"]', False)


def test_rejects_attachments_over_the_limit() -> None:
    decoder = PacketDecoder(100)
    decoder.feed(b'52-["a"]', False)
    decoder.feed(b"x" * 92, True)
    assert decoder.buffered_bytes == 100
    with pytest.raises(InvalidPacket, match="packet too long"):
        decoder.feed(b"x", True)


def test_decoder_continues_after_a_packet_with_attachments() -> None:
    decoder = PacketDecoder(MAX_BYTES)
    for _ in range(2):
        assert decode('51-["a",{"_placeholder":true,"num":0}]', b"\x01", decoder=decoder).values == [b"\x01"]
        assert decode('2["b"]', decoder=decoder).event_name == "b"
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("value", [{1, 2, object()}, float, object()])
def test_rejects_values_that_json_cannot_represent(value: Any) -> None:
    with pytest.raises(TypeError):
        encode_values([value])


def test_rejects_deep_and_circular_values() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="too deep"):
        encode_values([value])
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(ValueError, match="too deep"):
        encode_values([deep])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.binary(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=4), children, max_size=3),
    max_leaves=6,
)

NAMES = st.text(min_size=1, max_size=8).filter(lambda name: name not in RESERVED_NAMES)


@holds(name=NAMES, values=st.lists(VALUES, max_size=3), id=st.none() | st.integers(0, 10**15 - 1))
def test_events_round_trip(name: str, values: list[Any], id: int | None) -> None:
    """An event is decoded to the values that it was made of."""
    sent = event(name, *values, namespace="/a", id=id)
    if len(sent.attachments) <= MAX_ATTACHMENTS:
        text, *attachments = encode_packet(sent)
        received = decode(text.decode(), *attachments)
        assert (received.event_name, received.values, received.id) == (name, values, id)


TEXTS = st.sampled_from([text.encode() for text, _ in PACKETS] + [b'52-/a,1["b",{"_placeholder":true,"num":1}]'])


@holds(messages=st.lists(st.one_of(damaged(TEXTS), st.binary(max_size=200)), max_size=8), is_binary=st.integers(0, 255))
def test_any_messages(messages: list[bytes], is_binary: int) -> None:
    """Whatever is received, a decoder returns valid packets or raises InvalidPacket, and its buffers are bounded."""
    decoder = PacketDecoder(500)
    for index, message in enumerate(messages):
        try:
            packet = decoder.feed(message.decode(errors="replace").encode(), bool(is_binary >> index & 1))
            if packet is not None:
                json.dumps(packet.values, default=str)
                assert packet.type is not EVENT or packet.event_name not in RESERVED_NAMES
        except InvalidPacket:
            return
        assert buffered_bytes(decoder) <= 8 * buffer_limit(500) and decoder.buffered_bytes <= 500 + len(message)
