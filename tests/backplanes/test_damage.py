"""Damaged files of the SQLite backplane: it starts, delivers nothing that is wrong, and begins new epochs."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.backplanes.disk_stage import DiskStage, StartDiskStage
from tests.faulty_disk import faulty_disk
from twistedsock.backplanes.sqlite_store import Store
from twistedsock.errors import UNAVAILABLE
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.names import pattern
from twistedsock.pubsub.values import ChannelState, Position

CHANNELS = (b"a", b"b", b"c")
EVENTS = 40
PAYLOADS = [b"%d %s" % (number, b"x" * (150 if number % 4 else 1_500)) for number in range(1, EVENTS + 1)]


@pytest.fixture(autouse=True)
def _quick_disk() -> Iterator[None]:
    with faulty_disk(syncs=False):
        yield


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories with ``EVENTS`` events in each channel: of a server that was stopped, and of one that was killed."""
    folder = tmp_path_factory.mktemp("states")
    with faulty_disk(syncs=False):
        stage = DiskStage(folder / "stopped")
        for number, payload in enumerate(PAYLOADS):
            for channel in CHANNELS:
                stage.publish(channel, payload)
            if number == EVENTS // 2:  # one half is in the database, the other one in its log
                stage.stop()
                stage = DiskStage(folder / "stopped")
        shutil.copytree(folder / "stopped", folder / "killed")
        stage.stop()
    return {"stopped": folder / "stopped", "killed": folder / "killed"}


@pytest.fixture
def start(states: dict[str, Path], tmp_path: Path, disk_stage: StartDiskStage) -> StartDiskStage:
    """Start on a copy of a state, after ``damage`` was called with its directory."""
    count = iter(range(1_000))

    def start(kind: str, damage: Callable[[Path], object], **limits: Any) -> DiskStage:
        directory = tmp_path / str(next(count))
        shutil.copytree(states[kind], directory)
        damage(directory)
        return disk_stage(directory, b"new ", **{"history_age": 10**6} | limits)

    return start


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def truncate(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def read(stage: DiskStage, channel: bytes) -> tuple[ChannelState, dict[int, bytes]]:
    """The state of a channel and its events by offset. A fault that reading finds is repaired first."""
    states: list[Any] = []
    on_result(stage.backplane.open(channel), states.append)
    stage.settle()
    if not isinstance(states[0], ChannelState):
        stage.pass_time()
        return read(stage, channel)
    position = states[0].position
    results: list[Any] = []
    on_result(stage.backplane.read(channel, Position(position.epoch, 0), 10**9), results.append)
    stage.settle()
    if not stage.backplane.is_ready:
        stage.pass_time()
        return read(stage, channel)
    return states[0], {event.offset: event.payload for batch in results[0] for event in batch.events()}


def check(stage: DiskStage) -> int:
    """Check that no event is wrong, and that offsets of events that are missing are not given again in their epoch.
    Returns the number of events that are left."""
    left = 0
    for channel in CHANNELS:
        state, events = read(stage, channel)
        assert all(events[offset] == PAYLOADS[offset - 1] for offset in events)
        assert [batch.payloads.items[0] for batch in state.tail] == [events[batch.first] for batch in state.tail]
        head = state.position.offset
        if state.position.epoch == b"e1":
            assert head == EVENTS and sorted(events) == list(range(1, EVENTS + 1))
        else:
            assert stage.damage and (not events or max(events) == head)
        stage.publish(channel, b"more")
        if stage.answers(channel) == [UNAVAILABLE]:  # only writing has found the damage
            stage.pass_time()
            state, events = read(stage, channel)
            stage.publish(channel, b"more")
        assert stage.answers(channel)[-1] == state.position.offset + 1
        left += len(events)
    return left


def test_state_without_damage_keeps_its_epochs(start: StartDiskStage) -> None:
    for kind in ("stopped", "killed"):
        stage = start(kind, lambda directory: None)
        assert check(stage) == EVENTS * len(CHANNELS) and stage.damage == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("change", [flip_bit, truncate])
@pytest.mark.parametrize(
    ("kind", "name"), [("stopped", "events.sqlite"), ("killed", "events.sqlite"), ("killed", "events.sqlite-wal")]
)
def test_nothing_wrong_is_delivered_from_a_damaged_file(
    start: StartDiskStage, change: Callable[[Path, int], None], kind: str, name: str, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(10):

        def damage(directory: Path) -> None:
            path = directory / name
            size = path.stat().st_size
            change(path, chance.randrange(size * 8 if change is flip_bit else size))

        check(start(kind, damage))


@pytest.mark.parametrize("history_events", [5, 1_000])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batches WHERE channel = 1 AND last = 20",
        "DELETE FROM batches WHERE channel = 1 AND last = 40",
        "DELETE FROM large_data",
        "UPDATE batches SET last = 'x' WHERE channel = 1 AND last = 40",
        "UPDATE batches SET data = 'x', large = NULL WHERE channel = 1 AND last = 40",
        "UPDATE channels SET head = 50 WHERE id = 1",
        "UPDATE channels SET time = time + 1000 WHERE id = 1",
        "UPDATE channels SET epoch = 7 WHERE id = 1",
        "DELETE FROM store",
        "DROP TABLE channels",
        "PRAGMA user_version = 0",
    ],
)
def test_content_that_contradicts_itself_is_damage(start: StartDiskStage, statement: str, history_events: int) -> None:
    def damage(directory: Path) -> None:
        with closing(sqlite3.connect(directory / "events.sqlite", isolation_level=None)) as connection:
            connection.execute(statement)

    stage = start("stopped", damage, history_events=history_events)
    check(stage)
    assert len(stage.damage) == 1 and "is damaged" in stage.damage[0]


@pytest.mark.parametrize("act", ["read by time", "trim by pattern"])
def test_columns_of_wrong_types_are_damage(start: StartDiskStage, act: str) -> None:
    """When they are used: an error that is not recognised as damage would be met again after each start."""

    def damage(directory: Path) -> None:
        with closing(sqlite3.connect(directory / "events.sqlite", isolation_level=None)) as connection:
            connection.execute("UPDATE batches SET time = 'x', size = 'y' WHERE channel = 1 AND last > 3")

    stage = start("stopped", damage)
    position = read(stage, b"a")[0].position
    assert position == Position(b"e1", EVENTS) and stage.damage == []
    if act == "trim by pattern":
        stage.now += 100
        stage.backplane.trim(10**6, 10**9, [(pattern("*"), 10.0)])
    else:
        on_result(stage.backplane.offset_before(b"a", b"e1", 10**12), lambda outcome: None)
    stage.settle()
    assert not stage.backplane.is_ready
    stage.pass_time()
    assert stage.backplane.is_ready and "wrong types" in stage.damage[0]
    assert len(read(stage, b"a")[1]) == EVENTS


def test_channels_that_their_index_does_not_have_are_not_taken_for_new_ones(start: StartDiskStage) -> None:
    def damage(directory: Path) -> None:
        path = directory / "events.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            (page,) = connection.execute(
                "SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'channels' AND sql IS NULL"
            ).fetchone()
        content = bytearray(path.read_bytes())
        content[(page - 1) * 4096 + 3 : (page - 1) * 4096 + 5] = b"\0\0"  # the number of its entries
        path.write_bytes(content)

    stage = start("stopped", damage)
    assert check(stage) == EVENTS * len(CHANNELS) and "not found by their names: 3" in stage.damage[0]


def test_damaged_database_is_set_aside_and_what_can_be_read_of_it_is_kept(start: StartDiskStage) -> None:
    def damage(directory: Path) -> None:
        path = directory / "events.sqlite"
        flip_bit(path, (path.read_bytes().index(PAYLOADS[9]) + 5) * 8)

    stage = start("stopped", damage)
    left = check(stage)
    assert left >= 2 * EVENTS + 20
    (sentence,) = stage.damage
    assert "is damaged" in sentence and "events.sqlite.damaged-" in sentence


def test_damaged_database_is_closed_before_a_new_one_is_opened(states: dict[str, Path], tmp_path: Path) -> None:
    """SQLite keeps a file open while a cursor has it, and deletes its log by its former name when it closes it."""
    shutil.copytree(states["stopped"], tmp_path / "state")
    path = tmp_path / "state" / "events.sqlite"
    flip_bit(path, (path.read_bytes().index(PAYLOADS[9]) + 5) * 8)
    open_files: list[str] = []
    store = Store(
        tmp_path / "state",
        lambda: b"new",
        lambda sentence: open_files.extend(os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()),
    )
    store.open()
    try:
        store.read_channel(b"a", 10**6, 10**9, 0)
    except msgspec.ValidationError as error:
        store.reopen(error)
    assert str(path) in open_files and not [name for name in open_files if ".damaged-" in name]
    store.close()


def test_file_that_is_no_database_is_set_aside(tmp_path: Path, disk_stage: StartDiskStage) -> None:
    (tmp_path / "events.sqlite").write_bytes(b"x" * 10_000)
    stage = disk_stage(tmp_path)
    stage.publish(b"a", b"x")
    assert stage.answers(b"a") == [1]
    (aside,) = tmp_path.glob("events.sqlite.damaged-*")
    assert aside.read_bytes() == b"x" * 10_000 and stage.damage[0].endswith("events of it that could be read: 0")


def test_missing_log_begins_new_epochs(start: StartDiskStage) -> None:
    stage = start("killed", lambda directory: (directory / "events.sqlite-wal").unlink())
    assert check(stage) == len(CHANNELS) * (EVENTS // 2 + 1)
    assert "lacks 57 events: all channels have new epochs" in stage.damage[0]


def test_cut_log_is_copied_aside(start: StartDiskStage) -> None:
    """Also if only the last transaction is missing."""
    directories = []

    def damage(directory: Path) -> None:
        directories.append(directory)
        log = directory / "events.sqlite-wal"
        truncate(log, log.stat().st_size - 1)

    stage = start("killed", damage)
    (copy,) = directories[0].glob("events.sqlite-wal.damaged-*")
    assert check(stage) == EVENTS * len(CHANNELS) - 1 and str(copy) in stage.damage[0]


def test_older_copy_of_the_database_begins_new_epochs(states: dict[str, Path], start: StartDiskStage) -> None:
    def damage(directory: Path) -> None:
        older = states["killed"] / "events.sqlite"
        (directory / "events.sqlite").write_bytes(older.read_bytes())

    stage = start("stopped", damage)
    assert check(stage) == len(CHANNELS) * (EVENTS // 2 + 1) and "lacks 57 events" in stage.damage[0]


def test_subscribers_get_a_reset_when_damage_is_found_later(start: StartDiskStage) -> None:
    def damage(directory: Path) -> None:
        path = directory / "events.sqlite"
        flip_bit(path, (path.read_bytes().index(PAYLOADS[EVENTS - 1]) + 5) * 8)

    stage = start("stopped", damage)
    assert stage.damage == []
    states = [read(stage, channel)[0] for channel in CHANNELS]
    assert len(stage.damage) == 1
    assert {state.position.epoch for state in states} <= {b"e1", b"new 1", b"new 2"}
    read(stage, b"b")
