"""State that all HTTP connections of one listener share: routes, files, timeouts and the requests in progress."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from twisted.web.http import datetimeToString

from twistedsock.server.connection import log_exception
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.static import ServedFile, static_files
from twistedsock.server.sockets import ListenerConfig
from twistedsock.server.timeouts import TimeoutQueue
from twistedsock.session.context import ServerContext

IDLE_TIMEOUT_SECONDS = 60
"""Silence after which a kept-alive connection is closed."""


class SiteConnection(Protocol):
    """The interface of a connection for its site."""

    def close_if_idle(self) -> None: ...
    def abort(self) -> None: ...
    def receive_timed_out(self) -> None: ...
    def idle_timed_out(self) -> None: ...


class RunningRequest(Protocol):
    """The interface of a request whose handler has been called."""

    startedWriting: Any
    on_shutdown: Callable[[], object] | None

    @property
    def connection(self) -> SiteConnection: ...


class HTTPSite:
    """The HTTP service of one listener. Requests are not logged, because a URL can contain a token."""

    def __init__(
        self,
        reactor: Any,
        context: ServerContext,
        origin_policy: OriginPolicy,
        routes: Routes,
        listener: ListenerConfig,
    ) -> None:
        self.reactor = reactor
        self.context = context
        self.origin_policy = origin_policy
        self.routes = routes
        self.listener = listener
        self.engine_websockets: Any = None
        """Creates the WebSockets of Engine.IO clients, if the server has an application for them."""
        self.files: Mapping[bytes, ServedFile] = static_files()
        """Files by URL path."""
        self.connections: dict[SiteConnection, None] = {}
        self.receive_timeouts: TimeoutQueue[SiteConnection] = TimeoutQueue(
            reactor, context.limits.read_timeout, lambda connection: connection.receive_timed_out()
        )
        self.idle_timeouts: TimeoutQueue[SiteConnection] = TimeoutQueue(
            reactor, IDLE_TIMEOUT_SECONDS, lambda connection: connection.idle_timed_out()
        )
        self._running: dict[RunningRequest, None] = {}
        self._on_idle: Callable[[], None] | None = None
        self._second, self._date = 0, b""

    @property
    def date(self) -> bytes:
        """The value of the header ``Date`` (RFC 9110 section 6.6.1)."""
        second = int(self.context.wall_clock())
        if second != self._second:
            self._second, self._date = second, datetimeToString(second)
        return self._date

    @property
    def max_body(self) -> int:
        """Bytes of the longest request body that any path accepts."""
        return max(self.context.limits.max_message_bytes, self.routes.max_body)

    @property
    def running_requests(self) -> int:
        """Number of requests whose handlers were called and have not responded yet."""
        return len(self._running)

    # Called by connections and requests.

    def request_started(self, request: RunningRequest) -> None:
        self._running[request] = None

    def request_finished(self, request: RunningRequest) -> None:
        """Called when a request has been answered or its connection is lost, also for one that was never started."""
        self._running.pop(request, None)
        if self._on_idle is not None and not self._running:
            on_idle, self._on_idle = self._on_idle, None
            on_idle()

    def stop_timeouts(self, connection: SiteConnection) -> None:
        """Stop the timeouts of a connection that is closing."""
        for timeouts in (self.receive_timeouts, self.idle_timeouts):
            timeouts.stop(connection)
            timeouts.cancel_if_empty()

    def remove_connection(self, connection: SiteConnection) -> None:
        self.connections.pop(connection, None)

    # Called by the service.

    def abort_unfinished(self) -> None:
        """Reset the connections of responses that have begun and will not be completed."""
        for request in list(self._running):
            if request.startedWriting:
                request.connection.abort()

    def shut_down(self, on_idle: Callable[[], None]) -> None:
        """Close idle connections and ask waiting requests to respond. ``on_idle`` is called when none is left."""

        def notified() -> None:
            if self._running:
                self._on_idle = on_idle
            else:
                on_idle()

        def notify_in_steps() -> Iterator[None]:
            for request in list(self._running):
                try:
                    if request.on_shutdown is not None:
                        request.on_shutdown()
                except Exception:  # the other requests must be notified too
                    log_exception()
                yield
            for connection in list(self.connections):
                connection.close_if_idle()
                yield

        self.context.broker.scheduler.run_steps(notify_in_steps(), notified)
