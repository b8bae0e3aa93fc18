"""The file in which the SQLite backplane keeps channels and events. All methods block: a thread of its own calls them.

A commit is durable when it returns: the database is in WAL mode with ``synchronous=FULL``, so SQLite calls fsync for
each transaction (https://sqlite.org/pragma.html#pragma_synchronous). There is one connection to the file, because a
fault of SQLite before 3.51.3 can damage a database with several connections in WAL mode.

A store that ``syncs_later`` appends with ``synchronous=NORMAL``. The first transaction after a sync is durable, and
notes in the file that those after it are not, and in which run of the system. If the system has been started again
before the next sync, the file is intact, but its last transactions can be missing.

A damaged file is set aside, and what can be read of it is copied to a new one. A log (WAL) that is damaged, cut or
missing looks to SQLite as if less had been committed. So the number of committed events is also in another file,
``lock``. It is written after each commit and not synced: after a loss of power it can be too small, but not too large.
If events are missing, all channels begin new epochs, because offsets must not be given twice in one epoch.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    sync_folder,
    write_again,
)
from twistedsock.backplanes.sqlite_keys import NewKey, StoredKey, add_keys, delete_keys_before, read_keys
from twistedsock.backplanes.sqlite_rows import batches_from, divide, newest_rows, offset_before, pack
from twistedsock.backplanes.sqlite_schema import SCHEMA_VERSION, upgrade
from twistedsock.backplanes.sqlite_trim import AgeLimit, OldEvents
from twistedsock.pubsub.history import take
from twistedsock.pubsub.values import Batch, Position

T = TypeVar("T")

FILE_NAME = "events.sqlite"

LOCK_NAME = "lock"
"""The process that uses the directory holds a lock (flock) on this file."""

TRIMMED_ROWS = 500
"""Rows that one step of ``trim`` deletes, so that commits wait for it a few milliseconds only."""

MAX_CHECKED_BYTES = 256 * 1024 * 1024
"""Larger files are not checked after a crash. The check reads the whole file; other damage is found when it is read."""

MAX_UNSYNCED_BYTES = 8 * 1024 * 1024
"""Of transactions in the log, about. More are synced before their second is over, and the log does not grow."""

PAGE_BYTES = 4_096

TRANSACTION_BYTES = 5 * PAGE_BYTES
"""What a transaction adds to the log beside its payloads, about."""

RUN_OF_SYSTEM = Path("/proc/sys/kernel/random/boot_id")
"""Linux gives each run another name."""

MARK_BYTES = 20
"""Of the number of events in the file ``lock``, with a newline."""

DAMAGE_ERRORS = (sqlite3.Error, DamageError, msgspec.MsgspecError)
"""Types of errors that damage can have; ``is_damage`` decides."""

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
    keys: Sequence[NewKey] = ()


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


def _mark(events: int) -> bytes:
    return b"%0*d\n" % (MARK_BYTES - 1, events)


def run_of_system() -> bytes:
    """A name that the system gets when it starts. Another one each time if it has none, as if it had just started."""
    try:
        return RUN_OF_SYSTEM.read_bytes().strip()
    except OSError:
        return os.urandom(16)


class Store:
    """``directory`` is created if it does not exist. ``draw_epoch`` returns a random name. ``report_damage`` is called
    in the thread of the store, with a sentence. With ``syncs_later``, ``sync`` must be called while ``is_unsynced``:
    a loss of power loses the transactions since then, and all channels begin new epochs."""

    def __init__(
        self,
        directory: Path,
        draw_epoch: Callable[[], bytes],
        report_damage: Callable[[str], object] = lambda sentence: None,
        syncs_later: bool = False,
        run: Callable[[], bytes] = run_of_system,
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
        self._syncs_later = syncs_later
        self._run = run()
        self._syncs = 0
        self.is_unsynced = False
        """Whether there can be transactions that a loss of power undoes."""
        self._has_failed = False
        """Whether a transaction had an error since the file was opened. An fsync after one can succeed without effect:
        https://wiki.postgresql.org/wiki/Fsync_Errors."""
        self._since_sync = self._since_checkpoint = 0
        """Bytes of the log, about."""
        self._old_events = OldEvents()
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
        self._has_failed = self.is_unsynced = False
        self._old_events = OldEvents()  # it has passed rows that are still there if a transaction was undone
        self._since_sync = self._since_checkpoint = 0
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
        if self._syncs_later:
            # SQLite reports no errors of automatic checkpoints. One of fsync is an error of all transactions since
            # the last one.
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        if version < SCHEMA_VERSION:
            with self._transaction():
                upgrade(connection, version)
                if not version:
                    connection.execute("INSERT INTO store (epoch) VALUES (?)", (self._draw_epoch(),))
        if was_killed and path.stat().st_size <= MAX_CHECKED_BYTES:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                raise DamageError(finding.replace("\n", " "))
        row = connection.execute("SELECT epoch, unsynced FROM store").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise DamageError("the epoch is missing")
        self._epoch, unsynced = row
        self._check_events(unsynced)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._write_mark(self._events)

    # Damage.

    def _check_events(self, unsynced: object) -> None:
        """Begin new epochs if fewer events are here than were committed. Events that were not synced in another run of
        the system can be missing too."""
        connection = self._connection
        assert self._lock is not None
        (lost,) = connection.execute(_NAMES_NOT_FOUND).fetchone()
        if lost:
            raise DamageError(f"channels that are not found by their names: {lost}")
        committed = max(read_mark(self._lock), self._events)
        (self._events,) = connection.execute(SUM_OF_HEADS).fetchone()
        is_of_this_run = isinstance(unsynced, bytes) and unsynced.startswith(self._run + b" ")
        if unsynced is not None and not is_of_this_run:
            self._begin_epochs()
            self._report_damage(
                f"the system has stopped before the last events of {self._path} were synced (state-sync = 1s): those"
                " of about a second can be missing, and all channels have new epochs"
            )
        elif committed > self._events:
            aside = copy_log_aside(self._path)
            self._begin_epochs()
            copy = f", and {aside} is a copy of its log" if aside else ""
            self._report_damage(
                f"{self._path} lacks {committed - self._events} events: all channels have new epochs{copy}"
            )
        elif unsynced is not None:
            with self._transaction():
                connection.execute("UPDATE store SET unsynced = NULL")

    def _begin_epochs(self) -> None:
        self._epoch = self._draw_epoch()
        with self._transaction():
            self._connection.execute("UPDATE store SET epoch = ?, unsynced = NULL", (self._epoch,))
            self._connection.execute("UPDATE channels SET epoch = ?", (self._epoch,))
        self._lower_mark(self._events)

    def _begin_again(self, damage: Exception) -> None:
        """Set the file aside, and copy to a new one the newest events of each channel up to the first damaged one."""
        if self._opened is not None:
            self._opened.close()
        aside = set_aside(self._path)
        self._damage = None
        self._events = 0
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
                    for row in _until_damage(newest_rows(damaged, id, head)):
                        connection.execute(
                            "INSERT INTO batches (channel, last, time, size, data) VALUES (?, ?, ?, ?, ?)",
                            (new_id, row.last, row.time, row.size, row.data),
                        )
                        events += row.last + 1 - row.batches[0].first
        return events

    def _lower_mark(self, events: int) -> None:
        """Raises OSError if that fails: with a mark that is too large, all channels would begin new epochs."""
        assert self._lock is not None
        self._events = events
        os.pwrite(self._lock, _mark(events), 0)
        os.fsync(self._lock)

    def _write_mark(self, events: int) -> None:
        assert self._lock is not None
        with suppress(OSError):  # a mark that is too small is no fault
            os.pwrite(self._lock, _mark(events), 0)

    def close(self) -> None:
        """Write everything from the log of SQLite into the database, and release the directory."""
        if self.is_unsynced and not self._has_failed:
            with suppress(sqlite3.Error):
                self._sync(None)
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

    @contextmanager
    def _transaction(self, level: str = "FULL") -> Iterator[None]:
        """``BEGIN IMMEDIATE``, then ``COMMIT``, or ``ROLLBACK`` after an exception. ``level`` is that of
        ``synchronous``."""
        connection = self._connection
        if self._has_failed:
            raise StoreError(f"{self._path} must be opened again after an error")
        self._has_failed = True
        if self._syncs_later:
            connection.execute(f"PRAGMA synchronous = {level}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        self._has_failed = False

    # Events.

    def append(self, additions: Iterable[Addition]) -> None:
        """Append batches in one transaction. They are safe when this returns, or after the next ``sync`` if the store
        syncs later, and not known to be so after an exception. If ``additions`` raises, nothing is appended."""
        connection = self._connection
        events = written = 0
        is_durable = not self.is_unsynced
        with self._transaction("FULL" if is_durable else "NORMAL"):
            if self._syncs_later and is_durable:
                connection.execute("UPDATE store SET unsynced = ?", (self._name_sync(),))
            for channel, epoch, batches, keys in additions:
                newest = batches[-1]
                head = newest.end - 1
                (id,) = connection.execute(
                    "INSERT INTO channels (name, epoch, head, time, checksum) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name)"
                    " DO UPDATE SET head = excluded.head, time = excluded.time, checksum = excluded.checksum"
                    " RETURNING id",
                    (channel, epoch, head, newest.time, channel_checksum(channel, head, newest.time)),
                ).fetchone()
                for row in divide(batches):
                    size = sum([batch.payloads.size for batch in row])
                    connection.execute(
                        "INSERT INTO batches (channel, last, time, size, data) VALUES (?, ?, ?, ?, ?)",
                        (id, row[-1].end - 1, row[-1].time, size, pack(row)),
                    )
                    written += size
                if keys:
                    add_keys(connection, keys, epoch, newest.time)
                events += newest.end - batches[0].first
                written += TRANSACTION_BYTES
        self._events += events
        self._write_mark(self._events)
        if self._syncs_later:
            self.is_unsynced = True
            if is_durable:
                self._since_checkpoint += written
            else:
                self._since_sync += written
            if self._since_sync > MAX_UNSYNCED_BYTES:
                self.sync()

    def sync(self) -> None:
        """Make all transactions durable. ``is_unsynced`` is False afterwards if there were none since the last call:
        then the next transaction is durable by itself."""
        if self.is_unsynced:
            self._sync(self._name_sync() if self._since_sync else None)
        self._checkpoint_if_due()

    def _checkpoint_if_due(self) -> None:
        """Copy the log to the database, as SQLite does by itself in the other mode."""
        if self._since_checkpoint > MAX_UNSYNCED_BYTES:
            self._has_failed = True
            self._connection.execute("PRAGMA wal_checkpoint").fetchall()
            self._has_failed = False
            self._since_checkpoint = 0

    def _name_sync(self) -> bytes:
        """Another name each time: SQLite does not sync a transaction that changes nothing."""
        self._syncs += 1
        return b"%b %d" % (self._run, self._syncs)

    def _sync(self, unsynced: bytes | None) -> None:
        with self._transaction():
            self._connection.execute("UPDATE store SET unsynced = ?", (unsynced,))
        self.is_unsynced = unsynced is not None
        self._since_checkpoint += self._since_sync
        self._since_sync = 0

    def read_keys(self, oldest: int) -> dict[bytes, StoredKey]:
        """The answers to publications with keys since ``oldest``, by key."""
        return read_keys(self._connection, oldest)

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
        for row in newest_rows(self._connection, id, head):
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
        found = self._find(channel, after.epoch)
        return () if found is None else take(batches_from(self._connection, *found, after.offset + 1), limit)

    def _find(self, channel: bytes, epoch: bytes) -> tuple[int, int] | None:
        """The id of a channel in this epoch, and the offset of its newest event."""
        found: tuple[int, int] | None = self._connection.execute(
            "SELECT id, head FROM channels WHERE name = ? AND epoch = ?", (channel, epoch)
        ).fetchone()
        return found

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int:
        """The offset of the newest event that was published before ``time`` (milliseconds since 1970); 0 if there is
        none, or if the epoch is not the one of the channel."""
        found = self._find(channel, epoch)
        return 0 if found is None else offset_before(self._connection, *found, time)

    # Room.

    def trim(
        self, oldest: int, max_bytes: int, new_epoch: bytes, ages: Sequence[AgeLimit] = (), oldest_key: int = 0
    ) -> bool:
        """Delete a few events that were published before ``oldest``, or before the limit of the first of ``ages`` that
        matches their channel, and keys from before ``oldest_key``; or, if the file is larger than ``max_bytes``, the
        oldest events of all; then a few channels without events that have had none since ``oldest``, or any of them if
        the file is still too large. Returns whether there is more to delete."""
        connection = self._connection
        with self._transaction():
            deleted, has_more = self._delete_old(oldest, ages)
            keys = delete_keys_before(connection, oldest_key, TRIMMED_ROWS)
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
                self._lower_mark(self._events - sum([head for (head,) in heads]))
        if heads:
            self._epoch = new_epoch
        connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
        if self._syncs_later:
            self._since_checkpoint += TRANSACTION_BYTES + deleted * PAGE_BYTES
            self._checkpoint_if_due()
        return has_more or TRIMMED_ROWS in (deleted, keys, len(heads))

    def _delete_old(self, oldest: int, ages: Sequence[AgeLimit]) -> tuple[int, bool]:
        """Returns the number of deleted rows, and whether there can be more."""
        if not ages:
            deleted = self._connection.execute(
                "DELETE FROM batches WHERE (channel, last) IN"
                " (SELECT channel, last FROM batches WHERE time < ? LIMIT ?)",
                (oldest, TRIMMED_ROWS),
            ).rowcount
            return deleted, deleted == TRIMMED_ROWS
        rows, has_more = self._old_events.find(self._connection, oldest, ages, TRIMMED_ROWS)
        self._connection.executemany("DELETE FROM batches WHERE channel = ? AND last = ?", rows)
        return len(rows), has_more

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
