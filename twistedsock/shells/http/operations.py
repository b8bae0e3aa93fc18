"""The table of what can be asked for over HTTP, besides files."""

from collections.abc import Callable, Mapping
from typing import Any

from twistedsock.core.bridge import Bridge
from twistedsock.shells.http.about import About
from twistedsock.shells.http.routes import Route
from twistedsock.shells.http.scrape import Scrape
from twistedsock.shells.metrics import Metrics, WebhookFigures


def operations(
    bridge: Bridge,
    reactor: Any,
    lines: Callable[[], list[dict[str, object]]],
    webhooks: Callable[[], Mapping[str, WebhookFigures]] = dict,
) -> list[Route]:
    """One line for each. ``lines`` tells where the line ports are, for the page, ``webhooks`` their figures by name. To
    be called once for a server, as operations may remember things."""
    about = About(bridge, lines)
    scrape = Scrape(Metrics(bridge, webhooks))
    return [
        Route("GET", "/healthz", about.health, asks_who=False, drains=True),
        Route("GET", "/readyz", about.readiness, asks_who=False, drains=True),
        Route("GET", "/metrics", scrape.metrics, drains=True),
        Route("GET", "/bridge.json", about.bridge, asks_who=False),
        Route("GET", "/ws", about.websocket, asks_who=False),
    ]
