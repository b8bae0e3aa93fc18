"""Run the parts of `make test` or `make check` side by side and report them in one table.

Each lane runs its parts one after the other; the lanes run at the same time, because most tests wait for sockets more
than they compute. A line of output is shown when it is written, with the name of its part before it. The dots of pytest
are replaced by a line for each quarter of a part, and the lines of Node about tests that pass are left out.
"""

import contextlib
import os
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
    "test": [
        ["style", "types", "layers", "docs", "sanitize", "rest", "javascript"],
        ["coverage", "wstest", "web"],
        ["pythons"],
    ],
}
ALONE: dict[str, Lane] = {"check": [], "test": ["distributions"]}
"""Targets that run when all lanes have ended: a build writes into the checkout."""

STOP_SECONDS = 15.0
"""Time for the tests that run to end their servers, after Ctrl-C or SIGTERM."""

OUTPUT_SECONDS = 5.0
"""Time to read the rest of the output of a part that has ended. A detached server could keep it open for ever."""

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
        # Each has a session of its own, which holds all that its part starts and does not detach.
        self._running: list[subprocess.Popen[str]] = []
        self._is_stopping = False

    def run(self, lanes: Sequence[Lane], alone: Lane = ()) -> list[Part]:
        """Run all lanes at the same time, then the targets that have to run alone. A part that fails stops nothing."""
        lanes_of_parts = [[Part(target) for target in lane] for lane in lanes]
        last = [Part(target) for target in alone]
        self._run_lanes(lanes_of_parts)
        self._run_lanes([last])
        return [part for lane in [*lanes_of_parts, last] for part in lane]

    def stop(self) -> None:
        """End all parts: interrupt them, so that pytest ends the servers of its tests, and kill those that take longer
        than ``STOP_SECONDS``."""
        self._is_stopping = True
        try:
            self._signal(signal.SIGINT)
            self._wait(STOP_SECONDS)
        finally:
            self._signal(signal.SIGKILL)
            self._wait(OUTPUT_SECONDS)

    def _run_lanes(self, lanes: Sequence[Sequence[Part]]) -> None:
        # All in threads, so that a signal interrupts none of them between the start of a process and its registration.
        threads = [threading.Thread(target=self._run_lane, args=(lane,), daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_lane(self, parts: Sequence[Part]) -> None:
        for part in parts:
            started = time.monotonic()
            with self._lock:
                if self._is_stopping:
                    return
                process = subprocess.Popen(
                    [self._make, "--no-print-directory", part.target],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
                self._running.append(process)
            reader = threading.Thread(target=self._read, args=(part, process), daemon=True)
            reader.start()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                # Programs that the part has left behind would also keep its output open. The id of the group is not
                # reused before wait().
                _signal_group(process, signal.SIGKILL)
                self._running.remove(process)
                part.status = process.wait()
            reader.join(OUTPUT_SECONDS)
            part.seconds = time.monotonic() - started
            result = "passed" if part.status == 0 else "FAILED"
            self._show(part, f"{result} after {duration(part.seconds)}")

    def _read(self, part: Part, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                shown = part.read(line.rstrip("\n"))
                if shown is not None:
                    self._show(part, shown)

    def _signal(self, number: int) -> None:
        with self._lock:
            for process in self._running:
                _signal_group(process, number)

    def _wait(self, seconds: float) -> None:
        # Not with join(): Python 3.11 takes a thread whose join() was interrupted for ended.
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            time.sleep(0.05)

    def _show(self, part: Part, line: str) -> None:
        with self._lock:
            self._write(f"{part.target:>10} | {line}")


def _signal_group(process: "subprocess.Popen[str]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


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

    def stop(number: int, frame: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A background job of a shell ignores SIGINT. With a handler, the parts do not inherit that.
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    started = time.monotonic()
    try:
        parts = runner.run(LANES[name], ALONE[name])
    finally:
        runner.stop()
    show(table(parts, time.monotonic() - started))
    return int(any(part.status != 0 for part in parts))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
