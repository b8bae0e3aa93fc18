"""A measurement: a load, the CPU time and memory of the server processes, and a line that shows the progress."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Protocol, TextIO

from twistedsock.bench.generator import Load, LoadResult, OnProgress

_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED of Linux: the CPU time of all threads of a process."""


def _clock(pid: int) -> int:
    """Return the id of the CPU clock of another process, as clock_getcpuclockid(3) does on Linux."""
    return (~pid << 3) | _PROCESS_CLOCK


class ProcessUsage:
    """The processes of one server, as Linux accounts for them."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids = tuple(pids)

    def cpu(self) -> float:
        """Return the CPU time so far in seconds, including that of the kernel."""
        return sum(time.clock_gettime_ns(_clock(pid)) for pid in self.pids) / 1e9

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return sum(_resident(pid) for pid in self.pids)


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def family(pid: int) -> tuple[int, ...]:
    """Return a process and all its descendants."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the process has ended
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return tuple(found)


BUSY = 0.9
"""The fraction of time from which the generator counts as the bottleneck."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

MIN_TRIAL_SECONDS = 0.15
"""The duration of a trial that predicts the duration of a load. Shorter ones measure the start of the connections."""

MAX_BYTES = 128 * 1024 * 1024
"""The most bytes of payload in a load, which are created before it starts and stored several times."""

MAX_EVENTS = 1_000_000
"""The most events in a load. Creating them takes a second or two."""


class ScenarioConnections(Protocol):
    """Connections that can run several loads."""

    def load(self, name: str, events: int, on_progress: OnProgress = lambda part: None) -> Load:
        """Return a load of ``events`` per publisher. ``name`` must be new to the server."""


class Scenario(Protocol):
    """A number of publishers, channels and subscribers."""

    def opened(self) -> AbstractContextManager[ScenarioConnections]:
        """Connect, and disconnect at the end."""


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return a percentile of ordered values by the nearest-rank method."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


@dataclass
class Measurement:
    """The result of a load. ``cpu`` is the CPU time of the server in seconds, or None if it is unknown. ``latencies``
    are percentiles in seconds, and empty without a fixed rate."""

    deliveries: int
    seconds: float
    busy: float
    cpu: float | None = None
    latencies: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, outcome: LoadResult, cpu: float | None) -> "Measurement":
        ordered = sorted(outcome.latencies)
        found = {name: percentile(ordered, part) for name, part in PERCENTILES.items()} if ordered else {}
        return cls(outcome.deliveries, outcome.seconds, outcome.busy, cpu, found)

    @property
    def rate(self) -> float:
        """Deliveries per second."""
        return self.deliveries / self.seconds

    @property
    def cost(self) -> float | None:
        """CPU time of the server per delivery, in seconds."""
        return None if self.cpu is None else self.cpu / self.deliveries

    @property
    def load(self) -> float:
        """The fraction of time in which the generator was busy."""
        return self.busy / self.seconds


def measure(load: Load, usage: ProcessUsage | None, rate: float | None = None) -> Measurement:
    """Run a load, and read the CPU time of the server before and after it."""
    before = usage.cpu() if usage else 0.0
    outcome = load.run(rate)
    return Measurement.of(outcome, usage.cpu() - before if usage else None)


def enough(
    crowd: ScenarioConnections,
    name: Callable[[], str],
    seconds: float,
    few: int,
    most: int,
    on_progress: OnProgress = lambda part: None,
) -> int:
    """Return how many events per publisher, at most ``most``, take about ``seconds``. Tries ``few`` first, and then
    more, until a trial is long enough for a prediction."""
    events = min(few, most)
    while True:
        elapsed = crowd.load(name(), events, on_progress).run().seconds
        if elapsed >= min(MIN_TRIAL_SECONDS, seconds) or events == most:
            return max(1, min(most, int(events * seconds / elapsed)))
        events = min(most, max(2 * events, min(20 * events, int(events * 2 * MIN_TRIAL_SECONDS / elapsed))))


REFRESH_SECONDS = 0.25
"""Seconds between two updates of the line."""

WIDTH = 100
"""The most columns, so that the line does not wrap."""


def duration(seconds: float) -> str:
    """Return a duration for people: 40 s, 12 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Progress:
    """A line that shows the current step and the remaining time. ``plan`` has the expected seconds of each step; the
    duration of finished steps corrects it. A terminal shows one line, and other outputs a line for each step."""

    def __init__(self, out: TextIO, clock: Callable[[], float], plan: Sequence[float]) -> None:
        self._out = out
        self._clock = clock
        self._plan = plan
        self._terminal = out.isatty()
        self._start = self._written = clock()
        self._step = 0
        self._title = ""

    def start_step(self, title: str) -> None:
        """Start the next step."""
        self._step += 1
        self._title = title
        self._write(0.0)

    def update(self, part: float) -> None:
        """Show the fraction of the step that is done. Can be called very often."""
        if self._terminal and (now := self._clock()) > self._written + REFRESH_SECONDS:
            self._written = now
            self._write(part)

    def end(self) -> None:
        """Remove the line from the terminal."""
        if self._terminal:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def seconds_left(self) -> float:
        """Return the expected duration of this step and all later ones."""
        behind, ahead = sum(self._plan[: self._step - 1]), sum(self._plan[self._step - 1 :])
        pace = (self._clock() - self._start) / behind if behind else 1.0
        return ahead * pace

    def _write(self, part: float) -> None:
        done = f" {part:.0%}" if part else ""
        line = f"{self._step} of {len(self._plan)}, {duration(self.seconds_left())} left: {self._title}{done}"
        if self._terminal:
            self._out.write(f"\r\x1b[K{line[:WIDTH]}")
        else:
            self._out.write(f"{line}\n")
        self._out.flush()
