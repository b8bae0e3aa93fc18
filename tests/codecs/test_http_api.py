"""Responses, and requests for streams."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from twistedsock.codecs import http_api
from twistedsock.codecs.http_api import (
    MAX_LISTED_BYTES,
    MAX_POLL_BYTES,
    MAX_STREAM_CHANNELS,
    poll_response,
    poll_response_of_several,
    read_channels,
    read_history_query,
    read_stream_request,
)
from twistedsock.codecs.http_bodies import join_neighbours
from twistedsock.codecs.payload import build_payloads
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.query import QueryParameters
from twistedsock.errors import BAD_CHANNEL, ErrorCode
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.values import (
    JSON,
    TEXT,
    ChannelInfo,
    Event,
    Lost,
    Member,
    Page,
    Position,
    Publication,
)
from twistedsock.session.commands import Subscribe
from twistedsock.session.history_query import HistoryQuery, Moment
from twistedsock.session.request import HistoryPage


def read_responses(answer: bytes) -> Any:
    assert answer.endswith(b"}\n") and answer.count(b"\n") == 1
    return json.loads(answer)


def page(
    *payloads: bytes, start: int = 1, recovered: bool | None = None, lost: Lost | None = None, channel: bytes = b"k"
) -> HistoryPage:
    """Events from offset ``start`` on, to the newest of the channel. ``21.5`` is JSON, other payloads are text."""
    events = [
        Event(offset, b"p1", b"ann", b"message", payload, JSON if payload == b"21.5" else TEXT)
        for offset, payload in enumerate(payloads, start)
    ]
    stop = start + len(events)
    return HistoryPage(channel, Position(b"e1", stop - 1), start, stop, recovered, lost, iter(events))


def event_with(offset: int, data: Any) -> dict[str, Any]:
    """The JSON of an event of a page."""
    fields = {"channel": "k", "offset": offset, "time": 0, "from": "ann", "name": "message"}
    return {"type": "event", **fields, "data": data}


def read_history(page: HistoryPage) -> Any:
    return read_responses(b"".join(http_api.history_response(page)))


def test_publish_response_has_position() -> None:
    answer = http_api.publish_response("küche".encode(), Position(b"5f2c1a", 18))
    assert read_responses(answer) == {"channel": "küche", "offset": 18, "epoch": "5f2c1a"}


def test_batch_response_is_in_order() -> None:
    answer = http_api.batch_response([(b"a", Position(b"e", 1)), (b'"\n', BAD_CHANNEL)])
    assert read_responses(answer) == {
        "results": [
            {"channel": "a", "offset": 1, "epoch": "e"},
            {"channel": '"\n', "code": "bad-channel", "detail": BAD_CHANNEL.message},
        ]
    }
    assert read_responses(http_api.batch_response([])) == {"results": []}


def test_batch_results_of_joined_publications() -> None:
    def row(channel: bytes, *payloads: bytes) -> Publication:
        return Publication(channel, build_payloads(payloads, TEXT))

    refused = (b"b", BAD_CHANNEL)
    asked = [row(b"a", b"1"), refused, row(b"a", b"2"), row(b"c", b"3"), row(b"d", b"4"), row(b"d", b"5")]
    rows, outcomes = (
        list(join_neighbours(one for one in asked if isinstance(one, Publication))),
        [Position(b"e", 7), BAD_CHANNEL, Position(b"f", 1)],
    )
    assert list(http_api.batch_results(asked, rows, outcomes)) == [
        (b"a", Position(b"e", 7)),
        refused,
        (b"a", Position(b"e", 8)),
        (b"c", BAD_CHANNEL),
        (b"d", Position(b"f", 1)),
        (b"d", Position(b"f", 2)),
    ]


def test_history_response_has_events_and_next() -> None:
    assert read_history(page(b"21.5", b"hello", start=3)) == {
        "channel": "k",
        "epoch": "e1",
        "offset": 4,
        "events": [event_with(3, 21.5), event_with(4, "hello")],
        "next": "e1:4",
    }
    assert read_history(page(channel="küche".encode()))["channel"] == "küche"


@pytest.mark.parametrize("recovered, lost", [(True, None), (False, Lost(1, 2))])
def test_history_response_has_result_of_recovery(recovered: bool, lost: Lost | None) -> None:
    body = read_history(page(start=3, recovered=recovered, lost=lost))
    assert body["recovered"] is recovered and body["events"] == []
    assert body.get("lost") == ({"first": 1, "last": 2} if lost else None)


def test_history_response_reports_gaps_behind_the_events() -> None:
    event = Event(5, b"p1", b"ann", b"message", b"x", TEXT)
    page = HistoryPage(b"k", Position(b"e1", 9), 3, 10, True, None, iter([Lost(3, 4), event, Lost(6, 9)]))
    answer = read_responses(b"".join(http_api.history_response(page)))
    assert [event["offset"] for event in answer["events"]] == [5] and "lost" not in answer
    assert answer["gaps"] == [{"first": 3, "last": 4}, {"first": 6, "last": 9}] and answer["next"] == "e1:9"


def test_long_history_comes_in_pieces() -> None:
    pieces = list(http_api.history_response(page(*[b"x" * 1000] * 200)))
    assert len(pieces) == 4 and max(map(len, pieces)) < 1.1 * CHUNK_BYTES
    assert len(read_responses(b"".join(pieces))["events"]) == 200


@given(st.lists(st.text()))
def test_texts_in_history_are_unchanged(texts: list[str]) -> None:
    body = read_history(page(*[text.encode() for text in texts]))
    assert [event["data"] for event in body["events"]] == texts


@pytest.mark.parametrize(
    "query, bounds",
    [
        (b"", HistoryQuery()),
        (b"last=5&since=3&after=4&before=9", HistoryQuery(5, 3, 4, 9)),
        (b"before=1970-01-01T00:00:01Z", HistoryQuery(before=Moment(1_000))),
    ],
)
def test_reads_history_query(query: bytes, bounds: HistoryQuery) -> None:
    assert read_history_query(QueryParameters(query)) == bounds


def test_page_that_ends_before_the_newest_event_continues_at_its_end() -> None:
    early = replace(page(b"x", start=3), position=Position(b"e1", 9))
    body = read_responses(b"".join(http_api.history_response(early)))
    assert (body["offset"], body["next"]) == (9, "e1:3")


def test_etag_depends_on_the_response() -> None:
    assert http_api.history_etag(page(b"x", start=3)) == b'"e1:3-3"'
    assert http_api.history_etag(page(start=3)) == b'"e1:3-2"'
    assert http_api.history_etag(replace(page(start=3), lost=Lost(1, 2))) == b'"e1:3-2-lost-1"'
    assert http_api.history_etag(replace(page(b"x", start=3), position=Position(b"e1", 9))) == b'"e1:3-3/9"'


@pytest.mark.parametrize("following", [None, "küche"])
def test_channels_response(following: str | None) -> None:
    listed = ChannelInfo("küche".encode(), 2, Position(b"e", 9), 5, 700)
    answer = http_api.channels_response(Page([listed], 7, following and following.encode()))
    channel = {"channel": "küche", "readers": 2, "offset": 9, "epoch": "e", "events": 5, "bytes": 700}
    assert read_responses(answer) == {"channels": [channel], "total": 7, "next": following}


@pytest.mark.parametrize("name", ["k", "ü" * 100])
def test_channels_response_has_the_last_event_if_it_is_short(name: str) -> None:
    def last(newest: Event | None) -> Any:
        listed = ChannelInfo(name.encode(), 2, Position(b"e", 9), 5, 700, newest)
        found = read_responses(http_api.channels_response(Page([listed], 1, None), with_last=True))
        assert list(found["channels"][0])[-2:] == ["time", "last"]
        return found["channels"][0]["time"], found["channels"][0]["last"]

    event = Event(9, b"p1", b"ann", b"message", b"21.5", TEXT, 1764394200123)
    sent = {"type": "event", "channel": name, "offset": 9, "time": event.time, "from": "ann", "name": "message"}
    assert last(event) == (event.time, {**sent, "data": "21.5"})
    assert last(replace(event, payload=b"x" * MAX_LISTED_BYTES)) == (event.time, None)
    assert last(replace(event, payload=b"x" * (MAX_LISTED_BYTES + 1))) == (event.time, None)
    assert last(None) == (None, None)


def test_members_response() -> None:
    answer = http_api.members_response(b"a", [Member(b"p1", b"ann"), Member(b"p2", b"p2")], 3, b"p2")
    members = [{"id": "p1", "nick": "ann"}, {"id": "p2", "nick": "p2"}]
    assert read_responses(answer) == {"channel": "a", "members": members, "readers": 3, "next": "p2"}


def test_poll_response_without_events() -> None:
    assert poll_response(page(start=18)) == b'{"channel":"k","epoch":"e1","offset":17,"events":[],"next":"e1:17"}\n'


def test_poll_response_has_events() -> None:
    body = json.loads(poll_response(page(b"x", b'"', start=3, recovered=False, lost=Lost(1, 2))))
    assert body["recovered"] is False and body["lost"] == {"first": 1, "last": 2} and body["next"] == "e1:4"
    assert body["events"][1] == event_with(4, '"')
    assert json.loads(poll_response(page(b"x", recovered=True)))["recovered"] is True


def test_poll_response_of_several_channels() -> None:
    body = json.loads(poll_response_of_several([page(b"x", channel=b"a"), page(channel=b"b", start=8)]))
    assert [one["channel"] for one in body["channels"]] == ["a", "b"]
    assert body["next"] == "e1:1,e1:7" and "next" not in body["channels"][0]


def test_poll_response_ends_before_a_gap() -> None:
    events = [Event(offset, b"p1", b"ann", b"message", b"x", TEXT) for offset in (3, 6)]
    page = HistoryPage(b"k", Position(b"e1", 6), 3, 7, True, None, iter([events[0], Lost(4, 5), events[1]]))
    answer = json.loads(poll_response(page))
    assert [event["offset"] for event in answer["events"]] == [3]
    assert answer["next"] == "e1:3" and answer["recovered"] is True


def test_poll_response_ends_at_the_limit() -> None:
    long = b"x" * (MAX_POLL_BYTES // 2)
    body = json.loads(poll_response(page(long, long, long, b"y")))
    assert len(body["events"]) == 2 and body["next"] == "e1:2" and body["offset"] == 4
    several = json.loads(poll_response_of_several([page(long, long, channel=b"a"), page(b"y", channel=b"b")]))
    assert several["next"] == "e1:2,e1:0" and several["channels"][1]["events"] == []


def test_reads_each_channel_once() -> None:
    channels = read_channels(QueryParameters(b"channel=b&channel=a&channel=b&channel=k%C3%BC"))
    assert channels == [b"b", b"a", "kü".encode()]
    assert read_channels(QueryParameters(b"last=1")) == []


def test_stream_request_becomes_commands() -> None:
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
def test_last_event_id_takes_precedence_over_query(query: bytes, header: str, place: Position | None) -> None:
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
        (b"after=-1h", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"before=17", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"presence=yes", [b"a"], "", ErrorCode.BAD_ARGUMENT),
        (b"", [b"a"], "17", ErrorCode.BAD_ARGUMENT),
        (b"", [b"a", b"b"], "e1:1", ErrorCode.BAD_ARGUMENT),
        (b"last-event-id=e1:1,e2:2", [b"a"], "", ErrorCode.BAD_ARGUMENT),
    ],
)
def test_rejects_invalid_stream_request(query: bytes, channels: list[bytes], header: str, code: ErrorCode) -> None:
    with pytest.raises(ApiError, check=lambda refused: refused.error.code is code):
        read_stream_request(QueryParameters(query), channels, header)
