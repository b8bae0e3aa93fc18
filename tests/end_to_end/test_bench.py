"""Both ways to measure run and count; how fast is no question for a test."""

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from twistedsock.bench import command as bench

CHECKOUT = Path(__file__).resolve().parents[2]
SOCKBRIDGE = str(Path(sys.executable).parent / "sockbridge")

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def places(server: Any) -> list[str]:
    """The options with the ports of the shared server."""
    return ["--lines", server.lines[0], "--web", server.authority]


def outcome(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **how)


def test_measures_running_server(server, places, tmp_path):
    small = ["--readers", "3", "--pairs", "2", "--seconds", "0.05", "--rate", "200"]
    done = outcome([SOCKBRIDGE, "bench", *places, *small], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"process {server.process.pid};" in done.stderr
    assert "6 of 6" in done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", done.stderr), "control characters"
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert rows[1:7] == [
        *("1 to 3, lines", "1 to 3, websocket", "2 pairs, lines", "2 pairs, websocket"),
        *("1 to 3, lines, 200 events per second", "1 to 3, websocket, 200 events per second"),
    ]
    assert " us " in done.stdout.splitlines()[1], "the CPU time of the server"
    assert not list(tmp_path.iterdir()), "the command leaves no files"


def test_error_explains_wrong_port(places, monkeypatch):
    monkeypatch.setattr(bench, "FIRST_REPLY_SECONDS", 0.3)  # both sides would wait
    _, lines, _, web = places
    assert "is not the web port of a sockbridge server" in said("--lines", "none", "--web", lines)
    assert "is not the lines port of a sockbridge server" in said("--lines", web, "--web", "none")
    assert "Start the server with twistd -n sockbridge" in said("--lines", "127.0.0.1:1")


def said(*words: str) -> str:
    """Run the command, and return its error."""
    parser = argparse.ArgumentParser()
    bench.add_options(parser)
    error = StringIO()
    assert bench.run(parser.parse_args(words), StringIO(), error) == 1
    assert error.getvalue().count("\n") == 1
    return error.getvalue()


@pytest.mark.parametrize("kind", ["--lines", "--web"])
def test_error_explains_limit_of_server(kind, start, tmp_path):
    server = start("--max-connections", "5")
    places = {"--lines": server.lines[0], "--web": server.authority}
    places |= {other: "none" for other in places if other != kind}
    done = outcome([SOCKBRIDGE, "bench", *(word for place in places.items() for word in place)], cwd=tmp_path)
    assert done.returncode == 1
    assert "increase it (--max-connections-per-address, --max-connections," in done.stderr
    assert done.stderr.endswith("\n")


def test_interruption_ends_command(places, tmp_path):
    command = [SOCKBRIDGE, "bench", *places, "--readers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "1 of 6" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.1)  # somewhere in the middle
        process.send_signal(signal.SIGINT)
        words = process.stderr.read()
        assert process.wait(20) == 130
    assert words.endswith("sockbridge bench: interrupted\n")
    assert "Traceback" not in words


def test_comparison_writes_report(tmp_path, environment):
    """Every kind of workload once, small."""
    kinds = ["tcp-to-websocket-100", "paced-500", "channels-10", "connections-tcp", "stalled-tcp"]
    command = [sys.executable, "-m", "bench", *kinds, "--quick", "--out", str(tmp_path), "--servers", "sockbridge"]
    done = outcome(command, cwd=CHECKOUT, env=environment)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "RESULTS.md").read_text()
    assert "What was not measured" not in report, report
    assert "| over TCP, sockbridge |" in report
    assert "the live reader got all" in report
    raw = Path(re.findall(r"all figures: (.*)", done.stderr)[0])
    about, *records = map(json.loads, raw.read_text().splitlines())
    raw.unlink()
    assert about["versions"]["sockbridge"]
    assert [record["workload"] for record in records] == kinds
