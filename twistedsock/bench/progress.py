"""One line that says what is measured, how much of all that is, and how long it will take yet."""

from collections.abc import Callable, Sequence
from typing import TextIO

REFRESHED = 0.25
"""Seconds between two changes of the line."""

WIDTH = 100
"""Columns of the line at most, so that it stays one."""


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Progress:
    """``plan`` holds the seconds that each step is thought to take; what is left is corrected by what the steps so far
    took. On a terminal the line is written over, elsewhere each step has a line, without control characters."""

    def __init__(self, out: TextIO, clock: Callable[[], float], plan: Sequence[float]) -> None:
        self._out = out
        self._clock = clock
        self._plan = plan
        self._terminal = out.isatty()
        self._start = self._written = clock()
        self._step = 0
        self._what = ""

    def begin(self, what: str) -> None:
        """The next step begins."""
        self._step += 1
        self._what = what
        self._write(0.0)

    def told(self, part: float) -> None:
        """This part of the step is done: may be called very often."""
        if self._terminal and (now := self._clock()) > self._written + REFRESHED:
            self._written = now
            self._write(part)

    def end(self) -> None:
        """All is done, or was ended."""
        if self._terminal:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def left(self) -> float:
        """Seconds that the steps after this one, and this one, are thought to take yet."""
        behind, ahead = sum(self._plan[: self._step - 1]), sum(self._plan[self._step - 1 :])
        pace = (self._clock() - self._start) / behind if behind else 1.0
        return ahead * pace

    def _write(self, part: float) -> None:
        done = f" {part:.0%}" if part else ""
        line = f"{self._step} of {len(self._plan)}, {duration(self.left())} left: {self._what}{done}"
        if self._terminal:
            self._out.write(f"\r\x1b[K{line[:WIDTH]}")
        else:
            self._out.write(f"{line}\n")
        self._out.flush()
