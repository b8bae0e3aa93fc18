"""Keys of publications in the store: a publication that is repeated after a restart is answered as the first one."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

MAX_KEYS = 10_000
"""As many as ``session.idempotency.Idempotency`` has in memory. The oldest ones are deleted."""


class StoredKey(NamedTuple):
    """The answer to the publication with a key: its first event. ``time`` is in milliseconds since 1970."""

    epoch: bytes
    first: int
    time: int
    fingerprint: bytes


class NewKey(NamedTuple):
    """The key of a publication, and the offset of its first event."""

    key: bytes
    first: int
    fingerprint: bytes


def read_keys(connection: sqlite3.Connection, oldest: int) -> dict[bytes, StoredKey]:
    """Those that were used at ``oldest`` or later."""
    rows = connection.execute("SELECT key, epoch, first, time, fingerprint FROM keys WHERE time >= ?", (oldest,))
    # Damage can change types, and a time that is no number is larger than any.
    return {
        key: StoredKey(*answer) for key, *answer in rows if isinstance(answer[1], int) and isinstance(answer[2], int)
    }


def add_keys(connection: sqlite3.Connection, keys: Sequence[NewKey], epoch: bytes, time: int) -> None:
    """Call this in a transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO keys (key, epoch, first, time, fingerprint) VALUES (?, ?, ?, ?, ?)",
        [(key, epoch, first, time, fingerprint) for key, first, fingerprint in keys],
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
