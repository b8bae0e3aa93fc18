"""The WebSocket paths of the web port, and the dialects of each: another protocol is one more entry in ``ENDPOINTS``.

HTTP requests have a table of their own, in ``server.http.routes``. If the server has an Engine.IO application, the web
port adds its path, whose connections are those of ``server.engineio_websocket``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from twistedsock.codecs import json_decoder
from twistedsock.codecs.json_encoder import BINARY_MESSAGE_ENCODER, JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_decoder import LINE_MESSAGE_DECODER
from twistedsock.codecs.line_encoder import LINE_MESSAGE_ENCODER
from twistedsock.session.commands import Command
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import Decoder

JSON_PROTOCOL = "sockbridge.v1.json"

LINE_PROTOCOL = "sockbridge.v1.line"

BINARY_PROTOCOL = "sockbridge.v1.binary"
"""JSON with binary messages for bytes."""


class Dialect(NamedTuple):
    """How messages are written and read. If it ``has_lines``, a message can have several lines, each a command. Binary
    messages are rejected without ``decode_binary``."""

    encoder: Encoder
    decoder: Decoder
    has_lines: bool = False
    decode_binary: Callable[[bytes], Command] | None = None


class WebSocketEndpoint(NamedTuple):
    """The dialects of one path. Clients that offer no subprotocol get ``default``; if their first message does not
    begin with ``{``, they get ``default_for_text`` instead."""

    subprotocols: Mapping[str, Dialect]
    default: Dialect
    default_for_text: Dialect | None = None

    def select(self, offered: Sequence[str]) -> str | None:
        """The first offered subprotocol that is supported, None if there is none."""
        return next((name for name in offered if name in self.subprotocols), None)

    @property
    def supported(self) -> str:
        """The names of the subprotocols, for error messages."""
        *names, last = self.subprotocols
        return f"{', '.join(names)} or {last}" if names else last


_JSON = Dialect(JSON_MESSAGE_ENCODER, json_decoder)

_BINARY = Dialect(BINARY_MESSAGE_ENCODER, json_decoder, decode_binary=json_decoder.decode_binary)

_LINES = Dialect(LINE_MESSAGE_ENCODER, LINE_MESSAGE_DECODER, has_lines=True)

SOCKBRIDGE = WebSocketEndpoint({JSON_PROTOCOL: _JSON, LINE_PROTOCOL: _LINES, BINARY_PROTOCOL: _BINARY}, _JSON, _LINES)

ENDPOINTS: Mapping[str, WebSocketEndpoint] = {
    "/ws": SOCKBRIDGE,
    "/": SOCKBRIDGE,  # for clients that omit the path
}
"""By the path of the request."""
