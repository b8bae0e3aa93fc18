"""One measurement: a load, what it cost the server, and whether the generator held it back."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Protocol

from twistedsock.bench.generator import Load, Outcome, Told

_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED of Linux: the clock that counts the nanoseconds that all threads of a process ran."""


def _clock(pid: int) -> int:
    """The id of another process's CPU clock, as clock_getcpuclockid(3) gives it on Linux."""
    return (~pid << 3) | _PROCESS_CLOCK


class Usage:
    """Some processes that are one server."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids = tuple(pids)

    def cpu(self) -> float:
        """Seconds of CPU so far, the kernel's part included."""
        return sum(time.clock_gettime_ns(_clock(pid)) for pid in self.pids) / 1e9

    def memory(self) -> int:
        """Resident bytes."""
        return sum(_resident(pid) for pid in self.pids)


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def family(pid: int) -> tuple[int, ...]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return tuple(found)


BUSY = 0.9
"""Part of the time from which the generator's own CPU is taken for what was measured."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

TRIAL = 0.15
"""Seconds of a trial, from which is foretold how long another load takes: beyond what a start costs once."""

MAX_BYTES = 128 * 1024 * 1024
"""Bytes of payload that are made for a load at most, as they are made beforehand and held several times."""

MAX_EVENTS = 1_000_000
"""Events of a load at most, in all: making them takes a second or two."""


class Crowd(Protocol):
    """Connections that are ready for one load after another."""

    def load(self, name: str, events: int, told: Told = lambda part: None) -> Load:
        """A load of so many events of each publisher. ``name`` must be new to the server."""


class Shape(Protocol):
    """Who publishes where, and who reads it."""

    def opened(self) -> AbstractContextManager[Crowd]:
        """Connect; disconnect at the end."""


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest of the ordered values that is not below ``part`` of them: the nearest rank."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)]


@dataclass
class Figures:
    """``cpu`` is the server's, in seconds; None where it could not be read. ``latencies`` are percentiles, in seconds;
    empty where no pace was kept."""

    deliveries: int
    seconds: float
    busy: float
    cpu: float | None = None
    latencies: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, outcome: Outcome, cpu: float | None) -> "Figures":
        ordered = sorted(outcome.latencies)
        found = {name: percentile(ordered, part) for name, part in PERCENTILES.items()} if ordered else {}
        return cls(outcome.deliveries, outcome.seconds, outcome.busy, cpu, found)

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds

    @property
    def cost(self) -> float | None:
        """Seconds of the server's CPU for a delivery."""
        return None if self.cpu is None else self.cpu / self.deliveries

    @property
    def load(self) -> float:
        """What part of the time the generator ran."""
        return self.busy / self.seconds


def measure(load: Load, usage: Usage | None, rate: float | None = None) -> Figures:
    """Run a load, with the server's CPU time read before and after."""
    before = usage.cpu() if usage else 0.0
    outcome = load.run(rate)
    return Figures.of(outcome, usage.cpu() - before if usage else None)


def enough(
    crowd: Crowd, name: Callable[[], str], seconds: float, few: int, most: int, told: Told = lambda part: None
) -> int:
    """How many events of each publisher, at most ``most``, make a load of about so many seconds. Tries with ``few``,
    and with more while that is over too soon to tell."""
    events = min(few, most)
    while True:
        taken = crowd.load(name(), events, told).run().seconds
        if taken >= min(TRIAL, seconds) or events == most:
            return max(1, min(most, int(events * seconds / taken)))
        events = min(most, max(2 * events, min(20 * events, int(events * 2 * TRIAL / taken))))


# TODO-MERGED-DOC: What a process costs: its CPU time and its memory, as Linux accounts for them.
