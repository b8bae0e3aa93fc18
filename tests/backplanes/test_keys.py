"""Keys of publications that the SQLite backplane keeps: a publication that is repeated after a restart is answered as
the first one, and creates no event."""

import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import copytree

import pytest

from tests.backplanes.disk_stage import DiskStage, StartDiskStage
from twistedsock.backplanes import sqlite_keys
from twistedsock.backplanes.sqlite import KEY_LIFETIME_SECONDS
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication, RepeatedOffset


@pytest.fixture
def stage(tmp_path: Path, disk_stage: StartDiskStage) -> DiskStage:
    stage: DiskStage = disk_stage(tmp_path / "state")
    return stage


def publish(
    stage: DiskStage, key: bytes, channel: bytes = b"a", settle: bool = True, fingerprint: bytes = b""
) -> list[int | Error]:
    """The answer, when it arrives."""
    answers: list[int | Error] = []
    publication = Publication(channel, Payloads((b"x", b"y"), 2), key=key, fingerprint=fingerprint)
    on_result(stage.backplane.publish(Client(b"p1"), publication), answers.append)
    if settle:
        stage.settle()
    return answers


def test_repetition_after_a_restart_gets_the_first_answer(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage
) -> None:
    assert [publish(stage, key) for key in (b"1", b"2")] == [[1], [3]]
    stage.stop()
    again = disk_stage(tmp_path / "state")
    answers = [publish(again, key)[0] for key in (b"2", b"1", b"3")]
    assert answers == [3, 1, 5] and [isinstance(answer, RepeatedOffset) for answer in answers] == [True, True, False]
    assert publish(again, b"1", b"b") == [1], "keys belong to a channel"
    assert again.state(b"a").position.offset == 6


def test_key_of_another_request_is_an_error_after_a_restart(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage
) -> None:
    publish(stage, b"1", fingerprint=b"first")
    stage.stop()
    again = disk_stage(tmp_path / "state")
    answers = [publish(again, b"1", fingerprint=fingerprint) for fingerprint in (b"second", b"first")]
    assert answers == [[KEY_REUSED], [1]] and again.state(b"a").position.offset == 2


def test_repetition_waits_until_the_keys_have_been_read(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage
) -> None:
    """Also for a channel that is open already."""
    publish(stage, b"1")
    stage.stop()
    again = disk_stage(tmp_path / "state")
    answers = publish(again, b"1", settle=False)
    assert not answers
    again.settle()
    assert answers == [1]


def test_key_is_forgotten_after_some_minutes(stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage) -> None:
    publish(stage, b"1")
    stage.stop()
    again = disk_stage(tmp_path / "state")
    again.settle()
    again.now += KEY_LIFETIME_SECONDS - 1
    assert publish(again, b"1") == [1]
    again.now += 2
    assert publish(again, b"1") == [3]


def count_keys(tmp_path: Path) -> int:
    with closing(sqlite3.connect(tmp_path / "state" / "events.sqlite")) as connection:
        count: int = connection.execute("SELECT count(*) FROM keys").fetchone()[0]
    return count


def test_old_keys_are_deleted_with_old_events(stage: DiskStage, tmp_path: Path) -> None:
    for number in range(1_200):
        publish(stage, b"%d" % number, settle=False)
    stage.settle()
    stage.now += KEY_LIFETIME_SECONDS + 1
    publish(stage, b"new")
    stage.backplane.trim(10**6, 10**9)
    stage.settle()
    stage.stop()
    assert count_keys(tmp_path) == 1


def test_number_of_keys_is_limited(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_keys, "MAX_KEYS", 3)
    for number in range(5):
        publish(stage, b"%d" % number)
        stage.now += 1
    stage.stop()
    assert count_keys(tmp_path) == 3
    again = disk_stage(tmp_path / "state")
    again.now = stage.now
    assert [publish(again, key) for key in (b"4", b"2", b"0")] == [[9], [5], [11]]


def test_publication_that_was_written_although_it_failed_is_not_repeated(stage: DiskStage) -> None:
    """The client got an error, and publishes again."""
    stage.open(b"a")
    answers = publish(stage, b"1", settle=False)
    stage.end_turn()
    append, done = stage.worker.calls.popleft()
    append(stage.worker.store)
    done(sqlite3.OperationalError("disk I/O error"))
    assert answers == [UNAVAILABLE]
    stage.pass_time()
    assert publish(stage, b"1") == [1] and stage.state(b"a").position.offset == 2


def test_error_while_the_keys_are_read_makes_the_store_unavailable(tmp_path: Path, disk_stage: StartDiskStage) -> None:
    stage = disk_stage(tmp_path / "state")
    stage.fail_next()
    assert publish(stage, b"1") == [UNAVAILABLE] and not stage.backplane.is_ready
    stage.pass_time()
    assert publish(stage, b"1") == [1]


def test_key_of_a_former_epoch_does_not_count(tmp_path: Path, disk_stage: StartDiskStage) -> None:
    """The event can be missing, and its offset another one."""
    stage = disk_stage(tmp_path / "state", syncs_later=True)
    publish(stage, b"1")
    copytree(tmp_path / "state", tmp_path / "copy")  # as it is when the power fails
    again = disk_stage(tmp_path / "copy", b"new ", run=b"later")
    assert again.damage and publish(again, b"1") == [3]


def test_keys_that_are_used_again_count_once(
    stage: DiskStage, tmp_path: Path, disk_stage: StartDiskStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a program that uses one key each day would have newer keys deleted in the end."""
    monkeypatch.setattr(sqlite_keys, "MAX_KEYS", 3)
    for _ in range(5):
        publish(stage, b"1")
        stage.now += KEY_LIFETIME_SECONDS + 1
    publish(stage, b"2"), publish(stage, b"3")
    stage.stop()
    assert count_keys(tmp_path) == 3
    again = disk_stage(tmp_path / "state")
    again.now = stage.now
    assert [publish(again, key) for key in (b"2", b"3")] == [[11], [13]]
