"""The encodings there are. Each exists once, as readers that share one share their bytes."""

from twistedsock.codecs.framing import Newline, TextMessage
from twistedsock.codecs.json_encoder import JsonEncoder
from twistedsock.codecs.line_encoder import LineEncoder
from twistedsock.codecs.sse import SSEEncoder, SSEFraming

LINE_ENCODER = LineEncoder(Newline())
"""Lines on a bare socket."""

LINE_MESSAGE_ENCODER = LineEncoder(TextMessage())
"""Lines over WebSocket: each is a message."""

JSON_MESSAGE_ENCODER = JsonEncoder(TextMessage())
"""JSON over WebSocket."""

SSE_ENCODER = SSEEncoder()
"""Server-sent events of one channel."""

JSON_SSE_ENCODER = JsonEncoder(SSEFraming(), "events")
"""JSON as server-sent events, for who cannot open a WebSocket."""
