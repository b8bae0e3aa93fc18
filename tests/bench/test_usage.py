"""Processes: the listeners of a port, CPU time, memory and descendants."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from twistedsock.bench.command import find_listening_processes
from twistedsock.bench.measurement import ProcessUsage, family

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 00000000:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 200 1 0 100 0 0 10 0
   2: 0100007F:1F91 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 300 1 0 100 0 0 10 0
   3: 0200007F:1F93 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 400 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx rx tr tm uid timeout inode
   0: 00000000000000000000000001000000:1F94 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 500 1 0 100
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a little-endian machine."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    for pid, inodes in {"1": [100], "10": [100], "11": [100, 300], "20": [200], "30": [300, 400], "50": [500]}.items():
        (tmp_path / pid / "fd").mkdir(parents=True)
        for number, inode in enumerate(inodes):
            (tmp_path / pid / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (tmp_path / "60").mkdir()
    return tmp_path


@pytest.mark.skipif(sys.byteorder == "big", reason="the tables are little-endian")
@pytest.mark.parametrize(
    ("host", "port", "pids"),
    [
        ("127.0.0.1", 8081, (10, 11)),
        ("127.0.0.1", 8082, (20,)),
        ("127.0.0.1", 8083, ()),
        ("::1", 8084, (50,)),
        ("127.0.0.1", 9, ()),
    ],
)
def test_finds_processes_that_listen_on_port(proc: Path, host: str, port: int, pids: tuple[int, ...]) -> None:
    assert find_listening_processes((host, port), proc) == pids


def test_finds_no_process_without_proc(tmp_path: Path) -> None:
    assert find_listening_processes(("127.0.0.1", 8081), tmp_path) == ()


def test_reads_cpu_time_and_memory_of_process() -> None:
    usage = ProcessUsage([os.getpid()])
    before = usage.cpu()
    sum(range(100_000))
    assert usage.cpu() > before
    assert usage.memory() > 1_000_000


def test_raises_for_ended_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(OSError):
        ProcessUsage([child.pid]).cpu()


def test_family_includes_descendants() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = family(os.getpid())
        assert found[0] == os.getpid()
        assert child.pid in found
        assert family(child.pid) == (child.pid,)
        child.communicate(b"\n")
