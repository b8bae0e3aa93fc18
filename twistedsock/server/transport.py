"""Where a peer's bytes leave: transports that send at once, and what stands in for them where there are none.

Twisted's ``write`` never sends: it queues, asks for the next turn and sends then, at three system calls a write. A
broker that has the bytes ready can send them at once and leave the queue to those whose socket is full. The transport
of a listening port "can be replaced" (``twisted.internet.tcp.Port.transport``), so this works on every reactor that
uses Twisted's own sockets, below TLS too.
"""

from collections.abc import Callable
from errno import EAGAIN, ENOBUFS
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twistedsock.limits.memory import MemoryBudget
from twistedsock.limits.principal import Principal, address_principal
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.server.sockets import host_of, innermost_transport, seconds_unanswered, traffic_of
from twistedsock.stats import TcpStats

CHECKS_PER_TIMEOUT = 4
"""How often a connection is looked at within the timeout."""

CONNECTIONS_PER_TURN = 250
"""Each is a system call of some microseconds; other clients are served between two turns."""


class Reachability:
    """``check`` is to be called every ``interval`` seconds, if that is not 0. ``timeout`` is in seconds, 0 for none;
    ``postpone`` calls back in a later turn."""

    def __init__(self, timeout: float, postpone: Callable[[Callable[[], None]], None]) -> None:
        self.interval = timeout / CHECKS_PER_TIMEOUT
        self._timeout = timeout
        self._postpone = postpone
        # One entry for each TCP connection, which are limited.
        self._connections: dict[Any, None] = {}
        self._unchecked: list[Any] = []

    def add(self, connection: Any) -> None:
        """Look at a transport of Twisted's from now on."""
        if self._timeout:
            self._connections[connection] = None

    def remove(self, connection: Any) -> None:
        """The connection is closed."""
        self._connections.pop(connection, None)

    def check(self) -> None:
        """Abort connections that have been unanswered for the timeout. Goes on in later turns when there are many."""
        if not self._unchecked:
            self._unchecked = list(self._connections)
            self._check_next()

    def _check_next(self) -> None:
        connections = self._unchecked[-CONNECTIONS_PER_TURN:]
        del self._unchecked[-CONNECTIONS_PER_TURN:]
        if self._unchecked:  # first, so that an exception does not end all checks
            self._postpone(self._check_next)
        for connection in connections:
            if connection in self._connections and seconds_unanswered(connection) >= self._timeout:
                connection.abortConnection()


LOST = 4
"""A bit of ``blocked``: the peer reads no longer. What is written is thrown away, but what it sent before is still
read: ``printf … | nc`` may be gone before its last line is."""


class DirectWriteTransport:
    """Mixed into Twisted's server transports. ``on_drained`` is called, in a turn of its own, when bytes had waited
    and have left. What waits is counted in ``memory_budget``; clients that do not read while that is too much are
    aborted, because nothing can be sent to them."""

    memory_budget: MemoryBudget | None = None
    reachability: Reachability | None = None
    last_traffic: TcpStats | None = None
    """What had gone through the connection when it ended."""
    blocked = 0
    on_drained: Callable[[], None] | None = None
    is_only_written = False
    """Whether the peer has ended its stream and nothing of it waits to be run: then a write that fails is the end."""
    _paused = False
    principal: Principal = b""
    """What waits is counted for it. Empty: for that of the address that the connection comes from."""
    _counted = 0
    _source: Principal = b""

    # What the transports have.
    connected: int
    disconnecting: int
    reactor: Any
    socket: Any
    dataBuffer: bytes
    _tempDataBuffer: list[bytes]
    _tempDataLen: int
    abortConnection: Callable[[], None]
    getPeer: Callable[[], Any]

    def try_write(self, data: bytes) -> bool:
        if self.blocked:
            return False
        self._send(data)
        return True

    def write(self, data: bytes) -> None:
        if self.blocked & LOST:
            return
        if self.blocked & SOCKET_FULL or not self.connected or not data:
            super().write(data)  # type: ignore[misc]
            self._count()
        else:
            self._send(data)

    def tcp_stats(self) -> TcpStats | None:
        return traffic_of(self)

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def _send(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except OSError as error:
            if error.errno not in (EAGAIN, ENOBUFS) and not self.is_only_written:
                self.blocked |= LOST
                return
            sent = 0  # if the peer is gone, the next attempt, in the next turn, ends the connection
        if sent != len(data):
            super().write(data[sent:])  # type: ignore[misc]
            self._count()

    def _count(self) -> None:
        """More waits than before."""
        if self.memory_budget is None:
            return
        if not self._counted:
            self._source = self.principal or address_principal(host_of(self.getPeer()))
        self._counted = self.memory_budget.recount(
            self._counted, len(self.dataBuffer) + self._tempDataLen, self._source
        )
        if self._counted and self.memory_budget.is_too_much_for(self._source):
            self.blocked |= LOST
            self.on_drained = None
            self._forget()
            self.abortConnection()

    def _forget(self) -> None:
        self.dataBuffer, self.offset = b"", 0
        self._tempDataBuffer, self._tempDataLen = [], 0

    def writeSomeData(self, data: bytes) -> Any:
        result = super().writeSomeData(data)  # type: ignore[misc]
        if isinstance(result, BaseException) and not self.disconnecting and not self.is_only_written:
            self.blocked |= LOST
            return len(data)
        return result

    def startWriting(self) -> None:
        self.blocked |= SOCKET_FULL
        super().startWriting()  # type: ignore[misc]

    def stopWriting(self) -> None:
        super().stopWriting()  # type: ignore[misc]
        if self._counted and self.memory_budget is not None:
            self._counted = self.memory_budget.recount(self._counted, 0, self._source)
        if self.blocked & SOCKET_FULL:
            self.blocked &= ~SOCKET_FULL
            if self.on_drained is not None and self.connected and not self.disconnecting:
                # Not from here: whoever calls may close the connection before it has looked what we wrote.
                self.reactor.callLater(0, self._drained)

    def _drained(self) -> None:
        if self.on_drained is not None and self.connected and not self.blocked & SOCKET_FULL:
            self.on_drained()

    def pauseProducing(self) -> None:
        self._paused = True
        super().pauseProducing()  # type: ignore[misc]

    def resumeProducing(self) -> None:
        self._paused = False
        super().resumeProducing()  # type: ignore[misc]

    def connectionLost(self, reason: Any) -> None:
        self.blocked |= LOST
        is_read = self._paused and not self.is_only_written
        if is_read and self.on_drained is not None and reason.type is ConnectionLost:
            # Broken while we had stopped reading: what came before is still to be read. Now that nothing waits to be
            # written any more, whoever paused us goes on, reads to the break, and we come here once more.
            self._paused = False
            self._forget()
            self.stopWriting()
            return
        self.on_drained = None
        if self.reachability is not None:
            self.reachability.remove(self)
        self.last_traffic = traffic_of(self)
        super().connectionLost(reason)  # type: ignore[misc]


class DirectTCPTransport(DirectWriteTransport, tcp.Server):
    """The server's end of a TCP connection."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.reachability is not None:
            self.reachability.add(self)


class DirectUNIXTransport(DirectWriteTransport, unix.Server):
    """The server's end of a connection over a Unix socket."""


_AT_ONCE = {tcp.Server: DirectTCPTransport, unix.Server: DirectUNIXTransport}


def install_direct_writes(port: Any, memory_budget: MemoryBudget, reachability: Reachability | None = None) -> None:
    """Let a listening port make such transports, if it makes Twisted's usual ones. Before the first connection. TCP
    connections are added to ``reachability``."""
    usual: Any = getattr(port, "transport", None)
    transport = _AT_ONCE.get(usual)
    if transport is not None:
        port.transport = type(
            transport.__name__, (transport,), {"memory_budget": memory_budget, "reachability": reachability}
        )


@implementer(IPushProducer)
class BufferedOutlet:
    """In front of any other transport, TLS above all: its own queue is the buffer, and it tells when that is full."""

    def __init__(self, transport: Any, reactor: Any) -> None:
        self.blocked = 0
        self.on_drained: Callable[[], None] | None = None
        self._transport = transport
        self._reactor = reactor
        self._principal: Principal = b""
        transport.registerProducer(self, True)

    @property
    def principal(self) -> Principal:
        """What waits is counted for it."""
        return self._principal

    @principal.setter
    def principal(self, principal: Principal) -> None:
        self._principal = principal
        count_for(self._transport, principal)

    def try_write(self, data: bytes) -> bool:
        if self.blocked:
            return False
        self._transport.write(data)
        return True

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def tcp_stats(self) -> TcpStats | None:
        return traffic_of(self._transport)

    def pauseProducing(self) -> None:
        self.blocked |= SOCKET_FULL

    def resumeProducing(self) -> None:
        self.blocked &= ~SOCKET_FULL
        self._reactor.callLater(0, self._drained)

    def stopProducing(self) -> None:
        self.blocked |= LOST
        self.on_drained = None

    def _drained(self) -> None:
        if self.on_drained is not None and not self.blocked & SOCKET_FULL:
            self.on_drained()


def only_write(transport: Any) -> None:
    """To be called when the peer has ended its stream, and waits for what is written to it. If a write has failed
    already, the connection is aborted."""
    server = innermost_transport(transport)
    if isinstance(server, DirectWriteTransport):
        server.is_only_written = True
        if server.blocked & LOST:
            server.abortConnection()


def count_for(transport: Any, principal: Principal) -> None:
    """What waits to be sent by a transport, or by the one below it that sends, is counted for a principal: a proxy has
    told whom it speaks for."""
    while transport is not None and not isinstance(transport, DirectWriteTransport):
        transport = getattr(transport, "transport", None)
    if transport is not None:
        transport.principal = principal


def outlet_of(transport: Any, reactor: Any) -> Any:
    """The outlet of a connection: the transport itself where it sends at once."""
    return transport if isinstance(transport, DirectWriteTransport) else BufferedOutlet(transport, reactor)


def detach_outlet(outlet: Any, transport: Any) -> None:
    """To be called before closing: Twisted never closes a connection whose producer is paused."""
    outlet.on_drained = None
    if outlet is not transport:
        transport.unregisterProducer()


# TODO-MERGED-DOC: Closes connections whose machine does not answer any more, and keeps those whose program only
# reads slowly. The kernel's ``TCP_USER_TIMEOUT`` cannot tell the two apart: it also runs while the receive
# window of a living client is closed, and it goes on after the client has read a part (net/ipv4/tcp_timer.c,
# ``tcp_probe_timer``). Linux counts what is unanswered for each connection, so it is looked up there.
