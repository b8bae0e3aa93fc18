"""The file ``lock`` of a store.

The process that uses the directory holds a lock (flock) on it. Its content is the mark: the number of events that were
committed. It is written after each commit and not synced, so after a loss of power it can be too small, but not too
large.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from twistedsock.backplanes.sqlite_damage import create_private

LOCK_NAME = "lock"

MARK_BYTES = 20
"""Of the mark, with a newline."""


def read_mark(lock: int) -> int:
    """The number of committed events in an open file, 0 if it is unknown."""
    mark = os.pread(lock, MARK_BYTES, 0)
    return int(mark) if mark.strip().isdigit() else 0


class DirectoryLock:
    """The lock on a directory, between ``acquire`` and ``release``."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises BlockingIOError if another process has the lock."""
        create_private(self._path)
        self._descriptor = os.open(self._path, os.O_RDWR)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def _open(self) -> int:
        assert self._descriptor is not None
        return self._descriptor

    def read(self) -> int:
        return read_mark(self._open)

    def write(self, events: int) -> None:
        """A mark that is too small is no fault, so errors are ignored."""
        with suppress(OSError):
            self._write(events)

    def lower(self, events: int) -> None:
        """Raises OSError if that fails: with a mark that is too large, all channels would begin new epochs."""
        self._write(events)
        os.fsync(self._open)

    def _write(self, events: int) -> None:
        os.pwrite(self._open, b"%0*d\n" % (MARK_BYTES - 1, events), 0)
