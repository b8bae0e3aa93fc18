"""Payloads are the same over HTTP and in every other protocol, in both directions."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.behaviours.payloads import TEXTS, VALUES
from tests.behaviours.protocol_clients import HERE, ProtocolClient, http_history
from twistedsock.codecs.http_bodies import read_batch, read_body
from twistedsock.pubsub.values import Publication
from twistedsock.session.request import RequestClient
from twistedsock.testing import FakeServer


def bodies(data: Any) -> Iterator[tuple[bytes, bytes]]:
    """One payload in each form in which HTTP accepts it, with its content type."""
    yield json.dumps(data).encode(), b"application/json"
    yield json.dumps(data, ensure_ascii=False, indent=1).encode(), b"application/vnd.api+json; charset=UTF-8"
    if isinstance(data, str):
        yield data.encode(), b"text/plain"
    elif isinstance(data, dict | list):
        yield json.dumps(data).encode() + b"\n", b""


@pytest.mark.parametrize("data", [*TEXTS, *VALUES], ids=lambda data: ascii(data)[:30])
def test_delivers_payloads_that_were_published_over_http(server: FakeServer, reader: ProtocolClient, data: Any) -> None:
    reader.request("subscribe", channel="kitchen")
    for body, kind in bodies(data):
        RequestClient(server.context, "", HERE).publish(Publication(b"kitchen", read_body(body, kind)))
        batch = b'{"events":[{"channel":"kitchen","data":%b}]}' % json.dumps(data).encode()
        client = RequestClient(server.context, "", HERE)
        client.publish_all([one for one in read_batch(batch, b"", 65_536) if not isinstance(one, tuple)])
        assert [event["data"] for event in reader.received()] == [data, data]
    assert all(event["data"] == data for event in http_history(server))


@pytest.mark.parametrize("data", [*TEXTS, *VALUES], ids=lambda data: ascii(data)[:30])
def test_history_over_http_contains_published_payloads(
    server: FakeServer, publisher: ProtocolClient, data: Any
) -> None:
    publisher.request("publish", channel="kitchen", data=data)
    (event,) = http_history(server)
    assert event == {
        "type": "event",
        "channel": "kitchen",
        "offset": 1,
        "time": 1_800_000_000_000,
        "from": publisher.id,
        "name": "message",
        "data": data,
    }
