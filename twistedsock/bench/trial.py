"""What `sockbridge bench` measures of a bridge that runs already, and how it shows it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from twistedsock.bench.clients import Target
from twistedsock.bench.loads import Shape
from twistedsock.bench.measurement import BUSY, MAX_BYTES, MAX_EVENTS, PERCENTILES, Figures, Usage, enough, measure
from twistedsock.bench.progress import Progress

FEW = 200
"""Events of the first trial."""

MAX_LATENCIES = 1_000_000
"""Deliveries at a pace: a bridge makes some 100,000 of them a second, and each latency is held."""

OVERHEAD = 2.0
"""Seconds that connecting, trying and making events take beside a measurement, as it is foretold."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a load, flat out or at a pace."""

    title: str
    shape: Shape
    rate: float | None = None


def rows(targets: dict[str, Target], readers: int, pairs: int, size: int, rate: float) -> Iterator[Row]:
    """What is measured: each for each of the wires."""
    for wire, target in targets.items():
        yield Row(f"1 to {readers:,}, {wire}", Shape(target, target, readers=readers, size=size))
    for wire, target in targets.items():
        yield Row(f"{pairs:,} pairs, {wire}", Shape(target, target, channels=pairs, size=size))
    for wire, target in targets.items():
        shape = Shape(target, target, readers=readers, size=size)
        yield Row(f"1 to {readers:,}, {wire}, {rate:,g} events a second", shape, rate)


def run(
    row: Row, seconds: float, usage: Usage | None, names: Callable[[], str], told: Callable[[float], object]
) -> Figures:
    """Measure one row for about so many seconds. Raises Wrong, OSError."""
    with row.shape.opened() as crowd:
        if row.rate is not None:
            crowd.load(names(), FEW).run()  # so that what is done once is done
            events = min(int(row.rate * seconds), MAX_LATENCIES // row.shape.readers)
            return measure(crowd.load(names(), max(1, events), told), usage, row.rate)
        most = min(MAX_EVENTS, MAX_BYTES // row.shape.size) // row.shape.channels
        events = enough(crowd, names, seconds, max(1, FEW // row.shape.channels), max(1, most))
        return measure(crowd.load(names(), events, told), usage)


def fresh_names(draw: str) -> Callable[[], str]:
    """Names of channels that nobody else has, if nobody else drew the same."""
    numbers = itertools.count(1)
    return lambda: f"bench-{draw}-{next(numbers)}"


def measured(
    chosen: Sequence[Row], seconds: float, usage: Usage | None, draw: str, progress: Progress
) -> Iterator[tuple[Row, Figures]]:
    """Measure row after row."""
    names = fresh_names(draw)
    for row in chosen:
        progress.begin(row.title)
        yield row, run(row, seconds, usage, names, progress.told)


def table(found: Sequence[tuple[Row, Figures]]) -> str:
    """For people: the throughput of each row, then the latencies of those that kept a pace."""
    heads = ["", "deliveries a second", "a CPU second", "CPU a delivery", "generator"]
    lines = [[row.title, f"{figures.rate:,.0f}", *_costs(figures), f"{figures.load:.0%}"] for row, figures in found]
    parts = [_aligned([heads, *lines])]
    paced = [(row, figures) for row, figures in found if figures.latencies]
    if paced:
        heads = ["latency in microseconds", *PERCENTILES]
        lines = [
            [row.title, *(f"{figures.latencies[name] * 1e6:,.0f}" for name in PERCENTILES)] for row, figures in paced
        ]
        parts.append(_aligned([heads, *lines]))
    if any(figures.load >= BUSY for _, figures in found):
        parts.append(f"Where the generator was busy for {BUSY:.0%} of the time or more, it is what was measured.")
    return "\n\n".join(parts)


def _costs(figures: Figures) -> list[str]:
    if not figures.cpu:
        return ["-", "-"]
    return [f"{figures.deliveries / figures.cpu:,.0f}", f"{figures.cpu / figures.deliveries * 1e6:.3f} us"]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
