"""Measure one workload with one server that has just started."""

import itertools
import time
from contextlib import ExitStack
from pathlib import Path

from bench.connecting import Found, connections, restart
from bench.contestant import Contestant
from bench.packets import SHORT, Pairs
from bench.workloads import BARE, Kind, Workload
from twistedsock.bench.clients import DeliveryError, Target, connect, perform
from twistedsock.bench.generator import OnProgress
from twistedsock.bench.loads import ChannelScenario, SpreadScenario
from twistedsock.bench.measurement import (
    MAX_BYTES,
    MAX_EVENTS,
    Measurement,
    ProcessUsage,
    ScenarioConnections,
    enough,
    measure,
)

PACED = 2
"""A load with a fixed rate lasts longer by this factor, because its latencies are examined one by one."""

MAX_GROWTH = 2 * 1024**3
"""Growth of a server while readers are stalled, after which it is stopped."""

MAX_SECONDS = 25.0
"""Duration of the load with stalled readers, after which it is stopped."""

LOOKED = 0.05
"""Seconds between two measurements of memory."""

ESTABLISHED = "01"
"""A state in /proc/net/tcp."""

MiB = 1024 * 1024


class Stopped(Exception):
    """The benchmark has stopped a load, for the reason given."""


class Measuring:
    """``seconds`` is the approximate duration of one measurement. The number of events that this takes is remembered,
    so that later rounds have the same load without a trial."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._events: dict[tuple[str, str], int] = {}
        self._numbers = itertools.count(1)

    def measure(self, workload: Workload, server: Contestant, told: OnProgress) -> Found:
        """Raises Wrong or OSError if the server fails."""
        targets = server.targets()
        reading = targets[workload.reading]
        publishing = targets.get(workload.publishing, reading)
        if server.name == BARE and workload.kind is not Kind.PACKETS:
            publishing = reading  # it does not translate
        usage = ProcessUsage(server.pids())
        if workload.kind is Kind.PACKETS:
            return self._packets(workload, publishing, reading, usage)
        if workload.kind is Kind.RESTART:
            return restart(workload, server, told)
        if workload.kind is Kind.CONNECTIONS:
            return connections(workload, reading, usage, told)
        if workload.kind is Kind.STALLED:
            return self._stalled(workload, publishing, reading, usage, told)
        shape: ChannelScenario | SpreadScenario
        if workload.kind is Kind.SPREAD:
            shape = SpreadScenario(reading, workload.channels, workload.readers, workload.size)
        else:
            shape = self._shape(workload, publishing, reading)
        with shape.opened() as crowd:
            return self._load(workload, server.name, crowd, usage, told)

    def _shape(self, workload: Workload, publishing: Target, reading: Target) -> ChannelScenario:
        return ChannelScenario(
            publishing,
            reading,
            channels=workload.channels,
            publishers=workload.publishers,
            readers=workload.readers,
            size=workload.size,
            other_readers=workload.count,
        )

    def _name(self) -> str:
        return f"bench-{next(self._numbers)}"

    def _load(
        self, workload: Workload, server: str, crowd: ScenarioConnections, usage: ProcessUsage, told: OnProgress
    ) -> Found:
        if workload.rate is not None:
            crowd.load(self._name(), 20).run()  # the first measurement includes work that is done once
            events = max(10, int(workload.rate * self.seconds * PACED))
            figures = measure(crowd.load(self._name(), events, told), usage, workload.rate)
        else:
            events = self._events.get((workload.name, server), 0) or self._enough(workload, crowd)
            self._events[workload.name, server] = events
            figures = measure(crowd.load(self._name(), events, told), usage)
        return {**_found(figures), "events": events, "memory": usage.memory() / MiB}

    def _packets(self, workload: Workload, publishing: Target, reading: Target, usage: ProcessUsage) -> Found:
        with ExitStack() as stack:
            pairs = Pairs(publishing, reading, workload.channels, workload.size, workload.burst, stack)
            pairs.run(min(SHORT, self.seconds), usage)
            return {**_found(pairs.run(self.seconds, usage)), "memory": usage.memory() / MiB}

    def _enough(self, workload: Workload, crowd: ScenarioConnections) -> int:
        publishers = workload.publishers * (1 if workload.kind is Kind.SPREAD else workload.channels)
        most = min(MAX_EVENTS, MAX_BYTES // workload.size) // publishers
        few = workload.channels if workload.kind is Kind.SPREAD else 20_000 // workload.readers // publishers
        return enough(crowd, self._name, self.seconds, min(1_000, max(10, few)), most)

    def _stalled(
        self, workload: Workload, publishing: Target, reading: Target, usage: ProcessUsage, told: OnProgress
    ) -> Found:
        shape = self._shape(workload, publishing, reading)
        with ExitStack() as stack:
            sleepers = connect(reading, workload.count, stack)
            name = self._name()
            perform(sleepers, [reading.driver.subscribe(f"{name}-00000".encode(), 1)])
            crowd = stack.enter_context(shape.opened())
            watch = Watch(usage, told)
            there = _established(reading)
            try:
                figures = _found(measure(crowd.load(name, workload.events, watch.told), usage))
                note, lost = "the live reader got all", 0.0
            except (Stopped, DeliveryError) as error:
                figures, note, lost = {}, str(error)[:300], 1.0
            try:
                grown = max(watch.grown, usage.memory() - watch.before)
            except OSError:
                grown, note = watch.grown, f"the server ended; {note}"
            cut = max(0, there - _established(reading))
            return {**figures, "growth": grown / MiB, "cut": cut, "note": note, "lost": lost}


class Watch:
    """Watches the memory of a server during a load. Ends the load if it grows too much or takes too long."""

    def __init__(self, usage: ProcessUsage, told: OnProgress) -> None:
        self._usage = usage
        self._told = told
        self._start = self._looked = time.monotonic()
        self.before = usage.memory()
        self.grown = 0

    def told(self, part: float) -> None:
        """This part of the load is done. Raises Stopped."""
        now = time.monotonic()
        if now < self._looked + LOOKED:
            return
        self._looked = now
        self._told(part)
        self.grown = max(self.grown, self._usage.memory() - self.before)
        if self.grown > MAX_GROWTH:
            raise Stopped(f"stopped by us at +{self.grown / MiB:,.0f} MiB, after {part:.0%} of the events")
        if now > self._start + MAX_SECONDS:
            raise Stopped(f"stopped by us after {MAX_SECONDS:.0f} s, with {part:.0%} of the events")


def _found(figures: Measurement) -> Found:
    cpu = figures.cpu or 1e-9
    return {
        "deliveries": figures.deliveries,
        "seconds": figures.seconds,
        "cpu": cpu,
        "rate": figures.rate,
        "cost": cpu / figures.deliveries * 1e6,
        "per_cpu": figures.deliveries / cpu,
        "busy": figures.load,
        **{name: value * 1e6 for name, value in figures.latencies.items()},
    }


def _established(target: Target) -> int:
    """The server's ends of connections, as this machine lists them: a client that does not read notices no end. The
    list can miss some entries if connections close while it is read, so the longest of several lists counts."""
    port = f":{target.address[1]:04X}"
    found = []
    for _ in range(3):
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        found.append(sum(fields[3] == ESTABLISHED and fields[1].endswith(port) for fields in lines))
    return max(found)
