"""Reactors: ``twistd --reactor=sockbridge``, and a clock that does not go backwards.

The reactor is Twisted's epoll reactor, without the work for the old log around each event. Twisted's own puts the name
of the connection into the log's context before it reads or writes, for messages that are logged meanwhile with
``twisted.python.log``, and removes it afterwards (https://github.com/twisted/twisted/issues/2534). If a packet holds
one small line, that is about a sixth of the total cost of the event.

Checked with Twisted 26.10. ``tests/server/test_internals.py`` fails if a later version lacks one of the names in
``REACTOR_INTERNALS``.
"""

import time
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

REACTOR_INTERNALS = ("_doReadOrWrite", "_poller", "_selectables")


class UnprefixedEPollReactor(EPollReactor):
    """As its base, but messages in the old log do not name the connection whose event was handled."""

    _poller: Any
    _selectables: dict[int, Any]

    def doPoll(self, timeout: float | None) -> None:
        """Wait up to ``timeout`` seconds, or without limit if that is None, and handle the events."""
        # A signal does not end this early (PEP 475). It writes to a pipe that is polled too.
        for descriptor, event in self._poller.poll(timeout, len(self._selectables)):
            selectable = self._selectables.get(descriptor)
            if selectable is None:
                continue  # closed by an event before this one
            try:
                self._doReadOrWrite(selectable, descriptor, event)
            except Exception:
                # Exceptions while reading or writing are logged and disconnect below; this one came from disconnecting.
                log.err()

    doIteration = doPoll


def install() -> None:
    """Install it as the reactor of this process. Raises ReactorAlreadyInstalledError if there is one."""
    installReactor(UnprefixedEPollReactor())


def use_monotonic_clock(reactor: Any) -> None:
    """Let a reactor use the monotonic clock. Must be called before anything is scheduled.

    Twisted uses the wall clock. When it is set back by an hour, every ping, sweep and timeout waits for an hour; when
    it is set forward, all of them run at once, and clients are disconnected without a reason. Everything that runs on a
    reactor reads the same public attribute: ``callLater`` and ``LoopingCall``, Autobahn's timers (through txaio), and
    the timeouts of twisted.web. Log messages keep the time of day."""
    reactor.seconds = time.monotonic
