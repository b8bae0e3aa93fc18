"""What the server tells of itself: that it lives, whether it is ready, and what the page must know."""

from collections.abc import Callable

import msgspec

from twistedsock.errors import UNAVAILABLE, Error, ErrorCode
from twistedsock.server.http.checks import GOING_AWAY
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.registry import ServerContext

WEBSOCKET_IS_HERE = Error(ErrorCode.BAD_ARGUMENT, "this is where the WebSocket is")


class HealthEndpoint:
    """``lines`` tells where the line ports are."""

    def __init__(self, context: ServerContext, lines: Callable[[], list[dict[str, object]]]) -> None:
        self._context = context
        self._lines = lines

    def health(self, request: HTTPRequest) -> None:
        """It lives, or it would not answer."""
        request.answer(200, b"text/plain; charset=utf-8", b"ok\n")

    def readiness(self, request: HTTPRequest) -> None:
        """Whether it is worth sending somebody here."""
        if self._context.draining:
            request.refuse(GOING_AWAY)
        elif not self._context.broker.is_ready:
            request.refuse(UNAVAILABLE)
        else:
            request.answer_json(200, b'{"ready":true}\n')

    def context(self, request: HTTPRequest) -> None:
        """For the page."""
        told = {"lines": self._lines(), "version": self._context.version.decode()}
        request.answer_json(200, msgspec.json.encode(told))

    def websocket(self, request: HTTPRequest) -> None:
        """Somebody forgot to ask for it."""
        request.refuse(WEBSOCKET_IS_HERE, 426, {b"Upgrade": b"websocket", b"Connection": b"Upgrade"})
