"""The encodings there are. Each exists once, as readers that share one share their bytes."""

from twistedsock.wire.event_stream import EventStream
from twistedsock.wire.events_dialect import EventsDialect
from twistedsock.wire.framing import Newline, TextMessage
from twistedsock.wire.json_dialect import JsonDialect
from twistedsock.wire.line_dialect import LineDialect

LINES = LineDialect(Newline())
"""Lines on a bare socket."""
LINES_IN_MESSAGES = LineDialect(TextMessage())
"""Lines over WebSocket: each is a message."""
JSON_IN_MESSAGES = JsonDialect(TextMessage())
"""JSON over WebSocket."""
EVENTS = EventsDialect()
"""Server-sent events of one channel."""
JSON_IN_EVENTS = JsonDialect(EventStream(), "events")
"""JSON as server-sent events, for who cannot open a WebSocket."""
