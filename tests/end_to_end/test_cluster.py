"""``make cluster``: a Redis, two servers, and a page that shows both."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.documents import CHECKOUT
from tests.end_to_end.programs import Program, free_ports, wait_until

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def start_cluster(run: Callable[..., Program], tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a cluster on free ports, with some options of its servers."""
    programs = []

    def starting(*options: str, ports: list[int]) -> Program:
        page, *rest = map(str, ports)
        script = str(CHECKOUT / "tools" / "cluster.py")
        command = (sys.executable, script, "--page-port", page, "--ports", *rest, "--", *options)
        programs.append(run(*command, env={**os.environ, "TMPDIR": str(tmp_path)}))
        return programs[-1]

    yield starting
    for program in programs:
        # Not a signal to its group: what the program has started has sessions of its own.
        program.process.send_signal(signal.SIGTERM)
        program.process.wait(30)


def running(folder: Path) -> list[str]:
    """The commands of processes whose working directory is below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder in (process / "cwd").resolve().parents:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended
    return found


def test_two_servers_are_one_on_the_page_and_in_a_terminal(start_cluster, open_page, line_client, tmp_path):
    ports = free_ports(5)
    cluster = start_cluster(ports=ports)
    address = cluster.prints(r"(http://\S+/two_servers\.html\S+)")[1]
    page = open_page().page
    page.goto(address)
    frames = [page.frame_locator(f"iframe[title='Server {name}']") for name in ("one", "two")]
    for frame in frames:
        frame.get_by_text("connected · 2 people").wait_for()
    frames[0].get_by_label("Message").fill("hello from one")
    frames[0].get_by_role("button").click()
    frames[1].get_by_text("hello from one").wait_for()
    terminal = line_client(f"127.0.0.1:{ports[3]}")
    terminal.request("PUB kitchen hello from a terminal")
    frames[0].get_by_text("hello from a terminal").wait_for()
    folders = list(tmp_path.glob("sockbridge-*"))
    assert len(folders) == 1 and len(running(tmp_path)) == 3
    page.close()  # it would report that the servers are gone
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(30) == 0, cluster.output()
    assert list(tmp_path.glob("sockbridge-*")) == [] and running(tmp_path) == []


def test_a_process_that_is_killed_is_started_again(start_cluster, line_client):
    ports = free_ports(5)
    cluster = start_cluster(ports=ports)
    victim = int(cluster.prints(r"kill -9 (\d+)    # one")[1])
    line_client(f"127.0.0.1:{ports[3]}").request("PUB kitchen 1")
    os.kill(victim, signal.SIGKILL)
    cluster.prints(r"one has ended and is started again")

    def is_back() -> Any:
        try:
            return line_client(f"127.0.0.1:{ports[1]}").request("HIST kitchen").endswith(" 1")
        except (OSError, EOFError):
            return False

    wait_until(is_back, "the server with the history")


def test_a_wrong_option_of_the_servers_ends_all_with_its_reason(start_cluster, tmp_path):
    cluster = start_cluster("--no-such-option", ports=free_ports(5))
    assert cluster.process.wait(30) == 1
    assert re.search(r"make cluster: (one|two) has ended: its output says why", cluster.output())
    assert "no-such-option" in cluster.output()
    assert list(tmp_path.glob("sockbridge-*")) == [] and running(tmp_path) == []


def test_a_port_in_use_for_the_page_is_reported(start_cluster, tmp_path, serve_folder):
    port = int(serve_folder(tmp_path).rpartition(":")[2])
    cluster = start_cluster(ports=[port, *free_ports(4)])
    assert cluster.process.wait(30) == 1
    assert f"make cluster: cannot listen on port {port} for the page: Address already in use" in cluster.output()
