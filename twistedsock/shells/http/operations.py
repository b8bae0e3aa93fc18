"""The table of what can be asked for over HTTP, besides files."""

from collections.abc import Callable, Mapping
from secrets import token_urlsafe
from typing import Any

from twistedsock.core.bridge import Bridge
from twistedsock.shells.http.about import About
from twistedsock.shells.http.channels import Channels
from twistedsock.shells.http.events import Events
from twistedsock.shells.http.peers import Peers
from twistedsock.shells.http.polling import Polling
from twistedsock.shells.http.reading import Reading
from twistedsock.shells.http.routes import Route
from twistedsock.shells.http.scrape import Scrape
from twistedsock.shells.http.stand_in import StandIns
from twistedsock.shells.http.streams import Streams
from twistedsock.shells.metrics import Metrics, WebhookFigures
from twistedsock.wire.http_bodies import BATCH_BYTES
from twistedsock.wire.stand_in import MOST_BODY

KEY_BYTES = 18
"""Of chance in the key of a stream: nobody guesses so many."""


def operations(
    bridge: Bridge,
    reactor: Any,
    lines: Callable[[], list[dict[str, object]]],
    webhooks: Callable[[], Mapping[str, WebhookFigures]] = dict,
    ping_interval: int = 0,
) -> list[Route]:
    """One line for each. ``lines`` tells where the line ports are, for the page, ``webhooks`` their figures by name;
    ``ping_interval`` is how many seconds a stream may be silent, 0 for ever. To be called once for a server, as
    operations may remember things."""
    about = About(bridge, lines)
    events, channels, peers = Events(bridge), Channels(bridge), Peers(bridge)
    streams = Streams(bridge, reactor, ping_interval)
    reading = Reading(events.history, Polling(bridge, reactor), streams)
    stand_ins = StandIns(streams, lambda: token_urlsafe(KEY_BYTES).encode())
    scrape = Scrape(Metrics(bridge, webhooks))
    return [
        Route("GET", "/healthz", about.health, asks_who=False, drains=True),
        Route("GET", "/readyz", about.readiness, asks_who=False, drains=True),
        Route("GET", "/metrics", scrape.metrics, drains=True),
        Route("GET", "/bridge.json", about.bridge, asks_who=False),
        Route("POST", "/events", events.publish_all, most_body=BATCH_BYTES),
        Route("POST", "/channels/{channel}/events", events.publish),
        Route("GET", "/channels/{channel}/events", reading.one),
        Route("GET", "/events", reading.several),
        Route("GET", "/stream", stand_ins.open),
        Route("POST", "/stream", stand_ins.take, most_body=MOST_BODY, asks_who=False),
        Route("GET", "/channels/{channel}/members", channels.members),
        Route("GET", "/channels", channels.all),
        Route("GET", "/peers", peers.all),
        Route("GET", "/peers/{id}", peers.one),
        Route("DELETE", "/peers/{id}", peers.disconnect),
        Route("GET", "/ws", about.websocket, asks_who=False),
    ]
