"""What becomes of a log that cannot be written, as on a full disk."""

import sys

from twisted.logger import FileLogObserver, ILogObserver, LogEvent
from zope.interface import implementer


@implementer(ILogObserver)
class UnwrittenLog:
    """Says once, on the stderr that the process was started with, that the log cannot be written. What cannot be
    written is dropped by Twisted, and nobody else would be told: it tells the other observers only, and there are none.
    It tries again with each line, so the log goes on once there is room."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, event: LogEvent) -> None:
        if self._told or not isinstance(event.get("observer"), FileLogObserver):
            return
        self._told = True
        try:
            print(
                f"sockbridge: the log cannot be written: {event['log_failure'].value}", file=sys.__stderr__, flush=True
            )
        except (OSError, ValueError):
            pass  # stderr may be the same full disk, or closed
