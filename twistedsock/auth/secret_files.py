"""Files that contain a secret or a key: reading them with a size limit, and warnings about their permissions."""

import os
import stat
from pathlib import Path


def read_file(path: Path, most: int, too_large: str, fault: type[Exception]) -> tuple[bytes, int]:
    """Return the content and the permissions of a file. The permissions of a pipe are 0, because they mean nothing.
    Raises ``fault`` if the file cannot be read, and with the message ``too_large`` if it has more than ``most``
    bytes."""
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
    """Return the secret in a file. Editors and ``echo`` add a line end, which is not part of it."""
    return content.removesuffix(b"\n").removesuffix(b"\r")


def warn_of_readers(path: Path, mode: int) -> str:
    """Return a warning for the operator, or an empty string. It is not an error, because containers get their secrets
    with mode 0444."""
    if not mode & 0o077:
        return ""
    return f"users other than the owner can read the secret in {path} (mode {mode:04o}): chmod 600"


def warn_of_writers(path: Path, mode: int) -> str:
    """Return a warning for the operator about a public key that other users can replace with theirs, or an empty
    string."""
    if not mode & 0o022:
        return ""
    return f"users other than the owner can replace the key in {path} (mode {mode:04o}): chmod 644"
