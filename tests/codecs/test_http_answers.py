"""What HTTP answers: JSON that says what it should, ends with a line end, and comes in pieces where it is long."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs import http_api
from twistedsock.codecs.http_api import join_neighbours
from twistedsock.codecs.payload import build_payloads
from twistedsock.errors import BAD_CHANNEL
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.channel_index import ChannelInfo, Page
from twistedsock.pubsub.values import JSON, TEXT, Event, Lost, Member, Position, Publication
from twistedsock.session.request import HistoryPage


def read(answer: bytes) -> Any:
    assert answer.endswith(b"}\n") and answer.count(b"\n") == 1
    return json.loads(answer)


def kept(*payloads: tuple[bytes, bool], recovered: bool | None = None, lost: Lost | None = None) -> HistoryPage:
    def events() -> Iterator[Event]:
        for offset, (payload, is_json) in enumerate(payloads, 3):
            yield Event(offset, b"p1", b"ann", b"message", payload, JSON if is_json else TEXT)

    return HistoryPage(
        "küche".encode(), Position(b"5f2c1a", 2 + len(payloads)), 3, 3 + len(payloads), recovered, lost, events()
    )


def test_a_place_is_told() -> None:
    answer = http_api.publish_response("küche".encode(), Position(b"5f2c1a", 18))
    assert read(answer) == {"channel": "küche", "offset": 18, "epoch": "5f2c1a"}


def test_the_outcomes_of_a_batch_are_told_in_order() -> None:
    answer = http_api.batch_response([(b"a", Position(b"e", 1)), (b'"\n', BAD_CHANNEL)])
    assert read(answer) == {
        "results": [
            {"channel": "a", "offset": 1, "epoch": "e"},
            {"channel": '"\n', "code": "bad-channel", "detail": BAD_CHANNEL.message},
        ]
    }
    assert read(http_api.batch_response([])) == {"results": []}


def test_each_event_of_a_batch_has_its_outcome() -> None:
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


def test_history_is_the_events_of_the_json_dialect_and_where_to_go_on() -> None:
    told = read(b"".join(http_api.history_response(kept((b"21.5", True), (b"hello", False)))))
    event = {"type": "event", "channel": "küche", "offset": 3, "from": "ann", "name": "message", "data": 21.5}
    assert told == {
        "channel": "küche",
        "epoch": "5f2c1a",
        "offset": 4,
        "events": [event, {**event, "offset": 4, "data": "hello"}],
        "next": "5f2c1a:4",
    }


@pytest.mark.parametrize("recovered, lost", [(True, None), (False, Lost(1, 2))])
def test_history_tells_whether_one_could_go_on(recovered: bool, lost: Lost | None) -> None:
    told = read(b"".join(http_api.history_response(kept(recovered=recovered, lost=lost))))
    assert told["recovered"] is recovered and told["events"] == []
    assert told.get("lost") == ({"first": 1, "last": 2} if lost else None)


def test_history_tells_behind_the_events_what_went_while_it_was_sent() -> None:
    event = Event(5, b"p1", b"ann", b"message", b"x", TEXT)
    told = HistoryPage(b"k", Position(b"e1", 9), 3, 10, True, None, iter([Lost(3, 4), event, Lost(6, 9)]))
    answer = read(b"".join(http_api.history_response(told)))
    assert [event["offset"] for event in answer["events"]] == [5] and "lost" not in answer
    assert answer["gaps"] == [{"first": 3, "last": 4}, {"first": 6, "last": 9}] and answer["next"] == "e1:9"


def test_a_long_history_comes_in_pieces() -> None:
    pieces = list(http_api.history_response(kept(*[(b"x" * 1000, False)] * 200)))
    assert len(pieces) == 4 and max(map(len, pieces)) < 1.1 * CHUNK_BYTES
    assert len(read(b"".join(pieces))["events"]) == 200


@given(st.lists(st.text()))
def test_texts_are_told_as_they_are(texts: list[str]) -> None:
    told = read(b"".join(http_api.history_response(kept(*[(text.encode(), False) for text in texts]))))
    assert [event["data"] for event in told["events"]] == texts


def test_a_tag_tells_answers_apart() -> None:
    assert http_api.history_etag(kept((b"x", TEXT))) == b'"5f2c1a:3-3"'
    assert http_api.history_etag(kept()) == b'"5f2c1a:3-2"'


@pytest.mark.parametrize("following", [None, "küche"])
def test_a_page_of_channels(following: str | None) -> None:
    listed = ChannelInfo("küche".encode(), 2, Position(b"e", 9), 5, 700)
    answer = http_api.channels_response(Page([listed], 7, following and following.encode()))
    channel = {"channel": "küche", "readers": 2, "offset": 9, "epoch": "e", "events": 5, "bytes": 700}
    assert read(answer) == {"channels": [channel], "total": 7, "next": following}


def test_a_page_of_members() -> None:
    answer = http_api.members_response(b"a", [Member(b"p1", b"ann"), Member(b"p2", b"p2")], 3, b"p2")
    members = [{"id": "p1", "nick": "ann"}, {"id": "p2", "nick": "p2"}]
    assert read(answer) == {"channel": "a", "members": members, "readers": 3, "next": "p2"}
