"""Run all workloads with all servers, round after round."""

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from bench.contestant import WEBSOCKET, Contestant
from bench.measuring import MAX_SECONDS, PACED, Measuring
from bench.results import Record, Results
from bench.workloads import Kind, Workload
from twistedsock.bench.clients import DeliveryError
from twistedsock.bench.measurement import Progress, duration

FAILURES = 2
"""Failures of a server at a workload before it is skipped: some failures take half a minute."""

CALIBRATED = Workload("capacity", "", "how many deliveries one at a time can be made", readers=100, rate=300.0)
"""CPU time of our server for a delivery that cannot be combined with another one."""


@dataclass(frozen=True)
class Turn:
    """A workload, a server, and a round."""

    workload: Workload
    server: Contestant
    round: int

    def seconds(self, measurement: float) -> float:
        """Estimated duration, including the start of the server; from runs on two slow processors."""
        workload = self.workload
        start = 4.0 if self.server.name == "crossbar" else 0.8
        connections = workload.readers * workload.channels + workload.count
        if workload.kind is Kind.SPREAD:
            connections = 10 * workload.channels  # subscriptions, then
            return start + 2.5 * measurement + connections / 15_000
        if workload.kind is Kind.PACKETS:
            return start + 1 + measurement
        if workload.kind is Kind.CONNECTIONS:
            return start + 1 + connections / 2_000
        if workload.kind is Kind.RESTART:
            return 2 * start + 1 + connections / 750
        if workload.kind is Kind.STALLED:
            return start + (MAX_SECONDS / 2 if workload.reading == WEBSOCKET else 5)
        return start + (1.2 * PACED if workload.rate else 2.0) * measurement + connections / 2_500


def turns(workloads: Sequence[Workload], servers: Sequence[Contestant], rounds: int) -> list[Turn]:
    """Side by side: within a round, each workload runs with all servers that support its protocols, one after another.
    Workloads with stalled readers and with restarts take long and hardly vary: they have one round."""
    return [
        Turn(workload, server, number)
        for number in range(1, rounds + 1)
        for workload in workloads
        if number == 1 or workload.kind not in (Kind.STALLED, Kind.RESTART)
        for server in servers
        if workload.has(server)
    ]


def with_rates(workloads: Sequence[Workload], capacity: float) -> list[Workload]:
    """Convert shares of the capacity to events per second, equal for all servers."""
    return [
        replace(workload, rate=workload.share * capacity / workload.readers) if workload.share else workload
        for workload in workloads
    ]


def capacity(ours: Contestant, seconds: float) -> float:
    """Deliveries per second that use one processor fully when each is made alone, to two digits."""
    ours.start()
    try:
        found = Measuring(seconds).measure(CALIBRATED, ours, lambda part: None)
    finally:
        ours.stop()
    return float(f"{float(found['per_cpu']):.2g}")


class Run:
    """No new measurement starts after ``minutes``."""

    def __init__(self, plan: Sequence[Turn], seconds: float, minutes: float, out: TextIO) -> None:
        self._plan = plan
        self._measuring = Measuring(seconds)
        self._seconds = minutes * 60
        self._progress = Progress(out, time.monotonic, [turn.seconds(seconds) for turn in plan])
        self._failed: dict[tuple[str, str], int] = {}

    def records(self) -> Iterator[Record]:
        """Results as they are found. A server that fails produces a record, too."""
        start = time.monotonic()
        try:
            for turn in self._plan:
                key = (turn.workload.name, turn.server.name)
                self._progress.start_step(f"{turn.workload.name}, {turn.server.name}, round {turn.round}")
                if self._failed.get(key, 0) >= FAILURES:
                    continue
                record = Record(*key, turn.round)
                if time.monotonic() - start > self._seconds:
                    record.error = f"left out: the run had already taken {duration(self._seconds)}"
                else:
                    self._take(turn, record)
                if record.error:
                    self._failed[key] = self._failed.get(key, 0) + 1
                yield record
        finally:
            self._progress.end()

    def _take(self, turn: Turn, record: Record) -> None:
        gc.collect()
        gc.disable()  # our own pauses are not the server's
        try:
            turn.server.start()
            record.figures = self._measuring.measure(turn.workload, turn.server, self._progress.update)
        except (DeliveryError, OSError, RuntimeError) as error:
            record.error = f"{type(error).__name__}: {error}"[:500]
        finally:
            turn.server.stop()
            gc.enable()


def measure(plan: Sequence[Turn], results: Results, seconds: float, minutes: float, out: TextIO, kept: Path) -> None:
    """Add results, and write them to a file from the first one on: a run can be interrupted."""
    for record in Run(plan, seconds, minutes, out).records():
        results.records.append(record)
        results.write(kept)
