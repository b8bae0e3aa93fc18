"""Finds the events of the store that are too old, if channels have ages of their own.

Times never decrease within a channel, so its oldest events are its first rows. Events of all other channels are found
by their time. They lie between those of channels that keep theirs for longer, so the search continues where it stopped.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from twistedsock.backplanes.sqlite_damage import DamageError
from twistedsock.pubsub.names import Pattern

EXAMINED_CHANNELS = 200
"""Channels that one step looks at: they take a few milliseconds."""


class AgeLimit(NamedTuple):
    """Events of channels that match are deleted if they were published before ``oldest`` (milliseconds since 1970)."""

    pattern: Pattern
    oldest: int


Row = tuple[int, int]
"""The channel and the last offset."""


class OldEvents:
    """Remembers where the search has stopped."""

    def __init__(self) -> None:
        self._patterns: tuple[Pattern, ...] = ()
        self._passed = (-1, 0, 0)
        """Time, channel and last offset of the row that was looked at last."""
        self._examined = 0
        """The id of the channel that was looked at last."""

    def find(
        self, connection: sqlite3.Connection, oldest: int, ages: Sequence[AgeLimit], limit: int
    ) -> tuple[list[Row], bool]:
        """At most ``limit`` rows to delete, and whether there can be more. The first of ``ages`` that matches a channel
        counts, and ``oldest`` if none does."""
        patterns = tuple(age.pattern for age in ages)
        if patterns != self._patterns or oldest < self._passed[0]:  # also if the clock was set back
            self._patterns, self._passed, self._examined = patterns, (-1, 0, 0), 0
        found = connection.execute(
            "SELECT time, channel, last FROM batches WHERE (time, channel, last) > (?, ?, ?) AND time < ?"
            " ORDER BY time, channel, last LIMIT ?",
            (*self._passed, oldest, limit),
        ).fetchall()
        others = {id: _age_of(_name(connection, id), ages) is None for id in {id for _, id, _ in found}}
        rows = [(id, last) for _, id, last in found if others[id]]
        if found:
            self._passed = found[-1]
        is_complete = self._find_by_channel(connection, ages, rows, limit)
        return rows, not is_complete or len(found) == limit

    def _find_by_channel(
        self, connection: sqlite3.Connection, ages: Sequence[AgeLimit], rows: list[Row], limit: int
    ) -> bool:
        """Add rows of channels that have ages of their own. Returns whether all of those have been looked at."""
        channels = connection.execute(
            "SELECT id, name FROM channels WHERE id > ? ORDER BY id LIMIT ?", (self._examined, EXAMINED_CHANNELS)
        ).fetchall()
        for id, name in channels:
            age = _age_of(name, ages)
            if age is not None:
                for last, time in connection.execute(
                    "SELECT last, time FROM batches WHERE channel = ? ORDER BY last", (id,)
                ):
                    if not isinstance(time, int):
                        raise DamageError("a row of a channel has wrong types")
                    if time >= age.oldest:
                        break
                    if len(rows) >= limit:
                        return False
                    rows.append((id, last))
            self._examined = id
        if len(channels) < EXAMINED_CHANNELS:
            self._examined = 0
            return True
        return False


def _name(connection: sqlite3.Connection, id: int) -> bytes:
    row = connection.execute("SELECT name FROM channels WHERE id = ?", (id,)).fetchone()
    return row[0] if row is not None and isinstance(row[0], bytes) else b""


def _age_of(name: bytes, ages: Sequence[AgeLimit]) -> AgeLimit | None:
    return next((age for age in ages if age.pattern.matches(name)), None)
