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

VERSION_2 = """
UPDATE batches SET data = (SELECT large_data.data FROM large_data WHERE id = large) WHERE large NOT NULL;
DROP TRIGGER large_data_of_batches;
ALTER TABLE batches DROP COLUMN large;
DROP TABLE large_data;
ALTER TABLE keys DROP COLUMN fingerprint;
PRAGMA user_version = 2;
"""

VERSION_1 = f"""
{VERSION_2}
DROP TABLE keys;
DROP INDEX channels_by_time;
ALTER TABLE store DROP COLUMN unsynced;
PRAGMA user_version = 1;
"""

OLDER = pytest.mark.parametrize(("version", "script"), [(1, VERSION_1), (2, VERSION_2)])

CHANNELS = (b"a", b"b")


def write(directory: Path, script: str) -> None:
    """A directory of an older version."""
    with DiskStage(directory, b"old ") as stage:
        for number in range(20):
            stage.publish(CHANNELS[number % 2], b"%d " % number + b"x" * (500 if number % 3 else 2_000))
        stage.stop()
    with closing(sqlite3.connect(directory / "events.sqlite", isolation_level=None)) as connection:
        connection.executescript(script)


def version_of(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "events.sqlite")) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def schema_of(directory: Path) -> set[str]:
    with closing(sqlite3.connect(directory / "events.sqlite")) as connection:
        rows = connection.execute(
            "SELECT type, name FROM sqlite_schema UNION"
            " SELECT 'column of ' || tables.name, columns.name FROM sqlite_schema AS tables,"
            " pragma_table_info(tables.name) AS columns"
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


@OLDER
def test_older_version_is_upgraded(tmp_path: Path, version: int, script: str) -> None:
    write(tmp_path / "old", script)
    assert version_of(tmp_path / "old") == version
    check(tmp_path / "old")
    with DiskStage(tmp_path / "new") as stage:
        stage.stop()
    assert version_of(tmp_path / "old") == version_of(tmp_path / "new") == SCHEMA_VERSION
    assert schema_of(tmp_path / "old") == schema_of(tmp_path / "new")


@OLDER
def test_older_version_can_be_read_without_an_upgrade(tmp_path: Path, version: int, script: str) -> None:
    write(tmp_path, script)
    with StateReader(tmp_path) as reader:
        assert [(channel.name, channel.events) for channel in reader.channels()] == [(b"a", 10), (b"b", 10)]
        assert [batch.end - batch.first for batch in reader.events(b"a") or ()] == [1] * 10
    assert version_of(tmp_path) == version


def lose_power(disk: FaultyDisk) -> None:
    disk.lose_power(random.Random(1))


@OLDER
@pytest.mark.parametrize("end", [lose_power, FaultyDisk.end_process])
def test_upgrade_that_is_interrupted_is_repeated(
    tmp_path: Path, end: Callable[[FaultyDisk], None], version: int, script: str
) -> None:
    """At each of the calls of the disk."""
    write(tmp_path / "old", script)
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
    assert interrupted > 10 and versions == sorted(versions) and set(versions) == {version, SCHEMA_VERSION}
