"""WebSocket frames and handshakes."""

import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.http import read_head
from twistedsock.codecs.payload import is_utf8
from twistedsock.codecs.websocket import (
    MAX_FRAMES_TOGETHER,
    PlainFrames,
    are_extensions,
    listed,
    plain_frame,
    split_extensions,
    switching_protocols,
    text_fragment,
    text_frame,
    unmask,
)

ASCII = bytes(byte & 0x7F for byte in range(256))
MASK = b"\x37\xfa\x21\x3d"
MAX_OFFSET = 70_000

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
def test_the_head_of_a_text_frame(size: int, head: bytes) -> None:
    """A length stands in its shortest form."""
    assert text_frame(b"x" * size) == head + b"x" * size


@pytest.mark.parametrize(("size", "head"), HEADS.items())
@pytest.mark.parametrize(
    ("first", "last", "byte"), [(True, True, 0x81), (True, False, 0x01), (False, False, 0x00), (False, True, 0x80)]
)
def test_the_head_of_a_fragment(size: int, head: bytes, first: bool, last: bool, byte: int) -> None:
    """Only the first byte of the head tells a fragment from a whole message."""
    assert text_fragment(b"x" * size, first, last) == bytes([byte]) + head[1:] + b"x" * size


@pytest.mark.parametrize("size", [*range(10), 125, 1000, 70_000])
def test_unmask(size: int) -> None:
    """Byte i is XORed with byte i modulo 4 of the mask."""
    data = bytes(index * 7 % 256 for index in range(size))
    assert unmask(data, MASK) == bytes(byte ^ MASK[index % 4] for index, byte in enumerate(data))


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """A client's frame, its length in the shortest form."""
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0xFF]) + size.to_bytes(8, "big")
    return head + MASK + unmask(payload, MASK)


def read(pieces: list[bytes], most: int = MAX_OFFSET) -> tuple[list[bytes], bytes]:
    """The messages taken by the short way, and all that Autobahn gets: from where it gets anything, everything."""
    frames = PlainFrames(most)
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
def test_plain_frames_at_every_cut(data: bytes, messages: list[bytes], cuts) -> None:
    """Plain text frames are taken, however they are cut, and nothing is left for Autobahn."""
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
def test_everything_else_is_autobahns(other: bytes, behind: bytes, cuts) -> None:
    """What is no plain text frame goes to Autobahn byte for byte, with all that stands behind it."""
    for pieces in cuts(HELLO + HELLO + other + behind):
        assert read(pieces, most=200) == ([b"hello", b"hello"], other + behind), pieces


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
def test_half_a_frame_is_held_back(unfinished: bytes, cuts) -> None:
    """The beginning of a frame waits for the rest, or for whoever goes on in its place."""
    for pieces in cuts(HELLO + unfinished):
        assert read(pieces) == ([b"hello"], unfinished), pieces


def test_what_is_held_back_is_given_once() -> None:
    """``rest`` gives up what it gives."""
    frames = PlainFrames(MAX_OFFSET)
    assert frames.drain() == b""
    assert frames.feed(HELLO[:5]) == ([], b"")
    assert frames.drain() == HELLO[:5]
    assert frames.drain() == b""
    assert frames.feed(HELLO) == ([b"hello"], b"")


def test_a_message_as_large_as_allowed() -> None:
    """The bound itself is allowed; one byte more is for Autobahn to refuse, before its payload has come."""
    assert read([masked(b"x" * 200)], most=200) == ([b"x" * 200], b"")
    head = masked(b"x" * 201)[:4]
    assert PlainFrames(200).feed(head) == ([], head)


def test_a_frame_in_many_pieces_is_joined_once() -> None:
    """A byte at a time, nothing is looked at before the head, and then the frame, is complete."""
    frames = PlainFrames(MAX_OFFSET)
    data = masked(b"x" * 60_000)
    for index in range(len(data) - 1):
        assert frames.feed(data[index : index + 1]) == ([], b"")
    assert frames.partial is not None and len(frames.partial) > 59_000
    assert frames.feed(data[-1:]) == ([b"x" * 60_000], b"")


def test_where_a_plain_frame_ends() -> None:
    """The end lies behind the data while it is not known, and is 0 for what is no plain frame."""
    assert plain_frame(HELLO, 0, MAX_OFFSET) == (len(HELLO), 6)
    assert plain_frame(b"???" + HELLO, 3, MAX_OFFSET) == (3 + len(HELLO), 9)
    assert plain_frame(HELLO[:1], 0, MAX_OFFSET)[0] > 1
    assert plain_frame(OTHER["a ping"], 0, MAX_OFFSET) == (0, 0)


PIECES = st.one_of(
    st.text().map(str.encode).map(masked),
    st.sampled_from([*OTHER.values(), *UNFINISHED.values(), masked(b"x" * 126)]),
    st.binary(max_size=20),
)


@given(st.lists(PIECES, max_size=6).map(b"".join), st.lists(st.integers(0, 400), max_size=8))
def test_any_bytes_give_messages_and_a_rest(data: bytes, places: list[int]) -> None:
    """Any bytes, cut anywhere, give the messages and the rest of the whole; nothing gets lost, nothing is raised."""
    places = sorted({0, *(min(place, len(data)) for place in places), len(data)})
    pieces = [data[start:end] for start, end in zip(places, places[1:], strict=False)]
    messages, rest = read(pieces, most=200)
    assert (messages, rest) == read([data], most=200)
    taken = len(data) - len(rest)
    assert taken == sum(len(masked(message)) for message in messages)
    assert data.endswith(rest)
    for message in messages:
        message.decode()


def frame(payload: bytes, mask: bytes) -> bytes:
    """A text frame with a mask of its own."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + mask + unmask(payload, mask)


MANY = st.tuples(
    st.integers(0, MAX_FRAMES_TOGETHER + 60),  # of one length
    st.sampled_from([0, 1, 3, 4, 5, 20, 81, 125, 126, 200, MAX_FRAMES_TOGETHER, MAX_FRAMES_TOGETHER + 1]),
    st.sampled_from([b"", b"x", "ü".encode(), b"\xff", b"\xc3"]),  # in the place of the last
    st.integers(0, 10_000),
)


@given(st.lists(MANY, max_size=4), st.randoms(use_true_random=False))
def test_frames_that_are_alike_are_read_as_one_by_one(runs: list[tuple[int, int, bytes, int]], chance: Random) -> None:
    """However many there are, and wherever one of them is not UTF-8 or has another length."""
    payloads: list[bytes] = []
    for count, size, other, place in runs:
        alike = [chance.randbytes(size).translate(ASCII) for _ in range(count)]
        if alike and other:
            alike[place % count] = (alike[place % count] + other)[-max(size, len(other)) :]
        payloads += alike
    frames = [frame(payload, chance.randbytes(4)) for payload in payloads]
    bad = next((number for number, payload in enumerate(payloads) if not is_utf8(payload)), len(payloads))
    messages, rest = PlainFrames(MAX_OFFSET).feed(b"".join(frames))
    assert messages == payloads[:bad]
    assert rest == b"".join(frames[bad:])


@pytest.mark.parametrize("missing", [1, 5, 90])
def test_frames_that_are_alike_may_end_in_half_a_frame(missing: int) -> None:
    """The last of them waits for the rest of it."""
    payloads = [b"%081d" % number for number in range(100)]
    stream = b"".join(frame(payload, MASK) for payload in payloads)
    plain = PlainFrames(MAX_OFFSET)
    messages, rest = plain.feed(stream[:-missing])
    assert (messages, rest) == (payloads[: len(messages)], b"")
    assert messages + plain.feed(stream[-missing:])[0] == payloads


@pytest.mark.parametrize("place", [1, 15, 31])
@pytest.mark.parametrize("first", [0x01, 0x80, 0x82, 0x85, 0x88, 0xC1])
def test_a_frame_of_another_kind_is_not_alike(place: int, first: int) -> None:
    """Its second byte, the length, is that of the others, and may be its first as well."""
    frames = [frame(b"12345", MASK) for _ in range(32)]
    frames[place] = bytes([first]) + frames[place][1:]
    messages, rest = PlainFrames(MAX_OFFSET).feed(b"".join(frames))
    assert messages == [b"12345"] * place
    assert rest == b"".join(frames[place:])


def test_frames_that_are_alike_are_unmasked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One XOR for all of them, which is most of what a message costs."""
    single: list[bytes] = []
    monkeypatch.setattr(
        "twistedsock.codecs.websocket.unmask", lambda data, mask: single.append(data) or unmask(data, mask)
    )
    stream = b"".join(frame(b"%081d" % number, MASK) for number in range(MAX_FRAMES_TOGETHER))
    assert len(PlainFrames(MAX_OFFSET).feed(stream)[0]) == MAX_FRAMES_TOGETHER
    assert not single


def test_a_frame_in_tiny_pieces_takes_no_more_memory_than_its_length() -> None:
    """Kept as they come, pieces of two bytes would take 28 times as much."""
    frames = PlainFrames(MAX_OFFSET)
    tracemalloc.start()
    try:
        frames.feed(b"\x81\xfe" + (50_000).to_bytes(2) + MASK)
        for _ in range(20_000):
            frames.feed(b"x%d" % 1)
        assert tracemalloc.get_traced_memory()[0] < 60_000
    finally:
        tracemalloc.stop()


def test_a_frame_has_begun_until_it_has_ended() -> None:
    frames = PlainFrames(100)
    whole = b"\x81\x82\0\0\0\0hi"
    told = []
    for data in (whole, whole[:3], whole[3:5], whole[5:], whole + whole[:1], whole[1:]):
        frames.feed(data)
        told.append(frames.partial is not None)
    assert told == [False, True, True, False, True, False]


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
    headers = PLAIN_HANDSHAKE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None), *more, "", ""]
    read = read_head("\r\n".join(lines).encode("latin-1"))
    return read.key if read is not None else ""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Host": "localhost"},
        {"Host": "[::1]:8082"},
        {"Host": "[::1]"},
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "upgrade"},
        {"Origin": "http://127.0.0.1:8082"},
        {"Origin": "https://bridge.example"},
        {"Origin": "http://127.0.0.1:65535"},
        {"Sec_WebSocket_Extensions": "permessage-deflate"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"Sec_WebSocket_Protocol": "sockbridge.v1.json"},
        {"Sec_WebSocket_Protocol": "chat,  sockbridge.v1.line"},
        {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64)", "Cookie": "a=b; c=d", "Pragma": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("target", ["/", "/ws"])
def test_plain(changes: dict[str, str], target: str) -> None:
    """What browsers and the usual clients send."""
    assert key_of(f"GET {target} HTTP/1.1", **changes) == KEY


NOT_PLAIN: list[tuple[str, ...]] = [
    ("POST /ws HTTP/1.1",),
    ("GET /ws HTTP/1.0",),
    ("GET /ws HTTP/2",),
    ("GET /ws?a=b HTTP/1.1",),
    ("GET /ws#a HTTP/1.1",),
    ("GET http://127.0.0.1/ws HTTP/1.1",),
    ("GET /ws HTTP/1.1", "Host"),
    ("GET /ws HTTP/1.1", ": a"),
    ("GET /ws HTTP/1.1", "Upgrade: websocket"),
    ("GET /ws HTTP/1.1", "Upgrade : websocket"),
    ("GET /ws HTTP/1.1", " X: folded"),
    ("GET /ws HTTP/1.1", "X: a\tb"),
    ("GET /ws HTTP/1.1", "X: a\nb: c"),
    ("GET /ws HTTP/1.1", "X: a\x0bb"),
    ("GET /ws HTTP/1.1", "X: caf\xe9"),
]


@pytest.mark.parametrize("lines", NOT_PLAIN, ids=str)
def test_lines_that_are_not_plain(lines: tuple[str, ...]) -> None:
    """Other requests, folded lines, names that stand there twice, and whatever two readers may read differently."""
    assert key_of(*lines) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"Host": None},
        {"Host": ""},
        {"Host": "a b"},
        {"Host": "a:b"},
        {"Host": "a:100000"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Upgrade": "h2c, websocket"},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": KEY[:-1]},
        {"Sec-WebSocket-Key": KEY[:-2] + "=A"},
        {"Sec-WebSocket-Key": "-" + KEY[1:]},
        {"Sec-WebSocket-Key": KEY + "=="},
        {"Sec_WebSocket_Extensions": ""},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits=99"},
        {"Sec_WebSocket_Extensions": "permessage-bzip2"},
        {"Sec_WebSocket_Protocol": ""},
        {"Sec_WebSocket_Protocol": "a,"},
        {"Sec_WebSocket_Protocol": "a, a"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "file://"},
        {"Origin": "http://a b"},
        {"Origin": "http://[::1"},
        {"Origin": "http://a:65536"},
    ],
    ids=str,
)
def test_values_that_are_not_plain(changes: dict[str, str | None]) -> None:
    """What Autobahn must look at: it refuses most of that, with its reason."""
    assert key_of(**changes) == ""


@pytest.mark.parametrize(
    ("value", "words"), [("", []), ("a", ["a"]), (" a ,b", ["a", "b"]), (",a,, b\t,", ["a", "b"]), (" ", [])]
)
def test_a_list(value: str, words: list[str]) -> None:
    """Empty words are none."""
    assert listed(value) == words


@given(st.lists(st.text("ab ,:\r\n\t\xe9", max_size=8), max_size=4))
def test_any_head_is_plain_or_not(lines: list[str]) -> None:
    """Any lines give a key or none, never an exception."""
    assert key_of("GET /ws HTTP/1.1", *lines) in ("", KEY)


@pytest.mark.parametrize(
    ("subprotocol", "line"), [(None, b""), ("sockbridge.v1.line", b"Sec-WebSocket-Protocol: sockbridge.v1.line\r\n")]
)
def test_the_answer(subprotocol: str | None, line: bytes) -> None:
    """Key and answer are those of RFC 6455 section 1.3."""
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
def test_extensions_are_taken_out_of_a_head(lines: list[bytes], left: list[bytes], offers: str) -> None:
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
def test_which_offers_follow_the_grammar(offers: str, are_well_formed: bool) -> None:
    """RFC 6455 section 9.1. Unknown extensions and parameters do."""
    assert are_extensions(offers) is are_well_formed
