"""Keys of publications in the store: a publication that is repeated after a restart is answered as the first one."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

MAX_KEYS = 10_000
"""As many as ``session.request.Idempotency`` has in memory. The oldest ones are deleted."""


class StoredKey(NamedTuple):
    """The answer to the publication with a key. ``time`` is in milliseconds since 1970."""

    epoch: bytes
    first: int
    time: int


class KeyTable:
    """All methods are called in a transaction, except ``open`` and ``read``."""

    def __init__(self) -> None:
        self._rows = 0
        """Or a little less than this number."""

    def open(self, connection: sqlite3.Connection) -> None:
        (self._rows,) = connection.execute("SELECT count(*) FROM keys").fetchone()

    def read(self, connection: sqlite3.Connection, oldest: int) -> dict[bytes, StoredKey]:
        rows = connection.execute("SELECT key, epoch, first, time FROM keys WHERE time >= ?", (oldest,))
        return {key: StoredKey(epoch, first, time) for key, epoch, first, time in rows}

    def add(self, connection: sqlite3.Connection, keys: Sequence[tuple[bytes, int]], epoch: bytes, time: int) -> None:
        """``keys`` have the offsets of their first events."""
        connection.executemany(
            "INSERT OR REPLACE INTO keys (key, epoch, first, time) VALUES (?, ?, ?, ?)",
            [(key, epoch, first, time) for key, first in keys],
        )
        self._rows += len(keys)
        if self._rows > MAX_KEYS:
            self._delete(connection, "ORDER BY time LIMIT ?", self._rows - MAX_KEYS)

    def delete_before(self, connection: sqlite3.Connection, oldest: int, limit: int) -> int:
        """Delete at most ``limit`` keys, and return their number."""
        return self._delete(connection, "WHERE time < ? LIMIT ?", oldest, limit)

    def _delete(self, connection: sqlite3.Connection, which: str, *parameters: int) -> int:
        deleted = connection.execute(
            f"DELETE FROM keys WHERE key IN (SELECT key FROM keys {which})", parameters
        ).rowcount
        self._rows -= deleted
        return deleted
