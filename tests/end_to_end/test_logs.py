"""The log of a real twistd as JSON: every line can be parsed, wherever it is written, and each connection that ends is
one."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.end_to_end.conftest import TCP, TIMEOUT_SECONDS

pytestmark = pytest.mark.end_to_end

PROGRAM = [sys.executable, "-c"]
WITH_A_FAULT = """
from twisted.scripts.twistd import run
from twistedsock.session.commands import Info
from twistedsock.session.handlers import HANDLERS

def broken(session, command):
    raise ValueError("a fault\\nof two lines")

HANDLERS[Info] = broken
run()
"""
"""A twistd whose server fails to answer INFO."""


def read(path):
    """All lines of a log. Each must be an object with the fields that every line has."""
    told = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    for line in told:
        assert {"time", "level", "namespace", "message"} <= line.keys(), line
        assert line["time"].endswith("Z")
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 300
    return told


class Logging:
    """A server that logs JSON to a file."""

    def __init__(self, log, eventually, pid):
        self.path, self.pid, self._eventually = log, pid, eventually

    def line(self, *words):
        """The first line whose message contains these words."""

        def found():
            text = self.path.read_text() if self.path.exists() else ""
            whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
            return next((line for line in whole if all(word in line["message"] for word in words)), None)

        return self._eventually(found, f"{words} in the log")

    @property
    def address(self):
        return re.match(r"lines on (\S+): ", self.line("lines on")["message"])[1]

    @property
    def page(self):
        return self.line("web on")["message"].rpartition(" ")[2]

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)


@pytest.fixture
def start_json(twistd, environment, tmp_path, eventually):
    """Start a server in the foreground, whose standard output is the log."""
    running = []

    def starting(program=(twistd,), web="none"):
        log = tmp_path / "log"
        options = ["--log-format=json", "--tcp", TCP, "--web", web]
        command = [*program, "-n", "--pidfile=", "sockbridge", *options]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, env=environment)
        running.append(process)
        server = Logging(log, eventually, process.pid)
        server.process = process
        return server

    yield starting
    for process in running:
        process.kill()
        process.wait()


def test_every_line_is_one_object_from_the_start_to_the_end(start_json, line_client, web_client):
    server = start_json(web=TCP)
    assert server.line("twistd", "starting up")["level"] == "info"
    peer, page = line_client(server.address), web_client(server.page)
    peer.request("PUB kitchen secret-payload")
    page.request(type="subscribe", id=1, channel="kitchen")
    os.kill(server.pid, signal.SIGHUP)
    assert server.line("reloaded")["parts"] == "configuration"
    server.stop()
    assert page.receive_rest()[1] == 1001
    assert server.process.wait(TIMEOUT_SECONDS) == -signal.SIGTERM
    told = read(server.path)
    assert told[-1]["message"] == "Server Shut Down."
    assert "secret-payload" not in server.path.read_text()
    assert {line["level"] for line in told} == {"info"}
    assert not (server.path.parent / "twistd.log").exists()


def test_each_connection_that_ends_is_one_line(start_json, line_client, web_client):
    server = start_json(web=TCP)
    peer, page = line_client(server.address), web_client(server.page)
    peer.request("NICK ann")
    peer.send("QUIT")
    peer.receive_rest()
    peer.close()
    told = server.line(peer.id, "disconnected")
    assert (told["id"], told["nick"], told["subject"], told["dialect"]) == (peer.id, "ann", None, "line")
    assert (told["client"], told["server"]) == (peer.welcome.split("from=")[1].split()[0], server.address)
    assert 0 <= told["seconds"] < TIMEOUT_SECONDS
    # TCP counts its FIN as a byte.
    assert told["received"] - len("NICK ann\nQUIT\n") in (0, 1)
    assert told["sent"] - len(f"{peer.welcome}\nOK ann\nBYE\n") in (0, 1)
    assert (told["by"], told["how"]) == ("peer", "cleanly")
    page.close()
    told = server.line("json client", "disconnected")
    assert (told["dialect"], told["by"], told["why"]) == ("json", "peer", "it has ended its stream, with a FIN")
    assert told["received"] > 0 and told["sent"] > 0
    server.stop()
    assert server.process.wait(TIMEOUT_SECONDS) == -signal.SIGTERM
    read(server.path)


def test_a_fault_is_one_line_with_its_traceback(start_json, line_client):
    server = start_json(program=[*PROGRAM, WITH_A_FAULT])
    peer = line_client(server.address)
    assert peer.request("INFO").startswith("ERR internal ")
    assert peer.request("PING") == "PONG"
    told = server.line("internal error while a command was processed")
    assert told["level"] == "critical"
    assert told["traceback"].startswith("Traceback (most recent call last)")
    assert "ValueError: a fault\nof two lines" in told["traceback"]
    server.stop()
    server.process.wait(TIMEOUT_SECONDS)
    assert [line["level"] for line in read(server.path)].count("critical") == 1


def test_a_daemon_logs_to_a_file_that_can_be_rotated(twistd, environment, tmp_path, eventually, line_client):
    command = [twistd, "--pidfile=bridge.pid", "--logfile=bridge.log", "sockbridge", "--log-format=json"]
    subprocess.run([*command, "--tcp", TCP, "--web=none"], cwd=tmp_path, env=environment, check=True, timeout=30)
    log, pid = tmp_path / "bridge.log", int((tmp_path / "bridge.pid").read_text())
    server = Logging(log, eventually, pid)
    try:
        address = server.address
        os.kill(pid, signal.SIGUSR1)
        eventually((tmp_path / "bridge.log.1").exists, "the old log")
        peer = line_client(address)
        os.kill(pid, signal.SIGHUP)
        server.line("reloaded")
        server.stop()
        peer.receive_rest()
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the daemon")
        told = read(log)
        assert told[-1]["message"] == "Server Shut Down."
        assert [line["by"] for line in told if line["message"].startswith("line client")] == ["server"]
        assert any("lines on" in line["message"] for line in read(tmp_path / "bridge.log.1"))
        assert not (tmp_path / "twistd.log").exists()
    finally:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGKILL)


def test_a_full_disk_is_reported_once(start_json, twistd, environment, tmp_path, eventually):
    command = [twistd, "-n", "--pidfile=", "--logfile=/dev/full", "sockbridge", "--log-format=json", "--tcp", TCP]
    with subprocess.Popen(
        [*command, "--web=none"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        first = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert first == "sockbridge: the log cannot be written: [Errno 28] No space left on device\n"
    assert rest == ""
