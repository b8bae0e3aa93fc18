"""Connections that have not sent anything yet: they are accepted and read a few at a time.

When a server restarts, thousands of clients connect and send their first request at once. A reactor handles all sockets
that are ready before it polls again, so a client that is connected already would wait until all of these requests
are handled. Therefore new connections are polled by an epoll instance of their own, which is one descriptor for the
reactor (epoll(7): an epoll descriptor is readable if it has events). The rate of connects does not fall, because the
next ones follow in the next turn.
"""

import select
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

CONNECTIONS_PER_TURN = 50
"""Connections whose first input is read in one turn: 2 to 3 milliseconds of work for WebSocket handshakes, and up to 50
for TLS handshakes."""


ACCEPTS_PER_TURN = 200
"""Connections that a port accepts in one turn: 4 to 9 milliseconds of work, because lines are welcomed at once. The
rest waits in the kernel, which keeps up to ``listeners.BACKLOG`` of them."""


def limit_accepts(port: Any) -> None:
    """Let a listening port of Twisted's accept ``ACCEPTS_PER_TURN`` connections at most. Twisted's own limit grows by
    20 with each turn that reaches it. Other ports are left unchanged."""
    if not hasattr(port, "numberAccepts"):
        return
    accept = port.doRead

    def accept_some() -> None:
        port.numberAccepts = min(port.numberAccepts, ACCEPTS_PER_TURN)
        accept()

    port.doRead = accept_some


@implementer(IReadDescriptor)
class NewConnections:
    """``poll`` is an epoll object."""

    def __init__(self, reactor: Any, poll: Any) -> None:
        self._reactor = reactor
        self._poll = poll
        # By file descriptor. Their number is limited as that of connections.
        self._waiting: dict[int, Any] = {}

    def start(self) -> None:
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Read all that wait from now on. No connection can be added any more."""
        self._reactor.removeReader(self)
        self._admit(list(self._waiting))
        self._poll.close()

    def add(self, transport: Any) -> None:
        """Let a transport of Twisted's start reading when it has input, and its turn has come."""
        descriptor = transport.fileno()
        self._poll.register(descriptor, select.EPOLLIN)
        self._waiting[descriptor] = transport

    def remove(self, transport: Any) -> None:
        """The transport does not read. It may have been admitted already."""
        descriptor = transport.fileno()
        if self._waiting.get(descriptor) is transport:
            del self._waiting[descriptor]
            self._poll.unregister(descriptor)

    def _admit(self, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            self._poll.unregister(descriptor)
            self._waiting.pop(descriptor).startReading()

    # Called by the reactor.

    def fileno(self) -> int:
        number: int = self._poll.fileno()
        return number

    def logPrefix(self) -> str:
        return "new connections"

    def doRead(self) -> None:
        self._admit([descriptor for descriptor, _ in self._poll.poll(0, CONNECTIONS_PER_TURN)])

    def connectionLost(self, reason: Any) -> None:
        """The reactor ends."""


def new_connections(reactor: Any) -> NewConnections | None:
    """None on platforms without epoll: there, new connections are read at once."""
    return NewConnections(reactor, select.epoll()) if hasattr(select, "epoll") else None
