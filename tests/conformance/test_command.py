"""The conformance command, with a fake suite."""

import sys
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest

from tests.conformance import __main__ as command
from tests.conformance.report import Broken, Outcome

FINE = Outcome("a run", "1.1.1", "OK", "OK", "")
WRONG = Outcome("a run", "1.1.2", "FAILED", "OK", "no answer")


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is installed."""
    monkeypatch.setattr(command, "get_python2", lambda: Path("/python2.7"))
    monkeypatch.setattr(command, "install", lambda python2: [python2, "wstest"])


def finding(monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome) -> list[tuple[Any, ...]]:
    """Each run has this report. Returns the commands that were run."""
    asked: list[tuple[Any, ...]] = []

    def carry_out(*arguments: Any) -> list[Outcome]:
        asked.append(arguments)
        return list(outcomes)

    monkeypatch.setattr(command, "carry_out", carry_out)
    return asked


def test_skips_without_python_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "get_python2", lambda: None)
    assert command.main(["--quick"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("NOT RUN: the Autobahn TestSuite needs Python 2.7")


def test_failed_installation_is_a_failure(
    ready: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def install(python2: Path) -> list[Path]:
        raise CalledProcessError(1, ["pip"])

    monkeypatch.setattr(command, "install", install)
    assert command.main([]) == 1
    assert "cannot be installed" in capsys.readouterr().err


def test_quick_set_is_part_of_the_full_set(ready: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = finding(monkeypatch, FINE)
    assert command.main(["--quick"]) == 0
    assert {run for run, _, _ in asked} == set(command.QUICK)
    asked.clear()
    assert command.main([]) == 0
    assert {run for run, _, _ in asked} == set(command.FULL) > set(command.QUICK)


def test_failed_case_fails_the_command(
    ready: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding(monkeypatch, FINE, WRONG)
    assert command.main(["--quick"]) == 1
    assert "1.1.2 (a run): FAILED, closing OK: no answer" in capsys.readouterr().out


def test_broken_run_fails_the_command(
    ready: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def carry_out(*arguments: Any) -> list[Outcome]:
        raise Broken("the server did not start")

    monkeypatch.setattr(command, "carry_out", carry_out)
    assert command.main(["--quick"]) == 1
    assert "FAILED: the server did not start" in capsys.readouterr().out


def test_reads_the_number_of_cases(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "PROGRESS", 0.0)
    said = "Ok, will run 2 test cases against 1 servers\\nRunning test case ID 1.1.1 for agent x\\nsomething else"
    assert command.ask([sys.executable, "-c", f"print('{said}')"], command.QUICK[0], progress=True) == 2
    assert "case 1.1.1, 1 of 2" in capsys.readouterr().out
    assert command.ask([sys.executable, "-c", f"print('{said}')"], command.QUICK[0], progress=False) == 2
    assert capsys.readouterr().out == ""


def test_ends_suite_that_hangs() -> None:
    run = command.QUICK[0]._replace(minutes=0.001)
    with pytest.raises(Broken, match="given up after 0.001 minutes, at case none"):
        command.ask([sys.executable, "-c", "import time; time.sleep(60)"], run, progress=False)
