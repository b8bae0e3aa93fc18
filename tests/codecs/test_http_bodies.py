"""Bodies of HTTP to what they publish: by Content-Type, never rebuilt, and suspicious of all that is malformed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.http_api import MAX_BATCH_EVENTS, join_neighbours, read_batch, read_body
from twistedsock.codecs.payload import MAX_DEPTH, build_payloads, payload_to_json, payload_to_line
from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import PayloadKind, Payloads
from twistedsock.session.request import Publication

JSON = b"application/json"
TEXT = b"text/plain"
FORM = b"application/x-www-form-urlencoded"


def read(body: bytes, kind: bytes) -> tuple[bytes, bool]:
    content = read_body(body, kind)
    assert content.size == len(content.items[0]) and len(content) == 1
    return content.items[0], content.kind is PayloadKind.JSON


@pytest.mark.parametrize(
    "body, kind, payload, is_json",
    [
        (b'{"a": [1, 2]}', JSON, b'{"a": [1, 2]}', True),
        (b' {"a":1}\r\n', JSON, b'{"a":1}', True),
        (b"21.50", JSON, b"21.50", True),
        (b"null", b"application/vnd.api+json; charset=UTF-8", b"null", True),
        (b'"hello"', JSON, b"hello", False),
        (b'"a\\nb\\u00e9"', b'Application/JSON;charset="utf-8"', "a\nbé".encode(), False),
        (b'""', JSON, b"", False),
        (b'\xef\xbb\xbf{"a":1}', JSON, b'{"a":1}', True),
        (b'\xef\xbb\xbf "hello"', JSON, b"hello", False),
        (b'\xef\xbb\xbf{"a":1}\r\n', FORM, b'{"a":1}', True),
        (b"\xef\xbb\xbf[1]", b"", b"[1]", True),
        (b"\xef\xbb\xbfhello", b"", b"\xef\xbb\xbfhello", False),
        (b"\xef\xbb\xbf[1]", TEXT, b"\xef\xbb\xbf[1]", False),
        (b'{"a":1}', TEXT, b'{"a":1}', False),
        (b"hello\n", b"text/markdown; charset=utf8; x=y", b"hello\n", False),
        (b"", TEXT, b"", False),
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
def test_a_body_is_what_its_content_type_says(body: bytes, kind: bytes, payload: bytes, is_json: bool) -> None:
    assert read(body, kind) == (payload, is_json)


@pytest.mark.parametrize(
    "body, kind, code",
    [
        (b"", JSON, ErrorCode.BAD_JSON),
        (b" ", JSON, ErrorCode.BAD_JSON),
        (b"{", JSON, ErrorCode.BAD_JSON),
        (b"1 2", JSON, ErrorCode.BAD_JSON),
        (b"NaN", JSON, ErrorCode.BAD_JSON),
        (b'"\\ud800"', JSON, ErrorCode.BAD_JSON),
        (b'{"a":"\\udc00"}', JSON, ErrorCode.BAD_JSON),
        (b'"\\ud800"', b"", ErrorCode.BAD_JSON),
        (b' {"a":"\\udc00"}\n', FORM, ErrorCode.BAD_JSON),
        (b'"\xff"', JSON, ErrorCode.NOT_UTF8),
        (b"\xc0\x80", TEXT, ErrorCode.NOT_UTF8),
        (b"\xed\xa0\x80", FORM, ErrorCode.NOT_UTF8),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), JSON, ErrorCode.BAD_JSON),
        (b"[" * 30_000 + b"]" * 30_000, JSON, ErrorCode.BAD_JSON),
        (b"x", b"image/png", ErrorCode.BAD_TYPE),
        (b"x", b"multipart/form-data; boundary=x", ErrorCode.BAD_TYPE),
        (b"x", b"json", ErrorCode.BAD_TYPE),
        (b"x", b"text/plain; charset=latin-1", ErrorCode.BAD_TYPE),
        (b"1", b"application/json;charset=utf-16", ErrorCode.BAD_TYPE),
    ],
)
def test_what_a_body_cannot_be_is_refused(body: bytes, kind: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError) as refused:
        read_body(body, kind)
    assert refused.value.error.code is code


def test_json_may_be_as_deep_as_it_may() -> None:
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read(body, JSON) == (body, True)


@given(st.text())
def test_a_text_comes_out_everywhere_as_it_went_in(text: str) -> None:
    bodies = (
        (text.encode(), TEXT),
        (json.dumps(text).encode(), JSON),
        (json.dumps(text, ensure_ascii=False).encode(), JSON),
    )
    for body, kind in bodies:
        payload, is_json = read(body, kind)
        assert (payload, is_json) == (text.encode(), False)
        assert json.loads(payload_to_json(payload, PayloadKind.TEXT)) == text
        line = payload_to_line(payload, PayloadKind.TEXT).decode()
        assert line == text or json.loads(line) == text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_json_is_spliced_as_it_came(value: Any, indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    payload, is_json = read(body, JSON)
    assert (payload, is_json) == ((value.encode(), False) if isinstance(value, str) else (body, True))
    batch = b'{"events":[{"channel":"a","data":%b}]}' % body
    assert read_batch(batch, JSON, 10**6) == [Publication(b"a", read_body(body, JSON))]


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_whatever_comes_is_read_or_refused(body: bytes, kind: bytes) -> None:
    for types in (kind, JSON, TEXT, FORM):
        try:
            assert isinstance(read_body(body, types), Payloads)
        except ApiError:
            pass
        try:
            read_batch(body, types, 100)
        except ApiError:
            pass


def batch(*events: Any) -> bytes:
    return json.dumps({"events": events}).encode()


def test_a_batch_is_read_in_its_order() -> None:
    body = batch({"channel": "a", "data": "x"}, {"channel": "é", "data": {"b": 1}, "name": "alarm", "more": 1})
    for kind in (JSON, b"", FORM):
        assert read_batch(body, kind, 100) == [
            Publication(b"a", build_payloads((b"x",), PayloadKind.TEXT)),
            Publication("é".encode(), build_payloads((b'{"b": 1}',), PayloadKind.JSON), b"alarm"),
        ]
    assert read_batch(batch(), JSON, 100) == []


@pytest.mark.parametrize(
    "body, kind, code",
    [
        (b"", JSON, ErrorCode.BAD_JSON),
        (b"[]", JSON, ErrorCode.BAD_ARGUMENT),
        (b"{}", JSON, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":"a"}]}', JSON, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":1,"data":1}]}', JSON, ErrorCode.BAD_ARGUMENT),
        (b'{"events":[{"channel":"a","data":"\\ud800"}]}', JSON, ErrorCode.BAD_JSON),
        (b'{"events":[{"channel":"a","data":"\xff"}]}', JSON, ErrorCode.NOT_UTF8),
        (b'{"events":' + b"[" * 9_000 + b"]" * 9_000 + b"}", JSON, ErrorCode.BAD_ARGUMENT),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, ErrorCode.BAD_JSON),
        (b'{"events":[]}', TEXT, ErrorCode.BAD_TYPE),
        (b'{"events":[]}', b"application/json;charset=x", ErrorCode.BAD_TYPE),
    ],
)
def test_what_is_no_batch_is_refused(body: bytes, kind: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError) as refused:
        read_batch(body, kind, 100)
    assert refused.value.error.code is code


def test_a_batch_has_no_more_events_than_it_may() -> None:
    assert len(read_batch(batch(*[{"channel": "a", "data": 1}] * MAX_BATCH_EVENTS), JSON, 100)) == MAX_BATCH_EVENTS
    with pytest.raises(ApiError):
        read_batch(batch(*[{"channel": "a", "data": 1}] * (MAX_BATCH_EVENTS + 1)), JSON, 100)


def test_one_event_of_a_batch_may_be_wrong_and_the_others_not() -> None:
    deep = [[]]
    for _ in range(MAX_DEPTH):
        deep = [deep]
    read = read_batch(
        batch({"channel": "a", "data": "x" * 1000}, {"channel": "b", "data": deep}, {"channel": "c", "data": 1}),
        JSON,
        500,
    )
    told = [one[1].code if isinstance(one, tuple) else one.channel for one in read]
    assert told == [ErrorCode.TOO_LONG, ErrorCode.BAD_JSON, b"c"]
    assert isinstance(read[0], tuple) and read[0][0] == b"a" and isinstance(read[0][1], Error)


def one(channel: bytes, payload: bytes, is_json: bool = False, name: bytes = b"message") -> Publication:
    return Publication(channel, build_payloads((payload,), PayloadKind.JSON if is_json else PayloadKind.TEXT), name)


def test_events_in_a_row_that_are_alike_are_published_together() -> None:
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
def test_together_nothing_is_lost_or_moved(some: list[tuple[bytes, str, bool]]) -> None:
    asked = [one(channel, text.encode(), False, b"x" if named else b"y") for channel, text, named in some]
    flat = [
        Publication(each.channel, build_payloads((payload,), each.payloads.kind), each.name)
        for each in join_neighbours(asked)
        for payload in each.payloads.items
    ]
    assert flat == asked
