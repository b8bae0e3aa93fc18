"""Publications in a row that differ only in payload and tag are published as one."""

from collections.abc import Sequence
from typing import Any

import pytest

from twistedsock.codecs.payload import build_payloads
from twistedsock.pubsub.values import TEXT
from twistedsock.session.commands import Command, Ping, Publish
from twistedsock.testing import FakeClient, FakeServer

Row = tuple[bytes, bytes, list[bytes], list[bytes | None]]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def published(client: FakeClient, messages: Sequence[bytes | Command], monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Channel, event name, payloads and tags of each publication that reaches the broker."""
    rows: list[Row] = []
    broker = client.server.broker
    publish = broker.publish

    def record(publisher: Any, command: Any) -> Any:
        rows.append((command.channel, command.name, list(command.payloads.items), list(command.tags)))
        return publish(publisher, command)

    monkeypatch.setattr(broker, "publish", record)
    client.pipeline.submit(messages)
    return rows


def row(channel: bytes, *payloads: bytes, name: bytes = b"message", tags: list[bytes | None] | None = None) -> Row:
    return channel, name, list(payloads), tags or [None] * len(payloads)


LINES: dict[str, tuple[list[bytes | Command], list[Row]]] = {
    "one channel": ([b"PUB a 1", b"PUB a  2 ", b"pub a 3"], [row(b"a", b"1", b" 2 ", b"3")]),
    "several channels": (
        [b"PUB a 1", b"PUB b 2", b"PUB b 3", b"PUB a 4"],
        [row(b"a", b"1"), row(b"b", b"2", b"3"), row(b"a", b"4")],
    ),
    "another command between": (
        [b"PUB a 1", b"PUB a 2", b"PING", b"PUB a 3"],
        [row(b"a", b"1", b"2"), row(b"a", b"3")],
    ),
    "an error between": ([b"PUB a 1", b"PUB a", b"PUB a 2"], [row(b"a", b"1"), row(b"a", b"2")]),
    "a decoded command between": ([b"PUB a 1", Ping(), b"PUB a 2"], [row(b"a", b"1"), row(b"a", b"2")]),
    "an empty line between": ([b"PUB a 1", b"", b"PUB a 2"], [row(b"a", b"1"), row(b"a", b"2")]),
    "an event name": (
        [b"EMIT a message 1", b"PUB a 2", b"EMIT a x 3", b"EMIT a x 4"],
        [row(b"a", b"1", b"2"), row(b"a", b"3", b"4", name=b"x")],
    ),
    "text and JSON": ([b"PUB a 1", b"PUB a [1]", b"PUB a {}"], [row(b"a", b"1"), row(b"a", b"[1]", b"{}")]),
}


@pytest.mark.parametrize(("messages", "expected"), LINES.values(), ids=LINES.keys())
def test_joins_lines(
    messages: list[bytes | Command], expected: list[Row], server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published(server.line_client(), messages, monkeypatch) == expected


def test_joins_lines_to_the_block_that_waited_before_them(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Publish(b"a", build_payloads((b"1", b"2"), TEXT), tags=(None, None))
    rows = published(server.line_client(), [block, b"PUB a 3", b"PING"], monkeypatch)
    assert rows == [row(b"a", b"1", b"2", b"3")]


MESSAGES: dict[str, tuple[list[bytes], list[Row]]] = {
    "texts and ids": (
        [
            b'{"type":"publish","channel":"a","data":"1"}',
            b'{"type":"publish","channel":"a","data":"2"}',
            b'{"type":"publish","channel":"a","data":"3","id":3}',
            b'{"type":"publish","channel":"b","data":"4"}',
        ],
        [row(b"a", b"1", b"2", b"3", tags=[None, None, b"3"]), row(b"b", b"4")],
    ),
    "values": (
        [
            b'{"type":"publish","channel":"a","data":1}',
            b'{"type":"publish","channel":"a","data":[2]}',
            b'{"type":"publish","channel":"a","data":[2],"name":"x"}',
            b"{",
        ],
        [row(b"a", b"1", b"[2]"), row(b"a", b"[2]", name=b"x")],
    ),
}


@pytest.mark.parametrize(("messages", "expected"), MESSAGES.values(), ids=MESSAGES.keys())
def test_joins_messages(
    messages: list[bytes], expected: list[Row], server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert published(server.json_client(), messages, monkeypatch) == expected
