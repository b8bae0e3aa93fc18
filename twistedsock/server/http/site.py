"""What the plain requests of one listener have in common: what there is to ask for, and who asks just now."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.web.http import datetimeToString

from twistedsock.server.connection import log_exception
from twistedsock.server.http.checks import OriginPolicy
from twistedsock.server.http.connection import IDLE, HTTPConnection
from twistedsock.server.http.routes import Routes
from twistedsock.server.http.static import static_files
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.timeouts import TimeoutQueue
from twistedsock.session.registry import ServerContext

if TYPE_CHECKING:
    from twistedsock.server.http.request import HTTPRequest


class HTTPSite:
    """Makes connections that somebody else has accepted, whose first request is there. What is asked for is not logged:
    a URL may hold a secret."""

    def __init__(
        self, reactor: Any, context: ServerContext, gate: OriginPolicy, routes: Routes, listening: ListenerConfig
    ) -> None:
        self.reactor = reactor
        self.context = context
        self.gate = gate
        self.routes = routes
        self.listening = listening
        self.files = static_files()
        self.connections: dict[HTTPConnection, None] = {}
        self.begun: TimeoutQueue[HTTPConnection] = TimeoutQueue(
            reactor, context.limits.read_timeout, HTTPConnection.be_late
        )
        self.idle: TimeoutQueue[HTTPConnection] = TimeoutQueue(reactor, IDLE, HTTPConnection.be_idle)
        self._running: dict[HTTPRequest, None] = {}
        self._when_idle: Callable[[], None] | None = None
        self._second, self._date = 0, b""

    def buildProtocol(self, peer: Any, is_proxied: bool = False) -> HTTPConnection:
        """``peer`` is the far end, as a proxy tells it where one does; ``is_proxied`` is whether it is a trusted proxy
        itself."""
        return HTTPConnection(self, peer, is_proxied)

    @property
    def date(self) -> bytes:
        """The header of that name (RFC 9110 section 6.6.1)."""
        second = int(self.context.expiries.wall_clock())
        if second != self._second:
            self._second, self._date = second, datetimeToString(second)
        return self._date

    @property
    def running(self) -> int:
        """How many operations have not been answered yet."""
        return len(self._running)

    # What connections tell.

    def has_asked(self, request: "HTTPRequest") -> None:
        """Its operation has begun."""
        self._running[request] = None

    def has_answered(self, request: "HTTPRequest") -> None:
        """Nothing is to be waited for."""
        self._running.pop(request, None)
        if self._when_idle is not None and not self._running:
            when_idle, self._when_idle = self._when_idle, None
            when_idle()

    def forget(self, connection: HTTPConnection) -> None:
        """Nothing of it is waited for any longer."""
        for deadlines in (self.begun, self.idle):
            deadlines.stop(connection)
            deadlines.cancel_if_empty()

    def has_gone(self, connection: HTTPConnection) -> None:
        """It has ended, or is another protocol's."""
        self.connections.pop(connection, None)

    def abort_unfinished(self) -> None:
        """Reset the connections of answers that have begun and will not be completed."""
        for request in list(self._running):
            if request.startedWriting:
                request.connection.abort()

    # What the server tells.

    def drain(self, when_idle: Callable[[], None]) -> None:
        """The server is going away. Connections that ask for nothing are closed; operations that have begun may end;
        ``when_idle`` is called when they have."""

        def told() -> None:
            if self._running:
                self._when_idle = when_idle
            else:
                when_idle()

        def tell() -> Iterator[None]:
            for request in list(self._running):
                try:
                    if request.on_drain is not None:
                        request.on_drain()
                except Exception:  # the others are still to be told
                    log_exception()
                yield
            for connection in list(self.connections):
                connection.drain()
                yield

        self.context.broker.make_steps(tell(), told)
