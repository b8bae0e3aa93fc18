"""What is published over HTTP is heard in every dialect as it went in, and what is said there is read over HTTP so."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.behaviours.test_events import TEXTS, VALUES
from tests.behaviours.voices import Voice, settle
from twistedsock.codecs import http_api
from twistedsock.codecs.http_api import read_batch, read_body
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Publication
from twistedsock.session.request import HistoryPage, RequestClient
from twistedsock.testing import FakeServer

HERE = b"127.0.0.1:50001"


def bodies(data: Any) -> Iterator[tuple[bytes, bytes]]:
    """The same in each way in which it can be sent."""
    yield json.dumps(data).encode(), b"application/json"
    yield json.dumps(data, ensure_ascii=False, indent=1).encode(), b"application/vnd.api+json; charset=UTF-8"
    if isinstance(data, str):
        yield data.encode(), b"text/plain"
    elif isinstance(data, dict | list):
        yield json.dumps(data).encode() + b"\n", b""


def history(server: FakeServer) -> list[dict[str, Any]]:
    """What HTTP tells of the channel."""
    told: list[Any] = []
    answer = RequestClient(server.context, "", HERE).history(b"kitchen")
    if isinstance(answer, Future):
        answer.then(told.append)
        settle(server)
        answer = told[0]
    assert isinstance(answer, HistoryPage)
    events: list[dict[str, Any]] = json.loads(b"".join(http_api.history_response(answer)))["events"]
    return events


@pytest.mark.parametrize("data", [*TEXTS, *VALUES], ids=lambda data: ascii(data)[:30])
def test_what_is_posted_comes_out(server: FakeServer, reader: Voice, data: Any) -> None:
    reader.asks("subscribe", channel="kitchen")
    for body, kind in bodies(data):
        RequestClient(server.context, "", HERE).publish(Publication(b"kitchen", read_body(body, kind)))
        batch = b'{"events":[{"channel":"kitchen","data":%b}]}' % json.dumps(data).encode()
        visitor = RequestClient(server.context, "", HERE)
        visitor.publish_all([one for one in read_batch(batch, b"", 65_536) if not isinstance(one, tuple)])
        assert [event["data"] for event in reader.received()] == [data, data]
    assert all(event["data"] == data for event in history(server))


@pytest.mark.parametrize("data", [*TEXTS, *VALUES], ids=lambda data: ascii(data)[:30])
def test_what_is_said_is_told_over_http(server: FakeServer, publisher: Voice, data: Any) -> None:
    publisher.asks("publish", channel="kitchen", data=data)
    (event,) = history(server)
    assert event == {
        "type": "event",
        "channel": "kitchen",
        "offset": 1,
        "from": publisher.id,
        "name": "message",
        "data": data,
    }
