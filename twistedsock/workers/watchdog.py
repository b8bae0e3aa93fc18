"""Notices a process whose reactor does not run although the process has not ended: it hangs, or has been stopped.

Each process that the supervisor starts writes ``ALIVE`` regularly, from its reactor. The supervisor counts the checks
between which nothing arrived. It does not measure time: a supervisor that was stopped itself, or a machine that was
asleep, misses one check and not many.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall

ALIVE = b"alive"
"""The line that a process writes while its reactor runs."""

CHECKS = 6
"""Checks in which nothing arrives until a process is given up. After half of them, a warning is logged."""


def report_life(write_line: Callable[[bytes], object], timeout: float, reactor: Any) -> None:
    """Write ``ALIVE`` for each check of the supervisor, ``timeout`` / ``CHECKS`` seconds apart. 0: never."""
    if timeout:
        loop = LoopingCall(write_line, ALIVE)
        loop.clock = reactor
        loop.start(timeout / CHECKS)


class Watchdog:
    """Watches one process from now on. Call ``received`` at each sign of life. ``warn`` is called once in each silence
    that lasts half of ``timeout`` seconds, and ``give_up`` at the end of one. 0: the process is not watched."""

    def __init__(self, timeout: float, reactor: Any, warn: Callable[[], object], give_up: Callable[[], object]) -> None:
        self._warn = warn
        self._give_up = give_up
        self._silent_checks = 0
        self._loop = LoopingCall(self._check)
        self._loop.clock = reactor
        if timeout:
            self._loop.start(timeout / CHECKS, now=False)

    def received(self) -> None:
        """The process has written ``ALIVE``."""
        self._silent_checks = -1  # the next check ends an interval that was not silent

    def stop(self) -> None:
        """The process has ended, or has received a signal to end."""
        if self._loop.running:
            self._loop.stop()

    def _check(self) -> None:
        self._silent_checks += 1
        if self._silent_checks == CHECKS // 2:
            self._warn()
        elif self._silent_checks == CHECKS:
            self.stop()
            self._give_up()
