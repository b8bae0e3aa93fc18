"""Files that hold a secret, or what belongs to one: read with a bound, and whoever else can read them is told."""

import os
import stat
from pathlib import Path


def read_file(path: Path, most: int, too_large: str, fault: type[Exception]) -> tuple[bytes, int]:
    """The content, and the mode: 0 where file rights say nothing, as with a pipe. Raises ``fault`` with a sentence
    where it cannot be read, and with ``too_large`` where it has more than ``most`` bytes."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        raise fault(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > most:
        raise fault(too_large)
    return content, stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else 0


def strip_line_end(content: bytes) -> bytes:
    """The secret in a file: one line end is no part of it, as editors and ``echo`` add it."""
    return content.removesuffix(b"\n").removesuffix(b"\r")


def warn_of_readers(path: Path, mode: int) -> str:
    """A sentence for the operator; empty if all is well. Not refused, as containers are given their secrets with mode
    0444."""
    return f"others than its owner can read the secret in {path} (mode {mode:04o}): chmod 600" if mode & 0o077 else ""
