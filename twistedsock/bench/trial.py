"""The measurements of `sockbridge bench`, and the table of their results."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twistedsock.bench.clients import Target
from twistedsock.bench.loads import ChannelScenario
from twistedsock.bench.measurement import (
    BUSY,
    MAX_BYTES,
    MAX_EVENTS,
    PERCENTILES,
    Measurement,
    ProcessUsage,
    Progress,
    enough,
    measure,
)

FEW = 200
"""Events of the first trial."""

MAX_LATENCIES = 1_000_000
"""The most deliveries at a fixed rate, because each latency is stored. A server delivers about 100,000 per second."""

OVERHEAD_SECONDS = 2.0
"""The expected time for connecting, trials and creating events, beside the measurement itself."""


@dataclass(frozen=True)
class Benchmark:
    """A line of the table: a load as fast as possible, or at a fixed rate."""

    title: str
    shape: ChannelScenario
    rate: float | None = None


def benchmarks(targets: dict[str, Target], readers: int, pairs: int, size: int, rate: float) -> Iterator[Benchmark]:
    """Yield the measurements for each protocol."""
    for wire, target in targets.items():
        yield Benchmark(f"1 to {readers:,}, {wire}", ChannelScenario(target, target, readers=readers, size=size))
    for wire, target in targets.items():
        yield Benchmark(f"{pairs:,} pairs, {wire}", ChannelScenario(target, target, channels=pairs, size=size))
    for wire, target in targets.items():
        shape = ChannelScenario(target, target, readers=readers, size=size)
        yield Benchmark(f"1 to {readers:,}, {wire}, {rate:,g} events per second", shape, rate)


def run(
    row: Benchmark,
    seconds: float,
    usage: ProcessUsage | None,
    names: Callable[[], str],
    on_progress: Callable[[float], object],
) -> Measurement:
    """Measure for about ``seconds``. Raises DeliveryError, OSError."""
    with row.shape.opened() as crowd:
        if row.rate is not None:
            crowd.load(names(), FEW).run()  # the first load includes work that is done once
            events = min(int(row.rate * seconds), MAX_LATENCIES // row.shape.readers)
            return measure(crowd.load(names(), max(1, events), on_progress), usage, row.rate)
        most = min(MAX_EVENTS, MAX_BYTES // row.shape.size) // row.shape.channels
        events = enough(crowd, names, seconds, max(1, FEW // row.shape.channels), max(1, most))
        return measure(crowd.load(names(), events, on_progress), usage)


def fresh_names(draw: str) -> Callable[[], str]:
    """Return a function that returns new channel names. ``draw`` is a random string."""
    numbers = itertools.count(1)
    return lambda: f"bench-{draw}-{next(numbers)}"


def measure_all(
    chosen: Sequence[Benchmark], seconds: float, usage: ProcessUsage | None, draw: str, progress: Progress
) -> Iterator[tuple[Benchmark, Measurement]]:
    """Yield each benchmark with its result."""
    names = fresh_names(draw)
    for row in chosen:
        progress.start_step(row.title)
        yield row, run(row, seconds, usage, names, progress.update)


def table(found: Sequence[tuple[Benchmark, Measurement]]) -> str:
    """Return the table for people: the throughput, then the latencies of benchmarks at a fixed rate."""
    heads = ["", "deliveries per second", "per CPU second", "CPU per delivery", "generator"]
    lines = [[row.title, f"{result.rate:,.0f}", *_costs(result), f"{result.load:.0%}"] for row, result in found]
    parts = [_aligned([heads, *lines])]
    paced = [(row, result) for row, result in found if result.latencies]
    if paced:
        heads = ["latency in microseconds", *PERCENTILES]
        lines = [
            [row.title, *(f"{result.latencies[name] * 1e6:,.0f}" for name in PERCENTILES)] for row, result in paced
        ]
        parts.append(_aligned([heads, *lines]))
    if any(result.load >= BUSY for _, result in found):
        parts.append(f"If the generator was busy for {BUSY:.0%} of the time or more, it was the bottleneck.")
    return "\n\n".join(parts)


def _costs(result: Measurement) -> list[str]:
    if not result.cpu:
        return ["-", "-"]
    return [f"{result.deliveries / result.cpu:,.0f}", f"{result.cpu / result.deliveries * 1e6:.3f} us"]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
