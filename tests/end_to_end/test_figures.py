"""The script behind docs/performance.md runs and counts; how fast is no question for a test."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

SMALL = """
import figures
figures.fan_out("line", 3, 2_000, 32)
figures.fan_out("websocket", 3, 2_000, 32)
figures.paced("line", 2, 100, 0.2, 32)
figures.idle("websocket", 20)
figures.stalled("line", 3, 400, 200)
"""


@pytest.mark.end_to_end
def test_the_figures_are_measured() -> None:
    """Each kind once, small; a lost or doubled event would end it."""
    done = subprocess.run([sys.executable, "-c", SMALL], cwd=BENCH, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0].split(" of ")[0] for line in done.stdout.splitlines()] == [
        "| fan-out 1 to 3",
        "| fan-out 1 to 3",
        "| paced",
        "| idle websocket connection",
        "| 3 stalled line readers",
    ]
