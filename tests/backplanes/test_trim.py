"""The SQLite backplane with ages of channels: old events are deleted by pattern, a few at a time."""

from pathlib import Path

import pytest

from tests.backplanes.disk_stage import DiskStage, StartDiskStage
from tests.faulty_disk import FULL, OK, faulty_disk
from twistedsock.backplanes import sqlite_store, sqlite_trim
from twistedsock.pubsub.names import pattern

AGES = [(pattern("sensors/>"), 90.0), (pattern("logs/*"), 5.0), (pattern("*/boiler"), 1.0)]


@pytest.fixture
def stage(tmp_path: Path, disk_stage: StartDiskStage) -> DiskStage:
    stage: DiskStage = disk_stage(tmp_path / "state", history_age=10**6)
    return stage


def kept(stage: DiskStage, channel: bytes) -> list[int]:
    """The offsets on the disk."""
    stage.close(channel)
    offsets = [offset for batch in stage.state(channel).tail for offset in range(batch.first, batch.end)]
    stage.close(channel)
    return offsets


def trim(stage: DiskStage, age: float = 20.0, max_bytes: int = 10**9) -> None:
    stage.backplane.trim(age, max_bytes, AGES)
    stage.settle()


CHANNELS = (b"sensors/boiler", b"logs/web", b"others")


def publish_each_second(stage: DiskStage, seconds: int) -> None:
    for _ in range(seconds):
        for channel in CHANNELS:
            stage.publish(channel, b"x", settle=False)
        stage.settle()
        stage.now += 1


@pytest.mark.parametrize("step", [1, 3, 500])
def test_first_pattern_that_matches_has_the_age(stage: DiskStage, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """However many rows and channels a step takes."""
    monkeypatch.setattr(sqlite_store, "TRIMMED_ROWS", step)
    monkeypatch.setattr(sqlite_trim, "EXAMINED_CHANNELS", step)
    publish_each_second(stage, 100)
    trim(stage)
    assert kept(stage, b"sensors/boiler") == list(range(11, 101))
    assert kept(stage, b"logs/web") == list(range(96, 101))
    assert kept(stage, b"others") == list(range(81, 101))
    stage.now += 3
    trim(stage)
    assert kept(stage, b"sensors/boiler") == list(range(14, 101)) and kept(stage, b"others") == list(range(84, 101))


def test_step_deletes_a_few_rows(stage: DiskStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "TRIMMED_ROWS", 10)
    publish_each_second(stage, 100)
    before = sum(len(kept(stage, channel)) for channel in CHANNELS)
    stage.backplane.trim(20.0, 10**9, AGES)
    stage.worker.step()
    calls, stage.worker.calls = stage.worker.calls.copy(), type(stage.worker.calls)()
    assert 0 < before - sum(len(kept(stage, channel)) for channel in CHANNELS) <= 10
    stage.worker.calls.extend(calls)
    stage.settle()
    assert len(kept(stage, b"others")) == 20


def test_patterns_can_change(stage: DiskStage) -> None:
    publish_each_second(stage, 50)
    trim(stage)
    assert len(kept(stage, b"sensors/boiler")) == 50
    stage.backplane.trim(20.0, 10**9, AGES[1:])
    stage.settle()
    assert len(kept(stage, b"sensors/boiler")) == 1
    stage.backplane.trim(10.0, 10**9)
    stage.settle()
    assert len(kept(stage, b"others")) == 10


def test_clock_that_is_set_back_keeps_no_events_for_ever(stage: DiskStage) -> None:
    publish_each_second(stage, 50)
    trim(stage)
    stage.now -= 500
    stage.publish(b"later", b"x")
    trim(stage)
    stage.now += 30
    trim(stage)
    assert kept(stage, b"later") == []


def test_old_events_are_deleted_although_a_step_before_was_undone(tmp_path: Path) -> None:
    """The search continues where it has stopped, but not after an error of the disk."""
    with faulty_disk(syncs=False) as disk, DiskStage(tmp_path, history_age=10**6) as stage:
        publish_each_second(stage, 50)
        disk.before = lambda kind, path: FULL if kind == "write" else OK
        trim(stage)
        assert not stage.backplane.is_ready
        disk.before = lambda kind, path: OK
        stage.pass_time()
        trim(stage)
        assert kept(stage, b"others") == list(range(31, 51))


def test_size_is_limited_whatever_the_ages(stage: DiskStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "TRIMMED_ROWS", 10)
    for _ in range(60):
        stage.publish(b"sensors/boiler", b"x" * 10_000)
    limit = stage.worker.store.used_bytes() // 2
    trim(stage, max_bytes=limit)
    assert stage.worker.store.used_bytes() <= limit and kept(stage, b"sensors/boiler")[-1] == 60
