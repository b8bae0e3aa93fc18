"""What a stream asks for, read with suspicion."""

import pytest

from twistedsock.codecs.http_api import MAX_STREAM_CHANNELS, read_channels, read_stream_request
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.query import QueryParameters
from twistedsock.errors import ErrorCode
from twistedsock.pubsub.values import Position
from twistedsock.session.commands import Subscribe


def test_channels_are_named_once_each_in_their_order() -> None:
    assert read_channels(QueryParameters(b"channel=b&channel=a&channel=b&channel=k%C3%BC")) == [
        b"b",
        b"a",
        "kü".encode(),
    ]
    assert read_channels(QueryParameters(b"last=1")) == []


def test_what_a_session_is_asked() -> None:
    asked = read_stream_request(QueryParameters(b"last=3&presence=on"), [b"a", b"b"], "e1:5,")
    assert asked.commands() == [
        Subscribe(b"a", last=3, since=5, epoch=b"e1", presence=True),
        Subscribe(b"b", last=3, since=None, epoch=None, presence=True),
    ]


@pytest.mark.parametrize(
    ("query", "header", "place"),
    [
        (b"", "", None),
        (b"since=4&epoch=e1", "", Position(b"e1", 4)),
        (b"last-event-id=e1:5", "", Position(b"e1", 5)),
        (b"last-event-id=", "", None),
        (b"lastEventId=e1:5", "", Position(b"e1", 5)),
        (b"last-event-id=e1:5&lastEventId=e1:6", "", Position(b"e1", 6)),
        (b"last-event-id=e1:5&lastEventId=", "", Position(b"e1", 5)),
        (b"lastEventId=e1:5", "e2:6", Position(b"e2", 6)),
        (b"since=4&epoch=e1&last-event-id=e1:5", "", Position(b"e1", 5)),
        (b"since=4&epoch=e1&last-event-id=e1:5", "e2:6", Position(b"e2", 6)),
    ],
)
def test_a_browser_that_comes_back_asks_as_before_and_shows_the_last_id(
    query: bytes, header: str, place: Position | None
) -> None:
    """So the header counts most."""
    asked = read_stream_request(QueryParameters(query), [b"a"], header)
    assert asked.known == {b"a": place} and asked.last is None and not asked.presence


@pytest.mark.parametrize(
    ("query", "channels", "header", "code"),
    [
        (b"", [], "", ErrorCode.BAD_ARGUMENT),
        (b"", [b"%d" % number for number in range(MAX_STREAM_CHANNELS + 1)], "", ErrorCode.BAD_ARGUMENT),
        (b"", [b"a", b"a b"], "", ErrorCode.BAD_CHANNEL),
        (b"since=1", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"epoch=e1", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"since=x&epoch=e1", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"since=1&epoch=e1", [b"a", b"b"], "", ErrorCode.BAD_ARGUMENT),
        (b"last=-1", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"presence=yes", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"", [b"a"], "17", ErrorCode.BAD_ARGUMENT),
        (b"", [b"a", b"b"], "e1:1", ErrorCode.BAD_ARGUMENT),
        (b"last-event-id=e1:1,e2:2", [b"a"], "", ErrorCode.BAD_ARGUMENT),
    ],
)
def test_what_is_refused(query: bytes, channels: list[bytes], header: str, code: ErrorCode) -> None:
    with pytest.raises(ApiError) as refused:
        read_stream_request(QueryParameters(query), channels, header)
    assert refused.value.error.code is code
