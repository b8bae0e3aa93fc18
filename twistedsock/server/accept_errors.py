"""What a listening port does while the system has no file, or no memory, for another connection.

Twisted keeps one file in reserve: it gives it up, takes the connections that wait with it, closes each at once, and
takes the reserve back. That is logged with three lines for each connection, so that whoever connects in vain fills the
disk. And where the reserve does not help, the port is ready to be read again at once, as its connections still wait:
the processor would do nothing else.
"""

from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

REST = 1.0
"""Seconds without a look at those who wait, where one could not even be taken to be closed."""

SILENCE = 60.0
"""Seconds between two lines of the log that say the same."""

_HOPELESS = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


def install_accept_backoff(port: Any, reactor: Any) -> None:
    """Let a listening port of Twisted's tell of a shortage once, and rest in it. The log is the only place where it
    says what it met, so that is where we stand."""
    usual = getattr(port, "_logger", None)
    if isinstance(usual, Logger):
        port._logger = Logger(usual.namespace, observer=AcceptErrorLog(port, reactor))


@implementer(ILogObserver)
class AcceptErrorLog:
    """In place of the log, for what a port says while it accepts."""

    _log = Logger()

    def __init__(self, port: Any, reactor: Any) -> None:
        self._port = port
        self._reactor = reactor
        self._silent_until = float("-inf")
        self._closed = 0

    def __call__(self, event: LogEvent) -> None:
        if event.get("acceptError") in _HOPELESS:
            self._rest()
        elif "address" in event:
            self._closed += 1
        else:
            return  # the reserve given up and taken back, or a peer that left before it was accepted
        now = self._reactor.seconds()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE
            self._log.warn(
                "no file is left for new connections (ulimit -n): they are closed at once, {closed} since this was "
                "last said; those that are there go on",
                closed=self._closed,
            )
            self._closed = 0

    def _rest(self) -> None:
        self._port.stopReading()
        self._reactor.callLater(REST, self._go_on)

    def _go_on(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()
