"""Listening ports while the system has no file descriptor, or no memory, for another connection.

Twisted keeps one file descriptor in reserve. It gives it up, accepts the waiting connections with it, closes each at
once, and takes the reserve back. It logs three lines for each connection, so that clients could fill the disk by
connecting repeatedly. And if the reserve does not help, the port is ready to be read again at once, because the
connections still wait: the process would do nothing else."""

from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

from twistedsock.server.twisted_internals import redirect_log

ACCEPT_PAUSE_SECONDS = 1.0
"""Time without accepting, if not even a connection to be closed could be accepted."""

LOG_INTERVAL_SECONDS = 60.0
"""Time between two warnings of one port."""

_OUT_OF_RESOURCES = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM")


def install_accept_backoff(port: Any, reactor: Any) -> None:
    """Let a listening port of Twisted's log a shortage once, and pause during it. Twisted reports the errors of accept
    to the port's log only, so the log is replaced."""
    redirect_log(port, AcceptErrorLog(port, reactor))


@implementer(ILogObserver)
class AcceptErrorLog:
    """Receives what a port logs while it accepts."""

    _log = Logger()

    def __init__(self, port: Any, reactor: Any) -> None:
        self._port = port
        self._reactor = reactor
        self._silent_until = float("-inf")
        self._closed = 0

    def __call__(self, event: LogEvent) -> None:
        if event.get("acceptError") in _OUT_OF_RESOURCES:
            self._pause()
        elif "address" in event:
            self._closed += 1
        else:
            return  # the reserve was given up or taken back, or a client left before it was accepted
        now = self._reactor.seconds()
        if now >= self._silent_until:
            self._silent_until = now + LOG_INTERVAL_SECONDS
            self._log.warn(
                "out of file descriptors (see ulimit -n): closed {closed} new connections since the last message; "
                "existing connections are unaffected",
                closed=self._closed,
            )
            self._closed = 0

    def _pause(self) -> None:
        self._port.stopReading()
        self._reactor.callLater(ACCEPT_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()
