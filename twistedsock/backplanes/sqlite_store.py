"""The file in which the SQLite backplane keeps channels and events. All methods block: a thread of its own calls them.

A commit is durable when it returns: the database is in WAL mode with ``synchronous=FULL``, so SQLite calls fsync for
each transaction (https://sqlite.org/pragma.html#pragma_synchronous). There is one connection to the file, because a
fault of SQLite before 3.51.3 can damage a database with several connections in WAL mode.

A damaged file is set aside, and what can be read of it is copied to a new one. A log (WAL) that is damaged, cut or
missing looks to SQLite as if less had been committed. So the number of committed events is also in another file,
``lock``. It is written after each commit and not synced: after a loss of power it can be too small, but not too large.
If events are missing, all channels begin new epochs, because offsets must not be given twice in one epoch.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from twistedsock.backplanes.sqlite_damage import (
    DamageError,
    channel_checksum,
    copy_log_aside,
    create_private,
    is_damage,
    open_damaged,
    set_aside,
    sign,
    sync_folder,
    verify,
    write_again,
)
from twistedsock.pubsub.values import Batch, PayloadKind, Payloads, Position

T = TypeVar("T")

FILE_NAME = "events.sqlite"

LOCK_NAME = "lock"
"""The process that uses the directory holds a lock (flock) on this file."""

SCHEMA_VERSION = 1
"""Of the tables below. A file of a newer version is not opened."""

TRIMMED_ROWS = 500
"""Rows that one step of ``trim`` deletes, so that commits wait for it a few milliseconds only."""

MAX_CHECKED_BYTES = 256 * 1024 * 1024
"""Larger files are not checked after a crash. The check reads the whole file; other damage is found when it is read."""

MARK_BYTES = 20
"""Of the number of events in the file ``lock``, with a newline."""

DAMAGE_ERRORS = (sqlite3.Error, DamageError, msgspec.MsgspecError)
"""Types of errors that damage can have; ``is_damage`` decides."""

_TABLES = """
CREATE TABLE store (
    epoch BLOB NOT NULL  -- of all channels without a row in ``channels``
);
CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    epoch BLOB NOT NULL,
    head INTEGER NOT NULL,  -- offset of the newest event
    time INTEGER NOT NULL,  -- of the newest event, in milliseconds since 1970
    checksum INTEGER NOT NULL  -- of name, head and time
);
CREATE TABLE batches (
    channel INTEGER NOT NULL REFERENCES channels (id),
    last INTEGER NOT NULL,   -- offset of the last event
    time INTEGER NOT NULL,   -- of the last event
    size INTEGER NOT NULL,   -- bytes of the payloads
    data BLOB NOT NULL,      -- checksum, and MessagePack of _Batch
    PRIMARY KEY (channel, last)
) WITHOUT ROWID;
CREATE INDEX batches_by_time ON batches (time);
"""


# With a damaged index, a channel would look like one that is new.
_NAMES_NOT_FOUND = (
    "SELECT count(*) FROM channels AS stored NOT INDEXED WHERE NOT EXISTS"
    " (SELECT 1 FROM channels AS found INDEXED BY sqlite_autoindex_channels_1"
    " WHERE found.name = stored.name AND found.id = stored.id)"
)

SUM_OF_HEADS = "SELECT coalesce(sum(head), 0) FROM channels"


class StoreError(OSError):
    """The directory cannot be used. The message is one sentence for the operator."""


class StoredChannel(NamedTuple):
    """``time`` is that of the newest event before ``tail``, 0 if there is none."""

    position: Position
    tail: Sequence[Batch]
    time: int


class Room(NamedTuple):
    """``file_bytes`` is the size of the database and its log, ``used_bytes`` that of the database without its free
    pages, which has a limit. ``oldest`` is the time of the oldest event in milliseconds since 1970, None without
    events."""

    file_bytes: int
    used_bytes: int
    oldest: int | None


class Addition(NamedTuple):
    """Batches to append to a channel, in order. ``epoch`` is used if the channel is new."""

    channel: bytes
    epoch: bytes
    batches: Sequence[Batch]


class _Batch(msgspec.Struct, array_like=True, gc=False):
    """A batch without its offsets, which follow from those of the row."""

    publisher: bytes
    sender: bytes
    name: bytes
    time: int
    is_json: bool
    is_plain: bool
    items: tuple[bytes, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[_Batch, ...]).decode


def _pack(batches: Sequence[Batch]) -> bytes:
    data = _encode(
        [
            _Batch(
                batch.publisher,
                batch.sender,
                batch.name,
                batch.time,
                batch.payloads.kind is PayloadKind.JSON,
                batch.payloads.is_plain,
                tuple(batch.payloads.items),
            )
            for batch in batches
        ]
    )
    return sign(data, batches[-1].end - 1)


def unpack(last: int, data: bytes) -> list[Batch]:
    """The batches of a row. ``last`` is the offset of its last event. Raises MsgspecError if the row is damaged."""
    stored = _decode(verify(data, last))
    first = last + 1 - sum([len(each.items) for each in stored])
    batches = []
    for each in stored:
        kind = PayloadKind.JSON if each.is_json else PayloadKind.TEXT
        payloads = Payloads(each.items, sum(map(len, each.items)), kind, each.is_plain)
        end = first + len(each.items)
        batches.append(Batch(first, end, each.publisher, each.sender, each.name, payloads, each.time))
        first = end
    return batches


class _Row(NamedTuple):
    last: int
    time: int
    size: int
    data: bytes
    batches: list[Batch]


def _newest_rows(connection: sqlite3.Connection, id: int, head: int) -> Iterator[_Row]:
    """The rows of a channel, beginning with the newest. Raises an error of damage if one is wrong or missing."""
    rows = connection.execute("SELECT last, time, size, data FROM batches WHERE channel = ? ORDER BY last DESC", (id,))
    for last, time, size, data in rows:
        batches = unpack(last, data)
        if last != head:
            raise DamageError(f"event {head} of a channel is missing")
        head = batches[0].first - 1
        yield _Row(last, time, size, data, batches)


def _channel_rows(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes, int, int, int]]:
    yield from connection.execute("SELECT id, name, head, time, checksum FROM channels")


def _until_damage(rows: Iterator[T]) -> Iterator[T]:
    """Rows of a damaged file that can be read."""
    with suppress(*DAMAGE_ERRORS):
        yield from rows


def read_mark(lock: int) -> int:
    """The number of committed events in the file ``lock``, 0 if it is unknown."""
    mark = os.pread(lock, MARK_BYTES, 0)
    return int(mark) if mark.strip().isdigit() else 0


class Store:
    """``directory`` is created if it does not exist. ``draw_epoch`` returns a random name. ``report_damage`` is called
    in the thread of the store, with a sentence."""

    def __init__(
        self,
        directory: Path,
        draw_epoch: Callable[[], bytes],
        report_damage: Callable[[str], object] = lambda sentence: None,
    ) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._draw_epoch = draw_epoch
        self._report_damage = report_damage
        self._lock: int | None = None
        self._opened: sqlite3.Connection | None = None
        self._epoch = b""
        self._events = 0
        """Sum of the heads of all channels."""
        self._damage: Exception | None = None
        """Of a file that has not been set aside yet."""

    def open(self) -> None:
        """Raises StoreError if the directory cannot be used, for example because another process uses it."""
        try:
            if not self._directory.exists():
                self._directory.mkdir(mode=0o700, parents=True)
                sync_folder(self._directory.parent)
            create_private(self._directory / LOCK_NAME)
            self._lock = os.open(self._directory / LOCK_NAME, os.O_RDWR)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._damage is None:
                self._open_database_unless_damaged()
            if self._damage is not None:
                self._begin_again(self._damage)
        except BlockingIOError:
            self.close()
            raise StoreError(f"{self._directory} is used by another process") from None
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"cannot open {self._directory / FILE_NAME}: {error}") from None
        except StoreError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise StoreError(f"cannot use {self._directory}: {error.strerror}") from None

    def reopen(self, error: Exception) -> None:
        """Close and open the file after an error. If the error means that the file is damaged, a new one is begun."""
        error.__traceback__ = None  # its frames have cursors, with which SQLite would keep the file open
        self.close()
        if is_damage(error):
            self._damage = error
        self.open()

    def _open_database_unless_damaged(self) -> None:
        try:
            self._open_database()
        except DAMAGE_ERRORS as error:
            if not is_damage(error):
                raise
            self._damage = error

    def _open_database(self) -> None:
        path = self._path
        log = Path(f"{path}-wal")
        was_killed = log.exists() and log.stat().st_size > 0
        if was_killed:
            # SQLite takes all of it for committed. After a loss of power while its pages are being copied to the
            # database, those that only the cache had would be there in part.
            write_again(log)
        create_private(path)  # SQLite gives its log the same permissions
        self._opened = connection = sqlite3.connect(path, isolation_level=None)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{path} was written by a newer version of sockbridge: use that version, or another directory"
            )
        if not version:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only has an effect before the first table
        # After an error of the disk, SQLite can stay with its other log and report nothing. That is not safe with
        # FULL: a log that was deleted can return after a loss of power, and undo a transaction.
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"cannot open {path}: SQLite cannot use WAL on this file system, or the disk has errors")
        connection.execute("PRAGMA synchronous = FULL")
        if not version:
            with self._transaction():
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO store (epoch) VALUES (?)", (self._draw_epoch(),))
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if was_killed and path.stat().st_size <= MAX_CHECKED_BYTES:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                raise DamageError(finding.replace("\n", " "))
        row = connection.execute("SELECT epoch FROM store").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise DamageError("the epoch is missing")
        (self._epoch,) = row
        self._check_mark()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._write_mark(self._events)

    # Damage.

    def _check_mark(self) -> None:
        """Begin new epochs if fewer events are here than were committed."""
        connection = self._connection
        assert self._lock is not None
        (lost,) = connection.execute(_NAMES_NOT_FOUND).fetchone()
        if lost:
            raise DamageError(f"channels that are not found by their names: {lost}")
        (self._events,) = connection.execute(SUM_OF_HEADS).fetchone()
        missing = read_mark(self._lock) - self._events
        if missing > 0:
            aside = copy_log_aside(self._path)
            self._epoch = self._draw_epoch()
            with self._transaction():
                connection.execute("UPDATE store SET epoch = ?", (self._epoch,))
                connection.execute("UPDATE channels SET epoch = ?", (self._epoch,))
            copy = f", and {aside} is a copy of its log" if aside else ""
            self._report_damage(f"{self._path} lacks {missing} events: all channels have new epochs{copy}")

    def _begin_again(self, damage: Exception) -> None:
        """Set the file aside, and copy to a new one the newest events of each channel up to the first damaged one."""
        if self._opened is not None:
            self._opened.close()
        aside = set_aside(self._path)
        self._damage = None
        self._write_mark(0)
        self._open_database()
        try:
            copied = f"events of it that could be read: {self._copy(aside)}"
        except sqlite3.Error as error:  # the disk is full
            copied = f"nothing of it was copied ({error})"
        (self._events,) = self._connection.execute(SUM_OF_HEADS).fetchone()
        self._write_mark(self._events)
        self._report_damage(f"{self._path} is damaged ({damage}) and now called {aside.name}: {copied}")

    def _copy(self, aside: Path) -> int:
        """Copy channels and events of another file. Returns the number of events."""
        connection = self._connection
        events = 0
        with open_damaged(aside) as damaged, self._transaction():
            for id, name, head, time, checksum in _until_damage(_channel_rows(damaged)):
                if checksum == channel_checksum(name, head, time):
                    new_id = connection.execute(
                        "INSERT INTO channels (name, epoch, head, time, checksum) VALUES (?, ?, ?, ?, ?)",
                        (name, self._epoch, head, time, checksum),
                    ).lastrowid
                    for row in _until_damage(_newest_rows(damaged, id, head)):
                        connection.execute(
                            "INSERT INTO batches (channel, last, time, size, data) VALUES (?, ?, ?, ?, ?)",
                            (new_id, row.last, row.time, row.size, row.data),
                        )
                        events += row.last + 1 - row.batches[0].first
        return events

    def _lower_mark(self, events: int) -> None:
        """Call this before channels with so many events are deleted."""
        assert self._lock is not None
        self._events -= events
        self._write_mark(self._events)
        os.fsync(self._lock)

    def _write_mark(self, events: int) -> None:
        assert self._lock is not None
        with suppress(OSError):  # a mark that is too small is no fault
            os.pwrite(self._lock, b"%0*d\n" % (MARK_BYTES - 1, events), 0)

    def close(self) -> None:
        """Write everything from the log of SQLite into the database, and release the directory."""
        connection, self._opened = self._opened, None
        lock, self._lock = self._lock, None
        try:
            if connection is not None:
                connection.close()
        finally:
            if lock is not None:
                os.close(lock)

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            raise StoreError(f"{self._directory} is not open")
        return self._opened

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._connection)

    # Events.

    def append(self, additions: Iterable[Addition]) -> None:
        """Append batches in one transaction. They are safe when this returns, and not known to be so after an
        exception. If ``additions`` raises, nothing is appended."""
        connection = self._connection
        events = 0
        with self._transaction():
            for channel, epoch, batches in additions:
                newest = batches[-1]
                head = newest.end - 1
                (id,) = connection.execute(
                    "INSERT INTO channels (name, epoch, head, time, checksum) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name)"
                    " DO UPDATE SET head = excluded.head, time = excluded.time, checksum = excluded.checksum"
                    " RETURNING id",
                    (channel, epoch, head, newest.time, channel_checksum(channel, head, newest.time)),
                ).fetchone()
                size = sum([batch.payloads.size for batch in batches])
                connection.execute(
                    "INSERT INTO batches (channel, last, time, size, data) VALUES (?, ?, ?, ?, ?)",
                    (id, head, newest.time, size, _pack(batches)),
                )
                events += newest.end - batches[0].first
        self._events += events
        self._write_mark(self._events)

    def read_channel(self, channel: bytes, max_events: int, max_bytes: int, oldest: int) -> StoredChannel:
        """The position of a channel, and its newest events: at most so many, of about so many bytes, and none that was
        published before ``oldest`` (milliseconds since 1970)."""
        row = self._connection.execute(
            "SELECT id, epoch, head, time, checksum FROM channels WHERE name = ?", (channel,)
        ).fetchone()
        if row is None:
            return StoredChannel(Position(self._epoch, 0), (), 0)
        id, epoch, head, time, checksum = row
        if checksum != channel_checksum(channel, head, time) or not isinstance(epoch, bytes):
            raise DamageError("the row of a channel is wrong")
        tail: list[list[Batch]] = []
        events = size = 0
        before = time
        for row in _newest_rows(self._connection, id, head):
            before = row.time
            if row.time < oldest or events >= max_events or size >= max_bytes:
                break
            batches = row.batches
            tail.append(batches)
            events += batches[-1].end - batches[0].first
            size += row.size
            # The time of deleted events is not known, but it is not later.
            before = batches[0].time if batches[0].first > 1 else 0
        newest = [batch for batches in reversed(tail) for batch in batches]
        return StoredChannel(Position(epoch, head), newest, before)

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        """The events after a position, of about ``limit`` bytes. Nothing if its epoch is not that of the channel."""
        row = self._connection.execute(
            "SELECT id, head FROM channels WHERE name = ? AND epoch = ?", (channel, after.epoch)
        ).fetchone()
        found: list[Batch] = []
        if row is not None:
            rows = self._connection.execute(
                "SELECT last, size, data FROM batches WHERE channel = ? AND last > ? ORDER BY last",
                (row[0], after.offset),
            )
            end = 0
            for last, size, data in rows:
                batches = unpack(last, data)
                if end and batches[0].first != end:
                    raise DamageError(f"event {end} of a channel is missing")
                end = last + 1
                found += [batch.part(after.offset + 1, batch.end) for batch in batches if batch.end > after.offset + 1]
                limit -= size
                if limit <= 0:
                    break
            else:
                if end and end != row[1] + 1:
                    raise DamageError(f"event {row[1]} of a channel is missing")
        return found

    # Room.

    def trim(self, oldest: int, max_bytes: int, new_epoch: bytes) -> bool:
        """Delete a few events that were published before ``oldest``, or, if the file is larger than ``max_bytes``, the
        oldest ones of all; then a few channels without events that have had none since ``oldest``, or any of them if
        the file is still too large. Returns whether there is more to delete."""
        connection = self._connection
        with self._transaction():
            deleted = connection.execute(
                "DELETE FROM batches WHERE (channel, last) IN"
                " (SELECT channel, last FROM batches WHERE time < ? LIMIT ?)",
                (oldest, TRIMMED_ROWS),
            ).rowcount
            if not deleted and self.used_bytes() > max_bytes:
                deleted = connection.execute(
                    "DELETE FROM batches WHERE (channel, last) IN"
                    " (SELECT channel, last FROM batches ORDER BY time LIMIT ?)",
                    (TRIMMED_ROWS,),
                ).rowcount
            is_full = self.used_bytes() > max_bytes
            heads = connection.execute(
                "DELETE FROM channels WHERE id IN (SELECT id FROM channels WHERE (time < ? OR ?)"
                " AND NOT EXISTS (SELECT 1 FROM batches WHERE channel = id) LIMIT ?) RETURNING head",
                (oldest, is_full, TRIMMED_ROWS),
            ).fetchall()
            if heads:  # if such a channel is used again, its offsets begin again
                connection.execute("UPDATE store SET epoch = ?", (new_epoch,))
                self._lower_mark(sum([head for (head,) in heads]))
        if heads:
            self._epoch = new_epoch
        connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
        return TRIMMED_ROWS in (deleted, len(heads))

    def compact(self) -> None:
        """Write the file again without gaps. This needs room on the disk for a second one."""
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def room(self) -> Room:
        """The room that the events take now."""
        paths = [self._directory / f"{FILE_NAME}{suffix}" for suffix in ("", "-wal")]
        (oldest,) = self._connection.execute("SELECT min(time) FROM batches").fetchone()
        return Room(sum(path.stat().st_size for path in paths if path.exists()), self.used_bytes(), oldest)

    def used_bytes(self) -> int:
        """The size of the database without its free pages."""
        (pages,), (free,), (size,) = (
            self._connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


class _Transaction:
    """``BEGIN IMMEDIATE``, then ``COMMIT``, or ``ROLLBACK`` after an exception."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
