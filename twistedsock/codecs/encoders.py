"""The encoders. There is one object of each, because subscribers with the same encoder share the encoded bytes."""

from twistedsock.codecs.framing import Newline, TextMessage
from twistedsock.codecs.json_encoder import JsonEncoder
from twistedsock.codecs.line_encoder import LineEncoder
from twistedsock.codecs.sse import SSEEncoder, SSEFraming

LINE_ENCODER = LineEncoder(Newline())
"""Lines on a TCP or Unix socket."""

LINE_MESSAGE_ENCODER = LineEncoder(TextMessage())
"""Lines over WebSocket: each is a text message."""

JSON_MESSAGE_ENCODER = JsonEncoder(TextMessage())
"""JSON over WebSocket."""

SSE_ENCODER = SSEEncoder()
"""Server-sent events of one channel."""

JSON_SSE_ENCODER = JsonEncoder(SSEFraming(), "events")
"""JSON as server-sent events, for clients that cannot open a WebSocket."""
