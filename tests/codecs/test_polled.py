"""What who waits is answered: no more than leaves in one go, and where to go on."""

import json

from twistedsock.codecs.http_api import MAX_POLL_BYTES, poll_response, poll_response_of_several
from twistedsock.pubsub.values import TEXT, Event, Lost, Position
from twistedsock.session.request import HistoryPage


def kept(
    *payloads: bytes,
    channel: bytes = b"k",
    start: int = 1,
    recovered: bool | None = None,
    lost: Lost | None = None,
) -> HistoryPage:
    events = [Event(offset, b"p1", b"ann", b"message", payload, TEXT) for offset, payload in enumerate(payloads, start)]
    stop = start + len(events)
    return HistoryPage(channel, Position(b"e1", stop - 1), start, stop, recovered, lost, iter(events))


def test_nothing_has_come() -> None:
    assert poll_response(kept(start=18)) == b'{"channel":"k","epoch":"e1","offset":17,"events":[],"next":"e1:17"}\n'


def test_what_has_come_is_told_as_in_the_dialects() -> None:
    told = json.loads(poll_response(kept(b"x", b'"', start=3, recovered=False, lost=Lost(1, 2))))
    assert told["recovered"] is False and told["lost"] == {"first": 1, "last": 2} and told["next"] == "e1:4"
    assert told["events"][1] == {
        "type": "event",
        "channel": "k",
        "offset": 4,
        "from": "ann",
        "name": "message",
        "data": '"',
    }
    assert json.loads(poll_response(kept(b"x", recovered=True)))["recovered"] is True


def test_of_several_each_has_its_place() -> None:
    told = json.loads(poll_response_of_several([kept(b"x", channel=b"a"), kept(channel=b"b", start=8)]))
    assert [one["channel"] for one in told["channels"]] == ["a", "b"]
    assert told["next"] == "e1:1,e1:7" and "next" not in told["channels"][0]


def test_an_answer_ends_before_a_gap_so_that_the_next_one_tells_of_it() -> None:
    events = [Event(offset, b"p1", b"ann", b"message", b"x", TEXT) for offset in (3, 6)]
    told = HistoryPage(b"k", Position(b"e1", 6), 3, 7, True, None, iter([events[0], Lost(4, 5), events[1]]))
    answer = json.loads(poll_response(told))
    assert [event["offset"] for event in answer["events"]] == [3]
    assert answer["next"] == "e1:3" and answer["recovered"] is True


def test_a_long_answer_breaks_off_between_two_events() -> None:
    long = b"x" * (MAX_POLL_BYTES // 2)
    told = json.loads(poll_response(kept(long, long, long, b"y")))
    assert len(told["events"]) == 2 and told["next"] == "e1:2" and told["offset"] == 4
    several = json.loads(poll_response_of_several([kept(long, long, channel=b"a"), kept(b"y", channel=b"b")]))
    assert several["next"] == "e1:2,e1:0" and several["channels"][1]["events"] == []
