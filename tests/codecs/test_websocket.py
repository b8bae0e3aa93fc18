"""WebSocket frames and handshakes."""

import sys
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.utils import apply_mask

from tests.fuzz.grammars import CUTS, FRAMES, MASKS, SAME, frame
from tests.fuzz.grammars import PLAIN as PLAIN_FRAMES
from tests.fuzz.properties import buffer_limit, buffered_bytes, cut, holds
from twistedsock.codecs.http import read_head
from twistedsock.codecs.payload import is_utf8
from twistedsock.codecs.websocket import (
    PlainFrames,
    are_extensions,
    choose_unmask,
    listed,
    plain_headers,
    split_extensions,
    switching_protocols,
    text_fragment,
    text_frame,
    unmask,
)
from twistedsock.session.commands import Command, Ping

ASCII = bytes(byte & 0x7F for byte in range(256))
MASK = b"\x37\xfa\x21\x3d"
MAX_MESSAGE_BYTES = 70_000

HEADS = {
    0: b"\x81\x00",
    1: b"\x81\x01",
    125: b"\x81\x7d",
    126: b"\x81\x7e\x00\x7e",
    127: b"\x81\x7e\x00\x7f",
    65535: b"\x81\x7e\xff\xff",
    65536: b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    70000: b"\x81\x7f\x00\x00\x00\x00\x00\x01\x11\x70",
}


@pytest.mark.parametrize(("size", "head"), HEADS.items())
def test_head_has_shortest_length(size: int, head: bytes) -> None:
    assert text_frame(b"x" * size) == head + b"x" * size


@pytest.mark.parametrize(("size", "head"), HEADS.items())
@pytest.mark.parametrize(
    ("first", "last", "byte"), [(True, True, 0x81), (True, False, 0x01), (False, False, 0x00), (False, True, 0x80)]
)
def test_fragment_differs_in_first_byte(size: int, head: bytes, first: bool, last: bool, byte: int) -> None:
    assert text_fragment(b"x" * size, first, last) == bytes([byte]) + head[1:] + b"x" * size


def masked(payload: bytes, first: int = 0x81, mask: bytes = MASK) -> bytes:
    """A client's frame, its length in the shortest form."""
    return frame(first, payload, mask, 0)


def read(pieces: list[bytes], max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[list[bytes], bytes]:
    """The messages of plain frames, and the bytes that Autobahn receives: everything from the first other frame on."""
    frames = PlainFrames(max_bytes)
    messages: list[bytes] = []
    rest = b""
    for piece in pieces:
        if rest:
            rest += piece
            continue
        more, rest = frames.feed(piece)
        messages += more
    return messages, rest + frames.drain()


HELLO = masked(b"hello")

PLAIN = {
    "nothing": (b"", []),
    "one": (HELLO, [b"hello"]),
    "the example of RFC 6455 section 5.7": (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", [b"Hello"]),
    "three": (HELLO + masked(b"") + masked("é€😀".encode()), [b"hello", b"", "é€😀".encode()]),
    "of 125 bytes": (masked(b"x" * 125), [b"x" * 125]),
    "of 126 bytes": (masked(b"x" * 126), [b"x" * 126]),
    "of 300 bytes, and one behind": (masked(b"x" * 300) + HELLO, [b"x" * 300, b"hello"]),
}


@pytest.mark.parametrize(("data", "messages"), PLAIN.values(), ids=PLAIN.keys())
def test_decodes_plain_frames_at_every_cut(data: bytes, messages: list[bytes], cuts) -> None:
    for pieces in cuts(data):
        assert read(pieces) == (messages, b""), pieces


OTHER = {
    "a fragment": masked(b"hel", 0x01),
    "a continuation": masked(b"lo", 0x80),
    "binary": masked(b"hello", 0x82),
    "a ping": masked(b"", 0x89),
    "a pong": masked(b"", 0x8A),
    "a close frame": masked(b"\x03\xe8", 0x88),
    "a reserved bit": masked(b"hello", 0xC1),
    "a reserved opcode": masked(b"hello", 0x83),
    "unmasked": b"\x81\x05hello",
    "unmasked and longer": b"\x81\x7e\x00\x7e" + b"x" * 126,
    "not the shortest length": b"\x81\xfe\x00\x7d" + MASK + b"x" * 125,
    "64 bits of length": b"\x81\xff" + (126).to_bytes(8, "big") + MASK + b"x" * 126,
    "the largest length": b"\x81\xff" + b"\xff" * 8 + MASK,
    "not UTF-8": masked(b"hell\xff"),
    "a character cut in two": masked("€".encode()[:2]),
    "larger than allowed": masked(b"x" * 201),
}


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER.keys())
@pytest.mark.parametrize("behind", [b"", HELLO, b"\xff"])
def test_leaves_all_other_frames_to_autobahn(other: bytes, behind: bytes, cuts) -> None:
    for pieces in cuts(HELLO + HELLO + other + behind):
        assert read(pieces, max_bytes=200) == ([b"hello", b"hello"], other + behind), pieces


UNFINISHED = {
    "half a head": HELLO[:1],
    "a head": HELLO[:2],
    "half a mask": HELLO[:4],
    "half a payload": HELLO[:8],
    "half a length": masked(b"x" * 300)[:3],
    "a length": masked(b"x" * 300)[:4],
    "half a long payload": masked(b"x" * 300)[:100],
}


@pytest.mark.parametrize("unfinished", UNFINISHED.values(), ids=UNFINISHED.keys())
def test_keeps_incomplete_frame(unfinished: bytes, cuts) -> None:
    for pieces in cuts(HELLO + unfinished):
        assert read(pieces) == ([b"hello"], unfinished), pieces


def test_drain_returns_incomplete_frame_once() -> None:
    frames = PlainFrames(MAX_MESSAGE_BYTES)
    assert frames.drain() == b""
    assert frames.feed(HELLO[:5]) == ([], b"")
    assert frames.drain() == HELLO[:5]
    assert frames.drain() == b""
    assert frames.feed(HELLO) == ([b"hello"], b"")


def test_decodes_message_of_maximum_size() -> None:
    """A larger one is for Autobahn to reject."""
    assert read([masked(b"x" * 200)], max_bytes=200) == ([b"x" * 200], b"")
    head = masked(b"x" * 201)[:4]
    assert PlainFrames(200).feed(head) == ([], head)


def test_joins_pieces_of_a_frame_once() -> None:
    frames = PlainFrames(MAX_MESSAGE_BYTES)
    data = masked(b"x" * 60_000)
    for index in range(len(data) - 1):
        assert frames.feed(data[index : index + 1]) == ([], b"")
    assert frames.partial is not None and len(frames.partial) > 59_000
    assert frames.feed(data[-1:]) == ([b"x" * 60_000], b"")


MANY = st.tuples(
    st.integers(0, 100),  # of one length
    st.sampled_from([0, 1, 3, 4, 5, 20, 81, 125, 126, 200]),
    st.sampled_from([b"", b"x", "ü".encode(), b"\xff", b"\xc3"]),  # in the place of the last
    st.integers(0, 10_000),
)


@given(st.lists(MANY, max_size=4), st.randoms(use_true_random=False))
def test_decodes_many_frames_of_one_length(runs: list[tuple[int, int, bytes, int]], chance: Random) -> None:
    payloads: list[bytes] = []
    for count, size, other, place in runs:
        alike = [chance.randbytes(size).translate(ASCII) for _ in range(count)]
        if alike and other:
            alike[place % count] = (alike[place % count] + other)[-max(size, len(other)) :]
        payloads += alike
    frames = [masked(payload, mask=chance.randbytes(4)) for payload in payloads]
    bad = next((number for number, payload in enumerate(payloads) if not is_utf8(payload)), len(payloads))
    messages, rest = PlainFrames(MAX_MESSAGE_BYTES).feed(b"".join(frames))
    assert messages == payloads[:bad]
    assert rest == b"".join(frames[bad:])


@pytest.mark.parametrize("missing", [1, 5, 90])
def test_keeps_incomplete_frame_behind_similar_frames(missing: int) -> None:
    payloads = [b"%081d" % number for number in range(100)]
    stream = b"".join(masked(payload) for payload in payloads)
    plain = PlainFrames(MAX_MESSAGE_BYTES)
    messages, rest = plain.feed(stream[:-missing])
    assert (messages, rest) == (payloads[: len(messages)], b"")
    assert messages + plain.feed(stream[-missing:])[0] == payloads


@pytest.mark.parametrize("place", [1, 15, 31])
@pytest.mark.parametrize("first", [0x01, 0x80, 0x82, 0x85, 0x88, 0xC1])
def test_frame_of_another_kind_ends_the_row(place: int, first: int) -> None:
    frames = [masked(b"12345") for _ in range(32)]
    frames[place] = bytes([first]) + frames[place][1:]
    messages, rest = PlainFrames(MAX_MESSAGE_BYTES).feed(b"".join(frames))
    assert messages == [b"12345"] * place
    assert rest == b"".join(frames[place:])


def test_frame_in_tiny_pieces_needs_no_more_memory_than_its_length() -> None:
    """A list of pieces of two bytes would need 28 times as much."""
    frames = PlainFrames(MAX_MESSAGE_BYTES)
    tracemalloc.start()
    try:
        frames.feed(b"\x81\xfe" + (50_000).to_bytes(2) + MASK)
        for _ in range(20_000):
            frames.feed(b"x%d" % 1)
        assert tracemalloc.get_traced_memory()[0] < 60_000
    finally:
        tracemalloc.stop()


def test_frame_is_partial_until_its_end() -> None:
    frames = PlainFrames(100)
    whole = b"\x81\x82\0\0\0\0hi"
    states = []
    for data in (whole, whole[:3], whole[3:5], whole[5:], whole + whole[:1], whole[1:]):
        frames.feed(data)
        states.append(frames.partial is not None)
    assert states == [False, True, True, False, True, False]


MAX_HEAD = 14
"""RFC 6455 section 5.2: two bytes, a length of eight and a mask of four."""


def slowly(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def expected(data: bytes, max_bytes: int) -> tuple[list[bytes], bytes, bool]:
    """A second implementation, frame by frame, from the text of the standard: the messages, the rest, and whether the
    rest begins with another kind of frame."""
    messages: list[bytes] = []
    while data:
        if data[0] != 0x81 or (len(data) > 1 and not data[1] & 0x80):
            return messages, data, True
        if len(data) < 2:
            return messages, data, False
        width = {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
        if width == 8:
            return messages, data, True
        if len(data) < 2 + width:
            return messages, data, False
        size = int.from_bytes(data[2 : 2 + width], "big") if width else data[1] & 0x7F
        if size > max_bytes or (width and size < 126):
            return messages, data, True
        body = 6 + width
        if len(data) < body + size:
            return messages, data, False
        message = slowly(data[body : body + size], data[body - 4 : body])
        if not is_utf8(message):
            return messages, data, True
        messages.append(message)
        data = data[body + size :]
    return messages, b"", False


@holds(
    examples=120,
    data=FRAMES | st.binary() | PLAIN_FRAMES | SAME,
    cuts=CUTS,
    max_bytes=st.sampled_from([130, 512, 65_536]),
)
def test_plain_frames(data: bytes, cuts: list[int], max_bytes: int) -> None:
    """Any bytes, at any cuts, give the messages of the plain frames at their start and the unchanged rest; the buffer
    never exceeds the size of one frame."""
    frames = PlainFrames(max_bytes)
    messages: list[bytes] = []
    pieces = cut(data, cuts)
    rest = b""
    for index, piece in enumerate(pieces):
        more, rest = frames.feed(piece)
        messages += more
        assert buffered_bytes(frames) <= buffer_limit(max_bytes + MAX_HEAD)
        if rest:
            rest += b"".join(pieces[index + 1 :])
            break
    expected_messages, left, is_other = expected(data, max_bytes)
    assert messages == expected_messages
    assert (rest if is_other else frames.drain()) == left


def test_masks_without_the_function_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    in_python = choose_unmask()
    assert in_python is apply_mask and in_python is not unmask
    for size in (*range(10), 125, 1000):
        payload = bytes(range(256))[:size] * (1 + size // 256)
        assert in_python(payload, MASK) == unmask(payload, MASK)


@holds(
    examples=60,
    payload=st.binary(max_size=300) | st.just(bytes(range(256)) * 274),
    mask=MASKS | st.binary(min_size=4, max_size=4),
)
def test_masks(payload: bytes, mask: bytes) -> None:
    """A payload of any length is restored by a second XOR with any mask."""
    assert unmask(payload, mask) == slowly(payload, mask)
    assert unmask(unmask(payload, mask), mask) == payload


@holds(
    examples=30,
    size=st.sampled_from([0, 1, 125, 126, 127, 1023, 1024, 65_535, 65_536, 70_000]) | st.integers(0, 70_000),
)
def test_text_frames(size: int) -> None:
    """A message of any length is one frame, with its length in the shortest form."""
    message = b"x" * size
    assert text_frame(message) == frame(0x81, message, None, 0)


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
PLAIN_HANDSHAKE = {
    "Host": "127.0.0.1:8082",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def key_of(line: str = "GET /ws HTTP/1.1", *more: str, **changes: str | None) -> str:
    """The key of a plain handshake that was changed: other values, headers that are left out (None), and more lines."""
    headers = PLAIN_HANDSHAKE | changes
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more, "", ""]
    read = read_head("\r\n".join(lines).encode("latin-1"))
    return read.key if read is not None else ""


USUAL_VALUES: dict[str, list[str]] = {
    "Host": ["127.0.0.1:8082", "localhost", "[::1]:8082", "[::1]"],
    "Upgrade": ["WebSocket"],
    "Connection": ["keep-alive, Upgrade", "upgrade"],
    "Origin": ["http://127.0.0.1:8082", "https://bridge.example", "http://127.0.0.1:65535"],
    "Sec-WebSocket-Extensions": ["permessage-deflate", "permessage-deflate; client_max_window_bits"],
    "Sec-WebSocket-Protocol": ["sockbridge.v1.json", "chat,  sockbridge.v1.line"],
    "User-Agent": ["Mozilla/5.0 (X11; Linux x86_64)"],
    "Cookie": ["a=b; c=d"],
    "Pragma": [""],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in USUAL_VALUES for value in USUAL_VALUES[name]])
@pytest.mark.parametrize("target", ["/", "/ws", "/socket.io/?EIO=4&transport=websocket"])
def test_accepts_plain_handshake(name: str, value: str, target: str) -> None:
    assert key_of(f"GET {target} HTTP/1.1", **{name: value}) == KEY


UNUSUAL_TARGETS = [
    "GET /ws?a=b HTTP/1.1",
    "GET /ws#a HTTP/1.1",
    "GET http://127.0.0.1/ws HTTP/1.1",
    "GET /socket.io/?EIO=4&a=%20 HTTP/1.1",
]
UNUSUAL_HEADERS = ["Host", ": a", "Upgrade: websocket", "Upgrade : websocket", " X: folded"]
CONTROL_CHARACTERS = ["X: a\tb", "X: a\nb: c", "X: a\x0bb", "X: caf\xe9"]


@pytest.mark.parametrize("line", ["POST /ws HTTP/1.1", "GET /ws HTTP/1.0", "GET /ws HTTP/2", *UNUSUAL_TARGETS])
def test_leaves_unusual_request_line_to_autobahn(line: str) -> None:
    assert key_of(line) == ""


@pytest.mark.parametrize("header", UNUSUAL_HEADERS + CONTROL_CHARACTERS)
def test_leaves_unusual_header_to_autobahn(header: str) -> None:
    assert key_of("GET /ws HTTP/1.1", header) == ""


UNUSUAL_VALUES: dict[str, list[str | None]] = {
    "Host": [None, "", "a b", "a:b", "a:100000"],
    "Upgrade": [None, "h2c", "h2c, websocket"],
    "Connection": [None, "keep-alive"],
    "Sec-WebSocket-Version": [None, "8"],
    "Sec-WebSocket-Key": [None, "", KEY[:-1], KEY[:-2] + "=A", "-" + KEY[1:], KEY + "=="],
    "Sec-WebSocket-Extensions": ["", "permessage-deflate; client_max_window_bits=99", "permessage-bzip2"],
    "Sec-WebSocket-Protocol": ["", "a,", "a, a"],
    "Origin": ["null", "", "file://", "http://a b", "http://[::1", "http://a:65536"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in UNUSUAL_VALUES for value in UNUSUAL_VALUES[name]]
)
def test_leaves_unusual_value_to_autobahn(name: str, value: str | None) -> None:
    assert key_of(**{name: value}) == ""


@pytest.mark.parametrize(
    ("value", "words"), [("", []), ("a", ["a"]), (" a ,b", ["a", "b"]), (",a,, b\t,", ["a", "b"]), (" ", [])]
)
def test_splits_list(value: str, words: list[str]) -> None:
    assert listed(value) == words


@given(st.lists(st.text("ab ,:\r\n\t\xe9", max_size=8), max_size=4))
def test_reads_key_of_any_head(lines: list[str]) -> None:
    assert key_of("GET /ws HTTP/1.1", *lines) in ("", KEY)


@pytest.mark.parametrize(
    ("subprotocol", "line"), [(None, b""), ("sockbridge.v1.line", b"Sec-WebSocket-Protocol: sockbridge.v1.line\r\n")]
)
def test_response_follows_rfc(subprotocol: str | None, line: bytes) -> None:
    """The key and response of RFC 6455 section 1.3."""
    assert switching_protocols(KEY, subprotocol, "Bridge") == (
        b"HTTP/1.1 101 Switching Protocols\r\nServer: Bridge\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        + line
        + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("lines", "left", "offers"),
    [
        ([b"Host: a"], [b"Host: a"], ""),
        ([b"Sec-WebSocket-Extensions: a; b=c", b"Host: a"], [b"Host: a"], " a; b=c"),
        ([b"sec-websocket-extensions:a", b"Host: a", b"SEC-WEBSOCKET-EXTENSIONS:b"], [b"Host: a"], "a,b"),
        ([b"X: Sec-WebSocket-Extensions: a"], [b"X: Sec-WebSocket-Extensions: a"], ""),
    ],
)
def test_splits_extensions_from_head(lines: list[bytes], left: list[bytes], offers: str) -> None:
    def head(lines: list[bytes]) -> bytes:
        return b"\r\n".join([b"GET /ws HTTP/1.1", *lines, b"", b""])

    assert split_extensions(head(lines)) == (head(left), offers)


@pytest.mark.parametrize(
    ("offers", "are_well_formed"),
    [
        ("", True),
        (",, a ,", True),
        ("permessage-deflate; client_max_window_bits=16; unheard_of, x", True),
        ('a ; b = "c"', True),
        ("a;", False),
        ("a; b=", False),
        ('a; b="c d"', False),
        ("a b", False),
        ("\xfc", False),
    ],
)
def test_checks_grammar_of_extensions(offers: str, are_well_formed: bool) -> None:
    """RFC 6455 section 9.1. Unknown extensions and parameters are valid."""
    assert are_extensions(offers) is are_well_formed


def binary_command(message: bytes) -> Command:
    return Ping(message)


@pytest.mark.parametrize("size", [0, 125, 126, 1_000])
def test_decodes_binary_frames_on_request(size: int) -> None:
    """Between text frames, and cut anywhere."""
    payload = bytes(index % 256 for index in range(size))
    stream = frame(0x81, b"one") + frame(0x82, payload) + frame(0x82, b"\xff") + frame(0x81, b"two")
    expected = [b"one", Ping(payload), Ping(b"\xff"), b"two"]
    for place in (0, 1, 8, 10, 12, 15, 20, len(stream) - 10):
        frames = PlainFrames(1_000, binary_command)
        messages, rest = frames.feed(stream[:place]) if place else ([], b"")
        following, more = frames.feed(stream[place:])
        assert messages + following == expected and not rest and not more and frames.partial is None


@pytest.mark.parametrize("other", [frame(0x02, b"x"), frame(0x82, b"x" * 1_001), b"\x82\x01x", frame(0x89, b"")])
def test_leaves_other_binary_frames_to_autobahn(other: bytes) -> None:
    stream = frame(0x82, b"x") + other
    assert PlainFrames(1_000, binary_command).feed(stream) == ([Ping(b"x")], other)
    assert PlainFrames(1_000).feed(stream) == ([], stream)


def test_headers_of_a_plain_handshake_have_lower_case_names() -> None:
    head = b"GET /ws HTTP/1.1\r\nHost: a:1\r\nUser-Agent:  x: y \r\n\r\n"
    assert plain_headers(head) == {"host": "a:1", "user-agent": "x: y"}
