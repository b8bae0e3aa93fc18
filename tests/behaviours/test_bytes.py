"""Bytes are payloads like text and JSON, for every pair of protocols."""

from base64 import b64encode
from typing import Any

import pytest

from tests.behaviours.protocol_clients import HERE, TEXT_KINDS, ProtocolClient, http_history
from tests.event_streams import Stream
from tests.session.clients import settle
from twistedsock.codecs.http_bodies import read_batch, read_body
from twistedsock.pubsub.values import Publication
from twistedsock.session.request import RequestClient
from twistedsock.testing import FakeServer

PAYLOADS = [
    b"",
    b"\0",
    b"a",
    b"text",
    b'{"a": 1}',
    b"\xff\xd8\xff\xe0",
    b"\r\n\x1b[31m\x9b",
    bytes(range(256)),
    b"\xed\xa0\xbd",
    b"\x89PNG\r\n\x1a\n" * 2_000,
]


def base64(payload: bytes) -> str:
    return b64encode(payload).decode()


def event(publisher: ProtocolClient, offset: int, payload: bytes, name: str = "message") -> dict[str, Any]:
    head = {"type": "event", "channel": "kitchen", "offset": offset, "from": publisher.id}
    return head | {"name": name, "base64": base64(payload)}


def publish(client: ProtocolClient, *payloads: bytes) -> None:
    for payload in payloads:
        client.request("publish", channel="kitchen", base64=base64(payload))


def payloads_of(messages: list[dict[str, Any]]) -> list[str]:
    return [message["base64"] for message in messages if message["type"] == "event"]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: ascii(payload)[:30])
def test_delivers_bytes_unchanged(publisher: ProtocolClient, reader: ProtocolClient, payload: bytes) -> None:
    """Both live and from the history."""
    reader.request("subscribe", channel="kitchen")
    answer = publisher.request("publish", channel="kitchen", base64=base64(payload))
    assert answer == {"type": "ok", "offset": 1}
    assert reader.received() == [event(publisher, 1, payload)]
    assert reader.request("history", channel="kitchen") == {"type": "ok", "events": [event(publisher, 1, payload)]}


def test_keeps_the_order_of_different_kinds(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    fields: list[dict[str, Any]] = [
        {"data": "a"},
        {"base64": "/9g="},
        {"base64": ""},
        {"data": [1]},
        {"base64": "YQ=="},
    ]
    publisher.send_together(*[("publish", {"channel": "kitchen", **each}) for each in fields])
    assert publisher.received() == [{"type": "ok", "offset": number} for number in range(1, 6)]
    head = {"type": "event", "channel": "kitchen", "from": publisher.id, "name": "message"}
    assert reader.received() == [head | {"offset": number} | each for number, each in enumerate(fields, 1)]


def test_delivers_the_name_and_time_of_bytes(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.with_time = True
    reader.request("subscribe", channel="kitchen")
    publisher.request("publish", channel="kitchen", base64="/9g=", name="photo")
    expected = event(publisher, 1, b"\xff\xd8", "photo") | {"time": 1_800_000_000_000}
    assert reader.received() == [expected]
    assert reader.request("history", channel="kitchen")["events"] == [expected]


@pytest.mark.parametrize(
    "since, recovered, lost, expected", [(4, True, None, "efg"), (1, False, (2, 2), "cdefg"), (7, True, None, "")]
)
def test_resuming_delivers_missed_bytes_or_reports_them_as_lost(
    publisher: ProtocolClient,
    reader: ProtocolClient,
    since: int,
    recovered: bool,
    lost: tuple[int, int] | None,
    expected: str,
) -> None:
    epoch = reader.request("subscribe", channel="kitchen")["epoch"]
    reader.request("unsubscribe", channel="kitchen")
    publish(publisher, *[letter.encode() for letter in "abcdefg"])
    reply = reader.request("subscribe", channel="kitchen", since=since, epoch=epoch)
    assert reply["recovered"] is recovered
    publish(publisher, b"live")
    messages = reader.received()
    if lost is not None:
        assert messages.pop(0) == {"type": "lost", "channel": "kitchen", "first": lost[0], "last": lost[1]}
    assert payloads_of(messages) == [base64(text.encode()) for text in (*expected, "live")]


def test_own_bytes_are_left_out_without_echo(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    publisher.request("subscribe", channel="kitchen", echo=False)
    publish(publisher, b"mine")
    publish(reader, b"theirs")
    assert payloads_of(publisher.received()) == [base64(b"theirs")]


@pytest.mark.parametrize("connect_publisher", TEXT_KINDS.values(), ids=TEXT_KINDS)
@pytest.mark.parametrize("encoded", ["/9g", "_9g=", "/9h=", "=", "abcd===="])
def test_invalid_base64_is_an_error(publisher: ProtocolClient, reader: ProtocolClient, encoded: str) -> None:
    reader.request("subscribe", channel="kitchen")
    assert publisher.request("publish", channel="kitchen", base64=encoded) == {"type": "error", "code": "bad-base64"}
    assert publisher.request("ping") == {"type": "pong"} and reader.received() == []


def test_history_counts_the_bytes_and_not_their_base64(server: FakeServer, publisher: ProtocolClient) -> None:
    publish(publisher, b"x" * 3_000)
    assert 3_000 < server.broker.channels[b"kitchen"].history.size < 3_500


def test_streams_deliver_bytes_as_base64(server: FakeServer, publisher: ProtocolClient) -> None:
    streams = [Stream(server, ["kitchen"]), Stream(server, ["attic", "kitchen"])]
    settle(server)
    publish(publisher, b"\xff\xd8")
    settle(server)
    for stream in streams:
        (received,) = [message.message for message in stream.received() if message.kind == "message"]
        assert received == event(publisher, 1, b"\xff\xd8") | {"time": 1_800_000_000_000}


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: ascii(payload)[:30])
def test_bytes_that_were_published_over_http_are_delivered(
    server: FakeServer, reader: ProtocolClient, payload: bytes
) -> None:
    reader.request("subscribe", channel="kitchen")
    body = read_body(payload, b"application/octet-stream")
    RequestClient(server.context, "", HERE).publish(Publication(b"kitchen", body))
    batch = b'{"events":[{"channel":"kitchen","base64":"%b"}]}' % b64encode(payload)
    client = RequestClient(server.context, "", HERE)
    client.publish_all([one for one in read_batch(batch, b"", 65_536) if not isinstance(one, tuple)])
    assert payloads_of(reader.received()) == [base64(payload)] * 2


def test_history_over_http_contains_bytes_as_base64(server: FakeServer, publisher: ProtocolClient) -> None:
    publish(publisher, b"\xff\xd8")
    assert http_history(server) == [event(publisher, 1, b"\xff\xd8") | {"time": 1_800_000_000_000}]
