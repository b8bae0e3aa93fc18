"""Fixtures that run ``sockbridge`` and write its files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from twistedsock.cli.main import main


class CommandResult:
    def __init__(self, status: int, out: str, errors: str) -> None:
        self.status, self.out, self.errors = status, out, errors


@pytest.fixture
def run_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CommandResult]:
    """Run ``sockbridge`` with arguments, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run_command(*words: str) -> CommandResult:
        capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as error:
            assert isinstance(error.code, int)
            status = error.code
        return CommandResult(status, *capsys.readouterr())

    return run_command


@pytest.fixture
def error_of(run_command: Callable[..., CommandResult]) -> Callable[..., str]:
    """Run ``sockbridge`` with arguments that fail, and return the error, which is one sentence."""

    def error_of(*words: str) -> str:
        outcome = run_command(*words)
        assert (outcome.status, outcome.out) == (1, ""), outcome.errors
        prefix = f"sockbridge {words[0]}: "
        assert outcome.errors.startswith(prefix)
        assert outcome.errors.count("\n") == 1
        return outcome.errors.removeprefix(prefix).strip()

    return error_of


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., str]:
    """Write a configuration file, and return its name."""

    def configure(*parts: str) -> str:
        (tmp_path / "sockbridge.toml").write_text("\n".join(parts))
        return "sockbridge.toml"

    return configure
