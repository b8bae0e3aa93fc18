"""The file in which the SQLite backplane keeps channels and events. All methods block: a thread of its own calls them.

A commit is durable when it returns: the database is in WAL mode with ``synchronous=FULL``, so SQLite calls fsync for
each transaction (https://sqlite.org/pragma.html#pragma_synchronous). There is one connection to the file, because a
fault of SQLite before 3.51.3 can damage a database with several connections in WAL mode.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from twistedsock.pubsub.values import Batch, PayloadKind, Payloads, Position

FILE_NAME = "events.sqlite"

LOCK_NAME = "lock"
"""The process that uses the directory holds a lock (flock) on this file."""

SCHEMA_VERSION = 1
"""Of the tables below. A file of a newer version is not opened."""

TRIMMED_ROWS = 500
"""Rows that one step of ``trim`` deletes, so that commits wait for it a few milliseconds only."""

_TABLES = """
CREATE TABLE store (
    epoch BLOB NOT NULL  -- of all channels without a row in ``channels``
);
CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    epoch BLOB NOT NULL,
    head INTEGER NOT NULL,  -- offset of the newest event
    time INTEGER NOT NULL   -- of the newest event, in milliseconds since 1970
);
CREATE TABLE batches (
    channel INTEGER NOT NULL REFERENCES channels (id),
    last INTEGER NOT NULL,   -- offset of the last event
    time INTEGER NOT NULL,   -- of the last event
    size INTEGER NOT NULL,   -- bytes of the payloads
    data BLOB NOT NULL,      -- MessagePack of _Row
    PRIMARY KEY (channel, last)
) WITHOUT ROWID;
CREATE INDEX batches_by_time ON batches (time);
"""


class StoreError(OSError):
    """The directory cannot be used. The message is one sentence for the operator."""


class StoredChannel(NamedTuple):
    """``time`` is that of the newest event before ``tail``, 0 if there is none."""

    position: Position
    tail: Sequence[Batch]
    time: int


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


def _pack(batches: Iterable[Batch]) -> bytes:
    return _encode(
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


def unpack(last: int, data: bytes) -> list[Batch]:
    """The batches of a row. ``last`` is the offset of its last event."""
    stored = _decode(data)
    first = last + 1 - sum([len(each.items) for each in stored])
    batches = []
    for each in stored:
        kind = PayloadKind.JSON if each.is_json else PayloadKind.TEXT
        payloads = Payloads(each.items, sum(map(len, each.items)), kind, each.is_plain)
        end = first + len(each.items)
        batches.append(Batch(first, end, each.publisher, each.sender, each.name, payloads, each.time))
        first = end
    return batches


class Store:
    """``directory`` is created if it does not exist. ``new_epoch`` names the epoch of channels that the file does not
    know."""

    def __init__(self, directory: Path, new_epoch: bytes) -> None:
        self._directory = directory
        self._new_epoch = new_epoch
        self._lock: int | None = None
        self._opened: sqlite3.Connection | None = None
        self._epoch = new_epoch

    def open(self) -> None:
        """Raises StoreError if the directory cannot be used, for example because another process uses it."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open_database()
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

    def _open_database(self) -> None:
        path = self._directory / FILE_NAME
        self._opened = connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only has an effect before the first table
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(f"{path} was written by a newer version of sockbridge")
        if not version:
            with self._transaction():
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO store (epoch) VALUES (?)", (self._new_epoch,))
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        (self._epoch,) = connection.execute("SELECT epoch FROM store").fetchone()
        # After an error of fsync, the log may be in the cache of the system only. This writes its pages again, and
        # begins a new log. Otherwise the next transactions would depend on what may never reach the disk.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

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
        with self._transaction():
            for channel, epoch, batches in additions:
                newest = batches[-1]
                (id,) = connection.execute(
                    "INSERT INTO channels (name, epoch, head, time) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET head = excluded.head, time = excluded.time RETURNING id",
                    (channel, epoch, newest.end - 1, newest.time),
                ).fetchone()
                size = sum([batch.payloads.size for batch in batches])
                connection.execute(
                    "INSERT INTO batches (channel, last, time, size, data) VALUES (?, ?, ?, ?, ?)",
                    (id, newest.end - 1, newest.time, size, _pack(batches)),
                )

    def read_channel(self, channel: bytes, max_events: int, max_bytes: int, oldest: int) -> StoredChannel:
        """The position of a channel, and its newest events: at most so many, of about so many bytes, and none that was
        published before ``oldest`` (milliseconds since 1970)."""
        row = self._connection.execute(
            "SELECT id, epoch, head, time FROM channels WHERE name = ?", (channel,)
        ).fetchone()
        if row is None:
            return StoredChannel(Position(self._epoch, 0), (), 0)
        id, epoch, head, time = row
        tail: list[list[Batch]] = []
        events = size = 0
        before = time
        rows = self._connection.execute(
            "SELECT last, time, size, data FROM batches WHERE channel = ? ORDER BY last DESC", (id,)
        )
        for last, time, row_size, data in rows:
            before = time
            if time < oldest or events >= max_events or size >= max_bytes:
                break
            batches = unpack(last, data)
            tail.append(batches)
            events += batches[-1].end - batches[0].first
            size += row_size
            # The time of deleted events is not known, but it is not later.
            before = batches[0].time if batches[0].first > 1 else 0
        newest = [batch for batches in reversed(tail) for batch in batches]
        return StoredChannel(Position(epoch, head), newest, before)

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        """The events after a position, of about ``limit`` bytes. Nothing if its epoch is not that of the channel."""
        row = self._connection.execute(
            "SELECT id FROM channels WHERE name = ? AND epoch = ?", (channel, after.epoch)
        ).fetchone()
        found: list[Batch] = []
        if row is not None:
            rows = self._connection.execute(
                "SELECT last, size, data FROM batches WHERE channel = ? AND last > ? ORDER BY last",
                (row[0], after.offset),
            )
            for last, size, data in rows:
                found += [
                    batch.part(after.offset + 1, batch.end)
                    for batch in unpack(last, data)
                    if batch.end > after.offset + 1
                ]
                limit -= size
                if limit <= 0:
                    break
        return found

    # Room.

    def trim(self, oldest: int, max_bytes: int, new_epoch: bytes) -> bool:
        """Delete a few events that were published before ``oldest``, or, if the file is larger than ``max_bytes``, the
        oldest ones of all; then a few channels without events that have had none since ``oldest``. Returns whether
        there is more to delete."""
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
            forgotten = connection.execute(
                "DELETE FROM channels WHERE id IN (SELECT id FROM channels WHERE time < ?"
                " AND NOT EXISTS (SELECT 1 FROM batches WHERE channel = id) LIMIT ?)",
                (oldest, TRIMMED_ROWS),
            ).rowcount
            if forgotten:  # if such a channel is used again, its offsets are others
                connection.execute("UPDATE store SET epoch = ?", (new_epoch,))
                self._epoch = new_epoch
        connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
        return TRIMMED_ROWS in (deleted, forgotten)

    def compact(self) -> None:
        """Write the file again without gaps. This needs room on the disk for a second one."""
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

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
