"""How fast a peer may go: two token buckets, and two more for what it is refused, so that who does not slow down is
known from who was only a little too fast.

A bucket holds ``burst`` tokens at most and gets ``rate`` of them a second (the algorithm is described in RFC 2697
section 3, there with bytes). Something is let through while the level is above zero, and is paid afterwards: so a whole
batch passes together, and the debt is at most what one read can bring.
"""

from collections import OrderedDict
from enum import Enum
from itertools import islice
from math import ceil, inf

from twistedsock.core.limits import Limits
from twistedsock.core.principal import LOCAL, Principal, address_principal


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

    @property
    def is_full(self) -> bool:
        """Whether nothing has been taken that has not come back."""
        return self._level >= self._burst

    @property
    def wait(self) -> float:
        """Seconds until something is left again."""
        return max(0.0, -self._level / self._rate) if self._rate else 0.0

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
        self.fill(now)
        if self._bytes.take(size):
            self._verdict = Verdict.RUN
        else:
            self._verdict = Verdict.REFUSE if self._excess_bytes.take(size) else Verdict.CLOSE
        return self._verdict

    def fill(self, now: float) -> None:
        """Time has passed, and nothing was read."""
        for bucket in self._buckets:
            bucket.fill(now)

    def judge(self, cost: int, read: Verdict | None = None) -> Verdict:
        """What becomes of a command that is to be run: ``cost`` is 1, or how many publishes it is. ``read`` is what
        became of the bytes that it came with, where others have been read since."""
        read = read or self._verdict
        if read is Verdict.RUN and self._commands.take(cost):
            return Verdict.RUN
        if read is not Verdict.CLOSE and self._excess_commands.take(cost):
            return Verdict.REFUSE
        return Verdict.CLOSE

    @property
    def _buckets(self) -> tuple[Bucket, ...]:
        return (self._bytes, self._excess_bytes, self._commands, self._excess_commands)

    @property
    def wait(self) -> int:
        """Whole seconds after which something is likely to be let through again, 1 at least."""
        return max(1, ceil(self._bytes.wait), ceil(self._commands.wait))

    def has_recovered(self, now: float) -> bool:
        """Whether it is as good as a new one."""
        self.fill(now)
        return all(bucket.is_full for bucket in self._buckets)


def meter_of(limits: Limits, now: float) -> Meter | None:
    """A stranger's meter; None where nothing is bounded."""
    return Meter(limits, now) if limits.commands_per_second or limits.bytes_per_second else None


MOST_METERS = 10_000
"""Addresses whose meters are remembered, about 1 KiB each: more strangers than ask within the seconds in which a meter
recovers."""

LOOKED_AT = 16
"""Meters that are looked at for one that has recovered, where there is no room for another."""


class Meters:
    """Those of strangers who come and go with each thing that they ask for: all that come from one address have one
    meter. Where there is no room for another, one that has recovered goes first, as it would be made anew all the same;
    if none has, the one that was asked for longest ago."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._meters: OrderedDict[Principal, Meter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._meters)

    def of(self, address: str, now: float) -> Meter | None:
        """The meter of a literal address; None for who may go as fast as it can."""
        source = address_principal(address)
        meter = self._meters.get(source)
        if meter is not None:
            self._meters.move_to_end(source)
        elif source != LOCAL and (meter := meter_of(self._limits, now)) is not None:
            if len(self._meters) >= MOST_METERS:
                self._make_room(now)
            self._meters[source] = meter
        return meter

    def _make_room(self, now: float) -> None:
        oldest = list(islice(self._meters.items(), LOOKED_AT))
        recovered = (source for source, meter in oldest if meter.has_recovered(now))
        del self._meters[next(recovered, oldest[0][0])]
