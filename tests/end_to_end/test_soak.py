"""A soak test of five seconds finds no broken promise. It is too short to judge memory."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.end_to_end


def soak(*words: str) -> list[str]:
    return [sys.executable, "-m", "bench.soak", *words]


def test_a_short_soak_finds_no_fault(tmp_path, environment):
    command = soak("--minutes", "0.085", "--out", str(tmp_path))
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "too short to judge" in done.stdout
    (file,) = tmp_path.glob("*.jsonl")
    about, *samples = map(json.loads, file.read_text().splitlines())
    assert about["wrongs"] == []
    assert about["tally"]["visits"] > 20
    assert len(samples) == 5
    assert (tmp_path / "soak.svg").read_text().startswith("<svg")


def test_an_interrupted_soak_leaves_no_server_running(tmp_path, environment):
    command = soak("--minutes", "5", "--out", str(tmp_path))
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "1 of 5" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)  # somewhere in the middle
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        process.send_signal(signal.SIGINT)
        words = process.stderr.read()
        assert process.wait(30) == 130, words
    assert words.endswith("interrupted\n")
    assert "Traceback" not in words
    assert not any(Path("/proc", child).exists() for child in children)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "1e9"])
def test_an_invalid_duration_is_rejected(minutes, environment):
    done = subprocess.run(soak(f"--minutes={minutes}"), cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "between 0 and" in done.stderr
