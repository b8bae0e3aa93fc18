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


def read_keys(connection: sqlite3.Connection, oldest: int) -> dict[bytes, StoredKey]:
    """Those that were used at ``oldest`` or later."""
    rows = connection.execute("SELECT key, epoch, first, time FROM keys WHERE time >= ?", (oldest,))
    return {key: StoredKey(epoch, first, time) for key, epoch, first, time in rows}


def add_keys(connection: sqlite3.Connection, keys: Sequence[tuple[bytes, int]], epoch: bytes, time: int) -> None:
    """``keys`` have the offsets of their first events. Call this in a transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO keys (key, epoch, first, time) VALUES (?, ?, ?, ?)",
        [(key, epoch, first, time) for key, first in keys],
    )
    # Counted each time, which takes 8 µs: a number that is kept must follow replaced keys and undone transactions.
    (count,) = connection.execute("SELECT count(*) FROM keys").fetchone()
    if count > MAX_KEYS:
        connection.execute(
            "DELETE FROM keys WHERE key IN (SELECT key FROM keys ORDER BY time LIMIT ?)", (count - MAX_KEYS,)
        )


def delete_keys_before(connection: sqlite3.Connection, oldest: int, limit: int) -> int:
    """Delete at most ``limit`` keys in a transaction, and return their number."""
    return connection.execute(
        "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE time < ? LIMIT ?)", (oldest, limit)
    ).rowcount
