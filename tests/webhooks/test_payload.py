"""The JSON of deliveries, and their signature."""

import json
from typing import Any

import pytest

from twistedsock.pubsub.values import BYTES, JSON, TEXT, Batch, Member, Payloads
from twistedsock.webhooks.payload import encode_body, encode_change, encode_dropped, encode_published, sign
from twistedsock.webhooks.presence import Change


def published(
    *payloads: bytes, is_json: bool = False, is_plain: bool = False, channel: bytes = b"kitchen"
) -> list[Any]:
    content = Payloads(payloads, sum(map(len, payloads)), JSON if is_json else TEXT, is_plain)
    batch = Batch(18, 18 + len(payloads), b"id1", b"ann", b"message", content, 1_500)
    return [json.loads(event) for event in encode_published(channel, b"5f2c1a", batch)]


def test_encodes_events_with_their_offsets() -> None:
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
def test_encodes_any_text(text: str) -> None:
    (event,) = published(text.encode(), channel=text.encode())
    assert (event["data"], event["channel"]) == (text, text)


def test_encodes_bytes_as_base64() -> None:
    batch = Batch(1, 2, b"id1", b"ann", b"message", Payloads((b"\xff\xd8",), 2, BYTES))
    event = json.loads(next(encode_published(b"kitchen", b"5f2c1a", batch)))
    assert event["base64"] == "/9g=" and "data" not in event


def test_encodes_plain_payloads_without_escaping() -> None:
    assert [event["data"] for event in published(b"plain", b"100%b", is_plain=True)] == ["plain", "100%b"]
    (event,) = published(b"[1]", is_json=True, is_plain=True)
    assert event["data"] == [1]


def test_encodes_presence_changes() -> None:
    assert json.loads(encode_change(Change("channel-occupied", b"kitchen", None, 0.0, 2.0))) == {
        "type": "channel-occupied",
        "channel": "kitchen",
        "time": 2.0,
    }
    change = Change("member-left", b"kitchen", Member(b"id1", b"ann"), 0.0, 1_795_383_000.1234)
    assert json.loads(encode_change(change)) == {
        "type": "member-left",
        "channel": "kitchen",
        "time": 1_795_383_000.123,
        "member": {"id": "id1", "nick": "ann"},
    }


def test_encodes_a_body() -> None:
    body = json.loads(encode_body("office", "5f2c", 3.25, [encode_dropped(12, 1.0, 3.25), b'{"type":"x"}']))
    assert body == {
        "webhook": "office",
        "delivery": "5f2c",
        "sent": 3.25,
        "events": [{"type": "dropped", "count": 12, "since": 1.0, "time": 3.25}, {"type": "x"}],
    }


def test_signature_is_the_one_of_github() -> None:
    """The example of docs.github.com, "Validating webhook deliveries"."""
    expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert sign(b"It's a Secret to Everybody", b"Hello, World!") == expected
