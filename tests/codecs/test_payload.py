"""Payloads: text and JSON, on lines and in JSON."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.grammars import LAYOUTS, TEXTS, VALUES, written
from tests.fuzz.properties import holds, is_printable
from twistedsock.codecs.payload import (
    build_payloads,
    decode_base64,
    has_unpaired_surrogate,
    is_json,
    is_utf8,
    payload_field,
    payload_to_json,
    payload_to_line,
    quote,
    quote_name,
    replace_unpaired_surrogates,
)
from twistedsock.pubsub.values import BYTES, JSON, TEXT
from twistedsock.testing import FakeServer

TYPED = {
    "a word": (b"21.5", False),
    "nothing": (b"", False),
    "spaces": (b"  x  ", False),
    "a number is text": (b"1", False),
    "so are true and null": (b"true", False),
    "an object": (b'{"celsius": 21.5}', True),
    "a list": (b"[1, 2]", True),
    "a string": (b'"hello"', True),
    "an empty object": (b"{}", True),
    "an escape": (b'"\\u0041\\n\\""', True),
    "an astral character in two escapes": (b'"\\ud83d\\ude00"', True),
    "white space behind": (b"[1] ", True),
    "white space before": (b" [1]", False),
    "an object that is none": (b"{celsius: 21.5}", False),
    "half an object": (b'{"a":', False),
    "half a string": (b'"hello', False),
    "words behind": (b"[1] 2", False),
    "two": (b"{}{}", False),
    "a comma too much": (b"[1,]", False),
    "NaN": (b"[NaN]", False),
    "Infinity": (b"[-Infinity]", False),
    "a giant number": (b"[" + b"9" * 5000 + b"]", True),
    "a giant exponent": (b"[1e999999]", True),
    "a number with zeros before": (b"[01]", False),
    "a lone surrogate": (b'"\\ud800"', False),
    "an unknown escape": (b'"\\x41"', False),
    "a raw line break in a string": (b'"a\nb"', False),
    "a raw escape in a string": (b'["\x1b[31m"]', False),
    "duplicate keys": (b'{"a":1,"a":2}', True),
    "deep": (b"[" * 100 + b"]" * 100, True),
    "one level deeper than we take": (b'[{"a":' * 50 + b"[]" + b"}]" * 50, False),
    "deep at its end": (b"[" + b"[]," * 50 + b"[" * 100 + b"]" * 101, False),
    "wide": (b"[" + b"[[],{}]," * 1_000 + b"[]]", True),
    "brackets in its strings": (b'["' + b"[{" * 200 + b'","\\\\","\\"' + b"[" * 200 + b'"]', True),
    "too deep for any parser": (b"[" * 100_000 + b"]" * 100_000, False),
    "endlessly deep": (b'{"a":' * 100_000, False),
    "a byte order mark": (b"\xef\xbb\xbf{}", False),
    "a no-break space behind": (b"{}\xc2\xa0", False),
    "a form feed behind": (b"{}\x0c", False),
}


@pytest.mark.parametrize(("payload", "expected"), TYPED.values(), ids=TYPED.keys())
def test_detects_json(payload: bytes, expected: bool) -> None:
    assert is_json(payload) is expected


@pytest.mark.parametrize(
    ("payload", "whole"),
    [
        (b'"\\ud83d"', b'"\\ufffd"'),
        (b'"\\uDE00x\\uD83D"', b'"\\ufffdx\\ufffd"'),
        (b'{"\\ud83d":["\\ude00\\ud83d"]}', b'{"\\ufffd":["\\ufffd\\ufffd"]}'),
        (b'"\\ud83d\\ud83d\\ude00"', b'"\\ufffd\\ud83d\\ude00"'),
        (b'"\\\\\\ud83d"', b'"\\\\\\ufffd"'),
    ],
)
def test_replaces_unpaired_surrogates(payload: bytes, whole: bytes) -> None:
    assert replace_unpaired_surrogates(payload) == whole
    assert has_unpaired_surrogate(payload) and not is_json(payload)


VALID_ESCAPES = [b'"\\ud83d\\ude00"', b'"\\\\ud83d"', b'"\\u00e9"']
NO_JSON = [b'"\\ud8"', b'"\\ud8zz"', b'{"\\ud83d', b"\\ud83d", b"x", b"", b'"\\', b'"\\ud83d" x']


@pytest.mark.parametrize("payload", [*VALID_ESCAPES, *NO_JSON, b"[" * 101 + b'"\\ud83d"' + b"]" * 101])
def test_other_invalid_json_has_no_unpaired_surrogate(payload: bytes) -> None:
    assert not has_unpaired_surrogate(payload)


LINES = {
    "a text is written as it is": (b"21.5", False, b"21.5"),
    "an empty text": (b"", False, b""),
    "a tab is no control character here": (b"a\tb", False, b"a\tb"),
    "letters of all kinds": ("grüße 你好 😀".encode(), False, "grüße 你好 😀".encode()),
    "a brace later on": (b"a {b}", False, b"a {b}"),
    "a text that begins with a brace": (b"{a}", False, b'"{a}"'),
    "with a bracket": (b"[1]", False, b'"[1]"'),
    "with a quote": (b'"hello', False, b'"\\"hello"'),
    "a line break": (b"a\nQUIT", False, b'"a\\nQUIT"'),
    "a carriage return": (b"a\rb", False, b'"a\\rb"'),
    "a terminal escape": (b"\x1b[31mred", False, b'"\\u001b[31mred"'),
    "NUL": (b"a\x00b", False, b'"a\\u0000b"'),
    "DEL": (b"a\x7fb", False, b'"a\\u007fb"'),
    "C1": ("a\x9b31mb".encode(), False, b'"a\\u009b31mb"'),
    "the first behind C1": ("a\xa0b".encode(), False, "a\xa0b".encode()),
    "the last byte of C1 within another letter": ("\u0440".encode(), False, "\u0440".encode()),
    "tab and DEL": (b"a\t\x7f", False, b'"a\\t\\u007f"'),
    "JSON as it came": (b'{ "a" :1.0e1,"b":[ ] }', True, b'{ "a" :1.0e1,"b":[ ] }'),
    "JSON with line breaks": (b'{\n\t"a":\r\n1}', True, b'{ \t"a":  1}'),
    "escapes in JSON stay": (b'"a\\nb\\u001b"', True, b'"a\\nb\\u001b"'),
    "DEL in JSON": (b'["\x7f"]', True, b'["\\u007f"]'),
    "C1 in JSON": ('{"\x85":"\x9b"}'.encode(), True, b'{"\\u0085":"\\u009b"}'),
    "a backslash before DEL in JSON": (b'"\\\\\x7f"', True, b'"\\\\\\u007f"'),
}


@pytest.mark.parametrize(("payload", "json_text", "line"), LINES.values(), ids=LINES.keys())
def test_writes_payload_for_lines(payload: bytes, json_text: bool, line: bytes) -> None:
    assert payload_to_line(payload, JSON if json_text else TEXT) == line


def test_writes_payload_as_json() -> None:
    assert payload_to_json(b'{ "a":1.0 }', JSON) == b'{ "a":1.0 }'
    assert payload_to_json(b"21.5", TEXT) == b'"21.5"'
    assert payload_to_json(b'"\\\n\x1b\x7f', TEXT) == b'"\\"\\\\\\n\\u001b\x7f"'


@given(st.binary())
def test_bytes_are_base64_as_text(payload: bytes) -> None:
    encoded = b64encode(payload)
    assert payload_to_line(payload, BYTES) == encoded and payload_to_json(payload, BYTES) == b'"%b"' % encoded
    assert [payload_field(kind) for kind in (TEXT, JSON, BYTES)] == [b"data", b"data", b"base64"]
    assert decode_base64(encoded) == payload


INVALID_BASE64 = {
    "without padding": b"/9g",
    "with half of the padding": b"/w=",
    "with padding only": b"====",
    "with too much padding": b"abcd====",
    "padding in the middle": b"/w==/w==",
    "white space behind": b"/9g= ",
    "a line break within": b"/9\ng=",
    "the alphabet for URLs": b"_9g=",
    "one character": b"a",
    "bits after the last byte": b"/9h=",
    "not ASCII": "/9é=".encode(),
    "a zero byte": b"/9g\x00",
}


@pytest.mark.parametrize("encoded", INVALID_BASE64.values(), ids=INVALID_BASE64.keys())
def test_rejects_base64_in_another_form(encoded: bytes) -> None:
    """RFC 4648 sections 3.2, 3.3, 3.5 and 4."""
    assert decode_base64(encoded) is None


def test_bytes_are_never_plain() -> None:
    """Even if they are ASCII, because encoders must not copy them."""
    content = build_payloads((b"abc", b"\xff"), BYTES)
    assert (content.items, content.size, content.kind, content.is_plain) == ((b"abc", b"\xff"), 4, BYTES, False)


def test_quotes_names() -> None:
    for name in (b"kitchen", b'a"b', "küche".encode(), b"a\\b"):
        assert quote_name(name) == quote_name(name) == quote(name)
        assert json.loads(quote(name)) == name.decode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        ("aé€😀\U0010ffff".encode(), True),
        (b"\xff", False),
        (b"\xc0\x80", False),
        (b"\xe2\x82", False),
        (b"\xed\xa0\x80", False),
        (b"\xf4\x90\x80\x80", False),
    ],
)
def test_detects_utf8(data: bytes, expected: bool) -> None:
    """RFC 3629."""
    assert is_utf8(data) is expected


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


ANY_TEXT = st.text(max_size=30) | TEXTS


def as_read(payload: str) -> Any:
    """The value of a payload on a line (docs/reference/line-protocol.md, "Payloads")."""
    if payload.startswith(("{", "[", '"')):
        return json.loads(payload)
    return payload


class Room:
    """A channel with a subscriber and a publisher for each protocol."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.line, self.message = self.server.line_client(), self.server.message_client()
        self.json = self.server.json_client()
        self.line.send("SUB a"), self.message.send("SUB a")
        self.json.send({"type": "subscribe", "channel": "a"})
        for reader in (self.line, self.message, self.json):
            reader.received()

    def publish(self, kind: str, payloads: list[Any]) -> None:
        if kind == "json":
            self.server.json_client().send(*({"type": "publish", "channel": "a", "data": each} for each in payloads))
        else:
            client = self.server.line_client() if kind == "line" else self.server.message_client()
            client.send(*(f"PUB a {each}" for each in payloads))
        self.server.turn()

    def received(self) -> list[list[Any]]:
        lines = [self.line.received(), self.message.received()]
        assert lines[0] == lines[1]
        for line in lines[0]:
            assert is_printable(line), line
        return [
            [as_read(line.split(" ", 4)[4]) for line in lines[0]],
            [message["data"] for message in self.json.received()],
        ]


@holds(examples=60, texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_texts_of_json_publishers(texts: list[str]) -> None:
    """All subscribers receive the text that was published, and on a line it has no control characters."""
    room = Room()
    room.publish("json", texts)
    for payloads in room.received():
        assert payloads == texts


@holds(examples=60, kind=st.sampled_from(["line", "message"]), typed=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_what_line_publishers_type(kind: str, typed: list[str]) -> None:
    """All subscribers receive a line payload as the same JSON value if it is valid JSON, otherwise as the same text."""
    typed = [each.replace("\n", "").replace("\r", "") for each in typed]
    room = Room()
    room.publish(kind, typed)
    meant = [json.loads(each) if is_json(each.encode()) else each for each in typed]
    for payloads in room.received():
        assert payloads == meant


@holds(examples=60, values=st.lists(VALUES, min_size=1, max_size=3))
def test_values_of_json_publishers(values: list[Any]) -> None:
    """All subscribers receive the JSON value that was published."""
    room = Room()
    room.publish("json", values)
    line, message = room.received()
    assert message == values
    for value, payload in zip(values, line, strict=True):
        assert payload == value if isinstance(value, str | list | dict) else json.loads(payload) == value


@holds(examples=60, value=VALUES, layout=LAYOUTS, ascii_only=st.booleans())
def test_layouts(value: Any, layout: tuple[str, str], ascii_only: bool) -> None:
    """JSON is copied unchanged, and on a line it is the same value in any layout."""
    raw = written(value, layout, ascii_only)
    line = payload_to_line(raw, JSON)
    assert payload_to_json(raw, JSON) == raw and json.loads(line) == value
    assert payload_to_line(line, JSON) == line and is_printable(line.decode())
    assert is_json(raw) is isinstance(value, str | list | dict)
    content = build_payloads((raw, raw), JSON)
    assert content.size == 2 * len(raw) and (not content.is_plain or payload_to_line(raw, JSON) == raw)
