"""The file in which the SQLite backplane keeps channels and events. All methods block: a thread of its own calls them.

A damaged file is set aside, and what can be read of it is copied to a new one. A log (WAL) that is damaged, cut or
missing looks to SQLite as if less had been committed. So the number of committed events is also in another file,
``lock``. If events are missing, all channels begin new epochs, because offsets must not be given twice in one epoch.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from twistedsock.backplanes.sqlite_damage import (
    DAMAGE_ERRORS,
    DamageError,
    channel_checksum,
    copy_log_aside,
    is_damage,
    set_aside,
    sync_folder,
)
from twistedsock.backplanes.sqlite_database import TRANSACTION_BYTES, Database, StoreError, run_of_system
from twistedsock.backplanes.sqlite_keys import NewKey, StoredKey, add_keys, delete_keys_before, read_keys
from twistedsock.backplanes.sqlite_lock import DirectoryLock
from twistedsock.backplanes.sqlite_rows import batches_from, divide, insert_row, newest_rows, offset_before, pack
from twistedsock.backplanes.sqlite_salvage import copy_events
from twistedsock.backplanes.sqlite_trim import AgeLimit, OldEvents
from twistedsock.pubsub.history import take
from twistedsock.pubsub.values import Batch, Position

FILE_NAME = "events.sqlite"

TRIMMED_ROWS = 500
"""Rows that one step of ``trim`` deletes, so that commits wait for it a few milliseconds only."""

# With a damaged index, a channel would look like one that is new.
_NAMES_NOT_FOUND = (
    "SELECT count(*) FROM channels AS stored NOT INDEXED WHERE NOT EXISTS"
    " (SELECT 1 FROM channels AS found INDEXED BY sqlite_autoindex_channels_1"
    " WHERE found.name = stored.name AND found.id = stored.id)"
)

SUM_OF_HEADS = "SELECT coalesce(sum(head), 0) FROM channels"


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
        self._lock = DirectoryLock(directory)
        self._database = Database(self._path, syncs_later, run())
        self._epoch = b""
        self._events = 0
        """Sum of the heads of all channels."""
        self._old_events = OldEvents()
        self._damage: Exception | None = None
        """Of a file that has not been set aside yet."""

    def open(self) -> None:
        """Raises StoreError if the directory cannot be used, for example because another process uses it."""
        try:
            if not self._directory.exists():
                self._directory.mkdir(mode=0o700, parents=True)
                sync_folder(self._directory.parent)
            self._lock.acquire()
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
        self._database.open(self._draw_epoch)
        self._old_events = OldEvents()  # it has passed rows that are still there if a transaction was undone
        row = self._connection.execute("SELECT epoch, unsynced FROM store").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise DamageError("the epoch is missing")
        self._epoch, unsynced = row
        self._check_events(unsynced)
        self._database.move_log()
        self._lock.write(self._events)

    # Damage.

    def _check_events(self, unsynced: object) -> None:
        """Begin new epochs if fewer events are here than were committed. Events that were not synced in another run of
        the system can be missing too."""
        connection = self._connection
        (lost,) = connection.execute(_NAMES_NOT_FOUND).fetchone()
        if lost:
            raise DamageError(f"channels that are not found by their names: {lost}")
        committed = max(self._lock.read(), self._events)
        (self._events,) = connection.execute(SUM_OF_HEADS).fetchone()
        if unsynced is not None and not self._database.is_of_this_run(unsynced):
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
            with self._database.transaction():
                connection.execute("UPDATE store SET unsynced = NULL")

    def _begin_epochs(self) -> None:
        self._epoch = self._draw_epoch()
        with self._database.transaction():
            self._connection.execute("UPDATE store SET epoch = ?, unsynced = NULL", (self._epoch,))
            self._connection.execute("UPDATE channels SET epoch = ?", (self._epoch,))
        self._lower_mark(self._events)

    def _begin_again(self, damage: Exception) -> None:
        """Set the file aside, and copy to a new one the newest events of each channel up to the first damaged one."""
        self._database.close()
        aside = set_aside(self._path)
        self._damage = None
        self._events = 0
        self._lock.write(0)
        self._open_database()
        try:
            with self._database.transaction() as connection:
                copied = f"events of it that could be read: {copy_events(aside, connection, self._epoch)}"
        except sqlite3.Error as error:  # the disk is full
            copied = f"nothing of it was copied ({error})"
        (self._events,) = self._connection.execute(SUM_OF_HEADS).fetchone()
        self._lock.write(self._events)
        self._report_damage(f"{self._path} is damaged ({damage}) and now called {aside.name}: {copied}")

    def _lower_mark(self, events: int) -> None:
        self._events = events
        self._lock.lower(events)

    def close(self) -> None:
        """Write everything from the log of SQLite into the database, and release the directory."""
        try:
            self._database.close()
        finally:
            self._lock.release()

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._database.connection

    @property
    def is_unsynced(self) -> bool:
        """Whether there can be transactions that a loss of power undoes."""
        return self._database.is_unsynced

    # Events.

    def append(self, additions: Iterable[Addition]) -> None:
        """Append batches in one transaction. They are safe when this returns, or after the next ``sync`` if the store
        syncs later, and not known to be so after an exception. If ``additions`` raises, nothing is appended."""
        events = written = 0
        with self._database.appending() as connection:
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
                    insert_row(connection, id, row[-1].end - 1, row[-1].time, size, pack(row))
                    written += size
                if keys:
                    add_keys(connection, keys, epoch, newest.time)
                events += newest.end - batches[0].first
                written += TRANSACTION_BYTES
        self._events += events
        self._lock.write(self._events)
        self._database.note_appended(written)

    def sync(self) -> None:
        """Make all transactions durable. ``is_unsynced`` is False afterwards if there were none since the last call:
        then the next transaction is durable by itself."""
        self._database.sync()

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
        if found is not None and not isinstance(found[1], int):
            raise DamageError("the row of a channel is wrong")
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
        with self._database.transaction() as connection:
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
        self._database.shrink()
        self._database.note_deleted(deleted)
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
        self._database.compact()

    def room(self) -> Room:
        """The room that the events take now."""
        (oldest,) = self._connection.execute("SELECT min(time) FROM batches").fetchone()
        return Room(self._database.file_bytes(), self.used_bytes(), oldest)

    def used_bytes(self) -> int:
        """The size of the database without its free pages."""
        return self._database.used_bytes()
