"""The virtual time of a simulation, its random generator, and the trace of what happened.

Everything in a run happens in one thread, in the order of the virtual time, and every decision comes from one seeded
generator. So the seed repeats a run exactly.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from zlib import crc32

TRACE_STEPS = 4_000
"""Steps that are kept for the report of a failure."""

FIRST_WALL_SECONDS = 1_800_000_000.0


class Violation(AssertionError):
    """A property does not hold. ``channel`` is the channel that it is about, if it is about one."""

    def __init__(self, message: str, channel: str = "") -> None:
        super().__init__(message)
        self.channel = channel


class Trace:
    """The last steps of a run: the actor, the action, the channel, the time. ``digest`` is a checksum of all steps."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, str, str, str]] = deque(maxlen=TRACE_STEPS)
        self.digest = 0
        self.count = 0

    def add(self, time: float, actor: str, action: str, channel: str) -> None:
        self._steps.append((time, actor, action, channel))
        self.digest = crc32(f"{time:.6f} {actor} {action} {channel}".encode(), self.digest)
        self.count += 1

    def lines(self, channel: str = "", most: int = 60) -> Iterator[str]:
        """The last ``most`` steps, as text. With ``channel``, steps on other channels are left out."""
        steps = [step for step in self._steps if not channel or step[3] in (channel, "")]
        for time, actor, action, name in steps[-most:]:
            minutes, seconds = divmod(time, 60)
            yield f"{int(minutes):4d}:{seconds:09.6f}  {actor:<12} {name or '-':<3} {action}"


class World:
    """``now`` is the virtual time in seconds since the start. ``has_faults`` is True until the end of the run, when all
    faults stop."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.wall_offset = 0.0
        """Seconds by which the wall clock is wrong."""
        self.has_faults = True
        self.trace = Trace()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._serials = count(1)

    def serial(self) -> int:
        """A number that has not been used in this run."""
        return next(self._serials)

    def wall(self) -> float:
        """Seconds since 1970. Unlike ``now``, they can go back."""
        return FIRST_WALL_SECONDS + self.now + self.wall_offset

    def note(self, actor: str, action: str, channel: str = "") -> None:
        self.trace.add(self.now, actor, action, channel)

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call ``call`` at ``time``. Calls for the same time are made in the order in which they were scheduled."""
        heapq.heappush(self._calls, (time, next(self._numbers), call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + seconds, call)

    def delay(self, mean: float) -> float:
        """A random delay in seconds: mostly short, sometimes several times the mean."""
        return self.random.expovariate(1 / mean)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def fault(self, probability: float) -> bool:
        """Whether a fault with this probability happens now."""
        return self.has_faults and self.random.random() < probability

    def run_until(self, time: float) -> None:
        """Make all calls that are due until then."""
        while self._calls and self._calls[0][0] <= time:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = time
