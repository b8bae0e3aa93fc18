"""The table of all routes of the HTTP API."""

from collections.abc import Callable, Mapping
from secrets import token_urlsafe
from typing import Any

from twistedsock.codecs.fallback import MAX_BODY_BYTES
from twistedsock.codecs.http_api import EVENT_ID_PARAMETERS
from twistedsock.codecs.http_bodies import MAX_BATCH_BYTES
from twistedsock.metrics.connection_journal import ConnectionJournal
from twistedsock.metrics.processes import LOG, METRICS, PEERS, OtherProcesses
from twistedsock.metrics.prometheus import Metrics, StateStatistics, WebhookStatistics
from twistedsock.server.http.admin import ConnectionsEndpoint, JournalEndpoint, MetricsEndpoint
from twistedsock.server.http.channels import ChannelsEndpoint
from twistedsock.server.http.events import EventsEndpoint
from twistedsock.server.http.fallback import PATH as STREAM_PATH
from twistedsock.server.http.fallback import FallbackEndpoint
from twistedsock.server.http.headers import JSON
from twistedsock.server.http.health import HealthEndpoint
from twistedsock.server.http.long_poll import LongPollEndpoint
from twistedsock.server.http.relay import Relay
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.routing import Route
from twistedsock.server.http.sse import StreamsEndpoint, wants_stream
from twistedsock.session.context import ServerContext

STREAM_KEY_BYTES = 18
"""Random bytes in the key of a fallback stream, so that it cannot be guessed."""


class EventsReader:
    """Reads events in one of three ways, by the headers and parameters of the request: from the history, with a long
    poll, or as a stream of server-sent events."""

    def __init__(self, events: EventsEndpoint, long_poll: LongPollEndpoint, streams: StreamsEndpoint) -> None:
        self._events = events
        self._long_poll = long_poll
        self._streams = streams

    def read_channel(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events``"""
        if wants_stream(request):
            self._streams.open_for_channel(request)
        elif request.header(b"last-event-id") or any(
            name in request.parameters for name in ("wait", *EVENT_ID_PARAMETERS)
        ):
            self._long_poll.read_channel(request)
        else:
            self._events.read_history(request)

    def read_channels(self, request: HTTPRequest) -> None:
        """``GET /events?channel=…``: a stream, unless the request has ``wait`` or accepts JSON explicitly."""
        accepts_json = JSON in request.header(b"accept").lower()
        if wants_stream(request) or not (accepts_json or "wait" in request.parameters):
            self._streams.open_for_channels(request)
        else:
            self._long_poll.read_channels(request)


def build_routes(
    context: ServerContext,
    reactor: Any,
    line_ports: Callable[[], list[dict[str, object]]],
    webhook_statistics: Callable[[], Mapping[str, WebhookStatistics]] = dict,
    ping_interval: int = 0,
    state_statistics: Callable[[], StateStatistics] | None = None,
    journal: ConnectionJournal | None = None,
    others: OtherProcesses | None = None,
    relay: Relay | None = None,
) -> list[Route]:
    """To be called once for a server, because endpoints keep state. ``line_ports`` returns the addresses of the line
    protocol for the page. ``ping_interval``: seconds of silence before a stream sends a comment, 0 for no comments.
    Without a ``journal``, the connection log is empty. ``others`` are the other processes of this server.
    ``relay`` passes requests to the nodes that have their sessions."""
    health, channels, connections = (
        HealthEndpoint(context, line_ports),
        ChannelsEndpoint(context),
        ConnectionsEndpoint(context, others),
    )
    events, streams = EventsEndpoint(context), StreamsEndpoint(context, reactor, ping_interval)
    reader = EventsReader(events, LongPollEndpoint(context, reactor), streams)
    fallback = FallbackEndpoint(streams, lambda: token_urlsafe(STREAM_KEY_BYTES), relay)
    log = JournalEndpoint(journal or ConnectionJournal(context), others)
    # Each of several servers has metrics of its own, which Prometheus adds up.
    workers = others if others is not None and others.is_one_server else None
    metrics = MetricsEndpoint(Metrics(context, webhook_statistics, state_statistics), workers)
    if others is not None:
        others.reports |= {METRICS: metrics.report, PEERS: connections.report, LOG: log.report}
    return [
        Route("GET", "/healthz", health.liveness, authenticates=False, available_during_shutdown=True),
        Route("GET", "/readyz", health.readiness, authenticates=False, available_during_shutdown=True),
        Route("GET", "/metrics", metrics.render, available_during_shutdown=True),
        Route("GET", "/bridge.json", health.page_configuration, authenticates=False),
        Route("GET", "/origin", health.origin_status, authenticates=False, allows_every_origin=True),
        Route("POST", "/events", events.publish_batch, max_body=MAX_BATCH_BYTES),
        Route("POST", "/channels/{channel}/events", events.publish),
        Route("GET", "/channels/{channel}/events", reader.read_channel),
        Route("GET", "/events", reader.read_channels),
        Route("GET", STREAM_PATH, fallback.open),
        Route("POST", STREAM_PATH, fallback.receive, max_body=MAX_BODY_BYTES, authenticates=False),
        Route("GET", "/channels/{channel}/members", channels.list_members),
        Route("GET", "/channels", channels.list_channels),
        Route("GET", "/peers", connections.list_all),
        Route("GET", "/peers/{id}", connections.show),
        Route("DELETE", "/peers/{id}", connections.disconnect),
        Route("GET", "/log", log.list_entries),
        Route("GET", "/ws", health.upgrade_required, authenticates=False),
    ]
