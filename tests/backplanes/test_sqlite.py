"""The SQLite backplane: the contract, commits together, restarts, and errors of the disk."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.backplanes.contract import BackplaneContract, FailingContract, KeepingContract, Stage
from tests.backplanes.disk_stage import DiskStage, StartDiskStage
from tests.fuzz.properties import holds
from twistedsock.backplanes import sqlite_commits
from twistedsock.backplanes.sqlite import RETRY_SECONDS
from twistedsock.backplanes.sqlite_commits import DISK_TOO_SLOW
from twistedsock.backplanes.sqlite_database import StoreError
from twistedsock.backplanes.sqlite_rows import MAX_ROW_BYTES
from twistedsock.backplanes.sqlite_store import Addition, Store
from twistedsock.errors import UNAVAILABLE
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, Payloads, Position, Publication


@pytest.fixture
def stage(disk_stage: StartDiskStage, tmp_path: Path) -> DiskStage:
    return disk_stage(tmp_path / "state")


class TestContract(BackplaneContract, KeepingContract):
    """What every backplane must do that keeps the history."""


class TestFailures(FailingContract):
    """After an error, the store is opened again."""

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Iterator[Stage]:
        class Reopening(DiskStage):
            def settle(self) -> None:
                super().settle()
                if self.scheduled:
                    self.pass_time()

        with Reopening(tmp_path) as stage:
            yield stage

    def test_failure_does_not_affect_later_publications(self, stage: Stage) -> None:
        """Those that were gathered with the failing one fail too, because they are one transaction."""
        stage.open(b"a")
        stage.publish(b"a", b"w")
        stage.fail_next()
        stage.publish(b"a", b"x")
        stage.publish(b"a", b"y")
        assert stage.answers(b"a") == [1, UNAVAILABLE, 2]
        assert [event.payload for event in stage.events(b"a")] == [b"w", b"y"] and stage.offsets(b"a") == [1, 2]


def test_publications_of_a_turn_are_one_transaction(stage: DiskStage) -> None:
    stage.open(b"a"), stage.open(b"b")
    for channel in (b"a", b"b", b"a"):
        stage.publish(channel, b"x", settle=False)
    assert not stage.worker.calls and stage.story == []
    stage.end_turn()
    assert len(stage.worker.calls) == 1
    for channel in (b"b", b"a"):  # while the transaction is being written
        stage.publish(channel, b"y", settle=False)
    stage.end_turn()
    assert len(stage.worker.calls) == 1
    stage.worker.step()
    assert stage.answers(b"a") == [1, 2] and stage.answers(b"b") == [1] and len(stage.worker.calls) == 1
    stage.worker.step()
    assert stage.answers(b"a") == [1, 2, 3] and stage.answers(b"b") == [1, 2]


def test_restart_continues_with_epoch_offsets_and_newest_events(
    stage: DiskStage, disk_stage: StartDiskStage, tmp_path: Path
) -> None:
    position = stage.open(b"a")
    stage.publish(b"a", b"v", b"w")
    stage.now += 1
    stage.publish(b"a", b"x")
    stage.stop()
    again = disk_stage(tmp_path / "state", history_events=1)
    state = again.state(b"a")
    assert isinstance(position, Position) and state.position == Position(position.epoch, 3)
    assert [event for batch in state.tail for event in batch.events()] == stage.events(b"a")[2:]
    assert state.time == 1_000_000
    again.now = 900.0
    again.publish(b"a", b"y")
    assert again.offsets(b"a") == [4] and again.events(b"a")[0].time == 1_001_000, "times never decrease"
    assert again.epochs(b"a") == {position.epoch}


def test_channel_without_events_keeps_its_epoch_over_a_restart(
    stage: DiskStage, disk_stage: StartDiskStage, tmp_path: Path
) -> None:
    position = stage.open(b"a")
    stage.stop()
    assert disk_stage(tmp_path / "state").open(b"a") == position


def test_tail_has_a_limit_of_bytes_and_age(stage: DiskStage, disk_stage: StartDiskStage, tmp_path: Path) -> None:
    for payload in (b"old", b"x" * 1_000, b"y" * 1_000):
        stage.publish(b"a", payload)
        stage.now += 100
    stage.stop()
    by_bytes = disk_stage(tmp_path / "state", history_bytes=500, history_age=10**6)
    assert [batch.first for batch in by_bytes.state(b"a").tail] == [3]
    by_bytes.stop()
    by_age = disk_stage(tmp_path / "state", history_age=150.0)
    by_age.now = stage.now
    assert [batch.first for batch in by_age.state(b"a").tail] == [3]


def test_events_that_are_not_written_are_lost_with_an_error_only(stage: DiskStage) -> None:
    """Not answered, not delivered, and their offsets are given again."""
    stage.open(b"a")
    stage.publish(b"a", b"x", settle=False)
    stage.end_turn()
    stage.publish(b"a", b"y", settle=False)
    stage.fail_next()
    stage.settle()
    assert stage.answers(b"a") == [UNAVAILABLE, UNAVAILABLE] and stage.events(b"a") == []
    assert stage.reports == ["disk I/O error"] and not stage.backplane.is_ready
    stage.publish(b"a", b"z")
    assert stage.backplane.open(b"b") == stage.backplane.read(b"a", Position(b"e1", 0), 1) == UNAVAILABLE
    assert stage.answers(b"a")[2:] == [UNAVAILABLE] and stage.scheduled[0][0] == RETRY_SECONDS
    stage.fail_next()  # also when it is opened again
    stage.pass_time()
    assert not stage.backplane.is_ready
    stage.pass_time()
    assert stage.backplane.is_ready and stage.reports == ["disk I/O error", "None"]
    stage.publish(b"a", b"z")
    assert stage.answers(b"a")[3:] == [1] and stage.offsets(b"a") == [1]


def test_reopening_reports_what_was_written_after_all(stage: DiskStage) -> None:
    """The error of a transaction does not say that nothing of it is on the disk."""
    position = stage.open(b"a")
    stage.publish(b"a", b"x", settle=False)
    stage.end_turn()
    append, done = stage.worker.calls.popleft()
    append(stage.worker.store)
    done(sqlite3.OperationalError("disk I/O error"))
    stage.pass_time()
    ((_, name, state),) = [entry for entry in stage.story if entry[0] == "reset"]
    assert isinstance(position, Position) and (name, state.position) == (b"a", Position(position.epoch, 1))
    assert [batch.payloads.items for batch in state.tail] == [(b"x",)]
    stage.publish(b"a", b"y")
    assert stage.answers(b"a")[1:] == [2]


def fail_and_reopen(stage: DiskStage) -> None:
    """The store is open again after an error, but the channels have not been read yet."""
    stage.fail_next()
    stage.publish(b"a", b"x")
    for _, call in stage.scheduled:
        call()
    stage.scheduled.clear()
    stage.worker.step()


def test_open_channel_survives_several_errors(stage: DiskStage) -> None:
    stage.open(b"a")
    fail_and_reopen(stage)
    stage.fail_next()  # when the channel is read
    stage.settle()
    assert not stage.backplane.is_ready
    stage.pass_time()
    stage.publish(b"a", b"y")
    assert stage.offsets(b"a") == [1]


def test_channel_that_was_closed_while_the_store_was_opened_again_stays_closed(stage: DiskStage) -> None:
    stage.open(b"a")
    fail_and_reopen(stage)
    stage.close(b"a")
    stage.publish(b"a", b"y")
    assert [entry[0] for entry in stage.story if entry[0] != "answered"] == []


@pytest.mark.parametrize("act", ["open", "read", "trim"])
def test_any_error_of_the_disk_makes_the_store_unavailable(stage: DiskStage, act: str) -> None:
    stage.open(b"a")
    stage.fail_next()
    answers: list[Any] = []
    if act == "open":
        on_result(stage.backplane.open(b"b"), answers.append)
    elif act == "read":
        on_result(stage.backplane.read(b"a", Position(b"e1", 0), 1), answers.append)
    else:
        stage.backplane.trim(60.0, 1)
    stage.settle()
    assert answers in ([UNAVAILABLE], []) and not stage.backplane.is_ready
    stage.backplane.trim(60.0, 1)
    assert not stage.worker.calls


def test_publications_that_wait_have_a_limit(stage: DiskStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_commits, "MAX_GATHERED_BYTES", 1_000)
    stage.open(b"a")
    for _ in range(3):
        stage.publish(b"a", b"x" * 500, settle=False)
    assert stage.answers(b"a") == [DISK_TOO_SLOW] * 2
    stage.settle()
    assert stage.answers(b"a") == [DISK_TOO_SLOW] * 2 + [1]
    answers: list[Any] = []  # also for a channel that is not open
    publication = Publication(b"b", Payloads((b"x" * 500,), 500))
    for _ in range(3):
        on_result(stage.backplane.publish(Client(b"p1"), publication), answers.append)
    stage.settle()
    assert answers == [DISK_TOO_SLOW, DISK_TOO_SLOW, 1]


def test_many_publications_are_answered_in_several_turns(stage: DiskStage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction can have tens of thousands. What the store has done later is reported later."""
    monkeypatch.setattr(sqlite_commits, "TIME_SLICE_SECONDS", 0.0)
    stage.settle()
    for _ in range(3):
        stage.publish(b"a", b"x", settle=False)
    stage.worker.step()  # the channel is read
    opened: list[Any] = []
    stage.end_turn()
    on_result(stage.backplane.open(b"a"), opened.append)
    stage.worker.step()
    stage.worker.step()
    assert stage.answers(b"a") == [1] and not opened
    stage.end_turn()
    assert stage.answers(b"a") == [1, 2] and not opened
    stage.end_turn()
    assert stage.answers(b"a") == [1, 2, 3] and opened[0].position.offset == 3 and stage.events(b"a") == []


def test_failed_publications_are_answered_in_several_turns(stage: DiskStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_commits, "TIME_SLICE_SECONDS", 0.0)
    stage.open(b"a")
    for _ in range(2):
        stage.publish(b"a", b"x", settle=False)
    stage.end_turn()
    stage.fail_next()
    stage.worker.step()
    assert stage.answers(b"a") == [UNAVAILABLE]
    stopped: list[bool] = []
    stage.backplane.stop().then(stopped.append)
    stage.end_turn()
    assert stage.answers(b"a") == [UNAVAILABLE] * 2 and not stopped
    stage.settle()
    assert stopped == [True]


def test_publications_are_answered_after_one_whose_callback_fails(stage: DiskStage) -> None:
    def fail(outcome: object) -> None:
        raise ValueError("of a test")

    stage.open(b"a")
    on_result(stage.backplane.publish(Client(b"p1"), Publication(b"a", Payloads((b"x",), 1))), fail)
    stage.publish(b"a", b"y", settle=False)
    stage.end_turn()
    with pytest.raises(ValueError, match="of a test"):
        stage.worker.step()
    stage.settle()
    assert stage.answers(b"a") == [2]


def test_publication_to_a_closed_channel_fails_with_the_disk(stage: DiskStage) -> None:
    stage.fail_next()
    stage.publish(b"a", b"x")
    assert stage.answers(b"a") == [UNAVAILABLE]


def test_stop_waits_for_the_disk(stage: DiskStage) -> None:
    stage.open(b"a")
    stage.publish(b"a", b"x", settle=False)
    stopped: list[bool] = []
    stage.backplane.stop().then(stopped.append)
    stage.end_turn()
    assert not stopped
    stage.settle()
    assert stopped == [True] and stage.answers(b"a") == [1] and not stage.backplane.is_ready


def test_stop_closes_the_file(stage: DiskStage, tmp_path: Path) -> None:
    stopped: list[bool] = []
    stage.backplane.stop().then(stopped.append)
    assert not stopped
    stage.settle()
    assert stopped == [True] and {path.name for path in (tmp_path / "state").iterdir()} == {"events.sqlite", "lock"}


def test_channels_that_are_not_used_are_forgotten(stage: DiskStage) -> None:
    stage.open(b"a")
    stage.publish(b"a", b"x", settle=False)
    stage.backplane.close(b"a")
    stage.settle()
    assert stage.answers(b"a") == [1] and stage.events(b"a") == [], "it is not open"
    assert stage.state(b"a").position.offset == 1


# Statistics.


def test_statistics_count_what_waits_for_the_disk(stage: DiskStage) -> None:
    stage.open(b"a")
    assert stage.statistics.waiting_publications == stage.statistics.waiting_bytes == 0
    stage.publish(b"a", b"x" * 500, settle=False)
    stage.end_turn()
    stage.publish(b"a", b"x" * 1_000, settle=False)
    waiting = stage.statistics
    assert waiting.waiting_publications == 2 and 1_500 < waiting.waiting_bytes < 3_000
    stage.worker.step()
    assert stage.statistics.waiting_publications == 1 and stage.statistics.waiting_bytes > 1_000
    stage.settle()
    after = stage.statistics
    assert after.waiting_publications == after.waiting_bytes == 0
    assert sum(after.commits.counts) == 2 and after.commits.total > 0


def test_statistics_report_errors_of_the_disk(stage: DiskStage) -> None:
    stage.open(b"a")
    stage.fail_next()
    stage.publish(b"a", b"x")
    failed = stage.statistics
    assert (
        not failed.is_ready and sum(failed.commits.counts) == failed.waiting_publications == failed.waiting_bytes == 0
    )
    stage.pass_time()
    assert stage.statistics.is_ready


def test_statistics_have_bytes_and_age_after_each_trim(stage: DiskStage) -> None:
    stage.publish(b"a", b"x" * 10_000)
    assert stage.statistics.oldest_seconds == 0
    before = stage.statistics.file_bytes
    stage.now += 30
    stage.backplane.trim(60.0, 10**9)
    stage.settle()
    after = stage.statistics
    assert after.oldest_seconds == 30 and after.file_bytes > before > 0
    assert after.used_bytes == stage.worker.store.used_bytes() > 10_000
    stage.now += 60
    stage.backplane.trim(60.0, 10**9)
    stage.settle()
    assert stage.statistics.oldest_seconds == 0


def test_measurement_can_fail(stage: DiskStage) -> None:
    stage.settle()
    stage.backplane.trim(60.0, 10**9)
    stage.worker.step()
    stage.fail_next()
    stage.worker.step()
    assert stage.reports == ["disk I/O error"] and not stage.statistics.is_ready


# The file.


def test_trims_old_events_and_forgets_channels_that_have_none(stage: DiskStage) -> None:
    for channel in (b"a", b"b"):
        stage.publish(channel, b"old")
    stage.now += 100
    stage.publish(b"a", b"new")
    before = stage.state(b"b").position
    stage.backplane.close(b"a"), stage.backplane.close(b"b")
    stage.backplane.trim(50.0, 10**9)
    stage.settle()
    state = stage.state(b"a")
    assert [batch.first for batch in state.tail] == [2] and state.position.offset == 2
    after = stage.state(b"b").position
    assert after.offset == 0 and after.epoch != before.epoch, "offsets are not given twice in one epoch"


def test_file_shrinks_when_events_are_deleted(stage: DiskStage, tmp_path: Path) -> None:
    """A part of it each minute."""
    for _ in range(100):
        stage.publish(b"a", b"x" * 10_000)
    stage.now += 100
    for _ in range(2):
        stage.backplane.trim(50.0, 10**9)
        stage.settle()
    stage.stop()
    assert (tmp_path / "state" / "events.sqlite").stat().st_size < 100_000


def test_trims_the_oldest_events_of_a_large_file(stage: DiskStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedsock.backplanes.sqlite_store.TRIMMED_ROWS", 3)
    for _ in range(20):
        stage.publish(b"a", b"x" * 10_000)
        stage.now += 1
    used = stage.worker.store.used_bytes()
    stage.backplane.trim(10**6, used // 2)
    stage.settle()
    assert stage.worker.store.used_bytes() <= used // 2
    state = stage.state(b"a")
    assert state.position.offset == 20 and state.tail[-1].first == 20 and state.tail[0].first > 5


def test_channels_without_events_are_forgotten_if_the_file_is_too_large(stage: DiskStage) -> None:
    """So that names of channels, which any publisher can invent, have a limit."""
    before = stage.state(b"0" * 200).position
    for number in range(2_000):
        stage.publish(b"%0200d" % number, b"x", settle=False)
    stage.settle()
    stage.close(b"0" * 200)
    limit = stage.worker.store.used_bytes() // 3
    stage.backplane.trim(10**6, limit)
    stage.settle()
    assert stage.worker.store.used_bytes() <= limit
    after = stage.state(b"0" * 200).position
    assert after.offset == 0 and after.epoch != before.epoch, "offsets are not given twice in one epoch"
    newest = stage.state(b"%0200d" % 1_999)
    assert newest.position == Position(before.epoch, 1) and len(newest.tail) == 1


def test_second_process_cannot_use_the_directory(stage: DiskStage, disk_stage: StartDiskStage, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is used by another process"):
        disk_stage(tmp_path / "state")
    stage.stop()
    disk_stage(tmp_path / "state")


def test_directory_of_a_newer_version_is_not_opened(
    stage: DiskStage, disk_stage: StartDiskStage, tmp_path: Path
) -> None:
    stage.stop()
    with sqlite3.connect(tmp_path / "state" / "events.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="was written by a newer version of sockbridge"):
        disk_stage(tmp_path / "state")


def test_files_are_for_the_user_of_the_server_only(tmp_path: Path, disk_stage: StartDiskStage) -> None:
    """Also in a directory that others can read."""
    (tmp_path / "state").mkdir(mode=0o755)
    disk_stage(tmp_path / "state").publish(b"a", b"x")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert modes == dict.fromkeys(("events.sqlite", "events.sqlite-wal", "events.sqlite-shm", "lock"), 0o600)


def test_files_that_root_creates_belong_to_the_owner_of_the_directory(
    tmp_path: Path, disk_stage: StartDiskStage
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, 65534, 65534)
    disk_stage(directory).publish(b"a", b"x")
    assert {path.stat().st_uid for path in directory.iterdir()} == {directory.stat().st_uid}


@pytest.fixture
def as_user() -> Iterator[None]:
    """Root can write everywhere, so it becomes another user meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("as_user")
def test_directory_that_is_read_only_is_an_error(disk_stage: StartDiskStage) -> None:
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o555)
        with pytest.raises(StoreError, match="cannot use .*: Permission denied"):
            disk_stage(Path(directory))


def test_directory_that_cannot_be_created_is_an_error(disk_stage: StartDiskStage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use .*file/state: Not a directory"):
        disk_stage(tmp_path / "file" / "state")


# Reading, directly from the store.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", lambda: b"e1")
    store.open()
    yield store
    store.close()


def rows(*rows_of_times: list[int], size: int = 1) -> list[Addition]:
    """An addition for each row, with an event for each time."""
    additions, offset = [], 1
    for times in rows_of_times:
        batches = []
        for time in times:
            payloads = Payloads((b"x" * size,), size)
            batches.append(Batch(offset, offset + 1, b"p", b"p", b"message", payloads, time))
            offset += 1
        additions.append(Addition(b"a", b"e1", batches))
    return additions


@holds(
    examples=40,
    rows_of_times=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), max_size=12),
    oldest=st.integers(1, 6),
)
def test_time_is_found_in_any_rows(rows_of_times: list[list[int]], oldest: int) -> None:
    """The newest event before a time is found, wherever it is in its row, and whatever was deleted."""
    newest = 0
    for times in rows_of_times:
        for index, time in enumerate(times):
            newest = times[index] = max(newest, time)
    with TemporaryDirectory() as directory:
        store = Store(Path(directory), lambda: b"e1")
        store.open()
        store.append(rows(*rows_of_times))
        store.trim(oldest, 10**12, b"e2")
        kept = [(offset, time) for offset, time, last in _numbered(rows_of_times) if last >= oldest]
        for time in range(14):
            expected = max([offset for offset, at in kept if at < time], default=0)
            assert store.offset_before(b"a", b"e1", time) == expected
        store.close()


def _numbered(rows_of_times: list[list[int]]) -> Iterator[tuple[int, int, int]]:
    """The offset and the time of each event, and the time of the last one in its row."""
    offset = 0
    for times in rows_of_times:
        for time in times:
            offset += 1
            yield offset, time, times[-1]


def test_time_is_found_among_many_rows(store: Store) -> None:
    store.append(rows(*[[time] for time in range(300)]))
    assert store.offset_before(b"a", b"e1", 200) == 200
    assert store.offset_before(b"b", b"e1", 200) == store.offset_before(b"a", b"e2", 200) == 0


def test_part_of_a_large_row_can_be_read(store: Store) -> None:
    """However much was committed together, memory has what was asked for, about."""
    store.append(rows([1] * 2_000, size=1_000))
    position, offset = Position(b"e1", 0), 0
    while offset < 2_000:
        batches = store.read(b"a", Position(position.epoch, offset), 65_536)
        assert batches[0].first == offset + 1 and sum(batch.payloads.size for batch in batches) <= 66_536
        offset = batches[-1].end - 1
    assert store.read(b"a", Position(b"e1", 2_000), 65_536) == []


def test_small_events_count_as_what_is_sent(store: Store) -> None:
    store.append(rows([1] * 5_000))
    assert len(store.read(b"a", Position(b"e1", 0), 65_536)) < 1_500


def test_large_commit_is_divided_into_rows(store: Store, tmp_path: Path) -> None:
    """Also because reading a row again for each part of it takes long."""
    store.append(rows([1] * 2_000, size=1_000))
    with closing(sqlite3.connect(tmp_path / "state" / "events.sqlite")) as connection:
        sizes = [size for (size,) in connection.execute("SELECT length(data) FROM large_data")]
    assert len(sizes) > 8 and max(sizes) <= 1.1 * MAX_ROW_BYTES
    assert store.read_channel(b"a", 2_000, 10**9, 0).tail[0].first == 1


@pytest.mark.parametrize("size", [600, 850, 950, 1_100, 1_900])
def test_file_is_little_larger_than_its_payloads(store: Store, size: int) -> None:
    empty = store.used_bytes()
    store.append(rows(*[[time] for time in range(400)], size=size))
    assert 400 * size < store.used_bytes() - empty < 1.4 * 400 * size
    while store.trim(10**6, 10**12, b"e2"):
        pass
    assert store.used_bytes() < 2 * empty
