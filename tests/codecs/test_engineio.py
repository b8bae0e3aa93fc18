"""Packets, payloads and requests of Engine.IO."""

from base64 import b64encode

import pytest
from hypothesis import strategies as st

from tests.fuzz.grammars import damaged
from tests.fuzz.properties import holds
from twistedsock.codecs.engineio import (
    MAX_CACHED_BYTES,
    MAX_PARAMETERS,
    NOOP,
    PING,
    PROBE,
    HandshakeError,
    InvalidPacket,
    Packet,
    PacketType,
    Query,
    decode_frame,
    decode_payload,
    encode_payload,
    encode_text,
    open_packet,
    read_query,
)
from twistedsock.codecs.websocket import binary_frame, text_fragment, text_frame

HELLO = Packet(PacketType.MESSAGE, b"hello")
BINARY = Packet(PacketType.MESSAGE, b"\x01\x02\x03\x04", True)

PACKETS = st.one_of(
    st.builds(
        Packet, st.sampled_from(PacketType), st.text(max_size=20).map(lambda text: text.replace("\x1e", "").encode())
    ),
    st.builds(Packet, st.just(PacketType.MESSAGE), st.binary(max_size=20), st.just(True)),
)


def test_payload_contains_the_messages_of_frames() -> None:
    """A message can begin in one object and end in the next; one without an end is left out."""
    first, rest = text_fragment(b"4b", True, False), text_fragment(b"c", False, True)
    frames = text_frame(b"4a") + binary_frame(bytes(range(200))) + first
    unfinished = text_frame(b"4d") + text_fragment(b"4e", True, False)
    ping = Packet(PacketType.PING)
    whole = encode_payload([ping, frames, rest, ping, unfinished])
    binary = b"b" + b64encode(bytes(range(200)))
    assert whole.split(b"\x1e") == [b"2", b"4a", binary, b"4bc", b"2", b"4d"]
    assert encode_payload([text_frame(b"4" + b"x" * 70_000)]) == b"4" + b"x" * 70_000


@pytest.mark.parametrize(
    ("packet", "text"),
    [(PING, b"2"), (PROBE, b"2probe"), (NOOP, b"6"), (HELLO, b"4hello"), (Packet(PacketType.MESSAGE), b"4")],
)
def test_text_frame_has_type_and_data(packet: Packet, text: bytes) -> None:
    assert encode_text(packet) == text
    assert decode_frame(text, False) == packet


def test_binary_frame_is_a_message_without_type() -> None:
    assert decode_frame(b"\x01\x02\x03\x04", True) == BINARY


def test_binary_message_can_be_a_text_frame() -> None:
    """``forceBase64`` of the client for JavaScript."""
    assert decode_frame(b"bAQIDBA==", False) == BINARY


@pytest.mark.parametrize("text", [b"", b"abc", b"7", b"9x", b"\xd9\xa4", b"-1", b" 4"])
def test_rejects_unknown_packet_types(text: bytes) -> None:
    with pytest.raises(InvalidPacket, match="unknown packet type"):
        decode_frame(text, False)


def test_payload_separates_packets_and_encodes_binary_messages() -> None:
    body = b"4hello\x1ebAQIDBA==\x1e2"
    assert encode_payload([HELLO, BINARY, PING]) == body
    assert list(decode_payload(body)) == [HELLO, BINARY, PING]


@pytest.mark.parametrize("body", [b"", b"abc", b"4a\x1e", b"\x1e4a", b"4a\x1e\x1e4b", b"4\xff", b"4a\x1e9"])
def test_rejects_malformed_payloads(body: bytes) -> None:
    with pytest.raises(InvalidPacket):
        list(decode_payload(body))


@pytest.mark.parametrize(
    "text", [b"bAQIDBA", b"bAQID BA==", b"b!!!!", b"bA", b"bAQIDBA===", b"bAQ=IDBA=", "bé".encode()]
)
def test_rejects_invalid_binary_messages(text: bytes) -> None:
    """CVE-2026-59725: an invalid binary POST ended the server."""
    with pytest.raises(InvalidPacket, match="not base64"):
        list(decode_payload(text))
    with pytest.raises(InvalidPacket, match="not base64"):
        decode_frame(text, False)


def test_payload_is_decoded_step_by_step() -> None:
    packets = decode_payload(b"4first\x1eabc")
    assert next(packets) == Packet(PacketType.MESSAGE, b"first")
    with pytest.raises(InvalidPacket):
        next(packets)


def test_open_packet_has_exactly_the_fields_of_the_protocol() -> None:
    packet = open_packet(b"abc", ("websocket",), 25.0, 0.2, 1_000_000)
    assert encode_text(packet) == (
        b'0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":200,"maxPayload":1000000}'
    )
    assert b'"upgrades":[],' in open_packet(b"abc", (), 25.0, 20.0, 1).data


def test_only_short_payloads_are_kept() -> None:
    """Clients that poll receive the same events; the memory of a long answer counts for its client only."""
    short, long = (text_frame(b"4" + b"x" * size) for size in (100, MAX_CACHED_BYTES))
    assert encode_payload([short]) is encode_payload([short])
    assert encode_payload([long]) is not encode_payload([long])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"EIO=4&transport=polling", Query("polling", "", "4", {"EIO": "4", "transport": "polling"})),
        (b"transport=websocket&sid=a_-1", Query("websocket", "a_-1", "", {"transport": "websocket", "sid": "a_-1"})),
        (
            b"EIO=4&transport=polling&t=x&q=a+b%21",
            Query("polling", "", "4", {"EIO": "4", "transport": "polling", "t": "x", "q": "a b!"}),
        ),
        (
            b"EIO=3&transport=polling&sid=a",
            Query("polling", "a", "3", {"EIO": "3", "transport": "polling", "sid": "a"}),
        ),
        (b"", HandshakeError.UNKNOWN_TRANSPORT),
        (b"EIO=4", HandshakeError.UNKNOWN_TRANSPORT),
        (b"EIO=4&transport=abc", HandshakeError.UNKNOWN_TRANSPORT),
        (b"EIO=4&transport=__proto__", HandshakeError.UNKNOWN_TRANSPORT),
        (b"transport=polling", HandshakeError.UNSUPPORTED_REVISION),
        (b"EIO=3&transport=websocket", HandshakeError.UNSUPPORTED_REVISION),
        (b"EIO=4&EIO=4&transport=polling", HandshakeError.BAD_REQUEST),
        (b"EIO=4&transport=polling&x=%ff", HandshakeError.BAD_REQUEST),
        (b"EIO=4&transport=polling&%ff=x", HandshakeError.BAD_REQUEST),
        (b"EIO=4&transport=polling&sid=a%0ab", HandshakeError.UNKNOWN_SESSION),
        (b"EIO=4&transport=polling&sid=" + b"a" * 65, HandshakeError.UNKNOWN_SESSION),
        (b"&".join(b"x%d=1" % number for number in range(MAX_PARAMETERS + 1)), HandshakeError.BAD_REQUEST),
    ],
)
def test_reads_queries(query: bytes, expected: Query | HandshakeError) -> None:
    assert read_query(query) == expected


def test_errors_have_the_numbers_of_the_reference() -> None:
    assert HandshakeError.UNKNOWN_SESSION.body == b'{"code":1,"message":"Session ID unknown"}'
    assert HandshakeError.UNKNOWN_SESSION.message == "Session ID unknown"
    assert [error.status for error in HandshakeError] == [400, 400, 400, 400, 403, 400]


@holds(packets=st.lists(PACKETS, min_size=1, max_size=5))
def test_payloads_round_trip(packets: list[Packet]) -> None:
    """A payload is decoded to the packets that it was made of."""
    assert list(decode_payload(encode_payload(packets))) == packets


@holds(body=damaged(st.lists(PACKETS, min_size=1, max_size=4).map(encode_payload)))
def test_any_payload(body: bytes) -> None:
    """A damaged payload is decoded to packets that are encoded as the same bytes, or it is an invalid packet."""
    try:
        packets = list(decode_payload(body))
    except InvalidPacket:
        return
    assert list(decode_payload(encode_payload(packets))) == packets


@holds(query=damaged(st.just(b"EIO=4&transport=polling&sid=abc&t=1")))
def test_any_query(query: bytes) -> None:
    """A damaged query is an error, or one with a known transport."""
    found = read_query(query)
    assert isinstance(found, HandshakeError) or found.transport in ("polling", "websocket")
