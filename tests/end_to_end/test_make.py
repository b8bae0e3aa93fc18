"""What `make` does with its targets, and how `make test` shows the results of its parts."""

import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.end_to_end

CHECKOUT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run_tests() -> Any:
    """The program that `make test` and `make check` start, as a module."""
    spec = importlib.util.spec_from_file_location("run_tests", CHECKOUT / "tools" / "run_tests.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "target", ["test", "check", "tests", "run", "cluster", "sanitize", "dist", "clean", "bench", "soak", "pictures"]
)
def test_a_dry_run_runs_no_command(tmp_path, target):
    """In a copy without an environment, where each command would leave something behind."""
    files = ["Makefile", "setup.cfg", "setup.py", "pyproject.toml", "package.json", "package-lock.json"]
    (tmp_path / "twistedsock").mkdir()
    for name in (*files, "twistedsock/_speed.c"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    shutil.copytree(CHECKOUT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(tmp_path.rglob("*"))
    dry = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """A stand-in for make, which runs a Python program for each target: ``make(target=source, …)`` returns its name."""

    def making(**programs: str) -> str:
        for target, source in programs.items():
            (tmp_path / f"{target}.py").write_text(source)
        script = tmp_path / "make"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/"$2".py\n')
        script.chmod(0o755)
        return str(script)

    return making


def test_a_failure_is_shown_while_the_other_parts_still_run(run_tests, make, tmp_path):
    gate = tmp_path / "gate"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\nprint('waited')"
    lines: list[str] = []

    def write(line: str) -> None:
        lines.append(line.strip())
        if line.endswith("it went wrong"):
            gate.touch()

    fails = "print('it went wrong', flush=True)\nraise SystemExit(1)"
    parts = run_tests.Runner(make(waits=waits, fails=fails), write).run([["waits"], ["fails"]])
    assert [(part.target, part.status) for part in parts] == [("waits", 0), ("fails", 1)]
    assert "waits | waited" in lines


def test_the_parts_of_a_lane_run_in_turn_although_one_fails(run_tests, make):
    program = make(fails="raise SystemExit(3)", passes="")
    parts = run_tests.Runner(program, lambda line: None).run([["fails", "passes"]], ["passes"])
    assert [part.status for part in parts] == [3, 0, 0]


def test_the_table_counts_tests_and_names_failed_ones(run_tests, make):
    unit = (
        "print('....F [ 60%]')\nprint('FAILED tests/test_a.py::test_b - AssertionError')\n"
        "print('1 failed, 1204 passed in 3.01s')\nraise SystemExit(1)"
    )
    program = make(
        unit=unit, javascript="print('ℹ tests 9')\nprint('ℹ pass 9')", suite="print('All 494 cases are right')"
    )
    lines: list[str] = []
    parts = run_tests.Runner(program, lines.append).run([["unit", "javascript", "suite"]])
    shown = [line.split() for line in run_tests.table(parts, 65.0).splitlines()]
    assert ["unit", "FAILED", "(1)", "1,204", "0", "s", "1"] in shown
    assert [row[:3] for row in shown if row[:1] in (["javascript"], ["suite"])] == [
        ["javascript", "passed", "9"],
        ["suite", "passed", "494"],
    ]
    assert ["all", "1,707", "1", "min", "5", "s", "1"] in shown
    assert ["unit:", "tests/test_a.py::test_b"] in shown
    assert not any("....F" in line for line in lines)


def test_make_test_says_first_what_it_installs():
    script = CHECKOUT / "tools" / "install-commands"
    said = subprocess.run([script, "--announce"], capture_output=True, text=True, check=True).stdout
    assert "minutes on 2 cores" in said


def test_a_program_that_a_part_leaves_behind_is_ended(run_tests, make):
    """It holds the output of its part open, which would never end."""
    starts = "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\nraise SystemExit(3)"
    lines: list[str] = []
    (part,) = run_tests.Runner(make(starts=starts), lines.append).run([["starts"]])
    assert part.status == 3
    _wait_until_ended(int(lines[0].rpartition("| ")[2]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_programs_of_all_parts(make, tmp_path, number):
    """The first part takes a moment to clean up. Its child ignores SIGINT, as the background jobs of a shell do."""
    child = "import signal, time; signal.signal(2, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    cleans = (
        f"import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print(child.pid, flush=True)\ntry: time.sleep(600)\n"
        f"finally:\n    time.sleep(0.3)\n    open({str(tmp_path / 'cleaned')!r}, 'w')"
    )
    never = f"open({str(tmp_path / 'started')!r}, 'w')"
    name = make(cleans=cleans, never=never)
    source = f"import runpy, signal, sys; signal.signal({number:d}, signal.SIG_DFL); "  # nohup ignores some
    source += "run = runpy.run_path(sys.argv[1]); run['LANES']['x'] = [['cleans', 'never']]; "
    source += "run['ALONE']['x'] = ['never']; sys.exit(run['main'](sys.argv[2], 'x'))"
    command = [sys.executable, "-c", source, str(CHECKOUT / "tools" / "run_tests.py"), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().rpartition("| ")[2])
        assert process.stdout.readline().endswith("ready\n")
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert (tmp_path / "cleaned").exists()
    assert not (tmp_path / "started").exists()
    _wait_until_ended(pid)


def _wait_until_ended(pid: int) -> None:
    """Wait until the process has ended. It is a zombie until the first process of the machine reaps it."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(500):
        if not stat.exists() or ") Z " in stat.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} still runs")


def test_a_test_file_that_cannot_be_imported_is_shown(tmp_path):
    (tmp_path / "conftest.py").write_text((CHECKOUT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_broken.py").write_text("import no_such_module\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-failures-at-once", "."]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "\nERROR test_broken.py\n" in ended.stdout
    assert "No module named 'no_such_module'" in ended.stdout
