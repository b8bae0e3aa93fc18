"""Engine.IO sessions on the web port: their table and limits, timers, and the application that receives the messages.

``server.http.engineio`` has the requests of long polling, ``server.engineio_websocket`` the WebSockets.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from twistedsock.auth.identity import Identity
from twistedsock.codecs.engineio import Packet, Query
from twistedsock.codecs.engineio_session import CloseCause, EngineSession, EngineSettings
from twistedsock.errors import Error
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.principal import Principal
from twistedsock.server.connection import log_exception
from twistedsock.server.sockets import host_of
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints


class Handshake(Struct, frozen=True):
    """The request that has opened a session. ``identity`` is the authenticated client, None for an anonymous one."""

    address: Any
    endpoints: Endpoints
    principal: Principal
    query: Query
    headers: Mapping[str, str]
    secure: bool
    identity: Identity | None


class MessageHandler(Protocol):
    """The receiver of the messages of one session."""

    @property
    def buffered_bytes(self) -> int:
        """The size of messages that are not complete."""

    def received(self, data: bytes, is_binary: bool) -> None: ...

    def closed(self, cause: CloseCause) -> None: ...


class EngineApplication(Protocol):
    """The user of all sessions."""

    def open(self, connection: "EngineConnection") -> MessageHandler:
        """A session has been opened. Messages can be sent at once."""


class EngineConnection:
    """One session, with its timer, its entry in the limits, and its share of the memory budget."""

    __slots__ = (
        "_counted_bytes",
        "_handler",
        "_timer",
        "endpoint",
        "handshake",
        "polls",
        "session",
        "unfinished_bytes",
    )

    def __init__(self, endpoint: "EngineEndpoint", sid: str, handshake: Handshake) -> None:
        self.endpoint = endpoint
        self.handshake = handshake
        self.session = EngineSession(sid, endpoint.settings, self, endpoint.reactor.seconds())
        self.unfinished_bytes = 0
        """The size of input that is not a whole message yet."""
        self.polls = 0
        """The number of GET requests of a client that polls."""
        self._handler: MessageHandler | None = None
        self._timer: Any = None
        self._counted_bytes = 0

    def start(self) -> None:
        """Let the application open its side. The caller has opened the session with its transport."""
        try:
            self._handler = self.endpoint.application.open(self)
        except Exception:
            log_exception()
            self.session.fail(CloseCause.SERVER)
        self.session.flush()
        self.update()

    def send(self, *packets: Packet) -> None:
        """Send packets, or keep them until the client can receive them."""
        session = self.session
        for packet in packets:
            session.send(packet)
        if session.buffered_bytes or self._counted_bytes:
            self.update()

    def fail(self, cause: CloseCause) -> None:
        """Close at once: the client has violated the protocol, or exceeds a limit."""
        self.session.fail(cause)
        self.update()

    def close(self, cause: CloseCause = CloseCause.SERVER) -> None:
        """Close when the client has received the packets that wait."""
        self.session.close(cause, self.endpoint.reactor.seconds())
        self.update()

    def update(self) -> None:
        """Set the timer and count memory. Called after each change of the session."""
        session, reactor = self.session, self.endpoint.reactor
        self._count_memory()
        if session.is_finished:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer = None
        elif self._timer is None or self._timer.getTime() > session.deadline:
            # A deadline that moves to a later time keeps its timer, which is cheaper for each pong.
            if self._timer is not None:
                self._timer.cancel()
            self._timer = reactor.callLater(max(0.0, session.deadline - reactor.seconds()), self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self.session.time_passed(self.endpoint.reactor.seconds())
        self.update()

    def _count_memory(self) -> None:
        size = 0
        if not self.session.is_finished:
            size = self.session.buffered_bytes + self.unfinished_bytes
            if self._handler is not None:
                size += self._handler.buffered_bytes
        budget, principal = self.endpoint.context.memory_budget, self.handshake.principal
        before, self._counted_bytes = self._counted_bytes, budget.adjust(self._counted_bytes, size, principal)
        if self._counted_bytes > before and budget.is_exceeded_by(principal):
            self.session.fail(CloseCause.TOO_SLOW)
            self._counted_bytes = budget.adjust(self._counted_bytes, 0, principal)

    # Called by the session.

    def received(self, data: bytes, is_binary: bool) -> None:
        if self._handler is None:
            return
        try:
            self._handler.received(data, is_binary)
        except Exception:
            log_exception()
            self.session.fail(CloseCause.SERVER)

    def closed(self, cause: CloseCause) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            try:
                handler.closed(cause)
            except Exception:
                log_exception()

    def finished(self) -> None:
        self.endpoint.remove(self)
        self.update()


class EngineEndpoint:
    """All sessions of a server, on all its web ports. ``generate_sid`` returns a secret: a client that knows the id of
    a session can use the session."""

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        application: EngineApplication,
        generate_sid: Callable[[], str],
        settings: EngineSettings | None = None,
    ) -> None:
        self.context = context
        self.reactor = reactor
        self.application = application
        self.settings = settings or EngineSettings()
        self._generate_sid = generate_sid
        # A session that polls outlives its connections, so it counts beside them, within the same limits.
        self._limiter = ConnectionLimiter(context.limits)
        self._connections: dict[str, EngineConnection] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def open(self, handshake: Handshake) -> EngineConnection | Error:
        """A new session, or the reason why there cannot be one. The caller opens it with a transport and starts it."""
        error = self._limiter.acquire(host_of(handshake.address))
        if error is not None:
            return error
        connection = EngineConnection(self, self._generate_sid(), handshake)
        self._connections[connection.session.sid] = connection
        return connection

    def find(self, sid: str) -> EngineConnection | None:
        return self._connections.get(sid)

    def remove(self, connection: EngineConnection) -> None:
        """Called when a session has finished."""
        del self._connections[connection.session.sid]
        self._limiter.release(host_of(connection.handshake.address))

    def charge(self, handshake: Handshake, messages: int, size: int = 0) -> bool:
        """Charge input to the client. Returns False if its rate is exceeded."""
        return self.context.charge(handshake.principal, messages, size)

    def close_all(self) -> None:
        """The server shuts down: close all sessions, in fair time slices."""
        calls = [connection.close for connection in self._connections.values()]
        self.context.broker.scheduler.run_calls(calls, "some Engine.IO sessions could not be closed")
