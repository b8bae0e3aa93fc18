"""JSON messages in POST requests, and the welcome of a fallback session."""

import pytest

from tests.event_streams import read_events
from twistedsock.codecs.fallback import FallbackOpening, read_messages
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.sse import JSON_SSE_ENCODER
from twistedsock.errors import CloseReason, ErrorCode
from twistedsock.session.encoder import Endpoints

ENDS = Endpoints(b"127.0.0.1:53124", b"127.0.0.1:8082")


def test_welcome_has_the_key() -> None:
    (plain,), _ = read_events(JSON_SSE_ENCODER.welcome(b"k3x9p", ENDS).decode())
    (welcome,), _ = read_events(FallbackOpening(b'se"cret').welcome(b"k3x9p", ENDS).decode())
    assert welcome.kind == "welcome" and welcome.message == {**plain.message, "key": 'se"cret'}


def test_close_message_has_code_and_reason() -> None:
    (close,), _ = read_events(JSON_SSE_ENCODER.close(CloseReason.GOING_AWAY, b'"bye"').decode())
    assert close.kind == "close" and close.message == {"type": "close", "code": 1001, "reason": '"bye"'}


@pytest.mark.parametrize("kind", [b"", b"application/x-ndjson", b"Text/Plain; charset=utf-8", b"application/json"])
def test_reads_one_message_per_line(kind: bytes) -> None:
    assert read_messages(b'{"a":1}\r\n\n{"b":"\xc3\xa9"}', kind, 100) == [b'{"a":1}', b'{"b":"\xc3\xa9"}']
    assert read_messages(b"", kind, 100) == []
    assert read_messages(b'\xef\xbb\xbf{"a":1}\n{"b":2}', kind, 100) == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{}", b"image/png", ErrorCode.BAD_TYPE),
        (b"{}\n\xff", b"", ErrorCode.NOT_UTF8),
        (b"{}\n" + b"x" * 101, b"", ErrorCode.TOO_LONG),
    ],
)
def test_rejects_whole_request(body: bytes, kind: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError) as refused:
        read_messages(body, kind, 100)
    assert refused.value.error.code is code
