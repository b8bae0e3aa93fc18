"""Reads the directory of the SQLite backplane for the command `sockbridge state`, also while a server uses it.

The connection is read-only: it writes no transaction and makes no checkpoint, and only two connections that do can meet
the fault of SQLite that ``sqlite_store`` describes. Events are read in pages with a statement each, because SQLite
cannot shorten its log while a statement runs.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

import msgspec

from twistedsock.backplanes.sqlite_damage import channel_checksum
from twistedsock.backplanes.sqlite_database import StoreError
from twistedsock.backplanes.sqlite_lock import LOCK_NAME, read_mark
from twistedsock.backplanes.sqlite_rows import data_column, unpack
from twistedsock.backplanes.sqlite_schema import SCHEMA_VERSION
from twistedsock.backplanes.sqlite_store import FILE_NAME, SUM_OF_HEADS
from twistedsock.pubsub.values import Batch

PAGE_BYTES = 1024 * 1024
"""Events that one statement reads, in bytes of the payloads. A page also ends after ``PAGE_ROWS``."""

PAGE_ROWS = 1_000

INTERRUPTION_STEPS = 1_000_000
"""Instructions of SQLite between two calls of ``progress`` in a long check: about 20 ms."""


class ChannelContent(NamedTuple):
    """A channel as the file has it. Times are milliseconds since 1970. Without events, both are those of the last
    one that the channel had."""

    name: bytes
    epoch: bytes
    head: int
    """Offset of the newest event, also if that has been deleted."""
    events: int
    bytes: int
    """Size of the payloads."""
    oldest: int
    newest: int


class _StoredRow(NamedTuple):
    last: int
    time: int
    size: int
    data: bytes


class StateReader:
    """A context manager. ``exclusive``: no server can use the directory meanwhile. Raises StoreError if one does, if
    there is no state in the directory, or if it cannot be read."""

    def __init__(self, directory: Path, exclusive: bool = False) -> None:
        self.directory = directory
        self.path = directory / FILE_NAME
        self._lock: int | None = None
        if not self.path.is_file():
            raise StoreError(f"{directory} is no state directory: it has no file {FILE_NAME}")
        self.is_in_use = not self._acquire_lock()
        """Whether a server uses the directory, when the reader was created."""
        if not exclusive:
            self._release_lock()
        elif self.is_in_use:
            raise StoreError(f"{directory} is used by a server: stop it first")
        try:
            # The path as a URI, in which ? and # have another meaning.
            self._connection = sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True, isolation_level=None)
            try:
                (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            except sqlite3.Error:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            self._release_lock()
            raise StoreError(f"cannot read {self.path}: {error}") from None
        if not 0 < version <= SCHEMA_VERSION:
            self.close()
            writer = "a newer version of sockbridge" if version else "another program"
            raise StoreError(f"{self.path} was written by {writer}")
        self._data_column = data_column(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        self._release_lock()

    def _acquire_lock(self) -> bool:
        try:
            self._lock = os.open(self.directory / LOCK_NAME, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:  # a copy of the database
            return True
        except BlockingIOError:
            self._release_lock()
            return False
        except OSError as error:
            raise StoreError(f"cannot read {self.directory / LOCK_NAME}: {error.strerror}") from None
        return True

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def file_bytes(self) -> int:
        """The size of the database and its log."""
        return sum(path.stat().st_size for path in (self.path, Path(f"{self.path}-wal")) if path.exists())

    def files_set_aside(self) -> list[Path]:
        """Databases that a server has found damaged and renamed."""
        found = sorted(self.directory.glob(f"{FILE_NAME}.damaged-*"))
        return [path for path in found if not path.name.endswith(("-wal", "-shm"))]

    def channels(self) -> Iterator[ChannelContent]:
        """All channels, in the order in which they were created. This reads the whole file."""
        for id, name, epoch, head, time, _ in self._channel_rows():
            yield self._content(id, name, epoch, head, time)

    def _channel_rows(self) -> Iterator[tuple[int, bytes, bytes, int, int, int]]:
        id = 0
        while page := self._connection.execute(
            "SELECT id, name, epoch, head, time, checksum FROM channels WHERE id > ? ORDER BY id LIMIT ?",
            (id, PAGE_ROWS),
        ).fetchall():
            yield from page
            id = page[-1][0]

    def _content(self, id: int, name: bytes, epoch: bytes, head: int, time: int) -> ChannelContent:
        for row in self._rows(id, 0, 1):
            batches = self._unpack(row)
            # The server can have published since the channel was read.
            size, last, newest = self._connection.execute(
                "SELECT sum(size), max(last), max(time) FROM batches WHERE channel = ? AND last >= ?", (id, row.last)
            ).fetchone()
            if last is not None:  # they have been deleted since
                events = last - batches[0].first + 1
                return ChannelContent(name, epoch, max(head, last), events, size, batches[0].time, newest)
        return ChannelContent(name, epoch, head, 0, 0, time, time)

    def events(self, channel: bytes) -> Iterator[Batch] | None:
        """The events of a channel, or None if the file does not know it."""
        found = self._connection.execute("SELECT id FROM channels WHERE name = ?", (channel,)).fetchone()
        return None if found is None else self._events(found[0])

    def _events(self, id: int) -> Iterator[Batch]:
        for row in self._rows(id):
            yield from self._unpack(row)

    def _rows(self, id: int, last: int = 0, page_rows: int = PAGE_ROWS) -> Iterator[_StoredRow]:
        """The rows of a channel after an offset, in pages."""
        while True:
            page: list[_StoredRow] = []
            size = 0
            cursor = self._connection.execute(
                f"SELECT last, time, size, {self._data_column} FROM batches WHERE channel = ? AND last > ?"
                " ORDER BY last LIMIT ?",
                (id, last, page_rows),
            )
            for row in map(_StoredRow._make, cursor):
                page.append(row)
                size += len(row.data)
                if size >= PAGE_BYTES:
                    break
            cursor.close()
            if not page:
                return
            yield from page
            last = page[-1].last

    def _unpack(self, row: _StoredRow) -> list[Batch]:
        try:
            return unpack(row.last, row.data)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.path} is damaged: the row of event {row.last} cannot be read: {error}") from None

    # Verification.

    def find_damage(self, progress: Callable[[], object]) -> Iterator[str]:
        """Check the database, and each row of each channel. Yield a sentence for each fault. ``progress`` is called
        again and again."""

        def proceed() -> int:
            progress()
            return 0

        self._connection.set_progress_handler(proceed, INTERRUPTION_STEPS)
        for check in (self._database_faults, self._missing_events, self._stray_rows, self._channel_faults):
            try:
                yield from check()
            except sqlite3.Error as error:  # the next check can still find which channels are concerned
                yield f"database: {error}"

    def _database_faults(self) -> Iterator[str]:
        for (finding,) in self._connection.execute("PRAGMA integrity_check"):
            for line in finding.splitlines():
                if line != "ok" and not line.startswith("***"):
                    yield f"database: {line}"

    def _missing_events(self) -> Iterator[str]:
        (events,) = self._connection.execute(SUM_OF_HEADS).fetchone()
        committed = 0 if self._lock is None else read_mark(self._lock)
        if committed > events:
            yield f"events that were committed are missing: {committed - events}"

    def _stray_rows(self) -> Iterator[str]:
        (count,) = self._connection.execute(
            "SELECT count(*) FROM batches WHERE channel NOT IN (SELECT id FROM channels)"
        ).fetchone()
        if count:
            yield f"rows without a channel: {count}"
        if self._data_column != "data":
            (count,) = self._connection.execute(
                "SELECT count(*) FROM large_data WHERE id NOT IN (SELECT large FROM batches WHERE large NOT NULL)"
            ).fetchone()
            if count:
                yield f"data without a row: {count}"

    def _channel_faults(self) -> Iterator[str]:
        for id, name, _, head, time, checksum in self._channel_rows():
            label = f"channel {name.decode(errors='replace')}"
            if checksum != channel_checksum(name, head, time):
                yield f"{label}: its row has a wrong checksum"
            try:
                yield from (f"{label}: {fault}" for fault in self._faults(id, head))
            except sqlite3.Error as error:
                yield f"{label}: {error}"

    def _faults(self, id: int, head: int) -> Iterator[str]:
        end = time = 0
        for row in self._rows(id):
            try:
                batches = unpack(row.last, row.data)
            except msgspec.MsgspecError as error:
                yield f"the row of event {row.last} cannot be read: {error}"
                end = 0
                continue
            if not batches or batches[0].first < 1:
                yield f"the row of event {row.last} has a wrong number of events"
                end = 0
                continue
            if end and batches[0].first != end:
                yield f"event {batches[0].first} follows event {end - 1}"
            if row.size != sum([batch.payloads.size for batch in batches]):
                yield f"the row of event {row.last} has a wrong size"
            for batch in batches:
                if batch.time < time:
                    yield f"the time of event {batch.first} is before that of the event before it"
                time = batch.time
            if row.time != time:
                yield f"the row of event {row.last} has a wrong time"
            end = row.last + 1
        if end and end != head + 1:
            yield f"its newest event is {end - 1} and not {head}"
