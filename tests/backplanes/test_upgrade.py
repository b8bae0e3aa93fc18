"""Directories of older versions: they are upgraded in one transaction, whatever ends the process in the middle."""

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest

from tests.backplanes.disk_stage import DiskStage
from tests.faulty_disk import IOERR_WRITE, OK, FaultyDisk, faulty_disk
from twistedsock.backplanes.sqlite_database import StoreError
from twistedsock.backplanes.sqlite_reader import StateReader
from twistedsock.backplanes.sqlite_schema import SCHEMA_VERSION

VERSION_1 = """
DROP TABLE keys;
DROP INDEX channels_by_time;
ALTER TABLE store DROP COLUMN unsynced;
PRAGMA user_version = 1;
"""

CHANNELS = (b"a", b"b")


def write_version_1(directory: Path) -> None:
    with DiskStage(directory, b"old ") as stage:
        for number in range(20):
            stage.publish(CHANNELS[number % 2], b"%d " % number + b"x" * 500)
        stage.stop()
    with closing(sqlite3.connect(directory / "events.sqlite", isolation_level=None)) as connection:
        connection.executescript(VERSION_1)


def version_of(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "events.sqlite")) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def schema_of(directory: Path) -> set[str]:
    with closing(sqlite3.connect(directory / "events.sqlite")) as connection:
        rows = connection.execute(
            "SELECT type, name FROM sqlite_schema UNION SELECT 'column', name FROM pragma_table_info('store')"
        ).fetchall()
    return {f"{kind} {name}" for kind, name in rows}


def check(directory: Path) -> None:
    with DiskStage(directory, b"new ", history_age=10**6) as stage:
        for index, channel in enumerate(CHANNELS):
            state = stage.state(channel)
            payloads = [event.payload.split()[0] for batch in state.tail for event in batch.events()]
            assert payloads == [b"%d" % number for number in range(index, 20, 2)]
            assert state.position.epoch == b"old 1" and state.position.offset == 10
        stage.publish(b"a", b"x")
        assert stage.answers(b"a") == [11] and stage.damage == []
        stage.stop()


def test_older_version_is_upgraded(tmp_path: Path) -> None:
    write_version_1(tmp_path / "old")
    assert version_of(tmp_path / "old") == 1
    check(tmp_path / "old")
    with DiskStage(tmp_path / "new") as stage:
        stage.stop()
    assert version_of(tmp_path / "old") == version_of(tmp_path / "new") == SCHEMA_VERSION
    assert schema_of(tmp_path / "old") == schema_of(tmp_path / "new")


def test_older_version_can_be_read_without_an_upgrade(tmp_path: Path) -> None:
    write_version_1(tmp_path)
    with StateReader(tmp_path) as reader:
        assert [(channel.name, channel.events) for channel in reader.channels()] == [(b"a", 10), (b"b", 10)]
    assert version_of(tmp_path) == 1


def lose_power(disk: FaultyDisk) -> None:
    disk.lose_power(random.Random(1))


@pytest.mark.parametrize("end", [lose_power, FaultyDisk.end_process])
def test_upgrade_that_is_interrupted_is_repeated(tmp_path: Path, end: Callable[[FaultyDisk], None]) -> None:
    """At each of the calls of the disk."""
    write_version_1(tmp_path / "old")
    versions: list[int] = []
    interrupted = 0
    while len(versions) == interrupted:
        directory = tmp_path / str(interrupted)
        shutil.copytree(tmp_path / "old", directory)
        with faulty_disk(syncs=False) as disk:
            calls = count()

            def fail_later(kind: str, path: Path, calls: Iterator[int] = calls, last: int = interrupted) -> int:
                return OK if next(calls) < last else IOERR_WRITE

            disk.before = fail_later
            with suppress(StoreError), DiskStage(directory, b"new "):
                pass
            end(disk)
        versions.append(version_of(directory))
        check(directory)
        if next(calls) > interrupted:
            interrupted += 1
    assert interrupted > 10 and versions == sorted(versions) and set(versions) == {1, SCHEMA_VERSION}
