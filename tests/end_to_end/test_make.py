"""What `make` does with its targets, and how `make test` shows the results of its parts."""

import importlib.util
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.end_to_end

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run_tests() -> Any:
    """The program that `make test` starts, as a module."""
    spec = importlib.util.spec_from_file_location("run_tests", CHECKOUT / "tools" / "run_tests.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("target", ["test", "tests", "run", "dist", "clean", "bench", "soak", "pictures"])
def test_a_dry_run_runs_no_command(tmp_path: Path, target: str) -> None:
    """In a copy without an environment, where each command would leave something behind."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "package.json", "package-lock.json"):
        shutil.copy(CHECKOUT / name, tmp_path)
    shutil.copytree(CHECKOUT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(tmp_path.rglob("*"))
    dry = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_part_that_fails_is_shown_while_the_others_still_run(run_tests: Any, tmp_path: Path, capfd: Any) -> None:
    gate = tmp_path / "gate"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\nprint('waited')"
    parts = [[sys.executable, "-c", waits], [sys.executable, "-c", "raise SystemExit('it went wrong')"]]
    failed: list[int] = []
    running = threading.Thread(target=lambda: failed.append(run_tests.run(parts)))
    running.start()
    try:
        shown = ""
        while "FAILED with 1\nit went wrong" not in shown and running.is_alive():
            running.join(0.05)
            shown += capfd.readouterr().out
        assert "FAILED with 1\nit went wrong" in shown
        assert "waited" not in shown
    finally:
        gate.touch()
        running.join()
    assert failed == [1]
    assert "waited" in capfd.readouterr().out


def test_make_test_fails_if_any_part_fails(run_tests: Any) -> None:
    passes, fails = [sys.executable, "-c", ""], [sys.executable, "-c", "raise SystemExit(1)"]
    assert [run_tests.run(parts) for parts in ([passes, passes], [fails, passes], [passes, fails, fails])] == [0, 1, 2]
