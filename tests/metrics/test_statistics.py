"""Statistics of the server and of its process."""

import os
import time
from pathlib import Path

import pytest

from twistedsock.metrics.statistics import ProcessStatistics, count_clients, read_statistics
from twistedsock.testing import FakeServer


def test_counts_clients_by_protocol() -> None:
    server = FakeServer()
    assert count_clients(server.context) == {"total": 0, "line": 0, "json": 0, "events": 0}
    line, _ = server.line_client(), server.json_client()
    server.json_client()
    assert count_clients(server.context) == {"total": 3, "line": 1, "json": 2, "events": 0}
    line.disconnect()
    assert count_clients(server.context) == {"total": 2, "line": 0, "json": 2, "events": 0}


def test_reads_totals_and_states_of_the_server() -> None:
    server = FakeServer()
    publisher, subscriber = server.line_client(), server.line_client()
    subscriber.send("SUB k", "SUB $sys/closed", "NONSENSE")
    subscriber.outlet.room = 0
    for _ in range(3):
        publisher.send("PUB k x")
        server.turn()
    server.context.stats.count_turn(0.25)
    server.now += 60.123
    statistics = read_statistics(server.context, 5_000, 1.23456)
    assert (statistics.time, statistics.uptime, statistics.version) == (server.wall, 60.1, "0.0")
    assert (statistics.channels, statistics.subscriptions, statistics.behind) == (1, 2, 1)
    assert (statistics.published, statistics.lost, statistics.refused) == (3, 0, {"unknown-command": 1})
    assert (statistics.memory_bytes, statistics.cpu_seconds) == (5_000, 1.235)
    assert statistics.log_bytes == server.broker.histories.size > 0
    assert statistics.turns == sum(server.context.stats.turns.counts) > 0
    assert statistics.turn_longest == statistics.turn_seconds == 0.25


def test_reads_memory_and_cpu_time_of_the_process() -> None:
    process = ProcessStatistics()
    assert 5_000_000 < process.memory_bytes() < process.virtual_bytes()
    before = process.cpu_seconds()
    sum(range(10**6))
    assert process.cpu_seconds() > before > 0


def test_without_proc_the_maximum_of_memory_is_reported(tmp_path: Path) -> None:
    assert 5_000_000 < ProcessStatistics(str(tmp_path)).memory_bytes() < 10**10


def test_reads_the_start_of_a_process_with_any_name(tmp_path: Path) -> None:
    ticks_after_boot = 19 * os.sysconf("SC_CLK_TCK")
    fields = [*range(19), ticks_after_boot, *range(20, 30)]
    (tmp_path / "stat").write_text("1 (a ) b) " + " ".join(map(str, fields)))
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert ProcessStatistics(str(tmp_path)).start_time() == pytest.approx(booted + 19, abs=1)


def test_counts_open_files_on_kernels_without_the_size_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fd").mkdir()
    for number in range(3):
        (tmp_path / "fd" / str(number)).touch()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path: stat("/proc/self/stat") if str(path).endswith("/fd") else stat(path))
    assert ProcessStatistics(str(tmp_path)).open_files() == 3
