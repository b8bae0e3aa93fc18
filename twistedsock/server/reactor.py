"""Twisted's epoll reactor, without what it does around each event for the old log: ``twistd --reactor=sockbridge``.

Twisted's own puts the name of the connection into the log's context before it reads or writes, for whoever logs below
with ``twisted.python.log``, and takes it out again (https://github.com/twisted/twisted/issues/2534). Where a packet
holds one small line, that is about a sixth of all that the event costs.
"""

import time
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log


class UnprefixedEPollReactor(EPollReactor):
    """As its base, but messages in the old log do not say during whose event they came."""

    _poller: Any
    _selectables: dict[int, Any]

    def doPoll(self, timeout: float | None) -> None:
        """Wait up to ``timeout`` seconds, for ever with None, and let what is ready be read and written."""
        # A signal does not end this early (PEP 475); it writes to a pipe that is polled too.
        for descriptor, event in self._poller.poll(timeout, len(self._selectables)):
            selectable = self._selectables.get(descriptor)
            if selectable is None:
                continue  # an event before this one has ended it
            try:
                self._doReadOrWrite(selectable, descriptor, event)
            except Exception:
                # What fails while it reads or writes is logged and disconnected below; this failed to be disconnected.
                log.err()

    doIteration = doPoll


def install() -> None:
    """Make it the reactor of this process. Raises ReactorAlreadyInstalledError when there is one."""
    installReactor(UnprefixedEPollReactor())


def go_by_steady_clock(reactor: Any) -> None:
    """Let a reactor count the seconds since some moment of its own, to be called before anything is scheduled.

    Twisted's own clock is that of the wall. When somebody sets it back by an hour, every ping, sweep and deadline waits
    for an hour; set forward, all of them come at once, and peers are dropped that have done nothing. Everything that
    runs on a reactor asks the same attribute: ``callLater`` and ``LoopingCall``, Autobahn's timers by way of txaio, and
    the timeouts of twisted.web. The log has a clock of its own and goes on telling the time of day."""
    reactor.seconds = time.monotonic


# TODO-MERGED-DOC: The time that timers go by.
