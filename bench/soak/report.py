"""The report of a run."""

from collections.abc import Mapping
from statistics import median

from bench.soak.run import Outcome
from bench.soak.samples import MIB, Sample

ROWS = 10
"""Parts of the run, each a row of the table."""

HEADS = (
    "second",
    "resident",
    "anonymous",
    "CPU",
    "files",
    "connections",
    "channels",
    "deliveries",
    "visits",
    "load's CPU",
)


def report(about: Mapping[str, object], outcome: Outcome) -> str:
    """A table of medians, counts, faults, and the verdict."""
    count = len(outcome.samples)
    parts = [outcome.samples[count * part // ROWS : count * (part + 1) // ROWS] for part in range(ROWS)]
    lines = ["  ".join(f"{head:>11}" for head in HEADS)]
    lines += ["  ".join(f"{cell:>11}" for cell in _row(part)) for part in parts if part]
    tally = about.get("tally")
    if isinstance(tally, dict):
        lines += ["", *[f"{number:>11,}  {what}" for what, number in sorted(tally.items())]]
    rest = about.get("at rest")
    if isinstance(rest, dict):
        lines += ["", f"at rest: {rest['before'] / MIB:.1f} MiB before, {rest['after'] / MIB:.1f} MiB after"]
    wrongs = about.get("wrongs")
    lines += [f"WRONG: {words}" for words in wrongs] if isinstance(wrongs, list) else []
    lines.append(outcome.verdict.words() if outcome.verdict else "too short to judge the memory")
    return "\n".join(lines)


def _row(part: list[Sample]) -> list[str]:
    def middle(name: str) -> float:
        return median(float(getattr(sample, name)) for sample in part)

    return [
        f"{part[-1].at:.0f}",
        f"{middle('resident') / MIB:.1f} MiB",
        f"{middle('anonymous') / MIB:.1f} MiB",
        f"{middle('cpu'):.0%}",
        *[f"{middle(name):,.0f}" for name in ("files", "connections", "channels")],
        *[f"{middle(name):,.0f}/s" for name in ("deliveries", "visits")],
        f"{middle('busy'):.0%}",
    ]
