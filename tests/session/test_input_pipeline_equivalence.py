"""Messages and events that are handled together have the same result as those that are handled one by one."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from twistedsock.codecs import json_decoder, line_decoder
from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_decoder import LINE_DECODER, Line, LineSplitter
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.codecs.payload import build_payloads, is_utf8
from twistedsock.pubsub.values import JSON, TEXT, Batch, Payloads, Publication
from twistedsock.session.commands import Publish
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import Decoder
from twistedsock.testing import FakeServer

MAX_LINE_BYTES = 512
"""The smallest maximum that ``--max-line-bytes`` accepts."""


class OneByOne:
    """A decoder whose publications are not joined."""

    def __init__(self, decoder: Decoder) -> None:
        self.decode = decoder.decode
        self.find_tag = decoder.find_tag

    def decode_alike(self, first: Publish, messages: object, position: int) -> None:
        return None


class Spoken:
    """All bytes that the server sends to one publisher and to subscribers of every protocol."""

    def __init__(self, json_publisher: bool, codec: Decoder, late: bool, room: int | None) -> None:
        self.server = FakeServer(late, max_line_bytes=MAX_LINE_BYTES)
        self.readers = [self.server.line_client(), self.server.message_client(), self.server.json_client()]
        subscribe: list[Any] = ["SUB a", "SUB a", {"type": "subscribe", "channel": "a"}]
        for reader, command in zip(self.readers, subscribe, strict=True):
            reader.send(command)
        self.rest()
        self.publisher = self.server.json_client() if json_publisher else self.server.line_client()
        self.publisher.pipeline.decoder = codec
        if room is not None:
            self.publisher.outlet.room = room

    def rest(self) -> None:
        if hasattr(self.server.backplane, "release"):
            self.server.backplane.release()
        self.server.turn()

    def receive(self, items: list[Line]) -> None:
        self.publisher.pipeline.submit(items)

    def said(self) -> list[bytes]:
        for _ in range(200):
            self.publisher.outlet.drain()
            self.rest()
        assert self.publisher.exceptions == 0 and not self.publisher.paused
        return [self.publisher.received_bytes(), *(reader.received_bytes() for reader in self.readers)]


ORDINARY = [b"", b"x", b"21.5", b" x ", b"PUB a x", b"x HTTP/1.1", "é🌡".encode()]
LOOK_LIKE_JSON = [b'"\\ud83d"', b"{x", b"[", b'"', b"x{", b"\\", b"'"]
LOOK_LIKE_FORMATS = [b"%", b"%b%d"]
CONTROLS = [b"a\tb", b"\r", b"a\rb", b"\x00", b"\x1b[2J", b"\x7f", "\x85".encode(), b"\x04"]
NOT_UTF8 = [b"\xc3", b"\xa9", b"\xff"]
LONG = [b"x" * size for size in (100, 200, MAX_LINE_BYTES - 6, MAX_LINE_BYTES - 5)]
TEXTS = st.sampled_from(ORDINARY + LOOK_LIKE_JSON + LOOK_LIKE_FORMATS + CONTROLS + NOT_UTF8 + LONG)
VALUES = st.sampled_from(
    [b"{}", b"[1]", b'{"a": 1}', b'"x"', b'"\\u0041"', b'"\x7f"', '"é"'.encode()]
    + [b"[1] ", b"[1,", b'{"a":\t1}', b'"\xff"']
)
OTHER_SPACES = [b"PUB  a ", b" PUB a ", b"PUB a", b"PUB ", b"PUB", b"PUB a\r ", b"PUB a\t "]
OTHER_CHANNELS = [b"PUB b ", b"PUB * ", "PUB é ".encode(), b"PUB \xff "]
OTHER_COMMANDS = [b"pub a ", b"EMIT a alarm ", b"EMIT a message ", b"", b"PING ", b"\x04", b"QUIET on", b"SUB b"]
FIRST_WORDS = st.sampled_from([b"PUB a "] * 12 + OTHER_SPACES + OTHER_CHANNELS + OTHER_COMMANDS)
ENDS = st.sampled_from([b"\n"] * 8 + [b"\r\n", b"\n\n", b"\r\r\n", b"\n\x04\n", b"\nPUB a "])
LINE = st.builds(lambda word, payload, end: word + payload + end, FIRST_WORDS, TEXTS | VALUES, ENDS)
RUN = st.builds(
    lambda word, payloads: b"".join([word + payload + b"\n" for payload in payloads]),
    st.sampled_from([b"PUB a ", b"PUB a ", b"PUB b ", "PUB é ".encode(), b"PUB \xff "]),
    st.lists(TEXTS, min_size=2, max_size=5)
    | st.lists(VALUES, min_size=2, max_size=5)
    | st.lists(st.sampled_from([b"x", b"yz"]), min_size=2, max_size=40),
)
STREAM = st.lists(LINE | RUN | RUN, min_size=1, max_size=6).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(
    stream=STREAM,
    cuts=st.lists(st.integers(0, 1_500), max_size=3),
    late=st.booleans(),
    room=st.sampled_from([None, None, 0, 30]),
)
@example(b"PUB \xff x\nPUB \xff y\n", [], False, None)
@example(b"PUB a \nPUB a \nPUB a \n\x04\n", [7], False, 0)
@example(b"PUB a \xc3\nPUB a \xa9\n", [], False, None)
@example(b"PUB a [1,\nPUB a 2]\n", [], False, None)
@example(b"PUB a x\r\nPUB a y\r\n", [], False, None)
@example(b"PUB a x\nPUB a " + b"y" * MAX_LINE_BYTES + b"\n", [], False, None)
@example(b'PUB a x\nPUB a "\\ud83d"\nPUB a y\nPUB a {}\nPUB a ["\\ud83d"]\nPUB a {}\n', [], False, None)
@example(b'PUB a {"a":\n1}\nPUB a {}\n', [], False, None)
@example(b"PING\nPUB a x\nPUB a y\nPING\nPUB a z\nPUB a z\nQUIT\n", [5, 21, 26], False, 0)
@example(b"PING\nPUB a 1\nPUB a 2\nPUB a 3\nPUB a 4\nPING\n", [5, 21], False, 0)
def test_lines_in_one_read_have_the_same_result_as_one_by_one(
    stream: bytes, cuts: list[int], late: bool, room: int | None
) -> None:
    places = sorted({min(cut, len(stream)) for cut in cuts})
    pieces = [stream[start:stop] for start, stop in zip([0, *places], [*places, len(stream)], strict=True)]

    def result(decoder: Decoder) -> list[bytes]:
        spoken, lines = Spoken(False, decoder, late, room), LineSplitter(MAX_LINE_BYTES)
        for piece in pieces:
            spoken.receive(lines.feed(piece))
        return spoken.said()

    as_blocks = result(LINE_DECODER)
    with patch.object(line_decoder, "decode_block", return_value=None):
        joined = result(LINE_DECODER)
        with patch.object(Publication, "can_join", return_value=False):
            alone = result(OneByOne(LINE_DECODER))
    assert as_blocks == alone
    assert joined == alone


QUOTED = st.sampled_from(
    ["", "x", "21.5", "{", "[1]", '"', "\\", "\\n", "é", "\x7f", "\u2028", "%d", "data", '","channel":"b', "x" * 200]
)
PLAIN_TEXTS = st.sampled_from(["", "x", "21.5", "{", "[1]", "data", "%d"])
SPACES = st.sampled_from([(",", ":")] * 4 + [(", ", ": "), (",\n", ":"), (" ,", " :")])


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """Runs of messages that differ in their text, and what may stand between them."""
    told: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        fields = draw(
            st.lists(
                st.tuples(
                    st.sampled_from(["id", "name", "x", "nick", "channel", "data", "data ", "type"]),
                    st.sampled_from(["data", "b", "data:", 1, None, {"data": "x"}, [{"data": "x", "channel": "b"}]]),
                ),
                max_size=2,
            )
        )
        order = draw(st.permutations(["type", "channel", "data"]))
        values = {"type": "publish", "channel": draw(st.sampled_from(["a", "a", "a", "b", "é", "data"]))}
        comma, colon = draw(SPACES)
        ascii_only = draw(st.booleans())
        before = draw(st.booleans())
        texts = draw(st.sampled_from([QUOTED, PLAIN_TEXTS, PLAIN_TEXTS]))
        for text in draw(st.lists(texts, min_size=1, max_size=5)) * draw(st.sampled_from([1, 1, 20])):
            pairs: list[tuple[str, Any]] = [(key, values.get(key, text)) for key in order]
            pairs = [*fields, *pairs] if before else [*pairs, *fields]
            written = [
                json.dumps(key) + colon + json.dumps(value, ensure_ascii=ascii_only, separators=(comma, colon))
                for key, value in pairs
            ]
            told.append(("{" + comma.join(written) + "}").encode())
        told += draw(st.lists(st.sampled_from(ODD), max_size=1))
    return told


PLAIN = b'{"type":"publish","channel":"a","data":"%b"}'
ODD = [
    b'{"type":"ping"}',
    b"{",
    b"",
    PLAIN % b"\x01",
    PLAIN % b"\\q",
    PLAIN % b"\\u0041",
    PLAIN % b'x","data":"y',
    PLAIN % b'x","channel":"b',
    PLAIN % b'x"}{"',
    PLAIN % b"x" + b" ",
    (PLAIN % b"")[:-2] + b"}",
    PLAIN % b"x" + b"\n" + PLAIN % b"y",
    b'{"type":"publish","channel":"a","data":[1]}',
    b'{"type":"publish","channel":"a","data":"x"\n}',
    b'{"type":"publish","channel":"a","data":"x"\n}\n{"type":"publish","channel":"a","data":"y"',
    b"}",
]


@settings(deadline=None, max_examples=300)
@given(messages() | st.lists(st.sampled_from(ODD) | st.sampled_from([b"1", b"22"]).map(lambda text: PLAIN % text)))
@example([ODD[-3], *ODD[-2:]])
@example([PLAIN % b"x", (PLAIN % b"")[:-2] + b"}"])
@example([PLAIN % b"x", PLAIN % b'y","channel":"b'])
@example([PLAIN % b'x\\"y', PLAIN % b'z"y'])
@example([PLAIN.replace(b"}", b',"id":1}') % b"x"] * 3)
@example([PLAIN % b"%d" % number for number in range(100)])
@example([PLAIN % b"1", *[PLAIN % b"2"] * 31, PLAIN % b"3"])
@example([PLAIN % b"1", *[PLAIN % b"2"] * 32])
def test_messages_in_one_read_have_the_same_result_as_one_by_one(messages: list[bytes]) -> None:
    """The decoder skips the parsing of messages that differ from the first in their text only."""
    together = Spoken(True, json_decoder, False, None)
    together.receive([*messages])
    alone = Spoken(True, OneByOne(json_decoder), False, None)
    with patch.object(Publication, "can_join", return_value=False):
        alone.receive([*messages])
        expected = alone.said()
    assert together.said() == expected
    for position, message in enumerate(messages[:-1], 1):
        first = json_decoder.decode(message)
        if isinstance(first, Publish):
            alike = json_decoder.decode_alike(first, messages, position)
            for index, payload in enumerate(alike.payloads.items if alike is not None else (), position):
                assert json_decoder.decode(messages[index]) == replace(first, payloads=build_payloads((payload,), TEXT))


PAYLOADS = {
    False: ["", "x", "21.5", "%", "%b", "%d%%", "x{", "a[b", "'", "~", " x ", "x" * 130, "x" * 1_100, "x" * 66_000],
    True: ["{}", '{"a": "%"}', "[1, 2.50]", '"x"', '"\\u0041\\n"', "null", '"' + "x" * 2_000 + '"'],
}
ODD_PAYLOADS = {False: ["{", '"', "\\", "a\tb", "\x7f", "é", "\n"], True: ['"\x7f"', '"é"', "[1,\n2]"]}
NAMES = st.sampled_from(["a", "ann", "%b", "100%", "é", 'a"b', "a\\b", "'", "n" * 64, "message"])


@settings(deadline=None)
@pytest.mark.parametrize(
    "dialect", [LINE_ENCODER, LINE_MESSAGE_ENCODER, JSON_MESSAGE_ENCODER], ids=["lines", "messages", "json"]
)
@given(
    is_json=st.booleans(),
    first=st.sampled_from([1, 8, 9, 10, 98, 99, 100, 998, 999, 1000, 10**6 - 1, 10**6, 2**53 - 12]),
    channel=NAMES,
    sender=NAMES,
    name=NAMES,
    data=st.data(),
)
def test_batch_is_encoded_like_its_events_one_by_one(
    dialect: Encoder, is_json: bool, first: int, channel: str, sender: str, name: str, data: st.DataObject
) -> None:
    """Whether it is verbatim or not, and whether anybody has looked."""
    odd = data.draw(st.sampled_from([False, False, True]))
    known = PAYLOADS[is_json] + (ODD_PAYLOADS[is_json] if odd else [])
    payloads = [text.encode() for text in data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=12))]
    content = build_payloads(payloads, JSON if is_json else TEXT)
    if not odd:
        assert content.is_plain
    unseen = Payloads(content.items, content.size, content.kind)
    written: list[bytes] = []
    for some in (content, unseen):
        batch = Batch(first, first + len(some), b"p1", sender.encode(), name.encode(), some)
        alone = [batch.part(offset, offset + 1) for offset in range(batch.first, batch.end)]
        written += [dialect.batch(channel.encode(), batch)]
        written += [b"".join([dialect.batch(channel.encode(), part) for part in alone])]
    assert len(set(written)) == 1


@given(
    payloads=st.lists(st.text(max_size=3).map(str.encode) | st.sampled_from([b"{", b"[1]", b'"x"', b"x{"]), min_size=1),
    is_json=st.booleans(),
)
def test_verbatim_payloads_need_no_escaping(payloads: list[bytes], is_json: bool) -> None:
    content = build_payloads(payloads, JSON if is_json else TEXT)
    assert content.size == sum(map(len, payloads)) and [*content.items] == payloads
    assert (content.kind is JSON) is is_json and all(map(is_utf8, payloads))
    signs = b"".join(payloads).decode()
    plain = signs.isascii() and all(" " <= sign <= "~" for sign in signs)
    if not is_json:
        plain = plain and '"' not in signs and "\\" not in signs
        plain = plain and not any(payload.startswith((b"{", b"[")) for payload in payloads)
    assert content.is_plain is plain
