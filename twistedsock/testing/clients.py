"""Clients of an in-memory server, one class for each protocol."""

import json
from typing import TYPE_CHECKING, Any

from twistedsock.auth.identity import Identity
from twistedsock.codecs import json_decoder
from twistedsock.codecs.json_decoder import JSON_LINE_DECODER
from twistedsock.codecs.json_encoder import JSON_LINE_ENCODER, JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_decoder import LINE_DECODER, LINE_MESSAGE_DECODER, LineSplitter, split_messages
from twistedsock.codecs.line_encoder import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.principal import address_principal
from twistedsock.limits.rate import RateLimiterPool
from twistedsock.limits.settings import Limits
from twistedsock.server.connection import open_session
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import Decoder
from twistedsock.session.session import Session
from twistedsock.testing.outlet import ENDS, FakeOutlet

if TYPE_CHECKING:
    from twistedsock.testing.server import FakeServer


class FakeClient:
    """A connected client: ``send`` commands, then look at ``received``, the messages since the last call."""

    def __init__(
        self, server: "FakeServer", dialect: Encoder, codec: Decoder, outcome: Identity | Error | None = None
    ) -> None:
        self.server = server
        self.outlet = FakeOutlet()
        self.close_reason: CloseReason | None = None
        self.paused = False
        self.exceptions = 0
        self.pipeline = open_session(
            server.context,
            dialect,
            codec,
            self.outlet,
            ENDS,
            self,
            on_exception=self._report,
        )
        self.session = self.pipeline.session
        self._looked = 0
        self.session.send_welcome(b"", outcome)

    @property
    def id(self) -> str:
        return self.session.client.id.decode()

    def read(self, size: int) -> None:
        """Count bytes that were read."""
        if self.pipeline.session.is_rate_limited:
            self.pipeline.bytes_received(size)

    def limit(self, **limits: float) -> None:
        """See ``limit_session``."""
        limit_session(self.session, self.server, **limits)

    def send_messages(self, *messages: bytes) -> None:
        """Send messages of the protocol, in one read."""
        self.read(sum(map(len, messages)))
        self.pipeline.submit(list(messages))

    def received_bytes(self) -> bytes:
        """The bytes that the client has received since the last call. Replies do not wait for the end of the turn."""
        self.session.flush()
        data = bytes(self.outlet.sent[self._looked :])
        self._looked = len(self.outlet.sent)
        return data

    def disconnect(self) -> None:
        """Close the connection."""
        self.pipeline.connection_lost()

    def close_connection(self, ending: CloseReason) -> None:
        self.close_reason = ending
        self.paused = False  # because servers read the stream to its end

    def pause_input(self) -> None:
        self.paused = True

    def resume_input(self) -> None:
        self.paused = False

    def _report(self) -> None:
        self.exceptions += 1


def limit_session(session: Session, server: "FakeServer", **limits: float) -> None:
    """Make it the session of a remote client at 192.0.2.1, and set the limits of all remote clients. Rates that are not
    given are not limited."""
    told: dict[str, Any] = {"commands_per_second": 0, "bytes_per_second": 0, **limits}
    server.context.rate_limiters = RateLimiterPool(Limits(**told))
    session.is_rate_limited = True
    session.client.principal = address_principal("192.0.2.1")


class LineClient(FakeClient):
    """Uses the line protocol over a socket."""

    def __init__(self, server: "FakeServer", outcome: Identity | Error | None = None) -> None:
        self._splitter = LineSplitter(server.context.limits.max_line_bytes)
        super().__init__(server, LINE_ENCODER, LINE_DECODER, outcome)

    def send_bytes(self, data: bytes) -> None:
        """Send bytes, in one read."""
        self.read(len(data))
        self.pipeline.submit(self._splitter.feed(data))

    def send(self, *lines: str) -> None:
        self.send_bytes("".join(line + "\n" for line in lines).encode())

    def received(self) -> list[str]:
        """The lines since the last call. Fails if the last one is incomplete."""
        data = self.received_bytes()
        assert data.endswith(b"\n") or not data, data[-100:]
        return data.decode().split("\n")[:-1]


def read_frames(data: bytes) -> list[str]:
    """The text messages in unmasked frames, with fragments joined (RFC 6455 section 5.2)."""
    messages: list[str] = []
    gathered, position = b"", 0
    while position < len(data):
        final, size, position = data[position] & 0x80, data[position + 1], position + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, position = int.from_bytes(data[position : position + width], "big"), position + width
        gathered += data[position : position + size]
        position += size
        if final:
            messages.append(gathered.decode())
            gathered = b""
    assert position == len(data) and not gathered, "half a message"
    return messages


class MessageClient(FakeClient):
    """Uses the line protocol over WebSocket."""

    def __init__(self, server: "FakeServer") -> None:
        super().__init__(server, LINE_MESSAGE_ENCODER, LINE_MESSAGE_DECODER)

    def send_messages(self, *messages: bytes) -> None:
        self.read(sum(map(len, messages)))
        self.pipeline.submit(split_messages(messages, self.server.context.limits.max_message_bytes))

    def send(self, *lines: str) -> None:
        self.send_messages(*(line.encode() for line in lines))

    def received(self) -> list[str]:
        return read_frames(self.received_bytes())


class JsonClient(FakeClient):
    """Uses the JSON protocol over WebSocket."""

    def __init__(
        self, server: "FakeServer", encoder: Encoder = JSON_MESSAGE_ENCODER, decoder: Decoder = json_decoder
    ) -> None:
        super().__init__(server, encoder, decoder)

    def send(self, *messages: dict[str, Any]) -> None:
        self.send_messages(*(json.dumps(message).encode() for message in messages))

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(message) for message in read_frames(self.received_bytes())]


class JsonLineClient(JsonClient):
    """Uses the JSON protocol on a socket of the line port, one message in each line."""

    def __init__(self, server: "FakeServer") -> None:
        self._splitter = LineSplitter(server.context.limits.max_line_bytes)
        self._splitter.has_verbs = False
        super().__init__(server, JSON_LINE_ENCODER, JSON_LINE_DECODER)

    def send_messages(self, *messages: bytes) -> None:
        data = b"".join(message + b"\n" for message in messages)
        self.read(len(data))
        self.pipeline.submit(self._splitter.feed(data))

    def received(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.received_bytes().decode().split("\n")[:-1]]
