"""One address, three ways to read: what is there, what comes while one waits, or a stream without an end."""

from collections.abc import Callable

from twistedsock.shells.http.polling import Polling
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.shells.http.streams import Streams, wants_stream
from twistedsock.wire.stream_arguments import LAST_EVENT_ID

Operation = Callable[[BridgeRequest], object]


class Reading:
    """``history`` tells what the log of one channel holds."""

    def __init__(self, history: Operation, polling: Polling, streams: Streams) -> None:
        self._history = history
        self._polling = polling
        self._streams = streams

    def one(self, request: BridgeRequest) -> None:
        """``GET /channels/{channel}/events``."""
        if wants_stream(request):
            self._streams.of_one(request)
        elif request.header(b"last-event-id") or any(name in request.arguments for name in ("wait", *LAST_EVENT_ID)):
            self._polling.of_one(request)
        else:
            self._history(request)

    def several(self, request: BridgeRequest) -> None:
        """``GET /events?channel=…``: a stream, unless it waits, or wants JSON and says so."""
        wants_json = b"application/json" in request.header(b"accept").lower()
        if wants_stream(request) or not (wants_json or "wait" in request.arguments):
            self._streams.of_several(request)
        else:
            self._polling.of_several(request)
