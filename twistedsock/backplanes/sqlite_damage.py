"""Recognises damaged files of the store, and sets them aside under a name with the date.

SQLite has checksums in its log only, so each row of the store has its own.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

import msgspec

CHECKSUM_BYTES = 4

PART_BYTES = 1024 * 1024
"""Bytes of a file that are in memory at once."""

_DAMAGE_CODES = {
    sqlite3.SQLITE_ERROR,  # a table or a column is missing
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_NOTADB,
}


class DamageError(Exception):
    """The database has content that the store has not written."""


DAMAGE_ERRORS = (sqlite3.Error, DamageError, msgspec.MsgspecError)
"""Types of errors that damage can have; ``is_damage`` decides."""


def is_damage(error: Exception) -> bool:
    """Whether the content of the file is wrong. Other errors of the disk can go away."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE_CODES
    return isinstance(error, (DamageError, msgspec.MsgspecError))


def sign(data: bytes, last: int) -> bytes:
    """Add a checksum to the data of a row that ends with the event ``last``."""
    return crc32(data, last & 0xFFFFFFFF).to_bytes(CHECKSUM_BYTES, "big") + data


def verify(data: bytes, last: int) -> bytes:
    """The data of a row without its checksum. Raises ValidationError if that is wrong."""
    content = data[CHECKSUM_BYTES:]
    if crc32(content, last & 0xFFFFFFFF) != int.from_bytes(data[:CHECKSUM_BYTES], "big"):
        raise msgspec.ValidationError("its checksum is wrong")
    return content


def channel_checksum(name: bytes, head: int, time: int) -> int:
    """Of any types, because damage can change those, too."""
    return crc32(repr((name, head, time)).encode())


def create_private(path: Path) -> None:
    """Create an empty file that only the user of the server can read, if it does not exist. Root, who can run
    `sockbridge state`, creates it for the owner of the folder."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def write_again(path: Path) -> None:
    """Write the content of a file to the disk. After an error of fsync, Linux can take content for written that only
    its cache has, and a further fsync does not write it: https://wiki.postgresql.org/wiki/Fsync_Errors."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        offset = 0
        while part := os.pread(descriptor, PART_BYTES, offset):
            offset += os.pwrite(descriptor, part, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Let new names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Files that are set aside.


def _free_name(path: Path) -> Path:
    name = f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    number = 1
    while (found := Path(f"{name}-{number}" if number > 1 else name)).exists():
        number += 1
    return found


def set_aside(path: Path) -> Path:
    """Rename a database and its log, so that SQLite opens them together under the new name, which is returned."""
    aside = _free_name(path)
    for ending in ("-wal", "-journal", ""):
        with suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    with suppress(FileNotFoundError):
        Path(f"{path}-shm").unlink()
    sync_folder(path.parent)
    return aside


def copy_log_aside(path: Path) -> Path | None:
    """Copy the log of a database, if it has one, of which SQLite has read the first part only."""
    log = Path(f"{path}-wal")
    if not log.exists() or not log.stat().st_size:
        return None
    aside = _free_name(log)
    create_private(aside)
    aside.write_bytes(log.read_bytes())  # closing it loses no lock: those of SQLite are on the other files
    return aside


@contextmanager
def open_damaged(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes neither database nor log."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            yield connection
    finally:
        Path(f"{path}-shm").unlink(missing_ok=True)
