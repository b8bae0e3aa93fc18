"""Copies from a damaged database what can be read of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from twistedsock.backplanes.sqlite_damage import DAMAGE_ERRORS, channel_checksum, open_damaged
from twistedsock.backplanes.sqlite_rows import data_column, insert_row, newest_rows

T = TypeVar("T")


def copy_events(path: Path, connection: sqlite3.Connection, epoch: bytes) -> int:
    """Copy the channels of a database, and the newest events of each up to the first damaged one. The channels begin
    this epoch. Returns the number of events. Call this in a transaction."""
    events = 0
    with open_damaged(path) as damaged:
        for id, name, head, time, checksum in _until_damage(_channels(damaged)):
            if checksum == channel_checksum(name, head, time):
                (new_id,) = connection.execute(
                    "INSERT INTO channels (name, epoch, head, time, checksum) VALUES (?, ?, ?, ?, ?) RETURNING id",
                    (name, epoch, head, time, checksum),
                ).fetchone()
                for row in _until_damage(newest_rows(damaged, id, head, data_column(damaged))):
                    insert_row(connection, new_id, row.last, row.time, row.size, row.data)
                    events += row.last + 1 - row.batches[0].first
    return events


def _channels(connection: sqlite3.Connection) -> Iterator[tuple[int, bytes, int, int, int]]:
    yield from connection.execute("SELECT id, name, head, time, checksum FROM channels")


def _until_damage(rows: Iterator[T]) -> Iterator[T]:
    """Rows that can be read."""
    with suppress(*DAMAGE_ERRORS):
        yield from rows
