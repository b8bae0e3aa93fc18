"""Engine.IO sessions on the web port: their table and limits, timers, and the application that receives the messages.

``server.http.engineio`` has the requests of long polling, ``server.engineio_websocket`` the WebSockets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from twistedsock.auth.identity import Identity
from twistedsock.codecs.engineio import SEPARATOR, Packet, Query
from twistedsock.codecs.engineio_session import CloseCause, EngineSession, EngineSettings
from twistedsock.errors import Error
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.principal import Principal
from twistedsock.server.connection import log_exception
from twistedsock.server.sockets import host_of
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.timeline import HandshakeInfo


class Handshake(Struct, frozen=True):
    """The request that has opened a session. ``identity`` is the authenticated client, None for an anonymous one.
    ``listener`` is the endpoint of the web port, as configured, ``info`` the opening of the connection."""

    address: Any
    endpoints: Endpoints
    principal: Principal
    query: Query
    headers: Mapping[str, str]
    secure: bool
    identity: Identity | None
    listener: str
    info: HandshakeInfo


_NOTHING: dict[str, str] = {}


class MessageHandler:
    """The receiver of the messages of one session. ``charges_input``: it charges them to the client itself, and runs
    them in fair time slices, so that it can receive many together."""

    __slots__ = ()

    charges_input = False

    def opened(self) -> None:
        """The session calls this handler from now on."""

    @property
    def buffered_bytes(self) -> int:
        """The size of messages that are not complete."""
        return 0

    def bytes_received(self, size: int) -> None:
        """Input has been read from a WebSocket. Called if it ``charges_input``."""

    def received(self, data: bytes, is_binary: bool) -> None:
        """A message has arrived."""

    def received_texts(self, texts: Sequence[bytes]) -> None:
        """Encoded text packets with messages have arrived together, and nothing else. Called if it
        ``charges_input``."""

    def input_parsed(self) -> None:
        """The messages that have been received together are complete."""

    def complete_message(self) -> bool:
        """As in ``engineio_session.Listener``."""
        return True

    def changed(self) -> None:
        """The session may have become writable."""

    def closed(self, cause: CloseCause) -> None:
        """No message can be received or sent any more."""


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
            self._handler.opened()
        except Exception:
            log_exception()
            self.session.fail(CloseCause.SERVER)
        self.session.flush()
        self.update()

    def forget_request(self) -> None:
        """Drop the parts of the handshake that only applications can need: they are a fifth of an idle session."""
        query = replace(self.handshake.query, parameters=_NOTHING)
        self.handshake = replace(self.handshake, headers=_NOTHING, query=query)

    def send(self, *packets: Packet) -> None:
        """Send packets, or keep them until the client can receive them."""
        session = self.session
        for packet in packets:
            session.send(packet)
        if session.buffered_bytes or self._counted_bytes:
            self.update()

    def send_frames(self, frames: bytes) -> None:
        """Send packets that have been encoded as WebSocket frames."""
        self.session.send_frames(frames)
        if self.session.buffered_bytes or self._counted_bytes:
            self._count_memory()

    def message_completed(self) -> None:
        """A message that was sent in part is complete."""
        self.session.message_completed()
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
        if self._handler is not None:
            self._handler.changed()

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

    # Input.

    def charge(self, messages: int, size: int = 0) -> bool:
        """Charge input to the client. Returns False if its rate is exceeded."""
        return self.endpoint.charge(self.handshake, messages, size)

    def charge_bytes(self, size: int) -> bool:
        """Charge bytes that were read from a WebSocket. Returns False as ``charge``."""
        if self._handler is None or not self._handler.charges_input:
            return self.charge(0, size)
        self._handler.bytes_received(size)
        return True

    def charge_packet(self, data: bytes, is_binary: bool) -> bool:
        """Charge a packet that was read from a WebSocket. Returns False as ``charge``."""
        return self._charges(is_binary or data.startswith((b"4", b"b"))) or self.charge(1)

    def charge_payload(self, body: bytes) -> bool:
        """Charge the packets in the body of a request beside the request itself. Returns False as ``charge``."""
        packets = body.count(SEPARATOR)
        if self._charges(True):
            packets -= body.count(SEPARATOR + b"4") + body.count(SEPARATOR + b"b")
        return self.charge(packets)

    @property
    def charges_input(self) -> bool:
        """As in ``MessageHandler``."""
        return self._handler is not None and self._handler.charges_input

    def _charges(self, is_message: bool) -> bool:
        return is_message and self.charges_input

    def input_parsed(self) -> None:
        """The packets that have been read together were given to the session."""
        handler = self._handler
        if handler is None:
            return
        try:
            handler.input_parsed()
        except Exception:
            log_exception()
            self.session.fail(CloseCause.SERVER)
        if self._counted_bytes or handler.buffered_bytes:
            self._count_memory()

    def pause(self) -> None:
        """Read no input from a WebSocket until ``resume``. Requests are answered nevertheless: a client that moves to a
        WebSocket reads nothing before it has these answers. What waits counts for its memory."""
        self.session.pause()

    def resume(self) -> None:
        self.session.resume()

    # Called by the session.

    def complete_message(self) -> bool:
        return self._handler is None or self._handler.complete_message()

    def received(self, data: bytes, is_binary: bool) -> None:
        if self._handler is None:
            return
        try:
            self._handler.received(data, is_binary)
        except Exception:
            log_exception()
            self.session.fail(CloseCause.SERVER)

    def received_texts(self, texts: Sequence[bytes]) -> None:
        handler = self._handler
        if handler is None:
            return
        try:
            handler.received_texts(texts)
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
