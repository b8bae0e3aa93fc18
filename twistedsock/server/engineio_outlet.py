"""The outlet of a session of the broker whose client uses Engine.IO: a WebSocket, or requests that poll.

Bytes are WebSocket frames, whichever of the two carries them at present, so that nothing changes for the session when
its client moves from one to the other. While no request of a client waits, its outlet is like a full socket: events
stay in the histories, and its subscriptions are cursors.
"""

from typing import Any

from twistedsock.limits.principal import LOCAL, Principal
from twistedsock.pubsub.scheduler import Scheduler
from twistedsock.pubsub.subscription import NOT_READING, REPLY_PENDING, SOCKET_FULL, DrainListener
from twistedsock.server.engineio import EngineConnection
from twistedsock.stats import TcpStats


class EngineOutlet:
    """``principal`` is not used, because the connection counts the bytes that wait."""

    __slots__ = ("_bits", "_connection", "_scheduler", "_session", "_was_full", "drain_listener", "principal")

    def __init__(self, connection: EngineConnection, scheduler: Scheduler) -> None:
        self.principal: Principal = LOCAL
        self.drain_listener: DrainListener | None = None
        self._connection = connection
        self._session = connection.session
        self._scheduler = scheduler
        self._bits = 0
        self._was_full = False

    @property
    def blocked(self) -> int:
        session = self._session
        socket: Any = session.direct
        if session.is_writable if socket is None else not socket.outlet.blocked & SOCKET_FULL:
            return self._bits
        if not session.is_open:
            return self._bits | NOT_READING
        self._was_full = True
        return self._bits | SOCKET_FULL

    @blocked.setter
    def blocked(self, bits: int) -> None:
        """Everything but ``SOCKET_FULL`` can be set."""
        before, self._bits = self._bits, bits & ~SOCKET_FULL
        if before & REPLY_PENDING and not bits & REPLY_PENDING:
            self._connection.message_completed()
        elif self._was_full:
            self.changed()  # a request that polls is not full while it waits for the rest of a message

    def try_write(self, data: bytes) -> bool:
        socket: Any = self._session.direct
        if socket is None or self._bits:
            if self.blocked:
                return False
            self.write(data)
        elif not socket.outlet.try_write(data):
            self._was_full = True
            return False
        return True

    def write(self, data: bytes) -> None:
        socket: Any = self._session.direct
        if socket is not None:
            socket.outlet.write(data)
            return
        self._connection.send_frames(data)
        if self._session.buffered_bytes:
            self._scheduler.defer(self._flush)  # in a later turn, so that more can leave together

    def _flush(self) -> None:
        self._session.flush()
        self._connection.update()

    def changed(self) -> None:
        """The session may have become writable."""
        if self._was_full and self._session.is_writable:
            self._was_full = False
            self._scheduler.defer(self._notify_drained)

    def _notify_drained(self) -> None:
        if not self._session.is_writable:
            self._was_full = True
        elif self.drain_listener is not None:
            self.drain_listener.resume_writing()

    def tcp_stats(self) -> TcpStats | None:
        socket: Any = self._session.socket
        stats: TcpStats | None = None if socket is None else socket.outlet.tcp_stats()
        return stats
