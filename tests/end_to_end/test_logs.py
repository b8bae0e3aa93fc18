"""The log of a real twistd as JSON: every line can be parsed, wherever it is written, and each connection that ends is
one."""

import json
import os
import re
import signal
import sys
from datetime import UTC, datetime

import pytest

from tests.end_to_end.conftest import TCP
from tests.end_to_end.programs import TIMEOUT_SECONDS, wait_until

pytestmark = pytest.mark.end_to_end

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


class Log:
    """A log in JSON."""

    def __init__(self, path):
        self.path = path

    def line(self, *words):
        """The first line whose message contains these words."""

        def found():
            whole = [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line[-1:] == "\n"]
            return next((line for line in whole if all(word in line["message"] for word in words)), None)

        return wait_until(found, f"{words} in the log")

    @property
    def address(self):
        return re.match(r"lines on (\S+): ", self.line("lines on")["message"])[1]

    @property
    def page(self):
        return self.line("web on")["message"].rpartition(" ")[2]


@pytest.fixture
def start_json(twistd, run):
    """Start a server in the foreground, whose standard output is the log: returns its process and the log."""

    def starting(program=(twistd,), web="none"):
        server = run(*program, "-n", "--pidfile=", "sockbridge", "--log-format=json", "--tcp", TCP, "--web", web)
        return server.process, Log(server.path)

    return starting


def stop(process):
    process.terminate()
    return process.wait(TIMEOUT_SECONDS)


def test_every_line_is_one_object_from_the_start_to_the_end(start_json, line_client, web_client):
    process, log = start_json(web=TCP)
    assert log.line("twistd", "starting up")["level"] == "info"
    peer, page = line_client(log.address), web_client(log.page)
    peer.request("PUB kitchen secret-payload")
    page.request(type="subscribe", id=1, channel="kitchen")
    process.send_signal(signal.SIGHUP)
    assert log.line("reloaded")["parts"] == "configuration"
    process.terminate()
    assert page.receive_rest()[1] == 1001
    assert process.wait(TIMEOUT_SECONDS) == -signal.SIGTERM
    told = read(log.path)
    assert told[-1]["message"] == "Server Shut Down."
    assert "secret-payload" not in log.path.read_text()
    assert {line["level"] for line in told} == {"info"}
    assert not (log.path.parent / "twistd.log").exists()


def test_each_connection_that_ends_is_one_line(start_json, line_client, web_client):
    process, log = start_json(web=TCP)
    peer, page = line_client(log.address), web_client(log.page)
    peer.request("NICK ann")
    peer.send("QUIT")
    peer.receive_rest()
    peer.close()
    told = log.line(peer.id, "disconnected")
    assert (told["id"], told["nick"], told["subject"], told["dialect"]) == (peer.id, "ann", None, "line")
    assert (told["client"], told["server"]) == (peer.welcome.split("from=")[1].split()[0], log.address)
    assert 0 <= told["seconds"] < TIMEOUT_SECONDS
    # TCP counts its FIN as a byte.
    assert told["received"] - len("NICK ann\nQUIT\n") in (0, 1)
    assert told["sent"] - len(f"{peer.welcome}\nOK ann\nBYE\n") in (0, 1)
    assert (told["by"], told["how"]) == ("peer", "cleanly")
    page.close()
    told = log.line("json client", "disconnected")
    assert (told["dialect"], told["by"], told["why"]) == ("json", "peer", "it has ended its stream, with a FIN")
    assert told["received"] > 0 and told["sent"] > 0
    assert stop(process) == -signal.SIGTERM
    read(log.path)


def test_a_fault_is_one_line_with_its_traceback(start_json, line_client):
    process, log = start_json(program=[sys.executable, "-c", WITH_A_FAULT])
    peer = line_client(log.address)
    assert peer.request("INFO").startswith("ERR internal ")
    assert peer.request("PING") == "PONG"
    told = log.line("internal error while a command was processed")
    assert told["level"] == "critical"
    assert told["traceback"].startswith("Traceback (most recent call last)")
    assert "ValueError: a fault\nof two lines" in told["traceback"]
    stop(process)
    assert [line["level"] for line in read(log.path)].count("critical") == 1


def test_a_daemon_logs_to_a_file_that_can_be_rotated(start_daemon, eventually, line_client, tmp_path):
    daemon = start_daemon("--log-format=json", "--tcp", TCP)
    log, rotated = Log(daemon.log), Log(tmp_path / "bridge.log.1")
    address = log.address
    os.kill(daemon.pid, signal.SIGUSR1)
    eventually(rotated.path.exists, "the old log")
    peer = line_client(address)
    os.kill(daemon.pid, signal.SIGHUP)
    log.line("reloaded")
    os.kill(daemon.pid, signal.SIGTERM)
    peer.receive_rest()
    eventually(daemon.has_ended, "the end of the daemon")
    told = read(log.path)
    assert told[-1]["message"] == "Server Shut Down."
    assert [line["by"] for line in told if line["message"].startswith("line client")] == ["server"]
    assert any("lines on" in line["message"] for line in read(rotated.path))
    assert not (tmp_path / "twistd.log").exists()


def test_a_full_disk_is_reported_once(twistd, run):
    options = ["--log-format=json", "--tcp", TCP, "--web=none"]
    program = run(twistd, "-n", "--pidfile=", "--logfile=/dev/full", "sockbridge", *options)
    program.prints("\n")
    stop(program.process)
    assert program.output() == "sockbridge: the log cannot be written: [Errno 28] No space left on device\n"
