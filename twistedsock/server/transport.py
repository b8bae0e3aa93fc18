"""Writing to clients: transports that send at once, a buffered outlet for other transports, and a reachability check.

Twisted's ``write`` never sends: it queues, waits for the next reactor turn and sends then, with three system calls a
write. ``DirectWriteTransport`` sends at once, and uses Twisted's queue only while the socket is full. The transport
class of a listening port can be replaced (``twisted.internet.tcp.Port.transport``), so this works on each reactor that
uses Twisted's own sockets, below TLS too.
"""

from collections.abc import Callable
from errno import EAGAIN, ENOBUFS
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twistedsock.limits.principal import Principal, address_principal
from twistedsock.limits.shares import MemoryBudget
from twistedsock.pubsub.subscription import NOT_READING, SOCKET_FULL, DrainListener
from twistedsock.server.sockets import host_of, innermost_transport, seconds_unanswered, tcp_stats_of
from twistedsock.server.twisted_internals import (
    SmallServer,
    connection_class,
    discard_write_buffer,
    set_connection_class,
    write_buffer_size,
)
from twistedsock.stats import TcpStats

if TYPE_CHECKING:
    from twistedsock.server.new_connections import NewConnections


class DirectWriteTransport:
    """Mixed into Twisted's server transports: writes to the socket at once, and is the outlet of its session.

    ``drain_listener.resume_writing`` is called, in a reactor turn of its own, after bytes had waited and have been
    sent. Waiting bytes are counted in ``memory_budget``; a client that does not read while the budget is exceeded is
    disconnected with a reset, because nothing can be sent to it."""

    memory_budget: MemoryBudget | None = None
    reachability: "Reachability | None" = None
    new_connections: "NewConnections | None" = None
    last_tcp_stats: TcpStats | None = None
    """The traffic of the connection when it ended."""
    blocked = 0
    drain_listener: DrainListener | None = None
    input_has_ended = False
    """Set when the client has ended its stream and all of its input is processed: then a failed write ends the
    connection."""
    principal: Principal = b""
    """Waiting bytes are charged to it. Empty: to the address of the connection."""
    _reading_paused = False
    _counted_bytes = 0
    _counted_for: Principal = b""

    # Provided by Twisted's transports.
    connected: int
    disconnecting: int
    reactor: Any
    socket: Any
    abortConnection: Callable[[], None]
    getPeer: Callable[[], Any]

    def try_write(self, data: bytes) -> bool:
        """Send unless the connection is blocked. Returns False if nothing was accepted."""
        if self.blocked:
            return False
        try:
            sent = self.socket.send(data)
        except OSError as error:
            sent = self._sent_despite(error, data)
        if sent != len(data):
            self._queue(data[sent:])
        return True

    def write(self, data: bytes) -> None:
        if self.blocked & NOT_READING:
            return
        sent = 0
        if data and self.connected and not self.blocked & SOCKET_FULL:
            try:
                sent = self.socket.send(data)
            except OSError as error:
                sent = self._sent_despite(error, data)
        if sent != len(data):
            self._queue(data[sent:])

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def tcp_stats(self) -> TcpStats | None:
        return tcp_stats_of(self)

    def _sent_despite(self, error: OSError, data: bytes) -> int:
        """How many bytes of ``data`` need not be sent later."""
        if error.errno not in (EAGAIN, ENOBUFS) and not self.input_has_ended:
            self.blocked |= NOT_READING
            return len(data)
        return 0  # if the connection is broken, the next attempt, in the next turn, ends it

    def _queue(self, data: bytes) -> None:
        super().write(data)  # type: ignore[misc]
        if self.memory_budget is None:
            return
        if not self._counted_bytes:
            self._counted_for = self.principal or address_principal(host_of(self.getPeer()))
        size = write_buffer_size(self)
        self._counted_bytes = self.memory_budget.adjust(self._counted_bytes, size, self._counted_for)
        if self._counted_bytes and self.memory_budget.is_exceeded_by(self._counted_for):
            self.blocked |= NOT_READING
            self.drain_listener = None
            discard_write_buffer(self)
            self.abortConnection()

    # Called by Twisted.

    def writeSomeData(self, data: bytes) -> Any:
        result = super().writeSomeData(data)  # type: ignore[misc]
        if isinstance(result, BaseException) and not self.disconnecting and not self.input_has_ended:
            self.blocked |= NOT_READING
            return len(data)
        return result

    def startWriting(self) -> None:
        self.blocked |= SOCKET_FULL
        super().startWriting()  # type: ignore[misc]

    def stopWriting(self) -> None:
        super().stopWriting()  # type: ignore[misc]
        if self._counted_bytes and self.memory_budget is not None:
            self._counted_bytes = self.memory_budget.adjust(self._counted_bytes, 0, self._counted_for)
        if self.blocked & SOCKET_FULL:
            self.blocked &= ~SOCKET_FULL
            if self.drain_listener is not None and self.connected and not self.disconnecting:
                # In a turn of its own: the caller may close the connection before it looks at what was written.
                self.reactor.callLater(0, self._notify_drained)

    def _notify_drained(self) -> None:
        if self.drain_listener is not None and self.connected and not self.blocked & SOCKET_FULL:
            self.drain_listener.resume_writing()

    def startReading(self) -> None:
        if self.new_connections is not None and not self.connected:  # called by the constructor
            self.new_connections.add(self)
        else:
            super().startReading()  # type: ignore[misc]

    def stopReading(self) -> None:
        if self.new_connections is not None:
            self.new_connections.remove(self)
        super().stopReading()  # type: ignore[misc]

    def pauseProducing(self) -> None:
        self._reading_paused = True
        super().pauseProducing()  # type: ignore[misc]

    def resumeProducing(self) -> None:
        self._reading_paused = False
        super().resumeProducing()  # type: ignore[misc]

    def connectionLost(self, reason: Any) -> None:
        self.blocked |= NOT_READING
        has_unread_input = self._reading_paused and not self.input_has_ended
        if has_unread_input and self.drain_listener is not None and reason.type is ConnectionLost:
            # The connection broke while reading was paused: what arrived before is still to be read. Nothing waits to
            # be written any more, so the session resumes reading, finds the error, and this is called once more.
            self._reading_paused = False
            discard_write_buffer(self)
            self.stopWriting()
            return
        self.drain_listener = None
        if self.reachability is not None:
            self.reachability.remove(self)
        self.last_tcp_stats = tcp_stats_of(self)
        super().connectionLost(reason)  # type: ignore[misc]


class DirectTCPTransport(DirectWriteTransport, SmallServer):
    """The server's end of a TCP connection."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.reachability is not None:
            self.reachability.add(self)


class DirectUNIXTransport(DirectWriteTransport, unix.Server):
    """The server's end of a connection over a Unix socket."""


_DIRECT_CLASSES: dict[type | None, type] = {tcp.Server: DirectTCPTransport, unix.Server: DirectUNIXTransport}


def install_direct_writes(
    port: Any,
    memory_budget: MemoryBudget,
    reachability: "Reachability | None" = None,
    new_connections: "NewConnections | None" = None,
) -> None:
    """Let a listening port of Twisted's create transports that write directly. Must be called before the first
    connection. TCP connections are added to ``reachability``, and all to ``new_connections``."""
    direct_class = _DIRECT_CLASSES.get(connection_class(port))
    if direct_class is not None:
        attributes = {
            "memory_budget": memory_budget,
            "reachability": reachability,
            "new_connections": new_connections,
        }
        set_connection_class(port, type(direct_class.__name__, (direct_class,), attributes))


@implementer(IPushProducer)
class BufferedOutlet:
    """The outlet of a session on any other transport, mostly TLS. The transport has its own queue, and calls
    ``pauseProducing`` when it is full."""

    def __init__(self, transport: Any, reactor: Any) -> None:
        self.blocked = 0
        self.drain_listener: DrainListener | None = None
        self._transport = transport
        self._reactor = reactor
        self._principal: Principal = b""
        transport.registerProducer(self, True)

    @property
    def principal(self) -> Principal:
        """Waiting bytes are charged to it."""
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal
        charge_to(self._transport, principal)

    def try_write(self, data: bytes) -> bool:
        if self.blocked:
            return False
        self._transport.write(data)
        return True

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def tcp_stats(self) -> TcpStats | None:
        return tcp_stats_of(self._transport)

    def pauseProducing(self) -> None:
        self.blocked |= SOCKET_FULL

    def resumeProducing(self) -> None:
        self.blocked &= ~SOCKET_FULL
        self._reactor.callLater(0, self._notify_drained)

    def stopProducing(self) -> None:
        self.blocked |= NOT_READING
        self.drain_listener = None

    def _notify_drained(self) -> None:
        if self.drain_listener is not None and not self.blocked & SOCKET_FULL:
            self.drain_listener.resume_writing()


def outlet_of(transport: Any, reactor: Any) -> Any:
    """The outlet of a connection: the transport itself if it writes directly, otherwise a ``BufferedOutlet``."""
    return transport if isinstance(transport, DirectWriteTransport) else BufferedOutlet(transport, reactor)


def detach_outlet(outlet: Any, transport: Any) -> None:
    """Must be called before a connection is closed: Twisted never closes one whose producer is paused."""
    outlet.drain_listener = None
    if outlet is not transport:
        transport.unregisterProducer()


def mark_input_ended(transport: Any) -> None:
    """The client has ended its stream, and waits for the rest of the output. If a write has failed already, the
    connection is aborted."""
    server = innermost_transport(transport)
    if isinstance(server, DirectWriteTransport):
        server.input_has_ended = True
        if server.blocked & NOT_READING:
            server.abortConnection()


def charge_to(transport: Any, principal: Principal) -> None:
    """Charge the waiting bytes of a transport, or of the one below it that sends, to a principal. The address of the
    connection may be the one of a proxy."""
    while transport is not None and not isinstance(transport, DirectWriteTransport):
        transport = getattr(transport, "transport", None)
    if transport is not None:
        transport.principal = principal


CHECKS_PER_TIMEOUT = 4
"""How often each connection is checked within the timeout."""

CHECKS_PER_TURN = 250
"""Each check is a system call of some microseconds. Other clients are served between two reactor turns."""


class Reachability:
    """Aborts TCP connections whose remote machine no longer answers, but keeps those whose program reads slowly.

    The kernel's ``TCP_USER_TIMEOUT`` cannot distinguish the two: it also runs while the receive window of a living
    client is closed, and it continues after the client has read a part (net/ipv4/tcp_timer.c, ``tcp_probe_timer``).
    Linux counts for each connection how much is unanswered, and this class looks it up.

    ``check`` must be called every ``interval`` seconds, unless that is 0. ``timeout`` is in seconds, 0 disables the
    check; ``defer`` calls back in a later reactor turn."""

    def __init__(self, timeout: float, defer: Callable[[Callable[[], None]], None]) -> None:
        self.interval = timeout / CHECKS_PER_TIMEOUT
        self._timeout = timeout
        self._defer = defer
        # One entry for each TCP connection, whose number is limited.
        self._connections: dict[Any, None] = {}
        self._unchecked: list[Any] = []

    def add(self, connection: Any) -> None:
        """Check a transport of Twisted's from now on."""
        if self._timeout:
            self._connections[connection] = None

    def remove(self, connection: Any) -> None:
        """The connection is closed."""
        self._connections.pop(connection, None)

    def check(self) -> None:
        """Abort connections that have been unanswered for the timeout. Continues in later turns if there are many."""
        if not self._unchecked:
            self._unchecked = list(self._connections)
            self._check_next()

    def _check_next(self) -> None:
        connections = self._unchecked[-CHECKS_PER_TURN:]
        del self._unchecked[-CHECKS_PER_TURN:]
        if self._unchecked:  # first, so that an exception does not end all checks
            self._defer(self._check_next)
        for connection in connections:
            if connection in self._connections and seconds_unanswered(connection) >= self._timeout:
                connection.abortConnection()
