"""Clients of server-sent events on fake sockets, and a parser of event streams."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twistedsock.codecs import json_decoder
from twistedsock.codecs.sse import JSON_SSE_ENCODER, SSE_ENCODER, MultiChannelSSEEncoder, parse_event_id
from twistedsock.errors import CloseReason
from twistedsock.server.connection import open_session
from twistedsock.server.http.sse import close_unless_subscribed, subscribe_stream
from twistedsock.session.commands import Command, Subscribe
from twistedsock.session.encoder import Encoder
from twistedsock.testing import ENDS, FakeOutlet, FakeServer, JsonClient


@dataclass(frozen=True)
class ServerSent:
    """One event of a stream, as a browser dispatches it."""

    kind: str
    data: str
    id: str
    """The id of this event, or the last one before it."""

    @property
    def message(self) -> Any:
        return json.loads(self.data)


def read_events(stream: str, id: str = "") -> tuple[list[ServerSent], str]:
    """The events of a stream and the last id, parsed according to HTML, "Interpreting an event stream"."""
    events: list[ServerSent] = []
    *blocks, _ = stream.replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
    for block in blocks:
        kind, data = "message", list[str]()
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            assert field in ("", "event", "data", "id", "retry"), line
            if field == "event":
                kind = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                id = value
        if data:
            events.append(ServerSent(kind, "\n".join(data), id))
    return events, id


class FallbackClient(JsonClient):
    """A client of the JSON protocol on a stream that replaces a WebSocket."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server, JSON_SSE_ENCODER, json_decoder)

    def received(self) -> list[dict[str, Any]]:
        data = self.received_bytes().decode()
        assert data.endswith("\n\n") or not data, data[-100:]
        events, id = read_events(data)
        assert not id
        for event in events:
            assert event.kind == ("message" if event.message["type"] == "event" else event.message["type"])
        return [event.message for event in events]


class Stream:
    """A stream of channels. Its outlet can stall."""

    def __init__(
        self, server: FakeServer, channels: Sequence[str], id: str = "", last: int | None = None, **more: Any
    ) -> None:
        names = [channel.encode() for channel in channels]
        positions = parse_event_id(id, len(names)) if id else [None] * len(names)
        assert positions is not None, id
        known = dict(zip(names, positions, strict=True))
        encoder: Encoder = SSE_ENCODER if len(names) == 1 else MultiChannelSSEEncoder(known)
        self.outlet = FakeOutlet()
        self.endings: list[CloseReason] = []
        self.faults: list[None] = []
        pipeline = open_session(
            server.context,
            encoder,
            json_decoder,
            self.outlet,
            ENDS,
            self,
            read_only=True,
            on_exception=lambda: self.faults.append(None),
        )
        self.session = pipeline.session
        self.session.send_welcome()
        commands: list[Command] = [
            Subscribe(name, last, position and position.offset, position and position.epoch, **more)
            for name, position in known.items()
        ]
        self._wanted = len(commands)
        subscribe_stream(pipeline, commands, self._subscribed)
        self.read_position = 0
        self._id = id

    def close_connection(self, reason: CloseReason) -> None:
        self.endings.append(reason)

    def pause_input(self) -> None: ...

    def resume_input(self) -> None:
        self._subscribed()

    def _subscribed(self) -> None:
        close_unless_subscribed(self.session, self._wanted)

    def received(self) -> list[ServerSent]:
        """The complete events since the last call."""
        text = bytes(self.outlet.sent[self.read_position :])
        self.read_position += text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        events, self._id = read_events(text.decode(), self._id)
        return events
