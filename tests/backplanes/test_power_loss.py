"""Loss of power and errors of the disk, again and again: every answered event is there, once and in order, and nothing
else is. After an error of fsync, the system takes what was not written for written.

SQLite itself runs here, the library of this Python, on a disk that forgets what was not synced (tests.faulty_disk). So
this shows that the store asks SQLite for the right thing, and that SQLite calls fsync when it must. It does not show
whether a file system and a disk do as they promise.
"""

import os
import random
import sqlite3
from collections.abc import Set
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.backplanes.disk_stage import DiskStage
from tests.faulty_disk import FULL, IOERR_FSYNC, IOERR_WRITE, OK, FaultyDisk, faulty_disk
from twistedsock.backplanes import sqlite_database, sqlite_store
from twistedsock.backplanes.sqlite_database import StoreError
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.values import Position

pytestmark = pytest.mark.slow

SEEDS = 60
LOSSES_PER_SEED = 8
CHANNELS = (b"a", b"b", b"c")


class ShortLog(sqlite3.Connection):
    """Moves its log into the database every few transactions, so that this is interrupted often."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA wal_autocheckpoint = 30")


class Weaker(ShortLog):
    """Uses another value of ``synchronous``."""

    synchronous = ""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous = FULL", f"synchronous = {self.synchronous}"), *parameters)


class Off(Weaker):
    synchronous = "OFF"


class Normal(Weaker):
    synchronous = "NORMAL"


class WithoutWAL(ShortLog):
    """Cannot use WAL, as on some file systems, and after errors of the disk."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("journal_mode = WAL", "journal_mode"), *parameters)


class Machine:
    """Publishes on a disk until the power fails, and starts again. ``answered`` has the payloads by channel and
    offset, ``epochs`` the epoch of each channel that has an answered event."""

    syncs_later = False
    names_runs = True

    def __init__(self, disk: FaultyDisk, directory: Path, chance: random.Random, errors: float) -> None:
        self._run = 0
        self._seen: dict[tuple[bytes, bytes, int], bytes] = {}
        """Payloads by channel, epoch and offset, as clients have received them."""
        self._disk = disk
        self._directory = directory
        self._chance = chance
        self._remaining = 0
        self._published: dict[bytes, set[bytes]] = {channel: set() for channel in CHANNELS}
        self._epochs: dict[bytes, bytes] = {}
        self._starts = 0
        self._errors = errors
        self._planned: list[tuple[str, str]] = []
        """Kind and file of the next calls that have errors. Until then, the power stays."""
        self.answered: dict[bytes, dict[int, bytes]] = {channel: {} for channel in CHANNELS}
        disk.before = self._before

    def _before(self, kind: str, path: Path) -> int:
        if self._planned:
            if self._planned[0] != (kind, path.name):
                return OK
            del self._planned[0]
            return IOERR_FSYNC if kind == "sync" else IOERR_WRITE
        self._remaining -= 1
        if self._remaining <= 0:
            return IOERR_WRITE
        if self._chance.random() < self._errors:
            return IOERR_FSYNC if kind == "sync" else self._chance.choice((IOERR_WRITE, FULL))
        return OK

    def run(self) -> None:
        """Start, check what is there, and publish until the power fails at any call of the disk."""
        self._remaining = self._chance.randint(1, 250)
        self._starts += 1
        try:
            with self._start(b"start %d, " % self._starts) as stage:
                self.check(stage)
                while self._remaining > 0:
                    self._publish(stage)
                    while not stage.backplane.is_ready and self._remaining > 0:
                        stage.pass_time()
        except StoreError:
            pass
        self._end()

    def _start(self, epochs: bytes = b"e") -> DiskStage:
        return DiskStage(self._directory, epochs, self.syncs_later, b"run-%d" % (self._run * self.names_runs))

    def _end(self) -> None:
        self._disk.lose_power(self._chance)
        self._run += 1

    def lose_power_after_error_of_fsync(self, calls: int) -> None:
        """A transaction is not synced, and then not removed from the log, because that cannot be copied. The power
        fails so many calls later, while the log is used again."""
        self.start_with_power(publications=8)
        with suppress(sqlite3.Error, StoreError), self._start(b"again ") as stage:
            self.check(stage)
            self._publish(stage)
            self._planned = [("sync", "events.sqlite-wal"), ("write", "events.sqlite")]
            self._remaining = calls
            while self._remaining > 0:
                self._publish(stage)
                while not stage.backplane.is_ready and self._remaining > 0:
                    stage.pass_time()
        self._disk.lose_power(self._chance)

    def start_with_power(self, publications: int = 0) -> None:
        self._remaining, self._errors = 10**6, 0.0
        with self._start() as stage:
            self.check(stage)
            for _ in range(publications):
                self._publish(stage)
            stage.stop()

    def _publish(self, stage: DiskStage) -> None:
        chance = self._chance
        before = len(stage.story)
        requests = []
        for _ in range(chance.randint(1, 4)):
            channel = chance.choice(CHANNELS)
            size = chance.choice((0, 100, 100, 9_000))
            payloads = [b"%d %s" % (chance.getrandbits(60), b"x" * size) for _ in range(chance.randint(1, 3))]
            self._published[channel].update(payloads)
            requests.append((channel, payloads))
            stage.publish(channel, *payloads, settle=False)
        stage.settle()
        answers = [entry for entry in stage.story[before:] if entry[0] == "answered"]
        assert [entry[1] for entry in answers] == [channel for channel, _ in requests]
        for entry in stage.story[before:]:
            if entry[0] == "delivered":  # not if the channel could not be opened
                _, channel, epoch, event = entry
                if epoch != self._epochs.setdefault(channel, epoch):
                    self._begin_epoch(channel, epoch)
                self._see(channel, epoch, {event.offset: event.payload})
        for (channel, payloads), (_, _, first) in zip(requests, answers, strict=True):
            if isinstance(first, int):
                self.answered[channel].update(enumerate(payloads, first))

    def _begin_epoch(self, channel: bytes, epoch: bytes) -> None:
        raise AssertionError(f"{channel!r} has a new epoch")

    def _see(self, channel: bytes, epoch: bytes, payloads: dict[int, bytes]) -> None:
        for offset, payload in payloads.items():
            known = self._seen.setdefault((channel, epoch, offset), payload)
            assert known == payload, f"event {offset} of {channel!r} was another one in the same epoch"

    def check(self, stage: DiskStage) -> bool:
        """Whether all channels could be read."""
        for channel in CHANNELS:
            position = stage.open(channel)
            if not isinstance(position, Position):
                return False  # the power fails, or a call has an error
            results: list[Any] = []
            on_result(stage.backplane.read(channel, Position(position.epoch, 0), 10**9), results.append)
            stage.settle()
            events = [event for batch in results[0] for event in batch.events()]
            first = events[0].offset if events else position.offset + 1
            assert [event.offset for event in events] == list(range(first, position.offset + 1))
            payloads = {event.offset: event.payload for event in events}
            self._forget_old(channel, position, first)
            missing = self.answered[channel].items() - payloads.items()
            is_new = position.epoch != self._epochs.get(channel, position.epoch)
            if is_new and self._can_be_lost(channel, missing):
                self._epochs[channel] = position.epoch
                for offset, _ in missing:
                    del self.answered[channel][offset]
            else:
                offsets = sorted(offset for offset, _ in missing)
                assert not missing, f"answered, and not on the disk: {channel!r} {offsets}"
            assert len(set(payloads.values())) == len(payloads) and set(payloads.values()) <= self._published[channel]
            assert self._epochs.get(channel, position.epoch) == position.epoch
            self._see(channel, position.epoch, payloads)
        return True

    def _forget_old(self, channel: bytes, position: Position, first: int) -> None:
        """``first`` is the offset of the first event on the disk."""
        assert first == 1

    def _can_be_lost(self, channel: bytes, events: Set[tuple[int, bytes]]) -> bool:
        return False


class TrimmingMachine(Machine):
    """Deletes old events, and channels that have had none, a few at a time. The clock goes on while it is off."""

    MAX_AGE_SECONDS = 4.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._now = 1_000.0
        self._times: dict[tuple[bytes, int], float] = {}
        self._oldest = 0.0
        """Events since then have not been deleted."""

    def _start(self, epochs: bytes = b"e") -> DiskStage:
        stage = super()._start(epochs)
        stage.now = self._now
        return stage

    def _publish(self, stage: DiskStage) -> None:
        super()._publish(stage)
        for channel, events in self.answered.items():
            for offset in events:
                self._times.setdefault((channel, offset), self._now)
        if self._chance.random() < 0.5:
            self._oldest = self._now - self.MAX_AGE_SECONDS
            stage.backplane.trim(self.MAX_AGE_SECONDS, 10**9)
            stage.settle()
        self._now = stage.now = self._now + self._chance.choice((0.5, 1.0, 3.0))

    def _forget_old(self, channel: bytes, position: Position, first: int) -> None:
        if position.epoch != self._epochs.get(channel, position.epoch):
            self._begin_epoch(channel, position.epoch)
        for offset in list(self.answered[channel]):
            if offset < first:
                assert self._times[channel, offset] < self._oldest, f"event {offset} of {channel!r} was deleted"
                del self.answered[channel][offset], self._times[channel, offset]

    def _begin_epoch(self, channel: bytes, epoch: bytes) -> None:
        """The channel was deleted, because all of its events were old."""
        for offset in self.answered[channel]:
            assert self._times.pop((channel, offset)) < self._oldest, f"event {offset} of {channel!r} was deleted"
        self.answered[channel].clear()
        self._epochs[channel] = epoch


class LaterMachine(Machine):
    """Answers before it syncs. The power fails, or only the process ends."""

    syncs_later = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._safe: dict[bytes, set[int]] = {channel: set() for channel in CHANNELS}
        """Offsets of events that were answered before the last sync."""
        self._checked_run = 0

    def _end(self) -> None:
        if self._chance.random() < 0.3:
            self._disk.end_process()
        else:
            super()._end()

    def _publish(self, stage: DiskStage) -> None:
        super()._publish(stage)
        if self._chance.random() < 0.3:
            stage.pass_time()
            if stage.backplane.is_ready and self._remaining > 0:
                self._note_safe()

    def _note_safe(self) -> None:
        for channel, events in self.answered.items():
            self._safe[channel] = set(events)

    def check(self, stage: DiskStage) -> bool:
        is_complete = super().check(stage)
        if is_complete:
            self._checked_run = self._run
            self._note_safe()
        return is_complete

    def _can_be_lost(self, channel: bytes, events: Set[tuple[int, bytes]]) -> bool:
        """Not after the end of the process only."""
        return self._run > self._checked_run and self._safe[channel].isdisjoint(offset for offset, _ in events)


def lose_power_often(directory: Path, seed: int, kind: type[Machine] = Machine) -> int:
    """The number of events that were answered. Of the calls of the disk, none, a few or many have errors."""
    with faulty_disk(syncs=False) as disk:
        machine = kind(disk, directory, random.Random(seed), (0.0, 0.01, 0.05)[seed % 3])
        for _ in range(LOSSES_PER_SEED):
            machine.run()
        machine.start_with_power()
        return sum(map(len, machine.answered.values()))


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=request.param))


@pytest.mark.parametrize("connection", [ShortLog], indirect=True)
@pytest.mark.usefixtures("connection")
def test_every_answered_event_survives_loss_of_power(tmp_path: Path) -> None:
    answered = sum(lose_power_often(tmp_path / str(seed), seed) for seed in range(SEEDS))
    assert answered > 10 * SEEDS * LOSSES_PER_SEED


@pytest.mark.parametrize("connection", [Off, Normal], indirect=True)
@pytest.mark.usefixtures("connection")
def test_weaker_stores_are_noticed(tmp_path: Path) -> None:
    """The mutation check."""
    with pytest.raises(AssertionError):
        for seed in range(20 * SEEDS):
            lose_power_often(tmp_path / str(seed), seed)


@pytest.fixture
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_database, "MAX_UNSYNCED_BYTES", 300_000)


@pytest.mark.usefixtures("short_log")
def test_events_of_the_last_second_are_lost_with_new_epochs_only(tmp_path: Path) -> None:
    """A store that syncs once a second: all that was synced is there, an epoch has no offset twice, and nothing is lost
    when only the process ends."""
    answered = sum(lose_power_often(tmp_path / str(seed), seed, LaterMachine) for seed in range(SEEDS))
    assert answered > 5 * SEEDS * LOSSES_PER_SEED


@pytest.mark.parametrize("connection", [Off, Normal], indirect=True)
@pytest.mark.usefixtures("connection", "short_log")
def test_weaker_stores_that_sync_later_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        for seed in range(20 * SEEDS):
            lose_power_often(tmp_path / str(seed), seed, LaterMachine)


@pytest.mark.usefixtures("short_log")
def test_epochs_that_survive_a_loss_of_power_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutation check."""
    monkeypatch.setattr(LaterMachine, "names_runs", False)
    with pytest.raises(AssertionError):
        for seed in range(20 * SEEDS):
            lose_power_often(tmp_path / str(seed), seed, LaterMachine)


@pytest.mark.parametrize("connection", [ShortLog], indirect=True)
@pytest.mark.usefixtures("connection")
def test_only_old_events_are_deleted_when_the_power_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "TRIMMED_ROWS", 3)
    for seed in range(SEEDS):
        lose_power_often(tmp_path / str(seed), seed, TrimmingMachine)


def test_error_while_channels_are_deleted_begins_no_epochs(tmp_path: Path) -> None:
    """The number of events in ``lock`` must be lowered before."""

    def fail(kind: str, path: Path) -> int:
        return IOERR_WRITE if (kind, path.name) == ("write", "lock") else OK

    with faulty_disk(syncs=False) as disk, DiskStage(tmp_path) as stage:
        stage.publish(b"b", b"old"), stage.publish(b"a", b"old")
        stage.now += 100
        stage.publish(b"a", b"new")
        position = stage.open(b"a")
        disk.before = fail
        stage.backplane.trim(50.0, 10**9)
        stage.settle()
        assert not stage.backplane.is_ready
        disk.before = lambda kind, path: OK
        stage.pass_time()
        assert stage.backplane.is_ready and stage.damage == [] and stage.open(b"a") == position


def lose_power_after_error_of_fsync(directory: Path) -> None:
    """During each of the calls that read, write and copy the log again."""
    for calls in range(5, 20):
        for seed in range(4):
            with faulty_disk(syncs=False) as disk:
                machine = Machine(disk, directory / f"{calls}-{seed}", random.Random(seed), 0.0)
                machine.lose_power_after_error_of_fsync(calls)
                machine.start_with_power()


def test_every_answered_event_survives_loss_of_power_after_an_error_of_fsync(tmp_path: Path) -> None:
    lose_power_after_error_of_fsync(tmp_path)


def test_log_that_is_not_written_again_after_an_error_of_fsync_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation check."""

    def sync(path: Path) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())

    monkeypatch.setattr(sqlite_database, "write_again", sync)
    with pytest.raises(AssertionError, match="answered, and not on the disk"):
        lose_power_after_error_of_fsync(tmp_path)


@pytest.mark.parametrize("connection", [WithoutWAL], indirect=True)
@pytest.mark.usefixtures("connection")
def test_store_is_not_opened_without_wal(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="SQLite cannot use WAL on this file system"):
        DiskStage(tmp_path)
