"""The command, and files in a folder of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from twistedsock.cli.main import main


class Outcome:
    def __init__(self, status: int, out: str, errors: str) -> None:
        self.status, self.out, self.errors = status, out, errors


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Call ``sockbridge`` with some words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def say(*words: str) -> Outcome:
        capsys.readouterr()
        try:
            status = main(words)
        except SystemExit as error:
            assert isinstance(error.code, int)
            status = error.code
        return Outcome(status, *capsys.readouterr())

    return say


@pytest.fixture
def refused(say: Callable[..., Outcome]) -> Callable[..., str]:
    """The one sentence that some words lead to."""

    def refused(*words: str) -> str:
        outcome = say(*words)
        assert (outcome.status, outcome.out) == (1, ""), outcome.errors
        prefix = f"sockbridge {words[0]}: "
        assert outcome.errors.startswith(prefix)
        assert outcome.errors.count("\n") == 1
        return outcome.errors.removeprefix(prefix).strip()

    return refused


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., str]:
    """Write a file of options; gives its name."""

    def configure(*parts: str) -> str:
        (tmp_path / "sockbridge.toml").write_text("\n".join(parts))
        return "sockbridge.toml"

    return configure
