"""Payloads arrive as they were published."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import LAYOUTS, TEXTS, VALUES, written
from tests.fuzz.properties import holds, is_printable
from twistedsock.codecs.payload import build_payloads, is_json, payload_to_json, payload_to_line
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import JSON
from twistedsock.testing import FakeServer

KINDS = st.sampled_from(["line", "message", "json"])
ANY_TEXT = st.text(max_size=30) | TEXTS


def as_read(payload: str) -> Any:
    """The value of a payload on a line (docs/reference/line-protocol.md, "Payloads")."""
    if payload.startswith(("{", "[", '"')):
        return json.loads(payload)
    return payload


class Room:
    """A channel with a subscriber and a publisher for each protocol."""

    def __init__(self) -> None:
        self.server = FakeServer()
        self.line, self.message, self.json = (
            self.server.line_client(),
            self.server.message_client(),
            self.server.json_client(),
        )
        self.line.send("SUB a")
        self.message.send("SUB a")
        self.json.send({"type": "subscribe", "channel": "a"})
        for reader in (self.line, self.message, self.json):
            reader.received()

    def publish(self, kind: str, payloads: list[Any]) -> None:
        if kind == "json":
            self.server.json_client().send(*({"type": "publish", "channel": "a", "data": each} for each in payloads))
        elif kind == "line":
            self.server.line_client().send(*(f"PUB a {each}" for each in payloads))
        else:
            self.server.message_client().send(*(f"PUB a {each}" for each in payloads))
        self.server.turn()

    def received(self) -> list[list[Any]]:
        lines = [self.line.received(), self.message.received()]
        assert lines[0] == lines[1]
        for line in lines[0]:
            assert is_printable(line), line
        return [
            [as_read(line.split(" ", 4)[4]) for line in lines[0]],
            [message["data"] for message in self.json.received()],
        ]


@holds(examples=60, texts=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_texts_of_json_publishers(texts: list[str]) -> None:
    """All subscribers receive the text that was published, and on a line it has no control characters."""
    room = Room()
    room.publish("json", texts)
    for payloads in room.received():
        assert payloads == texts


@holds(examples=60, kind=st.sampled_from(["line", "message"]), typed=st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_what_line_publishers_type(kind: str, typed: list[str]) -> None:
    """All subscribers receive a line payload as the same JSON value if it is valid JSON, otherwise as the same text."""
    typed = [each.replace("\n", "").replace("\r", "") for each in typed]
    room = Room()
    room.publish(kind, typed)
    meant = [json.loads(each) if is_json(each.encode()) else each for each in typed]
    for payloads in room.received():
        assert payloads == meant


@holds(examples=60, values=st.lists(VALUES, min_size=1, max_size=3))
def test_values_of_json_publishers(values: list[Any]) -> None:
    """All subscribers receive the JSON value that was published."""
    room = Room()
    room.publish("json", values)
    line, message = room.received()
    assert message == values
    for value, payload in zip(values, line, strict=True):
        assert payload == value if isinstance(value, str | list | dict) else json.loads(payload) == value


@holds(examples=60, value=VALUES, layout=LAYOUTS, ascii_only=st.booleans(), name=st.just(DEFAULT_EVENT_NAME))
def test_layouts(value: Any, layout: tuple[str, str], ascii_only: bool, name: bytes) -> None:
    """JSON is copied unchanged, and on a line it is the same value in any layout."""
    raw = written(value, layout, ascii_only)
    line = payload_to_line(raw, JSON)
    assert payload_to_json(raw, JSON) == raw and json.loads(line) == value
    assert payload_to_line(line, JSON) == line and is_printable(line.decode())
    content = build_payloads((raw, raw), JSON)
    assert content.size == 2 * len(raw) and (not content.is_plain or payload_to_line(raw, JSON) == raw)
