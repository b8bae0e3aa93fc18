"""Bodies of requests to publish, and publications that are joined."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.grammars import SOUND
from tests.fuzz.properties import holds
from twistedsock.codecs.http_bodies import MAX_BATCH_EVENTS, join_neighbours, read_batch, read_body
from twistedsock.codecs.payload import BAD_BASE64, MAX_DEPTH, build_payloads, payload_to_json, payload_to_line
from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import (
    BYTES,
    JSON,
    TEXT,
    Publication,
)

JSON_TYPE = b"application/json"
TEXT_TYPE = b"text/plain"
FORM = b"application/x-www-form-urlencoded"


def read(body: bytes, kind: bytes) -> tuple[bytes, bool]:
    content = read_body(body, kind)
    assert content.size == len(content.items[0]) and len(content) == 1
    return content.items[0], content.kind is JSON


@pytest.mark.parametrize(
    "body, kind, payload, is_json",
    [
        (b'{"a": [1, 2]}', JSON_TYPE, b'{"a": [1, 2]}', True),
        (b' {"a":1}\r\n', JSON_TYPE, b'{"a":1}', True),
        (b"21.50", JSON_TYPE, b"21.50", True),
        (b"null", b"application/vnd.api+json; charset=UTF-8", b"null", True),
        (b'"hello"', JSON_TYPE, b"hello", False),
        (b'"a\\nb\\u00e9"', b'Application/JSON;charset="utf-8"', "a\nbé".encode(), False),
        (b'""', JSON_TYPE, b"", False),
        (b'\xef\xbb\xbf{"a":1}', JSON_TYPE, b'{"a":1}', True),
        (b'\xef\xbb\xbf "hello"', JSON_TYPE, b"hello", False),
        (b'\xef\xbb\xbf{"a":1}\r\n', FORM, b'{"a":1}', True),
        (b"\xef\xbb\xbf[1]", b"", b"[1]", True),
        (b"\xef\xbb\xbfhello", b"", b"\xef\xbb\xbfhello", False),
        (b"\xef\xbb\xbf[1]", TEXT_TYPE, b"\xef\xbb\xbf[1]", False),
        (b'{"a":1}', TEXT_TYPE, b'{"a":1}', False),
        (b"hello\n", b"text/markdown; charset=utf8; x=y", b"hello\n", False),
        (b"", TEXT_TYPE, b"", False),
        (b"hello", FORM, b"hello", False),
        (b"a=b&c=%20+\n", FORM, b"a=b&c=%20+\n", False),
        (b'{"a":1}\n', FORM, b'{"a":1}', True),
        (b'"hello"', b"", b'"hello"', True),
        (b"[1,", b"", b"[1,", False),
        (b"21.5", b"", b"21.5", False),
        (b"", b"", b"", False),
        (b"[" * 101 + b"]" * 101, b"", b"[" * 101 + b"]" * 101, False),
    ],
)
def test_content_type_decides_kind_of_payload(body: bytes, kind: bytes, payload: bytes, is_json: bool) -> None:
    assert read(body, kind) == (payload, is_json)


@pytest.mark.parametrize(
    "body, kind, code",
    [
        (b"", JSON_TYPE, ErrorCode.BAD_JSON),
        (b" ", JSON_TYPE, ErrorCode.BAD_JSON),
        (b"{", JSON_TYPE, ErrorCode.BAD_JSON),
        (b"1 2", JSON_TYPE, ErrorCode.BAD_JSON),
        (b"NaN", JSON_TYPE, ErrorCode.BAD_JSON),
        (b'"\\ud800"', JSON_TYPE, ErrorCode.BAD_JSON),
        (b'{"a":"\\udc00"}', JSON_TYPE, ErrorCode.BAD_JSON),
        (b'"\\ud800"', b"", ErrorCode.BAD_JSON),
        (b' {"a":"\\udc00"}\n', FORM, ErrorCode.BAD_JSON),
        (b'"\xff"', JSON_TYPE, ErrorCode.NOT_UTF8),
        (b"\xc0\x80", TEXT_TYPE, ErrorCode.NOT_UTF8),
        (b"\xed\xa0\x80", FORM, ErrorCode.NOT_UTF8),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), JSON_TYPE, ErrorCode.BAD_JSON),
        (b"[" * 30_000 + b"]" * 30_000, JSON_TYPE, ErrorCode.BAD_JSON),
        (b"x", b"image/png", ErrorCode.BAD_TYPE),
        (b"x", b"multipart/form-data; boundary=x", ErrorCode.BAD_TYPE),
        (b"x", b"json", ErrorCode.BAD_TYPE),
        (b"x", b"text/plain; charset=latin-1", ErrorCode.BAD_TYPE),
        (b"1", b"application/json;charset=utf-16", ErrorCode.BAD_TYPE),
    ],
)
def test_rejects_invalid_body(body: bytes, kind: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError, check=lambda refused: refused.error.code is code):
        read_body(body, kind)


@pytest.mark.parametrize("body", [b"", b"\xff\xd8", b'{"a":1}', b"\xef\xbb\xbfx"])
@pytest.mark.parametrize("kind", [b"application/octet-stream", b"Application/Octet-Stream ; x=y"])
def test_octet_stream_is_bytes(body: bytes, kind: bytes) -> None:
    assert read_body(body, kind) == build_payloads((body,), BYTES)


def test_accepts_json_at_the_depth_limit() -> None:
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read(body, JSON_TYPE) == (body, True)


@given(st.text())
def test_text_is_unchanged(text: str) -> None:
    bodies = (
        (text.encode(), TEXT_TYPE),
        (json.dumps(text).encode(), JSON_TYPE),
        (json.dumps(text, ensure_ascii=False).encode(), JSON_TYPE),
    )
    for body, kind in bodies:
        payload, is_json = read(body, kind)
        assert (payload, is_json) == (text.encode(), False)
        assert json.loads(payload_to_json(payload, TEXT)) == text
        line = payload_to_line(payload, TEXT).decode()
        assert line == text or json.loads(line) == text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_json_is_unchanged(value: Any, indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    payload, is_json = read(body, JSON_TYPE)
    assert (payload, is_json) == ((value.encode(), False) if isinstance(value, str) else (body, True))
    batch = b'{"events":[{"channel":"a","data":%b}]}' % body
    assert read_batch(batch, JSON_TYPE, 10**6) == [Publication(b"a", read_body(body, JSON_TYPE))]


def batch(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


def test_reads_batch_in_order() -> None:
    body = batch({"channel": "a", "data": "x"}, {"channel": "é", "data": {"b": 1}, "name": "alarm", "more": 1})
    for kind in (JSON_TYPE, b"", FORM):
        assert read_batch(body, kind, 100) == [
            Publication(b"a", build_payloads((b"x",), TEXT)),
            Publication("é".encode(), build_payloads((b'{"b": 1}',), JSON), b"alarm"),
        ]
    assert read_batch(batch(), JSON_TYPE, 100) == []


@pytest.mark.parametrize(
    "body, kind, code",
    [
        (b"", JSON_TYPE, ErrorCode.BAD_JSON),
        (b"[]", JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b"{}", JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":"a"}]}', JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":1,"data":1}]}', JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":"a","data":1,"base64":""}]}', JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":"a","base64":1}]}', JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":"a","data":"\\ud800"}]}', JSON_TYPE, ErrorCode.BAD_JSON),
        (b'{"events":[{"channel":"a","data":"\xff"}]}', JSON_TYPE, ErrorCode.NOT_UTF8),
        (b'{"events":' + b"[" * 9_000 + b"]" * 9_000 + b"}", JSON_TYPE, ErrorCode.BAD_ARGUMENT),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON_TYPE, ErrorCode.BAD_JSON),
        (b'{"events":[]}', TEXT_TYPE, ErrorCode.BAD_TYPE),
        (b'{"events":[]}', b"application/json;charset=x", ErrorCode.BAD_TYPE),
    ],
)
def test_rejects_invalid_batch(body: bytes, kind: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError, check=lambda refused: refused.error.code is code):
        read_batch(body, kind, 100)


def test_rejects_batch_over_the_limit() -> None:
    assert len(read_batch(batch(*[{"channel": "a", "data": 1}] * MAX_BATCH_EVENTS), JSON_TYPE, 100)) == MAX_BATCH_EVENTS
    with pytest.raises(ApiError):
        read_batch(batch(*[{"channel": "a", "data": 1}] * (MAX_BATCH_EVENTS + 1)), JSON_TYPE, 100)


def test_invalid_event_does_not_affect_the_others() -> None:
    deep = [[]]
    for _ in range(MAX_DEPTH):
        deep = [deep]
    read = read_batch(
        batch({"channel": "a", "data": "x" * 1000}, {"channel": "b", "data": deep}, {"channel": "c", "data": 1}),
        JSON_TYPE,
        500,
    )
    outcomes = [one[1].code if isinstance(one, tuple) else one.channel for one in read]
    assert outcomes == [ErrorCode.TOO_LONG, ErrorCode.BAD_JSON, b"c"]
    assert isinstance(read[0], tuple) and read[0][0] == b"a" and isinstance(read[0][1], Error)


def test_reads_bytes_in_batch() -> None:
    events = [{"channel": "a", "base64": text} for text in ("/9g=", "", "/9g", "/9g=" * 126)]
    assert read_batch(batch(*events), JSON_TYPE, 500) == [
        Publication(b"a", build_payloads((b"\xff\xd8",), BYTES)),
        Publication(b"a", build_payloads((b"",), BYTES)),
        (b"a", BAD_BASE64),
        (b"a", Error(ErrorCode.TOO_LONG, "data too long: at most 500 bytes are allowed")),
    ]


def one(channel: bytes, payload: bytes, is_json: bool = False, name: bytes = b"message") -> Publication:
    return Publication(channel, build_payloads((payload,), JSON if is_json else TEXT), name)


def test_joins_neighbours() -> None:
    row = [
        one(b"a", b"1"),
        one(b"a", b"2"),
        one(b"a", b"3", True),
        one(b"a", b"4", True, b"x"),
        one(b"b", b"5", True, b"x"),
    ]
    assert [(each.channel, each.name, each.payloads.items) for each in join_neighbours(row)] == [
        (b"a", b"message", (b"1", b"2")),
        (b"a", b"message", (b"3",)),
        (b"a", b"x", (b"4",)),
        (b"b", b"x", (b"5",)),
    ]
    assert list(join_neighbours([])) == []


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.text(max_size=3), st.booleans())))
def test_joined_publications_keep_all_payloads_in_order(some: list[tuple[bytes, str, bool]]) -> None:
    asked = [one(channel, text.encode(), False, b"x" if named else b"y") for channel, text, named in some]
    flat = [
        Publication(each.channel, build_payloads((payload,), each.payloads.kind), each.name)
        for each in join_neighbours(asked)
        for payload in each.payloads.items
    ]
    assert flat == asked


TYPES = st.sampled_from(
    [b"", b"application/json", b"text/plain", b"application/x-www-form-urlencoded", b'text/x; charset="utf-8"']
)


@holds(examples=150, body=SOUND | st.text().map(str.encode) | st.binary(), kind=TYPES | st.binary(max_size=30))
def test_any_body(body: bytes, kind: bytes) -> None:
    """Any body with any content type is one payload, text or valid JSON, or it is rejected with an ``ApiError``."""
    try:
        content = read_body(body, kind)
    except ApiError:
        return
    (payload,) = content.items
    parsed = json.loads(payload_to_json(payload, content.kind), parse_int=str)  # Python reads no number of 4,301 digits
    if content.kind is TEXT and not kind.startswith(b"application/json"):
        assert parsed == body.decode() and payload == body


@holds(examples=150, message=SOUND | st.text().map(str.encode) | st.binary(), kind=TYPES | st.binary(max_size=30))
def test_any_batch(message: bytes, kind: bytes) -> None:
    """Any batch body is a list of events and errors, or it is rejected; ``join_neighbours`` keeps all events."""
    for body in (message, b'{"events":[%b,{"channel":"a","data":1},%b]}' % (message, message)):
        try:
            asked = read_batch(body, kind, 1_000)
        except ApiError:
            continue
        events = [one for one in asked if not isinstance(one, tuple)]
        assert all(isinstance(one[1], Error) for one in asked if isinstance(one, tuple))
        assert sum(len(row.payloads) for row in join_neighbours(events)) == len(events)
