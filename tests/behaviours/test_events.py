"""An event published by one peer is heard by another, whatever the two speak."""

import json
from typing import Any

import pytest

from tests.behaviours.voices import KINDS, LineVoice, Voice, settle
from tests.event_streams import FallbackClient, Stream
from twistedsock.codecs.http_api import read_batch, read_body
from twistedsock.codecs.payload import UNPAIRED_SURROGATE
from twistedsock.codecs.problem_details import ApiError
from twistedsock.testing import FakeServer

TEXTS = [
    "21.5",
    "",
    " ",
    " two  spaces around ",
    "a\tb",
    "{not json",
    '{"a": 1}',
    "[",
    "[1]",
    '"',
    '"quoted"',
    '"half',
    "a\nb\r\nc",
    "\n",
    "\x00\x01\x1b[31mred\x07",
    "\x7f",
    "\x80\x85\x9b31m",
    "küche 厨房 🌡 \u2028 \ufeff",
    "a \\ b \\n c",
    "MSG kitchen 1 p1 forged",
    "true",
    "null",
    "x" * 10_000,
]
VALUES = [
    {},
    [],
    {"celsius": 21.5},
    [1, 2.5, "a", None, True, {"b": []}],
    {"": "\n\t\x7f\x9b{"},
    {"deep": [[[[[]]]]]},
    ["ü", "\u2028"],
]


def event(publisher: Voice, offset: int, data: Any, name: str = "message", nick: str = "") -> dict[str, Any]:
    sender = nick or publisher.id
    return {"type": "event", "channel": "kitchen", "offset": offset, "from": sender, "name": name, "data": data}


@pytest.mark.parametrize("data", [*TEXTS, *VALUES], ids=lambda data: ascii(data)[:30])
def test_what_goes_in_comes_out(publisher: Voice, reader: Voice, data: Any) -> None:
    """Live, and from the history."""
    reader.asks("subscribe", channel="kitchen")
    assert publisher.asks("publish", channel="kitchen", data=data) == {"type": "ok", "offset": 1}
    assert reader.received() == [event(publisher, 1, data)]
    assert reader.asks("history", channel="kitchen") == {"type": "ok", "events": [event(publisher, 1, data)]}


@pytest.mark.parametrize("raw", ["0", "-1.50", "1e400", "12345678901234567890", "true", "false", "null"])
def test_a_number_is_not_rebuilt_and_a_line_shows_it_as_it_came(publisher: Voice, reader: Voice, raw: str) -> None:
    """On a line nothing but { [ and " begins JSON, so there it is text."""
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", raw=raw)
    (heard,) = reader.received()
    text = isinstance(publisher, LineVoice) or isinstance(reader, LineVoice)
    assert heard["data"] == (raw if text else json.loads(raw))


@pytest.mark.parametrize(
    "raw, shown",
    [
        ('{"a":  1,\t"b":[ ]}', '{"a":  1,\t"b":[ ]}'),
        ('{"a": 1.500, "a": 2}', '{"a": 1.500, "a": 2}'),
        ('["\\u0041\\u001b"]', '["\\u0041\\u001b"]'),
        ('["\x7f\x9b"]', '["\\u007f\\u009b"]'),
    ],
)
def test_json_reaches_a_line_as_it_came(publisher: Voice, reader: Voice, raw: str, shown: str) -> None:
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", raw=raw)
    assert reader.client.outlet.sent.count(shown.encode() if isinstance(reader, LineVoice) else raw.encode()) == 1


def test_line_breaks_between_tokens_become_spaces_on_a_line(server: FakeServer, reader: Voice) -> None:
    publisher = KINDS["json"](server)
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", raw='{\r\n"a":\n[1,\n2]}')
    sent = bytes(reader.client.outlet.sent)
    in_lines = isinstance(reader, LineVoice) or isinstance(reader.client, FallbackClient)
    assert (b'{  "a": [1, 2]}' if in_lines else b'{\r\n"a":\n[1,\n2]}') in sent
    assert reader.received() == [event(publisher, 1, {"a": [1, 2]})]


def test_an_event_may_have_a_name(publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", name="älarm", data="smoke")
    publisher.asks("publish", channel="kitchen", name="message", data="x")
    assert reader.received() == [event(publisher, 1, "smoke", name="älarm"), event(publisher, 2, "x")]


def test_the_sender_is_the_nick_of_then(publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", data="x")
    assert publisher.asks("nick", nick="änn") == {"type": "ok", "nick": "änn"}
    publisher.asks("publish", channel="kitchen", data="y")
    assert reader.received() == [event(publisher, 1, "x"), event(publisher, 2, "y", nick="änn")]
    assert reader.asks("history", channel="kitchen")["events"] == [
        event(publisher, 1, "x"),
        event(publisher, 2, "y", nick="änn"),
    ]


def test_events_come_in_the_order_of_their_offsets(publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    publisher.says_together(*[("publish", {"channel": "kitchen", "data": f"{number}"}) for number in range(1, 51)])
    assert publisher.received() == [{"type": "ok", "offset": number} for number in range(1, 51)]
    assert reader.received() == [event(publisher, number, f"{number}") for number in range(1, 51)]


def test_only_those_who_read_the_channel_hear_it(publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="attic")
    publisher.asks("publish", channel="kitchen", data="x")
    assert reader.received() == []


def test_who_unsubscribes_hears_no_more(publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    publisher.asks("publish", channel="kitchen", data="x")
    assert reader.asks("unsubscribe", channel="kitchen") == {"type": "ok", "channel": "kitchen"}
    publisher.asks("publish", channel="kitchen", data="y")
    assert reader.received() == [event(publisher, 1, "x")]


def test_one_hears_ones_own_events_unless_one_will_not(publisher: Voice, reader: Voice) -> None:
    for echo in ({}, {"echo": False}):
        publisher.asks("subscribe", channel="kitchen", **echo)
        publisher.asks("publish", channel="kitchen", data="mine")
        reader.asks("publish", channel="kitchen", data="theirs")
    mine, theirs, others = publisher.received()
    assert (mine["data"], theirs["data"], others["data"]) == ("mine", "theirs", "theirs")
    assert others["offset"] == 4
    assert [told["data"] for told in publisher.asks("history", channel="kitchen")["events"]] == ["mine", "theirs"] * 2


def test_who_only_streams_hears_it_too(server: FakeServer, publisher: Voice) -> None:
    """With ids, by which it comes back."""
    streams = [Stream(server, ["kitchen"]), Stream(server, ["attic", "kitchen"])]
    settle(server)
    for data in ("a\nb", {"celsius": 21.5}):
        publisher.asks("publish", channel="kitchen", data=data)
    settle(server)
    for stream in streams:
        events = [heard for heard in stream.received() if heard.kind == "message"]
        assert [heard.message for heard in events] == [
            event(publisher, 1, "a\nb"),
            event(publisher, 2, {"celsius": 21.5}),
        ]
        assert [heard.id.rpartition(":")[2] for heard in events] == ["1", "2"]


@pytest.mark.parametrize("data", ["\ud83d", {"a": "\ude00"}, ["\ud83d x \ude00"], {"\ud83d": 1}], ids=ascii)
def test_half_a_surrogate_pair_is_bad_json_however_it_is_published(publisher: Voice, reader: Voice, data: Any) -> None:
    """On a line, in a message and over HTTP, with and without a content type."""
    reader.asks("subscribe", channel="kitchen")
    payload = json.dumps(data)
    answer = publisher.asks("publish", channel="kitchen", raw=payload)
    assert answer == {"type": "error", "code": "bad-json"}
    batch = b'{"events":[{"channel":"kitchen","data":%b}]}' % payload.encode()
    for read in (
        lambda: read_body(payload.encode(), b"application/json"),
        lambda: read_body(payload.encode(), b""),
        lambda: read_batch(batch, b"application/json", 65_536),
    ):
        with pytest.raises(ApiError) as refused:
            read()
        assert refused.value.error == UNPAIRED_SURROGATE
    assert reader.received() == []
    assert read_body(payload.encode(), b"text/plain").items == (payload.encode(),)
