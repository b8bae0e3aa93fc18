"""The table of what can be asked for over HTTP, besides files."""

from collections.abc import Callable, Mapping
from secrets import token_urlsafe
from typing import Any

from twistedsock.codecs.fallback import MAX_BODY
from twistedsock.codecs.http_api import BATCH_BYTES, LAST_EVENT_ID
from twistedsock.metrics.prometheus import Metrics, WebhookFigures
from twistedsock.server.http.admin import ConnectionsEndpoint, MetricsEndpoint
from twistedsock.server.http.channels import ChannelsEndpoint
from twistedsock.server.http.events import EventsEndpoint
from twistedsock.server.http.fallback import FallbackEndpoint
from twistedsock.server.http.health import HealthEndpoint
from twistedsock.server.http.long_poll import LongPollEndpoint
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.routes import Route
from twistedsock.server.http.sse import StreamsEndpoint, wants_stream
from twistedsock.session.registry import ServerContext

Operation = Callable[[HTTPRequest], object]


class EventsReader:
    """``history`` tells what the log of one channel holds."""

    def __init__(self, history: Operation, polling: LongPollEndpoint, streams: StreamsEndpoint) -> None:
        self._history = history
        self._polling = polling
        self._streams = streams

    def one(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events``."""
        if wants_stream(request):
            self._streams.of_one(request)
        elif request.header(b"last-event-id") or any(name in request.arguments for name in ("wait", *LAST_EVENT_ID)):
            self._polling.of_one(request)
        else:
            self._history(request)

    def several(self, request: HTTPRequest) -> None:
        """``GET /events?channel=…``: a stream, unless it waits, or wants JSON and says so."""
        wants_json = b"application/json" in request.header(b"accept").lower()
        if wants_stream(request) or not (wants_json or "wait" in request.arguments):
            self._streams.of_several(request)
        else:
            self._polling.of_several(request)


KEY_BYTES = 18
"""Of chance in the key of a stream: nobody guesses so many."""


def operations(
    context: ServerContext,
    reactor: Any,
    lines: Callable[[], list[dict[str, object]]],
    webhooks: Callable[[], Mapping[str, WebhookFigures]] = dict,
    ping_interval: int = 0,
) -> list[Route]:
    """One line for each. ``lines`` tells where the line ports are, for the page, ``webhooks`` their figures by name;
    ``ping_interval`` is how many seconds a stream may be silent, 0 for ever. To be called once for a server, as
    operations may remember things."""
    about = HealthEndpoint(context, lines)
    events, channels, peers = EventsEndpoint(context), ChannelsEndpoint(context), ConnectionsEndpoint(context)
    streams = StreamsEndpoint(context, reactor, ping_interval)
    reading = EventsReader(events.history, LongPollEndpoint(context, reactor), streams)
    stand_ins = FallbackEndpoint(streams, lambda: token_urlsafe(KEY_BYTES).encode())
    scrape = MetricsEndpoint(Metrics(context, webhooks))
    return [
        Route("GET", "/healthz", about.health, asks_who=False, drains=True),
        Route("GET", "/readyz", about.readiness, asks_who=False, drains=True),
        Route("GET", "/metrics", scrape.metrics, drains=True),
        Route("GET", "/bridge.json", about.context, asks_who=False),
        Route("POST", "/events", events.publish_all, most_body=BATCH_BYTES),
        Route("POST", "/channels/{channel}/events", events.publish),
        Route("GET", "/channels/{channel}/events", reading.one),
        Route("GET", "/events", reading.several),
        Route("GET", "/stream", stand_ins.open),
        Route("POST", "/stream", stand_ins.take, most_body=MAX_BODY, asks_who=False),
        Route("GET", "/channels/{channel}/members", channels.members),
        Route("GET", "/channels", channels.all),
        Route("GET", "/peers", peers.all),
        Route("GET", "/peers/{id}", peers.one),
        Route("DELETE", "/peers/{id}", peers.disconnect),
        Route("GET", "/ws", about.websocket, asks_who=False),
    ]


# TODO-MERGED-DOC: One address, three ways to read: what is there, what comes while one waits, or a stream
# without an end.
