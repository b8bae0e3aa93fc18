"""How fast a peer may go: two token buckets, and two more for what it is refused, so that who does not slow down is
known from who was only a little too fast.

A bucket holds ``burst`` tokens at most and gets ``rate`` of them a second (the algorithm is described in RFC 2697
section 3, there with bytes). Something is let through while the level is above zero, and is paid afterwards: so a whole
batch passes together, and the debt is at most what one read can bring.
"""

from enum import Enum
from math import inf

from twistedsock.core.limits import Limits


class Verdict(Enum):
    """What becomes of a command."""

    RUN = "run"
    REFUSE = "refuse"
    CLOSE = "close"


class Bucket:
    """``rate`` is tokens a second; 0 is without bound. It begins full. Time is told by the caller, in seconds; a clock
    that goes back costs the peer nothing and gives it nothing."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = burst if rate else inf
        self._at = now

    def fill(self, now: float) -> None:
        """Time has passed."""
        self._level = min(self._burst, self._level + self._rate * max(0.0, now - self._at))
        self._at = now

    def take(self, cost: int) -> bool:
        """Pay, if there is anything left; whether there was."""
        if self._level <= 0:
            return False
        self._level -= cost
        return True


class Meter:
    """One peer's. Bytes are counted as they are read, whatever they turn out to be; commands when they are to be run.
    What came with bytes that were too many is refused like commands that were too many."""

    __slots__ = ("_bytes", "_commands", "_excess_bytes", "_excess_commands", "_verdict")

    def __init__(self, limits: Limits, now: float) -> None:
        self._bytes, self._excess_bytes = (Bucket(limits.bytes_per_second, limits.bytes_burst, now) for _ in range(2))
        self._commands, self._excess_commands = (
            Bucket(limits.commands_per_second, limits.commands_burst, now) for _ in range(2)
        )
        self._verdict = Verdict.RUN

    def read(self, size: int, now: float) -> Verdict:
        """So many bytes were read; what becomes of what they say. To be called once for each read, before that is
        judged."""
        for bucket in (self._bytes, self._excess_bytes, self._commands, self._excess_commands):
            bucket.fill(now)
        if self._bytes.take(size):
            self._verdict = Verdict.RUN
        else:
            self._verdict = Verdict.REFUSE if self._excess_bytes.take(size) else Verdict.CLOSE
        return self._verdict

    def judge(self, cost: int) -> Verdict:
        """What becomes of a command that is to be run: ``cost`` is 1, or how many publishes it is."""
        if self._verdict is Verdict.RUN and self._commands.take(cost):
            return Verdict.RUN
        if self._verdict is not Verdict.CLOSE and self._excess_commands.take(cost):
            return Verdict.REFUSE
        return Verdict.CLOSE


def meter_of(limits: Limits, now: float) -> Meter | None:
    """A stranger's meter; None where nothing is bounded."""
    return Meter(limits, now) if limits.commands_per_second or limits.bytes_per_second else None
