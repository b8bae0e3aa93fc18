"""What a process costs: its CPU time and its memory, as Linux accounts for them."""

import re
import time
from collections.abc import Iterable
from pathlib import Path

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
