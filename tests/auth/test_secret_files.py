"""Reading files with secrets, and warnings about their permissions."""

import os
from pathlib import Path

import pytest

from twistedsock.auth.secret_files import read_file, strip_line_end, warn_of_readers


class Fault(Exception):
    """In place of the exceptions of the callers."""


def error(path: Path) -> str:
    with pytest.raises(Fault) as caught:
        read_file(path, 5, "too large", Fault)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_returns_content_and_permissions(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    file.chmod(mode)
    assert read_file(file, 5, "too large", Fault) == (b"12345", mode)


def test_rejects_large_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"123456")
    assert error(file) == error(Path("/dev/zero")) == "too large"


def test_permissions_of_pipe_are_zero() -> None:
    """A shell passes a secret as ``<(…)``."""
    reading, writing = os.pipe()
    os.write(writing, b"1234")
    os.close(writing)
    try:
        assert read_file(Path(f"/dev/fd/{reading}"), 5, "too large", Fault) == (b"1234", 0)
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/nowhere/key", "No such file or directory"), ("/tmp", "Is a directory"), ("/a\0b", "embedded null byte")],
)
def test_error_names_unreadable_file(path: str, reason: str) -> None:
    assert error(Path(path)) == f"cannot read {path}: {reason}"


@pytest.mark.parametrize(
    ("content", "secret"), [(b"a", b"a"), (b"a\n", b"a"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b" a ", b" a ")]
)
def test_strips_one_line_end(content: bytes, secret: bytes) -> None:
    assert strip_line_end(content) == secret


def test_warns_of_file_that_other_users_can_read() -> None:
    assert warn_of_readers(Path("/key"), 0o600) == warn_of_readers(Path("/key"), 0) == ""
    words = "users other than the owner can read the secret in /key (mode 0644): chmod 600"
    assert warn_of_readers(Path("/key"), 0o644) == words
    assert all(warn_of_readers(Path("/key"), mode) for mode in (0o640, 0o604, 0o620, 0o601))
