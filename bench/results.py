"""The results: JSON lines in a file, compared across rounds."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from twistedsock.bench.measurement import BUSY


class Range(NamedTuple):
    """Median of several rounds."""

    median: float
    least: float
    most: float


@dataclass
class Record:
    """One measurement, or ``error`` with the reason why it failed."""

    workload: str
    server: str
    round: int
    figures: Mapping[str, float | str] = field(default_factory=dict)
    error: str = ""


@dataclass
class Results:
    """``about`` describes the machine, the servers and the run."""

    about: Mapping[str, object]
    records: list[Record] = field(default_factory=list)

    def by_round(self, workload: str, server: str, figure: str) -> dict[int, float]:
        """A figure in each round that has it."""
        return {
            record.round: float(record.figures[figure])
            for record in self.records
            if (record.workload, record.server) == (workload, server) and figure in record.figures
        }

    def range(self, workload: str, server: str, figure: str) -> Range | None:
        return _range(self.by_round(workload, server, figure).values())

    def ratio(self, workload: str, one: str, other: str, figure: str) -> Range | None:
        """One server's figure divided by the other's, within each round."""
        ones, others = self.by_round(workload, one, figure), self.by_round(workload, other, figure)
        return _range(ones[number] / others[number] for number in ones if others.get(number))

    def is_bound(self, workload: str, *servers: str) -> bool:
        """Whether the generator was the bottleneck with one of the servers: busy for BUSY of the time."""
        found = [self.range(workload, server, "busy") for server in servers]
        return any(busy is not None and busy.median >= BUSY for busy in found)

    def words(self, workload: str, server: str, figure: str) -> str:
        """A figure that is text, from the last round that has it. Empty if no round has it."""
        found = [
            str(record.figures[figure])
            for record in self.records
            if (record.workload, record.server) == (workload, server) and figure in record.figures
        ]
        return found[-1] if found else ""

    def errors(self) -> list[Record]:
        return [record for record in self.records if record.error]

    def has(self, workload: str) -> bool:
        return any(record.workload == workload for record in self.records)

    def servers(self) -> list[str]:
        """All measured workloads, in order."""
        return list(dict.fromkeys(record.server for record in self.records))

    def write(self, file: Path) -> None:
        """A description of the run, then one line for each measurement."""
        lines = [json.dumps(self.about), *(json.dumps(asdict(record)) for record in self.records)]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n")


def read(file: Path) -> Results:
    """Reads the file that ``write`` has written."""
    about, *records = map(json.loads, file.read_text().splitlines())
    return Results(about, [Record(**record) for record in records])


def _range(values: Iterable[float]) -> Range | None:
    found = list(values)
    return Range(median(found), min(found), max(found)) if found else None
