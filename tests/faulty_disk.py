"""A layer between SQLite and its files, in which the power fails and calls have errors.

It is a VFS of SQLite (https://sqlite.org/vfs.html), registered with ctypes in the library that Python's sqlite3 uses,
so that programs under test run unchanged, and on the SQLite that they would run on. Their own calls of os.pwrite and
os.fsync are seen too. The files of the operating system stand for its cache. Beside them, the layer keeps the content
at the last fsync, and the changes since then. A loss of power keeps some of these changes.

Not simulated: disks that lie about fsync, that damage bytes which were not written, or that tear less than a sector of
512 bytes (SQLite assumes the same: https://sqlite.org/psow.html).
"""

import _sqlite3
import ctypes
import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

OK, IOERR_WRITE, IOERR_FSYNC, FULL = 0, 778, 1034, 13
JOURNALS = 0x800 | 0x80000
"""SQLITE_OPEN_MAIN_JOURNAL and SQLITE_OPEN_WAL."""

SECTOR_BYTES = 512

_library = ctypes.CDLL(_sqlite3.__file__)  # symbols are also looked up in the libraries that it depends on


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``."""

    Write = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
    Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
    Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", Write),
        ("truncate", Truncate),
        ("sync", Sync),
        *((name, ctypes.c_void_p) for name in ("size", "lock", "unlock", "check", "control", "sector", "device")),
        *((name, ctypes.c_void_p) for name in ("map", "shm_lock", "barrier", "unmap", "fetch", "unfetch")),
    )


class _File(ctypes.Structure):
    """``sqlite3_file``."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


class _VFS(ctypes.Structure):
    """``sqlite3_vfs``. Names are pointers, because SQLite reads more behind the end of the string."""

    Open = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(_File), ctypes.c_int, ctypes.c_void_p
    )
    Delete = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", Open),
        ("delete", Delete),
        *((f"other{index}", ctypes.c_void_p) for index in range(14)),
    )


_library.sqlite3_vfs_find.restype = ctypes.POINTER(_VFS)

_in_use: list[object] = []
"""Keeps alive the objects that SQLite has pointers to. Databases can be open until the garbage collector finds them."""

Change = tuple[str, int, bytes]
"""``("write", offset, data)``, ``("truncate", size, b"")`` or ``("delete", 0, b"")``."""


class _Image:
    """The content of one file on the disk. ``synced`` is None if the file did not exist."""

    def __init__(self, synced: bytes | None) -> None:
        self.synced = synced
        self.changes: list[Change] = []
        self.syncs_folder = False
        """Whether the next fsync is also one of the folder: SQLite does so for each log that it opens."""

    def after(self, changes: list[Change]) -> bytes | None:
        content = None if self.synced is None else bytearray(self.synced)
        for kind, offset, data in changes:
            if kind == "delete":
                content = None
                continue
            content = bytearray() if content is None else content
            end = offset + len(data)
            if kind == "truncate":
                del content[offset:]
            content.extend(bytes(max(0, end - len(content))))
            content[offset:end] = data
        return None if content is None else bytes(content)

    def after_power_loss(self, chance: random.Random) -> bytes | None:
        """Keep none of the changes since the last fsync, the first ones, or any, and tear one write."""
        kept = self.changes[: chance.choice((0, chance.randint(0, len(self.changes)), len(self.changes)))]
        if chance.random() < 0.5:
            # Another file of the same name: its writes cannot be there without it.
            kept = [change for change in kept if change[0] == "delete" or chance.random() < 0.7]
        if kept and chance.random() < 0.5:
            index = chance.randrange(len(kept))
            kind, offset, data = kept[index]
            sectors = chance.randint(0, len(data) // SECTOR_BYTES)
            kept[index] = (kind, offset, data[: sectors * SECTOR_BYTES] if kind == "write" else data)
        return self.after(kept)


class FaultyDisk:
    """``before`` is called before each change and each fsync, with its kind and its file. It returns the code of
    SQLite for the result: ``OK``, or an error, and then the call has no effect."""

    def __init__(self) -> None:
        self.before: Callable[[str, Path], int] = lambda kind, path: OK
        self._images: dict[Path, _Image] = {}

    def lose_power(self, chance: random.Random) -> None:
        """Give the files the content that they have after a loss of power. All must be closed."""
        for path, image in self._images.items():
            content = image.after_power_loss(chance)
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
        self._images.clear()

    def end_process(self) -> None:
        """Keep what the cache of the system has. All files must be closed."""

    # Called by the layer.

    def opened(self, path: Path, flags: int) -> None:
        self._image(path).syncs_folder = bool(flags & JOURNALS)

    def _image(self, path: Path) -> _Image:
        if path not in self._images:
            self._images[path] = _Image(path.read_bytes() if path.exists() else None)
        return self._images[path]

    def change(self, path: Path, change: Change) -> int:
        image = self._image(path)
        code = self.before(change[0], path)
        if code == OK:
            image.changes.append(change)
        return code

    def sync_folder(self) -> None:
        """Make all deletions permanent."""
        for image in self._images.values():
            deletes = [index for index, change in enumerate(image.changes) if change[0] == "delete"]
            if deletes:
                image.synced, image.changes = None, image.changes[deletes[-1] + 1 :]

    def sync(self, path: Path) -> int:
        image = self._image(path)
        code = self.before("sync", path)
        if code != OK:
            # The pages stay in the cache, and count as written: https://wiki.postgresql.org/wiki/Fsync_Errors.
            image.changes = []
        else:
            image.synced, image.changes = image.after(image.changes), []
            if image.syncs_folder:
                image.syncs_folder = False
                self.sync_folder()
        return code


@contextmanager
def faulty_disk(syncs: bool = True) -> Iterator[FaultyDisk]:
    """Use the layer for all databases that are opened meanwhile. Without ``syncs``, fsync is simulated only."""
    disk = FaultyDisk()
    base = _library.sqlite3_vfs_find(None).contents
    vfs = _VFS.from_buffer_copy(base)
    paths: dict[int, Path] = {}
    patched: dict[int, tuple[_Methods, _Methods]] = {}

    def write(file: int, data: int, size: int, offset: int) -> int:
        code = disk.change(paths[file], ("write", offset, ctypes.string_at(data, size)))
        return code or methods_of(file).write(file, data, size, offset)

    def truncate(file: int, size: int) -> int:
        return disk.change(paths[file], ("truncate", size, b"")) or methods_of(file).truncate(file, size)

    def sync(file: int, flags: int) -> int:
        code = disk.sync(paths[file])
        return code or (methods_of(file).sync(file, flags) if syncs else OK)

    def methods_of(file: int) -> _Methods:
        """Those of the layer below."""
        address = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p)).contents.value
        return originals[address or 0]

    originals: dict[int, _Methods] = {}

    def open_file(_: int, name: int | None, file: Any, flags: int, out: int) -> int:
        path = Path(ctypes.string_at(name).decode()) if name else None
        if path is not None:
            disk.opened(path, flags)
        code: int = base.open(ctypes.addressof(base), name, file, flags, out)
        if code == OK and path is not None and file.contents.methods:
            methods = file.contents.methods.contents
            address = ctypes.addressof(methods)
            if address not in patched:
                changed = _Methods.from_buffer_copy(methods)
                changed.write, changed.truncate, changed.sync = callbacks
                patched[address] = (changed, methods)
                originals[ctypes.addressof(changed)] = methods
            paths[ctypes.addressof(file.contents)] = path
            file.contents.methods = ctypes.pointer(patched[address][0])
        return code

    def delete(_: int, name: int, flags: int) -> int:
        path = Path(ctypes.string_at(name).decode())
        if path.exists():
            disk.opened(path, 0)
            code = disk.change(path, ("delete", 0, b""))
            if code:
                return code
            if flags:
                disk.sync_folder()
        result: int = base.delete(ctypes.addressof(base), name, flags if syncs else 0)
        return result

    callbacks = (_Methods.Write(write), _Methods.Truncate(truncate), _Methods.Sync(sync))
    # The store's own calls.

    def write_from_python(descriptor: int, data: bytes, offset: int) -> int:
        raise_error(disk.change(path_of(descriptor), ("write", offset, bytes(data))))
        return pwrite(descriptor, data, offset)

    def sync_from_python(descriptor: int) -> None:
        path = path_of(descriptor)
        if path.is_dir():
            disk.sync_folder()
        else:
            raise_error(disk.sync(path))
        if syncs:
            fsync(descriptor)

    def path_of(descriptor: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))

    def raise_error(code: int) -> None:
        if code != OK:
            raise OSError(errno.ENOSPC if code == FULL else errno.EIO, "simulated error")

    pwrite, fsync = os.pwrite, os.fsync
    vfs.name = b"faulty"
    vfs.open, vfs.delete = _VFS.Open(open_file), _VFS.Delete(delete)
    _in_use.append((vfs, callbacks, patched))
    assert _library.sqlite3_vfs_register(ctypes.byref(vfs), 1) == OK
    try:
        with patch.multiple(os, pwrite=write_from_python, fsync=sync_from_python):
            yield disk
    finally:
        _library.sqlite3_vfs_unregister(ctypes.byref(vfs))
