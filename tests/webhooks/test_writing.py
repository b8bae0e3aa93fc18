"""What a delivery says is JSON, whatever was published."""

import json

import pytest

from twistedsock.pubsub.values import JSON, TEXT, Batch, Member, Payloads
from twistedsock.webhooks.payload import write_body, write_change, write_dropped, write_published
from twistedsock.webhooks.presence import Change


def published(*payloads, is_json=False, is_plain=False, channel=b"kitchen"):
    content = Payloads(payloads, sum(map(len, payloads)), JSON if is_json else TEXT, is_plain)
    batch = Batch(18, 18 + len(payloads), b"id1", b"ann", b"message", content)
    return [json.loads(event) for event in write_published(channel, b"5f2c1a", batch, 1.5)]


def test_events_are_told_with_their_places():
    first, second = published(b"21.5", b'{"a": [1]}', is_json=True)
    assert first == {
        "type": "event-published",
        "channel": "kitchen",
        "time": 1.5,
        "epoch": "5f2c1a",
        "from": "ann",
        "name": "message",
        "offset": 18,
        "data": 21.5,
    }
    assert (second["offset"], second["data"]) == (19, {"a": [1]})


@pytest.mark.parametrize("text", ["", "plain", 'quo"te', "back\\slash", "\x1b[2J", "ü", "line\nbreak", "100%b"])
def test_texts_come_out_as_they_went_in(text):
    (event,) = published(text.encode(), channel=text.encode())
    assert (event["data"], event["channel"]) == (text, text)


def test_texts_that_were_looked_at_are_not_looked_at_again():
    assert [event["data"] for event in published(b"plain", b"100%b", is_plain=True)] == ["plain", "100%b"]
    (event,) = published(b"[1]", is_json=True, is_plain=True)
    assert event["data"] == [1]


def test_changes():
    assert json.loads(write_change(Change("channel-occupied", b"kitchen", None, 0.0, 2.0))) == {
        "type": "channel-occupied",
        "channel": "kitchen",
        "time": 2.0,
    }
    change = Change("member-left", b"kitchen", Member(b"id1", b"ann"), 0.0, 1_795_383_000.1234)
    assert json.loads(write_change(change)) == {
        "type": "member-left",
        "channel": "kitchen",
        "time": 1_795_383_000.123,
        "member": {"id": "id1", "nick": "ann"},
    }


def test_bodies():
    body = json.loads(write_body("office", "5f2c", 3.25, [write_dropped(12, 1.0, 3.25), b'{"type":"x"}']))
    assert body == {
        "webhook": "office",
        "delivery": "5f2c",
        "sent": 3.25,
        "events": [{"type": "dropped", "count": 12, "since": 1.0, "time": 3.25}, {"type": "x"}],
    }
