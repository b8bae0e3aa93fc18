"""Peers that are told everything as server-sent events, on fake sockets; and a reader of such streams."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twistedsock.codecs import json_decoder
from twistedsock.codecs.encoders import JSON_SSE_ENCODER, SSE_ENCODER
from twistedsock.codecs.sse import MultiChannelSSEEncoder, parse_event_id
from twistedsock.errors import CloseReason
from twistedsock.server.connection import open_session
from twistedsock.server.http.sse import close_unless_subscribed, subscribe_stream
from twistedsock.session.commands import Command, Subscribe
from twistedsock.session.encoder import Encoder
from twistedsock.session.replies import nothing
from twistedsock.session.session import StreamSession
from twistedsock.testing import ENDS, FakeClient, FakeOutlet, FakeServer


@dataclass(frozen=True)
class ServerSent:
    """One event of a stream, as a browser dispatches it."""

    kind: str
    data: str
    id: str
    """The last that has come, with it or before it."""

    @property
    def message(self) -> Any:
        return json.loads(self.data)


def read_events(stream: str, id: str = "") -> tuple[list[ServerSent], str]:
    """What a stream says (HTML, "Interpreting an event stream"), written anew from the standard; and the last id."""
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


class StandInPeer(FakeClient):
    """Speaks JSON where a WebSocket cannot be opened."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__(server, JSON_SSE_ENCODER, json_decoder)

    def send(self, *messages: dict[str, Any]) -> None:
        self.send_messages(*(json.dumps(message).encode() for message in messages))

    def received(self) -> list[dict[str, Any]]:
        data = self.received_bytes().decode()
        assert data.endswith("\n\n") or not data, data[-100:]
        events, id = read_events(data)
        assert not id
        for event in events:
            assert event.kind == ("message" if event.message["type"] == "event" else event.message["type"])
        return [event.message for event in events]


class Stream:
    """A stream of some channels. Its end of the socket can stall as any other."""

    def __init__(
        self, server: FakeServer, channels: Sequence[str], id: str = "", last: int | None = None, **more: Any
    ) -> None:
        names = [channel.encode() for channel in channels]
        places = parse_event_id(id, len(names)) if id else [None] * len(names)
        assert places is not None, id
        known = dict(zip(names, places, strict=True))
        dialect: Encoder = SSE_ENCODER if len(names) == 1 else MultiChannelSSEEncoder(known)
        self.outlet = FakeOutlet()
        self.endings: list[CloseReason] = []
        self.faults: list[None] = []
        pipeline = open_session(
            server.context,
            dialect,
            json_decoder,
            self.outlet,
            ENDS,
            close=self.endings.append,
            pause=nothing,
            resume=self._subscribed,
            session_class=StreamSession,
            on_exception=lambda: self.faults.append(None),
        )
        self.session = pipeline.session
        self.session.send_welcome()
        asked: list[Command] = [
            Subscribe(name, last, place and place.offset, place and place.epoch, **more)
            for name, place in known.items()
        ]
        self._wanted = len(asked)
        subscribe_stream(pipeline, asked, self._subscribed)
        self._looked = 0
        self._id = id

    def _subscribed(self) -> None:
        close_unless_subscribed(self.session, self._wanted)

    def received(self) -> list[ServerSent]:
        """Whole events since the last look."""
        text = bytes(self.outlet.sent[self._looked :])
        self._looked += text.rfind(b"\n\n") + 2 if b"\n\n" in text else 0
        events, self._id = read_events(text.decode(), self._id)
        return events
