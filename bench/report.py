"""The report: tables in Markdown, with pictures."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bars import BARS, Bar
from bench.pictures import pictures
from bench.results import Range, Results
from bench.servers import OURS
from bench.workloads import GROUPS, WORKLOADS, Kind, Workload
from twistedsock.bench.measurement import BUSY, PERCENTILES

NOTHING = "–"


@dataclass(frozen=True)
class Places:
    """The file of the report and the folder of its pictures."""

    report: Path
    pictures: Path


def write(results: Results, places: Places) -> None:
    """Write the report and its pictures. Pictures without figures are omitted."""
    places.pictures.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, picture in pictures(results).items():
        file = places.pictures / f"bench-{name}.svg"
        file.write_text(picture.svg())
        drawn.append((picture.title, Path(os.path.relpath(file, places.report.parent)).as_posix()))
    places.report.parent.mkdir(parents=True, exist_ok=True)
    places.report.write_text(text(results, drawn))


def text(results: Results, drawn: Sequence[tuple[str, str]]) -> str:
    """The whole report. ``drawn`` contains titles and links of pictures."""
    parts = ["# Measured side by side", _opening(results), *_bars(results)]
    parts += [f"![{title}]({link})" for title, link in drawn]
    for group, title in GROUPS.items():
        workloads = [workload for workload in WORKLOADS if workload.group == group and results.has(workload.name)]
        if workloads:
            parts += [f"## {title}", *_table_of(group, workloads, results)]
    parts += _failures(results)
    return "\n\n".join(parts) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown. The first column is aligned left, the others right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Three digits, or all digits before the decimal point."""
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:,.{0 if value >= 1e8 else 1 if value >= 1e7 else 2}f} M"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"


def shown(found: Range | None, unit: str = "") -> str:
    """The median, with minimum and maximum if there were several rounds."""
    if found is None:
        return NOTHING
    words = number(found.median) + unit
    return words if found.least == found.most else f"{words} ({number(found.least)}–{number(found.most)})"


def _opening(results: Results) -> str:
    about = results.about
    versions = about.get("versions") or {}
    lines = [
        "Written by `make bench`. See [performance](../docs/explanation/performance.md) for the explanation.",
    ]
    if about.get("quick"):
        lines = ["**A quick look whether all works. The figures mean nothing.**"]
    words = [f"- {name}: {about[name]}" for name in _MACHINE if name in about]
    if isinstance(versions, dict):
        words += [f"- {name}: {version}" for name, version in versions.items()]
    left_out = about.get("left out") or {}
    if isinstance(left_out, dict):
        words += [f"- {name} was left out: {reason}" for name, reason in left_out.items()]
    rounds = f"the median of {about.get('rounds')} rounds, with minimum and maximum"
    if about.get("rounds") == 1:
        rounds = "from one round"
    notes = [
        f"Each figure is {rounds}; ratios are computed within a round. The servers took turns, restarted for each "
        "measurement, and only one was loaded at a time. The load generator is one process of one thread, which "
        "compares or counts every delivery: a figure is shown only if none was lost or repeated. For pairs it is a "
        f"program in C, which compares each payload. A † means that it was itself busy for {BUSY:.0%} of the time or "
        "more, so that the server, or one of the two, can do better. CPU is that of all of a server's processes, the "
        "kernel's part included. *floor* and *bare* are loops in Python and in C that do only what no server can do "
        "without.",
    ]
    if "capacity" in about:
        notes.append(
            f"*Capacity* is {float(str(about['capacity'])):,.0f} deliveries a second: what fills one processor of this "
            "machine with sockbridge when each event is delivered alone. The pace is the same for all servers."
        )
    return "\n\n".join([*lines, "\n".join(words), *notes])


_MACHINE = (
    *("date", "processors", "memory", "kernel", "python of sockbridge", "python of the generator"),
    *("load average before", "rounds"),
)


def _bars(results: Results) -> Iterator[str]:
    rows = [_bar(bar, results) for bar in BARS if bar.measured(results)]
    if rows:
        yield "## The bars"
        yield "Ratios of sockbridge to another server within a round; beside a second of CPU, or of the clock."
        yield table(["what", "bar", "measured", "", "by clock or by CPU"], rows)


def _bar(bar: Bar, results: Results) -> list[str]:
    unit = "x" if bar.other else f" {bar.unit}"
    # By the clock, the generator may have held back one of the two.
    marks = {"rate": " †"} if results.is_bound(bar.workload, OURS, bar.other) else {}
    measured = shown(bar.measured(results), unit) + marks.get(bar.figure, "")
    beside = ""
    if bar.beside:
        beside = f"{shown(bar.measured_beside(results), unit)} {_COLUMNS[bar.beside]}{marks.get(bar.beside, '')}"
    verdict = "met" if bar.is_met(results) else "**missed**"
    return [bar.title, bar.threshold, measured, verdict, beside]


_COLUMNS = {"rate": "a second", "per_cpu": "a CPU second"}


def _rows(workloads: Sequence[Workload], results: Results) -> Iterator[tuple[Workload, str, str]]:
    """Each workload with each server that was measured, and the first cell of the row."""
    for workload in workloads:
        for server in results.servers():
            if results.range(workload.name, server, "rate") or results.words(workload.name, server, "note"):
                yield workload, server, f"{workload.title}, {server}"


def _table_of(group: str, workloads: Sequence[Workload], results: Results) -> Iterator[str]:
    if workloads[0].kind is Kind.CONNECTIONS:
        yield _connections(workloads, results)
    elif workloads[0].kind is Kind.RESTART:
        yield _restarts(workloads, results)
    elif workloads[0].kind is Kind.STALLED:
        yield _stalled(workloads, results)
    else:
        yield _loads(workloads, results)
        if group == "paced":
            yield _latencies(workloads, results)


def _loads(workloads: Sequence[Workload], results: Results) -> str:
    heads = [
        "",
        "deliveries a second",
        "CPU a delivery, us",
        "÷ sockbridge's",
        "server's memory, MiB",
        "generator busy",
    ]
    rows = []
    for workload, server, title in _rows(workloads, results):
        name = workload.name
        busy = results.range(name, server, "busy")
        rows.append(
            [
                title,
                shown(results.range(name, server, "rate")) + (" †" if results.is_bound(name, server) else ""),
                shown(results.range(name, server, "cost")),
                shown(results.ratio(name, server, OURS, "cost")) if server != OURS else "1",
                shown(_median(results.range(name, server, "memory"))),
                f"{busy.median:.0%}" if busy else NOTHING,
            ]
        )
    return table(heads, rows)


def _latencies(workloads: Sequence[Workload], results: Results) -> str:
    rows = [
        [title, *(shown(_median(results.range(workload.name, server, name))) for name in PERCENTILES)]
        for workload, server, title in _rows(workloads, results)
    ]
    return table(["latency, us", *PERCENTILES], rows)


def _connections(workloads: Sequence[Workload], results: Results) -> str:
    heads = ["", "a second", "CPU for each, us", "÷ sockbridge's", "memory of each, KiB", "generator busy"]
    rows = []
    for workload, server, title in _rows(workloads, results):
        name = workload.name
        rows.append(
            [
                title,
                shown(results.range(name, server, "rate")),
                shown(results.range(name, server, "cost")),
                shown(results.ratio(name, server, OURS, "cost")) if server != OURS else "1",
                shown(results.range(name, server, "memory_each")),
                f"{busy.median:.0%}" if (busy := results.range(name, server, "busy")) else NOTHING,
            ]
        )
    return table(heads, rows)


def _restarts(workloads: Sequence[Workload], results: Results) -> str:
    columns = {
        "subscribers": "pages",
        "seconds until all are back": "seconds",
        "CPU for each, us": "cost",
        "events recovered by each": "missed",
        "connections rejected": "rejected",
        "ping, ms": "ping",
        "longest ping, ms": "worst ping",
    }
    rows = []
    for workload, server, title in _rows(workloads, results):
        found = [results.range(workload.name, server, figure) for figure in columns.values()]
        rows.append([title, *map(shown, found)])
    return table(["", *columns], rows)


def _stalled(workloads: Sequence[Workload], results: Results) -> str:
    rows = [
        [
            title,
            shown(results.range(workload.name, server, "growth")),
            shown(results.range(workload.name, server, "cut")),
            results.words(workload.name, server, "note").replace("|", "\\|"),
        ]
        for workload, server, title in _rows(workloads, results)
    ]
    return table(["", "memory grown, MiB", "of the stalled were cut off", "the live reader"], rows)


def _median(found: Range | None) -> Range | None:
    """Without minimum and maximum."""
    return found and Range(found.median, found.median, found.median)


def _failures(results: Results) -> Iterator[str]:
    if found := results.errors():
        yield "## What was not measured"
        rows = [
            [record.workload, record.server, str(record.round), " ".join(record.error.split()).replace("|", "\\|")]
            for record in found
        ]
        yield table(["workload", "server", "round", "because"], rows)
