"""The connection to the database of a store, and its transactions.

A commit is durable when it returns: the database is in WAL mode with ``synchronous=FULL``, so SQLite calls fsync for
each transaction (https://sqlite.org/pragma.html#pragma_synchronous). There is one connection to the file, because a
fault of SQLite before 3.51.3 can damage a database with several connections in WAL mode.

A database that ``syncs_later`` appends with ``synchronous=NORMAL``. The first transaction after a sync is durable, and
notes in the file that those after it are not, and in which run of the system. If the system has been started again
before the next sync, the file is intact, but its last transactions can be missing.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twistedsock.backplanes.sqlite_damage import DamageError, create_private, write_again
from twistedsock.backplanes.sqlite_schema import SCHEMA_VERSION, upgrade

MAX_CHECKED_BYTES = 256 * 1024 * 1024
"""Larger files are not checked after a crash. The check reads the whole file; other damage is found when it is read."""

MAX_UNSYNCED_BYTES = 8 * 1024 * 1024
"""Of transactions in the log, about. More are synced before their second is over, and the log does not grow."""

PAGE_BYTES = 4_096

SHRUNK_PAGES = 256
"""Free pages that one step returns to the file system, so that commits wait for it a few milliseconds only."""

TRANSACTION_BYTES = 5 * PAGE_BYTES
"""What a transaction adds to the log beside its payloads, about."""

RUN_OF_SYSTEM = Path("/proc/sys/kernel/random/boot_id")
"""Linux gives each run another name."""


class StoreError(OSError):
    """The directory cannot be used. The message is one sentence for the operator."""


def run_of_system() -> bytes:
    """A name that the system gets when it starts. Another one each time if it has none, as if it had just started."""
    try:
        return RUN_OF_SYSTEM.read_bytes().strip()
    except OSError:
        return os.urandom(16)


class Database:
    """``run`` names the run of the system. With ``syncs_later``, ``sync`` must be called while ``is_unsynced``: a loss
    of power loses the transactions since then."""

    def __init__(self, path: Path, syncs_later: bool, run: bytes) -> None:
        self.is_unsynced = False
        """Whether there can be transactions that a loss of power undoes."""
        self._path = path
        self._opened: sqlite3.Connection | None = None
        self._syncs_later = syncs_later
        self._run = run
        self._syncs = 0
        self._has_failed = False
        """Whether a transaction had an error since the file was opened. An fsync after one can succeed without effect:
        https://wiki.postgresql.org/wiki/Fsync_Errors."""
        self._since_sync = self._since_checkpoint = 0
        """Bytes of the log, about."""

    @property
    def connection(self) -> sqlite3.Connection:
        if self._opened is None:
            raise StoreError(f"{self._path.parent} is not open")
        return self._opened

    def open(self, draw_epoch: Callable[[], bytes]) -> None:
        """Create the file if it does not exist, and upgrade an older one. Raises an error of damage, or StoreError."""
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
            with self.transaction():
                upgrade(connection, version)
                if not version:
                    connection.execute("INSERT INTO store (epoch) VALUES (?)", (draw_epoch(),))
        if was_killed and path.stat().st_size <= MAX_CHECKED_BYTES:
            (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                raise DamageError(finding.replace("\n", " "))

    def close(self) -> None:
        """Write everything from the log of SQLite into the file."""
        if self.is_unsynced and not self._has_failed:
            with suppress(sqlite3.Error):
                self._sync(None)
        connection, self._opened = self._opened, None
        if connection is not None:
            connection.close()

    # Transactions.

    @contextmanager
    def transaction(self, level: str = "FULL") -> Iterator[sqlite3.Connection]:
        """``BEGIN IMMEDIATE``, then ``COMMIT``, or ``ROLLBACK`` after an exception. ``level`` is that of
        ``synchronous``."""
        connection = self.connection
        if self._has_failed:
            raise StoreError(f"{self._path} must be opened again after an error")
        self._has_failed = True
        if self._syncs_later:
            connection.execute(f"PRAGMA synchronous = {level}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        self._has_failed = False

    @contextmanager
    def appending(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is durable at its end, or after the next ``sync``. Call ``note_appended`` afterwards."""
        is_durable = not self.is_unsynced
        with self.transaction("FULL" if is_durable else "NORMAL") as connection:
            if self._syncs_later and is_durable:
                connection.execute("UPDATE store SET unsynced = ?", (self._name_sync(),))
            yield connection

    def note_appended(self, written: int) -> None:
        """``written`` are the bytes that the transaction has added to the log, about."""
        if self._syncs_later:
            if self.is_unsynced:
                self._since_sync += written
            else:
                self._since_checkpoint += written
            self.is_unsynced = True
            if self._since_sync > MAX_UNSYNCED_BYTES:
                self.sync()

    def note_deleted(self, rows: int) -> None:
        """A durable transaction has deleted rows."""
        if self._syncs_later:
            self._since_checkpoint += TRANSACTION_BYTES + rows * PAGE_BYTES
            self._checkpoint_if_due()

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
            self.connection.execute("PRAGMA wal_checkpoint").fetchall()
            self._has_failed = False
            self._since_checkpoint = 0

    def _name_sync(self) -> bytes:
        """Another name each time: SQLite does not sync a transaction that changes nothing."""
        self._syncs += 1
        return b"%b %d" % (self._run, self._syncs)

    def _sync(self, unsynced: bytes | None) -> None:
        with self.transaction():
            self.connection.execute("UPDATE store SET unsynced = ?", (unsynced,))
        self.is_unsynced = unsynced is not None
        self._since_checkpoint += self._since_sync
        self._since_sync = 0

    def is_of_this_run(self, unsynced: object) -> bool:
        """Whether the system has not been started again since a transaction that was not synced."""
        return isinstance(unsynced, bytes) and unsynced.startswith(self._run + b" ")

    # Room.

    def move_log(self) -> None:
        """Copy the whole log into the database."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def shrink(self) -> None:
        """Return some of the free pages to the file system, at the next checkpoint."""
        # Each row of the result is a page, and ``execute`` reads one only in Python 3.11.
        self.connection.executescript(f"PRAGMA incremental_vacuum({SHRUNK_PAGES})")

    def compact(self) -> None:
        """Write the file again without gaps. This needs room on the disk for a second one."""
        self.connection.execute("VACUUM")
        self.move_log()

    def file_bytes(self) -> int:
        """The size of the database and its log."""
        paths = [Path(f"{self._path}{suffix}") for suffix in ("", "-wal")]
        return sum(path.stat().st_size for path in paths if path.exists())

    def used_bytes(self) -> int:
        """The size of the database without its free pages."""
        (pages,), (free,), (size,) = (
            self.connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)
