"""Run the parts of `make test` or `make check` side by side and report them in one table.

Each lane runs its parts one after the other; the lanes run at the same time, because most tests wait for sockets more
than they compute. A line of output is shown when it is written, with the name of its part before it. The dots of pytest
are replaced by a line for each quarter of a part, and the lines of Node about tests that pass are left out.
"""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Lane = Sequence[str]
"""Targets of the Makefile that run one after the other."""

LANES: dict[str, list[Lane]] = {
    "check": [["style", "types", "layers", "unit-rest"], ["unit-pure"]],
    "test": [["style", "types", "layers", "docs", "rest", "javascript"], ["coverage", "wstest", "web"], ["pythons"]],
}
ALONE: dict[str, Lane] = {"check": [], "test": ["dist"]}
"""Targets that run when all lanes have ended: a build writes into the checkout."""

_DOTS = re.compile(r"^[.sFExX]+ *\[ *(\d+)%\]$")
_COUNTS = re.compile(r"\b(\d+) (passed|failed|errors?)\b|^ℹ (pass|fail) (\d+)$|^All (\d+) cases")


@dataclass
class Part:
    """One target of the Makefile, and what is known of its run."""

    target: str
    status: int | None = None
    seconds: float = 0.0
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    shown: int = 0
    """The quarter of the tests that was last reported."""

    def read(self, line: str) -> str | None:
        """Count the tests that a line of output reports. Returns what to show, or None for pytest's progress."""
        if dots := _DOTS.match(line):
            quarter = int(dots[1]) // 25
            if quarter <= self.shown or quarter == 4:
                return None
            self.shown = quarter
            return f"{25 * quarter} %"
        if line.lstrip().startswith("✔"):
            return None  # Node lists each test that passes
        if line.startswith(("FAILED ", "ERROR ")):
            self.failures.append(line.split()[1])
        for count, outcome, node_outcome, node_count, cases in _COUNTS.findall(line):
            if outcome == "passed" or node_outcome == "pass" or cases:
                self.passed += int(count or node_count or cases)
        return line


class Runner:
    """``make`` is the name of the program; ``write`` shows one line."""

    def __init__(self, make: str, write: Callable[[str], object]) -> None:
        self._make = make
        self._write = write
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []

    def run(self, lanes: Sequence[Lane], alone: Lane = ()) -> list[Part]:
        """Run all lanes at the same time, then the targets that have to run alone. A part that fails stops nothing."""
        lanes_of_parts = [[Part(target) for target in lane] for lane in lanes]
        threads = [threading.Thread(target=self._run_lane, args=(lane,), daemon=True) for lane in lanes_of_parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = [Part(target) for target in alone]
        self._run_lane(last)
        return [part for lane in [*lanes_of_parts, last] for part in lane]

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()

    def _run_lane(self, parts: Sequence[Part]) -> None:
        for part in parts:
            started = time.monotonic()
            command = [self._make, "--no-print-directory", part.target]
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process:
                self._processes.append(process)
                assert process.stdout is not None
                for line in process.stdout:
                    shown = part.read(line.rstrip("\n"))
                    if shown is not None:
                        self._show(part, shown)
                part.status = process.wait()
            part.seconds = time.monotonic() - started
            result = "passed" if part.status == 0 else "FAILED"
            self._show(part, f"{result} after {duration(part.seconds)}")

    def _show(self, part: Part, line: str) -> None:
        with self._lock:
            self._write(f"{part.target:>10} | {line}")


def duration(seconds: float) -> str:
    """In minutes and seconds, as people write it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:2} s" if minutes else f"{rest} s"


def table(parts: Sequence[Part], seconds: float) -> str:
    """One row a part: result, tests passed, time, names of failed tests."""
    rows = [("part", "result", "tests passed", "time", "failed")]
    for part in parts:
        result = "passed" if part.status == 0 else f"FAILED ({part.status})"
        count = f"{part.passed:,}" if part.passed else "-"
        rows.append((part.target, result, count, duration(part.seconds), f"{len(part.failures) or '-'}"))
    total = sum(part.passed for part in parts)
    failed = sum(len(part.failures) for part in parts)
    rows.append(("all", "", f"{total:,}", duration(seconds), f"{failed or '-'}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    names = [f"  {part.target}: {name}" for part in parts for name in part.failures]
    return "\n".join(["", *lines, *(["", "Failed:", *names] if names else []), ""])


def show(line: str) -> None:
    print(line, flush=True)


def main(make: str, name: str) -> int:
    """Run the lanes of ``name``; returns the exit status of the program."""
    runner = Runner(make, show)

    def stop(*event: object) -> None:
        runner.stop()
        sys.exit(1)

    signal.signal(signal.SIGTERM, stop)
    started = time.monotonic()
    parts = runner.run(LANES[name], ALONE[name])
    show(table(parts, time.monotonic() - started))
    return int(any(part.status != 0 for part in parts))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
