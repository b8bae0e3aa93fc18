"""The time that timers go by."""

import time
from typing import Any


def go_by_steady_clock(reactor: Any) -> None:
    """Let a reactor count the seconds since some moment of its own, to be called before anything is scheduled.

    Twisted's own clock is that of the wall. When somebody sets it back by an hour, every ping, sweep and deadline waits
    for an hour; set forward, all of them come at once, and peers are dropped that have done nothing. Everything that
    runs on a reactor asks the same attribute: ``callLater`` and ``LoopingCall``, Autobahn's timers by way of txaio, and
    the timeouts of twisted.web. The log has a clock of its own and goes on telling the time of day."""
    reactor.seconds = time.monotonic
