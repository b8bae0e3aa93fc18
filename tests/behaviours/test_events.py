"""Events reach subscribers unchanged, for every pair of protocols."""

import json
from typing import Any

import pytest

from tests.behaviours.payloads import TEXTS, VALUES
from tests.behaviours.protocol_clients import KINDS, TEXT_KINDS, LineClient, ProtocolClient
from tests.event_streams import FallbackClient, Stream
from tests.session.clients import settle
from twistedsock.codecs.http_bodies import read_batch, read_body
from twistedsock.codecs.payload import UNPAIRED_SURROGATE
from twistedsock.codecs.problem_details import ApiError
from twistedsock.testing import FakeServer, JsonLineClient


def event(publisher: ProtocolClient, offset: int, data: Any, name: str = "message", nick: str = "") -> dict[str, Any]:
    sender = nick or publisher.id
    return {"type": "event", "channel": "kitchen", "offset": offset, "from": sender, "name": name, "data": data}


@pytest.mark.parametrize("data", [*TEXTS, *VALUES], ids=lambda data: ascii(data)[:30])
def test_delivers_payloads_unchanged(publisher: ProtocolClient, reader: ProtocolClient, data: Any) -> None:
    """Both live and from the history."""
    reader.request("subscribe", channel="kitchen")
    assert publisher.request("publish", channel="kitchen", data=data) == {"type": "ok", "offset": 1}
    assert reader.received() == [event(publisher, 1, data)]
    assert reader.request("history", channel="kitchen") == {"type": "ok", "events": [event(publisher, 1, data)]}


@pytest.mark.parametrize("raw", ["0", "-1.50", "1e400", "12345678901234567890", "true", "false", "null"])
def test_delivers_numbers_as_they_were_written(publisher: ProtocolClient, reader: ProtocolClient, raw: str) -> None:
    """In the line protocol, JSON begins with {, [ or ", so a number is text."""
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", raw=raw)
    (message,) = reader.received()
    text = isinstance(publisher, LineClient) or isinstance(reader, LineClient)
    assert message["data"] == (raw if text else json.loads(raw))


@pytest.mark.parametrize(
    "raw, shown",
    [
        ('{"a":  1,\t"b":[ ]}', '{"a":  1,\t"b":[ ]}'),
        ('{"a": 1.500, "a": 2}', '{"a": 1.500, "a": 2}'),
        ('["\\u0041\\u001b"]', '["\\u0041\\u001b"]'),
        ('["\x7f\x9b"]', '["\\u007f\\u009b"]'),
    ],
)
def test_line_clients_receive_json_as_it_was_written(
    publisher: ProtocolClient, reader: ProtocolClient, raw: str, shown: str
) -> None:
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", raw=raw)
    in_lines = isinstance(reader, LineClient) or isinstance(reader.client, JsonLineClient)
    assert reader.client.outlet.sent.count((shown if in_lines else raw).encode()) == 1


def test_line_clients_receive_spaces_for_line_breaks_in_json(server: FakeServer, reader: ProtocolClient) -> None:
    publisher = KINDS["json"](server)
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", raw='{\r\n"a":\n[1,\n2]}')
    sent = bytes(reader.client.outlet.sent)
    in_lines = isinstance(reader, LineClient) or isinstance(reader.client, JsonLineClient | FallbackClient)
    assert (b'{  "a": [1, 2]}' if in_lines else b'{\r\n"a":\n[1,\n2]}') in sent
    assert reader.received() == [event(publisher, 1, {"a": [1, 2]})]


def test_delivers_the_name_of_an_event(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", name="älarm", data="smoke")
    publisher.request("publish", channel="kitchen", name="message", data="x")
    assert reader.received() == [event(publisher, 1, "smoke", name="älarm"), event(publisher, 2, "x")]


def test_sender_is_the_nick_at_the_time_of_publishing(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", data="x")
    assert publisher.request("nick", nick="änn") == {"type": "ok", "nick": "änn"}
    publisher.request("publish", channel="kitchen", data="y")
    assert reader.received() == [event(publisher, 1, "x"), event(publisher, 2, "y", nick="änn")]
    assert reader.request("history", channel="kitchen")["events"] == [
        event(publisher, 1, "x"),
        event(publisher, 2, "y", nick="änn"),
    ]


def test_delivers_events_in_the_order_of_their_offsets(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    publisher.send_together(*[("publish", {"channel": "kitchen", "data": f"{number}"}) for number in range(1, 51)])
    assert publisher.received() == [{"type": "ok", "offset": number} for number in range(1, 51)]
    assert reader.received() == [event(publisher, number, f"{number}") for number in range(1, 51)]


def test_delivers_events_to_subscribers_of_the_channel_only(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="attic")
    publisher.request("publish", channel="kitchen", data="x")
    assert reader.received() == []


def test_delivers_no_events_after_unsubscribing(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", data="x")
    assert reader.request("unsubscribe", channel="kitchen") == {"type": "ok", "channel": "kitchen"}
    publisher.request("publish", channel="kitchen", data="y")
    assert reader.received() == [event(publisher, 1, "x")]


def test_delivers_own_events_unless_echo_is_off(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    for echo in ({}, {"echo": False}):
        publisher.request("subscribe", channel="kitchen", **echo)
        publisher.request("publish", channel="kitchen", data="mine")
        reader.request("publish", channel="kitchen", data="theirs")
    mine, theirs, others = publisher.received()
    assert (mine["data"], theirs["data"], others["data"]) == ("mine", "theirs", "theirs")
    assert others["offset"] == 4
    assert [event["data"] for event in publisher.request("history", channel="kitchen")["events"]] == [
        "mine",
        "theirs",
    ] * 2


def test_streams_receive_events(server: FakeServer, publisher: ProtocolClient) -> None:
    """With ids, from which a client can resume."""
    streams = [Stream(server, ["kitchen"]), Stream(server, ["attic", "kitchen"])]
    settle(server)
    for data in ("a\nb", {"celsius": 21.5}):
        publisher.request("publish", channel="kitchen", data=data)
    settle(server)
    for stream in streams:
        events = [message for message in stream.received() if message.kind == "message"]
        time = {"time": 1_800_000_000_000}
        assert [message.message for message in events] == [
            event(publisher, 1, "a\nb") | time,
            event(publisher, 2, {"celsius": 21.5}) | time,
        ]
        assert [message.id.rpartition(":")[2] for message in events] == ["1", "2"]


@pytest.mark.parametrize("connect_publisher", TEXT_KINDS.values(), ids=TEXT_KINDS)
@pytest.mark.parametrize("data", ["\ud83d", {"a": "\ude00"}, ["\ud83d x \ude00"], {"\ud83d": 1}], ids=ascii)
def test_rejects_unpaired_surrogates_as_bad_json(publisher: ProtocolClient, reader: ProtocolClient, data: Any) -> None:
    """As a line, as a message and over HTTP, with and without a content type."""
    reader.request("subscribe", channel="kitchen")
    payload = json.dumps(data)
    answer = publisher.request("publish", channel="kitchen", raw=payload)
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
