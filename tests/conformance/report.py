"""Reads the report of the TestSuite, whose exit status does not depend on the results."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

GROUPS = {
    "1": "messages of all sizes",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "reserved opcodes",
    "5": "fragments",
    "6": "UTF-8",
    "7": "closing",
    "9": "large and many messages",
    "10": "fragments of its own",
    "12": "compression, sizes",
    "13": "compression, options",
}

COMPRESSION = {"12", "13"}
"""Groups about compression, which the server declines."""


class Broken(Exception):
    """There is no complete report. The message has the reason."""


class Outcome(NamedTuple):
    """One case. ``behavior`` is the result up to the closing handshake, ``closing`` from there: OK, NON-STRICT
    (correct, but the standard recommends something else), INFORMATIONAL (anything is correct), or FAILED."""

    run: str
    case: str
    behavior: str
    closing: str
    words: str

    @property
    def group(self) -> str:
        return self.case.partition(".")[0]

    @property
    def passed(self) -> bool:
        """True if it complies with the standard, or if it is a case about compression that could not run."""
        allowed = {"OK", "INFORMATIONAL", "NON-STRICT"}
        without_compression = self.behavior == "UNIMPLEMENTED" and self.group in COMPRESSION
        return (self.behavior in allowed or without_compression) and self.closing in allowed

    def __str__(self) -> str:
        return f"{self.case} ({self.run}): {self.behavior}, closing {self.closing}: {self.words}"


def read_outcomes(folder: Path, run: str, count: int) -> list[Outcome]:
    """Read the folder of a run of ``count`` cases. Raises Broken."""
    try:
        found = json.loads((folder / "index.json").read_text(encoding="utf-8"))[run]
        outcomes = []
        for case, told in found.items():
            # The description is in a file of its own.
            words = json.loads((folder / told["reportfile"]).read_text(encoding="utf-8"))["result"]
            outcomes.append(Outcome(run, case, told["behavior"], told["behaviorClose"], words))
    except (OSError, ValueError, KeyError) as error:
        raise Broken(f"{run}: the report in {folder} cannot be read: {error!r}") from None
    if not count or len(outcomes) != count:
        raise Broken(f"{run}: {len(outcomes)} of {count} cases were run")
    return sorted(outcomes, key=lambda outcome: [int(part) for part in outcome.case.split(".")])


def table(outcomes: Iterable[Outcome]) -> str:
    """The number of results, by run and group."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for outcome in outcomes:
        word = outcome.behavior if outcome.passed or outcome.behavior != "OK" else f"closing {outcome.closing}"
        rows.setdefault((outcome.run, outcome.group), Counter())[word] += 1
    lines = []
    for (run, group), behaviors in rows.items():
        counted = ", ".join(f"{number} {word}" for word, number in behaviors.most_common())
        lines.append(f"  {run:22} {group:>2}.*  {GROUPS.get(group, ''):24} {counted}")
    return "\n".join(lines)


def verdict(outcomes: Sequence[Outcome]) -> tuple[str, bool]:
    """A summary, and whether it is a success."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    loose = [outcome for outcome in outcomes if outcome.passed and "NON-STRICT" in (outcome.behavior, outcome.closing)]
    untried = sum(outcome.behavior == "UNIMPLEMENTED" for outcome in outcomes if outcome.passed)
    parts = [table(outcomes)]
    if untried:
        parts.append(f"{untried} cases could not be tried, as the bridge refuses compression: that is meant.")
    if loose:
        parts.append("\n  ".join([f"NON-STRICT, which is allowed: {len(loose)}", *map(str, loose)]))
    if failed:
        parts.append("\n  ".join([f"FAILED: {len(failed)} of {len(outcomes)}", *map(str, failed)]))
    else:
        parts.append(f"All {len(outcomes)} cases are as they should be.")
    return "\n".join(parts), not failed
