"""The run of all servers through all workloads, with fake servers that can fail."""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

import pytest

from bench import run
from bench.contestant import TCP
from bench.measuring import Measuring, Stopped, Watch
from bench.results import Record, Results, read
from bench.workloads import WORKLOADS, Kind, Workload
from twistedsock.bench.clients import DeliveryError, Target

PAIRS = Workload("pairs", "pairs", "pairs")
STALLED = Workload("stalled", "stalled", "stalled", Kind.STALLED)


class Fake:
    """A server that records the calls to it."""

    wires = frozenset((TCP,))

    def __init__(self, name: str, diary: list[str], fails: str = "") -> None:
        self.name = name
        self._diary = diary
        self.fails = fails

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return "1"

    def start(self) -> None:
        self._diary.append(f"{self.name} starts")
        if self.fails == "start":
            raise RuntimeError("no port")

    def stop(self) -> None:
        self._diary.append(f"{self.name} stops")

    def pids(self) -> tuple[int, ...]:
        return ()

    def targets(self) -> Mapping[str, Target]:
        return {}


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls in order. Measuring takes no time."""
    happened: list[str] = []

    def measure(self: Measuring, workload: Workload, server: Fake, told: object) -> dict[str, float | str]:
        happened.append(f"{workload.name} with {server.name}")
        if server.fails == "measure":
            raise DeliveryError("lost one")
        return {"rate": 1.0}

    monkeypatch.setattr(Measuring, "measure", measure)
    return happened


Measured = Callable[..., list[Record]]


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """``measured(plan, minutes=1)``: the records of a run, which are also kept."""

    def measured(plan: list[run.Turn], minutes: float = 1) -> list[Record]:
        results, kept = Results({}), tmp_path / "run.jsonl"
        run.measure(plan, results, 1.0, minutes, StringIO(), kept)
        assert read(kept) == results
        return results.records

    return measured


def test_servers_take_turns_within_each_workload(diary: list[str], measured: Measured) -> None:
    servers = [Fake("a", diary), Fake("b", diary)]
    measured(run.turns([PAIRS, STALLED], servers, 2))
    assert [line for line in diary if "with" in line] == [
        *("pairs with a", "pairs with b", "stalled with a", "stalled with b"),
        *("pairs with a", "pairs with b"),
    ]


def test_one_server_runs_at_a_time(diary: list[str], measured: Measured) -> None:
    measured(run.turns([PAIRS], [Fake("a", diary), Fake("b", diary)], 1))
    assert diary == ["a starts", "pairs with a", "a stops", "b starts", "pairs with b", "b stops"]


@pytest.mark.parametrize(
    ("fails", "words"), [("start", "RuntimeError: no port"), ("measure", "DeliveryError: lost one")]
)
def test_server_is_skipped_after_two_failures(diary: list[str], measured: Measured, fails: str, words: str) -> None:
    records = measured(run.turns([PAIRS], [Fake("a", diary, fails), Fake("b", diary)], 4))
    assert [record.error for record in records if record.server == "a"] == [words] * 2
    assert [record.figures for record in records if record.server == "b"] == [{"rate": 1.0}] * 4
    assert diary.count("a starts") == diary.count("a stops") == 2


def test_stops_when_the_time_is_over(diary: list[str], measured: Measured) -> None:
    (record,) = measured(run.turns([PAIRS], [Fake("a", diary)], 1), minutes=-1)
    assert record.error.startswith("left out")
    assert diary == []


def test_share_of_capacity_does_not_depend_on_subscribers() -> None:
    paced = [workload for workload in run.with_rates(WORKLOADS, 150_000.0) if workload.share == 0.1]
    assert {round((workload.rate or 0) * workload.readers) for workload in paced} == {15_000}
    assert len(paced) == 3


class Growing:
    """A process whose memory grows with each reading."""

    def __init__(self, by: int) -> None:
        self.by = by
        self.size = 0

    def memory(self) -> int:
        self.size += self.by
        return self.size


def test_stops_server_that_uses_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1_000))
    monkeypatch.setattr("bench.measuring.time.monotonic", lambda: float(next(now)))
    watch = Watch(Growing(1024**3), lambda part: None)  # type: ignore[arg-type]
    watch.told(0.1)
    watch.told(0.2)
    with pytest.raises(Stopped, match=r"\+3,072 MiB, after 30%"):
        watch.told(0.3)
    slow = Watch(Growing(0), lambda part: None)  # type: ignore[arg-type]
    with pytest.raises(Stopped, match="after 25 s, with 50%"):
        for _ in range(100):
            slow.told(0.5)
