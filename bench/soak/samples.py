"""Measurements of each second, and the file that stores them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """``at`` is seconds since the start, memory is bytes, ``cpu`` is the part of a processor since the last sample.
    ``resident`` counts all pages, ``anonymous`` those without a file: memory that the process has requested.
    Connections and channels are counted by the load."""

    at: float
    resident: int
    anonymous: int
    cpu: float
    files: int
    connections: int
    channels: int
    events: float
    deliveries: float
    visits: float
    busy: float


def memory(pid: int) -> tuple[int, int]:
    """Resident and anonymous bytes, from /proc/PID/smaps_rollup (proc(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return sizes["Rss"], sizes["Anonymous"]


def open_files(pid: int) -> int:
    """The number of open file descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def write(file: Path, about: dict[str, object], samples: Sequence[Sample]) -> None:
    """A description of the run, and one line for each sample."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [about, *map(asdict, samples)]
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def read(file: Path) -> tuple[dict[str, object], list[Sample]]:
    """Reads the file that ``write`` wrote."""
    about, *lines = file.read_bytes().splitlines()
    return msgspec.json.decode(about), [msgspec.json.decode(line, type=Sample) for line in lines]
