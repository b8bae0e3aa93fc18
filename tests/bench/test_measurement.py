"""Percentiles, measurements and the duration of loads."""

import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.bench.command import find_listening_processes
from twistedsock.bench.generator import LoadResult
from twistedsock.bench.measurement import (
    Measurement,
    ProcessUsage,
    Progress,
    duration,
    enough,
    family,
    measure,
    percentile,
)


@pytest.mark.parametrize(("part", "value"), [(0.5, 50), (0.9, 90), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)])
def test_percentile_is_the_nearest_rank(part: float, value: int) -> None:
    assert percentile(range(1, 101), part) == value


@given(st.lists(st.floats(0, 1), min_size=1).map(sorted), st.floats(0.01, 1))
def test_percentile_is_a_value_of_the_list(ordered: list[float], part: float) -> None:
    value = percentile(ordered, part)
    assert value in ordered
    assert sum(each <= value for each in ordered) >= part * len(ordered) - 1e-9


def test_measurement_has_rate_and_cost() -> None:
    figures = Measurement.of(LoadResult(1_000, 2.0, 0.5, [0.003, 0.001, 0.002]), 0.1)
    assert figures.rate == 500
    assert figures.load == 0.25
    assert figures.cost == pytest.approx(0.0001)
    assert figures.latencies == {"p50": 0.002, "p90": 0.003, "p99": 0.003, "p99.9": 0.003, "max": 0.003}


class ChannelConnections:
    """A load takes ``start`` seconds, and ``each`` seconds per event."""

    def __init__(self, start: float, each: float) -> None:
        self.start = start
        self.each = each
        self.loads: list[int] = []

    def load(self, name: str, events: int, on_progress: Callable[[float], object] = lambda part: None) -> Any:
        self.loads.append(events)
        seconds = self.start + events * self.each
        return type("Load", (), {"run": lambda self, rate=None: LoadResult(events, seconds, 0.0)})()


@given(st.floats(0, 0.1), st.floats(1e-7, 0.1), st.integers(1, 1_000))
def test_load_lasts_about_as_long_as_requested(start: float, each: float, few: int) -> None:
    crowd = ChannelConnections(start, each)
    events = enough(crowd, lambda: "name", 2.0, few, 1_000_000)
    taken = start + events * each
    assert taken <= 2.0 + start or events == 1
    assert taken >= 0.5 or events == 1_000_000
    assert len(crowd.loads) <= 20


def test_load_respects_maximum_of_events() -> None:
    assert enough(ChannelConnections(0, 1e-9), lambda: "name", 2.0, 100, 5_000) == 5_000
    assert enough(ChannelConnections(0, 1e-9), lambda: "name", 2.0, 100, 50) == 50


def test_cpu_time_is_that_of_the_load_only() -> None:
    clock = iter([10.0, 10.5])
    usage: Any = type("Usage", (), {"cpu": lambda self: next(clock)})()
    assert measure(ChannelConnections(1.0, 0).load("name", 10), usage).cpu == 0.5
    assert measure(ChannelConnections(1.0, 0).load("name", 10), None).cpu is None


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_writes_a_plain_line_per_step_without_terminal() -> None:
    out, clock = StringIO(), Clock()
    progress = Progress(out, clock, [10.0, 20.0])
    progress.start_step("fan-out, nats")
    progress.update(0.5)
    clock.now += 20
    progress.start_step("pairs, nats")
    clock.now += 60
    progress.update(0.5)
    progress.end()
    assert out.getvalue() == "1 of 2, 30 s left: fan-out, nats\n2 of 2, 40 s left: pairs, nats\n"


def test_updates_one_line_on_terminal() -> None:
    out, clock = Terminal(), Clock()
    progress = Progress(out, clock, [10.0])
    progress.start_step("fan-out, nats")
    for part in range(100):
        clock.now += 0.01
        progress.update(part / 100)
    progress.end()
    lines = out.getvalue().split("\r\x1b[K")[1:]
    assert lines[0] == "1 of 1, 10 s left: fan-out, nats"
    assert lines[-1] == ""
    assert 2 <= len(lines) - 2 <= 4
    assert "fan-out, nats 2" in lines[1]
    assert "\n" not in out.getvalue()


def test_line_does_not_wrap() -> None:
    out = Terminal()
    Progress(out, Clock(), [10.0]).start_step("x" * 500)
    assert len(out.getvalue()) < 120


def test_durations_have_units() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 600)] == ["0 s", "99 s", "10 min"]


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 00000000:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 200 1 0 100 0 0 10 0
   2: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 300 1 0 100 0 0 10 0
   3: 0200007F:1F93 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 400 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx rx tr tm uid timeout inode
   0: 00000000000000000000000001000000:1F94 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 500 1 0 100
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a little-endian machine."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    for pid, inodes in {"1": [100], "10": [100], "11": [100, 300], "20": [200], "30": [300, 400], "50": [500]}.items():
        (tmp_path / pid / "fd").mkdir(parents=True)
        for number, inode in enumerate(inodes):
            (tmp_path / pid / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (tmp_path / "60").mkdir()
    return tmp_path


@pytest.mark.skipif(sys.byteorder == "big", reason="the tables are little-endian")
@pytest.mark.parametrize(
    ("host", "port", "pids"),
    [
        ("127.0.0.1", 8081, (10, 11)),
        ("127.0.0.1", 8082, (20,)),
        ("127.0.0.1", 8083, ()),
        ("::1", 8084, (50,)),
        ("127.0.0.1", 9, ()),
    ],
)
def test_finds_processes_that_listen_on_port(proc: Path, host: str, port: int, pids: tuple[int, ...]) -> None:
    assert find_listening_processes((host, port), proc) == pids


def test_finds_no_process_without_proc(tmp_path: Path) -> None:
    assert find_listening_processes(("127.0.0.1", 8081), tmp_path) == ()


def test_reads_cpu_time_and_memory_of_process() -> None:
    usage = ProcessUsage([os.getpid()])
    before = usage.cpu()
    sum(range(100_000))
    assert usage.cpu() > before
    assert usage.memory() > 1_000_000


def test_raises_for_ended_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(OSError):
        ProcessUsage([child.pid]).cpu()


def test_family_includes_descendants() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = family(os.getpid())
        assert found[0] == os.getpid()
        assert child.pid in found
        assert family(child.pid) == (child.pid,)
        child.communicate(b"\n")
