"""Health checks, facts for pages, the check of an origin, and the hint at the address of the WebSocket."""

from collections.abc import Callable

import msgspec

from twistedsock.errors import UNAVAILABLE, Error, ErrorCode
from twistedsock.server.http.checks import SHUTTING_DOWN
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.context import ServerContext

UPGRADE_REQUIRED = Error(ErrorCode.BAD_ARGUMENT, "upgrade required: this is the address of the WebSocket")


class HealthEndpoint:
    """``line_ports`` returns the addresses of the line protocol."""

    def __init__(self, context: ServerContext, line_ports: Callable[[], list[dict[str, object]]]) -> None:
        self._context = context
        self._line_ports = line_ports

    def liveness(self, request: HTTPRequest) -> None:
        """``GET /healthz``: always 200."""
        request.respond(200, b"text/plain; charset=utf-8", b"ok\n")

    def readiness(self, request: HTTPRequest) -> None:
        """``GET /readyz``: 200 while the server accepts traffic, 503 during shutdown and without a backplane."""
        if self._context.draining:
            request.respond_error(SHUTTING_DOWN)
        elif not self._context.broker.is_ready:
            request.respond_error(UNAVAILABLE)
        else:
            request.respond_json(200, b'{"ready":true}\n')

    def page_configuration(self, request: HTTPRequest) -> None:
        """``GET /bridge.json``: facts about the server that the page displays."""
        configuration = {"lines": self._line_ports(), "version": self._context.version.decode()}
        request.respond_json(200, msgspec.json.encode(configuration))

    def origin_status(self, request: HTTPRequest) -> None:
        """``GET /origin``: whether pages of the origin that sent the request can use the server. The JavaScript client
        asks, because browsers do not show a page why its WebSocket was rejected."""
        request.parameters.allow_only(())
        is_allowed = bool(request.origin) or not request.requestHeaders.hasHeader(b"origin")
        request.respond_json(200, b'{"allowed":true}\n' if is_allowed else b'{"allowed":false}\n')

    def upgrade_required(self, request: HTTPRequest) -> None:
        """``GET /ws`` without a WebSocket handshake."""
        request.respond_error(UPGRADE_REQUIRED, 426, {b"Upgrade": b"websocket", b"Connection": b"Upgrade"})
