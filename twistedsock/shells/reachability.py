"""Closes connections whose machine does not answer any more, and keeps those whose program only reads slowly.

The kernel's ``TCP_USER_TIMEOUT`` cannot tell the two apart: it also runs while the receive window of a living client
is closed, and it goes on after the client has read a part (net/ipv4/tcp_timer.c, ``tcp_probe_timer``). Linux counts
what is unanswered for each connection, so it is looked up there.
"""

from collections.abc import Callable
from typing import Any

from twistedsock.shells.sockets import seconds_unanswered

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
