"""A bounded run of the simulation, and its promise that a seed repeats a run."""

import os
import subprocess
import sys

import pytest

from tests.simulation.__main__ import main
from tests.simulation.planted import PLANTED
from tests.simulation.planting import find

pytestmark = pytest.mark.slow


def test_every_client_receives_each_event_once_and_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """``make simulate`` has other seeds, and more time."""
    assert main(["--seed", "1", "--runs", "120"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("fault", PLANTED)
def test_finds_planted_fault(fault: str) -> None:
    assert find(fault, seed=300) is not None


def run_in_process(hash_seed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_seed_repeats_a_run_exactly() -> None:
    """Also in a process with other hashes, in which sets of bytes have another order."""
    first, second = (run_in_process(hash_seed, "--seed", "7") for hash_seed in ("1", "2"))
    assert first.returncode == 0 and "checksum" in first.stdout
    assert first.stdout.splitlines()[:2] == second.stdout.splitlines()[:2]


def test_failure_is_reported_with_its_trace_and_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "0", "--runs", "50", "--fault", "cursor-off-by-one"]) == 1
    report = capsys.readouterr().out
    *trace, failure, command = report.splitlines()
    assert "is subscribed at" in report and len(trace) > 20
    assert failure.startswith("seed ") and " failed: " in failure
    assert command.startswith("repeat it: python -m tests.simulation ")
    assert main(command.split()[5:]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == report.splitlines()[1:]
