"""The SQLite backplane with ``syncs_later``: answers come before the sync. tests/backplanes/test_power_loss.py shows
what a loss of power leaves."""

import shutil
from pathlib import Path

import pytest

from tests.backplanes.disk_stage import DiskStage, StartDiskStage
from twistedsock.backplanes import sqlite_database, sqlite_store
from twistedsock.backplanes.sqlite_commits import SYNC_SECONDS
from twistedsock.backplanes.sqlite_database import run_of_system


@pytest.fixture
def stage(tmp_path: Path, disk_stage: StartDiskStage) -> DiskStage:
    stage: DiskStage = disk_stage(tmp_path / "state", syncs_later=True)
    stage.open(b"a")
    return stage


def test_syncs_once_a_second_until_there_is_nothing_to_sync(stage: DiskStage) -> None:
    store = stage.worker.store
    assert not store.is_unsynced and not stage.scheduled
    for _ in range(3):
        stage.publish(b"a", b"x")
        assert store.is_unsynced and [delay for delay, _ in stage.scheduled] == [SYNC_SECONDS], "once"
    stage.pass_time()
    assert store.is_unsynced and len(stage.scheduled) == 1
    stage.pass_time()
    assert not store.is_unsynced and not stage.scheduled
    assert stage.answers(b"a") == [1, 2, 3]


def test_error_of_a_sync_makes_the_store_unavailable(stage: DiskStage) -> None:
    stage.publish(b"a", b"x")
    stage.fail_next()
    stage.pass_time()
    assert not stage.backplane.is_ready
    stage.pass_time()
    stage.publish(b"a", b"y")
    assert stage.answers(b"a") == [1, 2] and [delay for delay, _ in stage.scheduled] == [SYNC_SECONDS]


def test_sync_waits_until_the_store_works_again(stage: DiskStage) -> None:
    stage.publish(b"a", b"x")
    stage.fail_next()
    stage.publish(b"a", b"y")
    stage.pass_time()  # the sync, and the store is opened again
    stage.publish(b"a", b"z")
    assert stage.answers(b"a")[::2] == [1, 2] and [delay for delay, _ in stage.scheduled] == [SYNC_SECONDS]


def copy_as_killed(stage: DiskStage, tmp_path: Path) -> Path:
    """What the cache of the system has when the process ends. ``lock`` has no lock then."""
    stage.settle()
    shutil.copytree(tmp_path / "state", tmp_path / "killed")
    return tmp_path / "killed"


def test_kill_keeps_events_and_epochs(stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage) -> None:
    for _ in range(3):
        stage.publish(b"a", b"x")
    again = disk_stage(copy_as_killed(stage, tmp_path), b"new ", syncs_later=True)
    assert again.state(b"a").position == stage.state(b"a").position and again.damage == []


@pytest.mark.parametrize("syncs_later", [True, False])
def test_another_run_of_the_system_begins_new_epochs(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage, syncs_later: bool
) -> None:
    """The last events can be missing, and their offsets would be given again."""
    stage.publish(b"a", b"x")
    killed = copy_as_killed(stage, tmp_path)
    again = disk_stage(killed, b"new ", syncs_later=syncs_later, run=b"later")
    state = again.state(b"a")
    assert state.position.epoch == b"new 1" and state.position.offset == 1 and len(state.tail) == 1
    (sentence,) = again.damage
    assert "the system has stopped before the last events" in sentence and "all channels have new epochs" in sentence
    again.stop()
    assert disk_stage(killed, b"newer ", run=b"even later").state(b"a").position.epoch == b"new 1"


@pytest.mark.parametrize("end", ["idle", "stop"])
def test_another_run_keeps_epochs_if_all_was_synced(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage, end: str
) -> None:
    stage.publish(b"a", b"x"), stage.publish(b"a", b"y")
    position = stage.state(b"a").position
    if end == "idle":
        stage.pass_time(), stage.pass_time()
    else:
        stage.stop()
    again = disk_stage(copy_as_killed(stage, tmp_path), b"new ", run=b"later")
    assert again.state(b"a").position == position and again.damage == []


def test_log_does_not_grow_within_a_second(stage: DiskStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "MAX_UNSYNCED_BYTES", 100_000)
    monkeypatch.setattr(sqlite_store, "TRIMMED_ROWS", 10)
    for _ in range(200):
        stage.publish(b"a", b"x" * 10_000)
    assert (tmp_path / "state" / "events.sqlite-wal").stat().st_size < 1_000_000
    stage.now += 100
    stage.backplane.trim(50.0, 10**9)  # also when events are deleted
    stage.settle()
    assert (tmp_path / "state" / "events.sqlite-wal").stat().st_size < 1_000_000


def test_each_run_of_the_system_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_of_system() == run_of_system() != b""
    monkeypatch.setattr(sqlite_database, "RUN_OF_SYSTEM", tmp_path / "missing")
    assert run_of_system() != run_of_system(), "each could be another one"
