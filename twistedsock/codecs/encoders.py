"""The encodings there are. Each exists once, as readers that share one share their bytes."""

from twistedsock.codecs.framing import Newline, TextMessage
from twistedsock.codecs.json_encoder import JsonEncoder
from twistedsock.codecs.line_encoder import LineEncoder
from twistedsock.codecs.sse import SSEEncoder, SSEFraming

LINES = LineEncoder(Newline())
"""Lines on a bare socket."""

LINES_IN_MESSAGES = LineEncoder(TextMessage())
"""Lines over WebSocket: each is a message."""

JSON_IN_MESSAGES = JsonEncoder(TextMessage())
"""JSON over WebSocket."""

EVENTS = SSEEncoder()
"""Server-sent events of one channel."""

JSON_IN_EVENTS = JsonEncoder(SSEFraming(), "events")
"""JSON as server-sent events, for who cannot open a WebSocket."""
