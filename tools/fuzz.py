"""Tests the properties under tests/ with new inputs for a given time, for `make fuzz`.

The properties take turns. An input that breaks one is minimized and printed, with a command that repeats it. The report
contains the coverage of the pure packages. The exit status is 1 if a property is broken.
"""

import argparse
import importlib
import random
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import hypothesis
from coverage import Coverage
from hypothesis import Phase, reproduce_failure, seed, settings
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.errors import DidNotReproduce

CHECKOUT = Path(__file__).resolve().parent.parent
TURN = 2.0
"""The duration of one turn in seconds."""
REPORT = 30.0
"""The time between two reports in seconds."""
SIZES = (30, 100, 300, 1_000, 3_000)
"""Numbers of random bytes from which an example is drawn."""
_BLOB = re.compile(r"reproduce_failure\('[^']*', b'([^']*)'\)")

Mark = Callable[[Any], Any]
"""A decorator of Hypothesis."""

PURE_PACKAGES = ("codecs", "limits", "pubsub", "session")


@dataclass
class Subject:
    """A property and its results so far. ``test`` returns its test with settings, marked with a seed or a blob."""

    name: str
    sentence: str
    test: Callable[[settings, Mark], Any]
    examples: int = 0
    seconds: float = 0.0
    turns: int = 0
    failure: str = ""

    @property
    def rate(self) -> float:
        """Examples per second."""
        return self.examples / self.seconds if self.seconds else 5.0

    def take_turn(self, how: settings) -> None:
        """Test for one turn. Every other turn draws examples from random bytes, which is several times faster and gives
        other examples than the usual strategy."""
        started = time.monotonic()
        try:
            if self.turns % 2:
                self._draw_from_bytes(how, started + TURN)
            else:
                count = max(1, int(self.rate * TURN))
                self.examples += count
                self.test(settings(how, max_examples=count), seed(random.getrandbits(64)))()
        except Exception as error:
            self.failure = "".join(traceback.format_exception(error))
        self.turns += 1
        self.seconds += time.monotonic() - started

    def _draw_from_bytes(self, how: settings, end: float) -> None:
        kept = settings(how, database=InMemoryExampleDatabase(), phases=[Phase.reuse, Phase.shrink])
        test = self.test(kept, lambda test: test)
        try:
            while time.monotonic() < end:
                test.hypothesis.fuzz_one_input(random.randbytes(random.choice(SIZES)))
                self.examples += 1
        except Exception:
            test()  # minimizes the stored example, and raises again
            raise

    def repeat(self, how: settings, blob: str) -> None:
        """Test one input again."""
        self.test(how, reproduce_failure(hypothesis.__version__, blob.encode()))()

    def report_failure(self) -> str:
        """Return the failure, with a command that repeats it."""
        found = _BLOB.search(self.failure)
        again = f"make fuzz REPEAT='{self.name} {found[1]}'" if found else "without a blob"
        return f"BROKEN {self.name}: {self.sentence}\n{self.failure}\nrepeat it: {again}"


def a_property(name: str, found: Any) -> Subject:
    return Subject(name, found.sentence, lambda how, mark: mark(found.under(how)))


def find_subjects() -> Iterator[Subject]:
    for path in sorted((CHECKOUT / "tests").rglob("test_*.py")):
        if "@holds(" not in path.read_text(encoding="utf-8"):
            continue
        for name, test in vars(
            importlib.import_module(".".join(path.relative_to(CHECKOUT).with_suffix("").parts))
        ).items():
            if name.startswith("test_") and hasattr(test, "property"):
                yield a_property(f"{path.stem}::{name}", test.property)


def reached(coverage: Coverage) -> str:
    """Return the branch coverage of the pure packages, and the missing lines."""
    coverage.stop()
    out = StringIO()
    per_cent = coverage.report(file=out, show_missing=True, skip_covered=True)
    missing = [line for line in out.getvalue().splitlines() if ".py " in line]
    coverage.start()
    return "\n".join([f"{per_cent:.1f} % of the pure packages reached", *missing])


def progress(subjects: list[Subject], left: float) -> str:
    rows = [f"{max(0.0, left) / 60:.1f} minutes left; examples, and how many a second:"]
    rows += [
        f"  {subject.examples:>9,} {subject.rate:>8,.0f}/s  {subject.name}{'  BROKEN' if subject.failure else ''}"
        for subject in subjects
    ]
    return "\n".join(rows)


def run(subjects: list[Subject], how: settings, minutes: float, coverage: Coverage) -> int:
    end = time.monotonic() + 60 * minutes
    report = time.monotonic() + REPORT
    while time.monotonic() < end and not all(subject.failure for subject in subjects):
        for subject in subjects:
            if subject.failure or time.monotonic() >= end:
                continue
            subject.take_turn(how)
            if subject.failure:
                print(subject.report_failure(), flush=True)
            if time.monotonic() >= report:
                print(progress(subjects, end - time.monotonic()), flush=True)
                report = time.monotonic() + REPORT
    broken = [subject for subject in subjects if subject.failure]
    print(progress(subjects, 0), reached(coverage), f"{len(broken)} of {len(subjects)} are broken", sep="\n")
    for subject in broken:
        print(subject.report_failure().splitlines()[-1])
    return int(bool(broken))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="duration (default: 10)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="properties whose name contains WORD"
    )
    parser.add_argument("--repeat", nargs=2, metavar=("NAME", "BLOB"), help="test one input again")
    given = parser.parse_args()
    sys.path.insert(0, str(CHECKOUT))
    coverage = Coverage(
        data_file=None,
        branch=True,
        source_pkgs=[f"twistedsock.{name}" for name in PURE_PACKAGES],
    )
    coverage.start()
    subjects = list(find_subjects())
    from tests.fuzz.properties import SETTINGS

    how = settings(SETTINGS, derandomize=False, report_multiple_bugs=False, phases=[Phase.generate, Phase.shrink])
    if given.repeat is None:
        chosen = [subject for subject in subjects if not given.only or any(word in subject.name for word in given.only)]
        if not chosen:
            parser.error("no property has this word in its name")
        return run(chosen, how, given.minutes, coverage)
    name, blob = given.repeat
    for subject in subjects:
        if subject.name == name:
            try:
                subject.repeat(how, blob)
            except DidNotReproduce:
                print(f"{name} holds for that input now")
                return 0
    parser.error("no property has this name")


if __name__ == "__main__":
    sys.exit(main())
