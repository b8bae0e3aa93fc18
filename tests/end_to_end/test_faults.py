"""Clients die, files and disks run out, the clock steps: connected clients are served, and nothing is left behind.
``bystander`` checks both."""

import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.end_to_end.bystander import open_files
from tests.end_to_end.conftest import TCP, receive_until
from tests.end_to_end.programs import free_ports
from tests.fuzz.grammars import HANDSHAKE, frame
from twistedsock.bench.measurement import ProcessUsage

pytestmark = pytest.mark.end_to_end

MEGABYTE = 1024 * 1024


def break_off(connection):
    """Close with a reset, like the kernel of a process that is killed with unread input."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# Clients that die.

MIDST = {
    "a handshake": (True, HANDSHAKE[:60]),
    "a handshake, at its last byte": (True, HANDSHAKE[:-1]),
    "a request's body": (True, b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf"),
    "a frame's head": (True, HANDSHAKE + b"\x81\xfe\x10"),
    "a frame": (
        True,
        HANDSHAKE + frame(0x81, b'{"type":"subscribe","channel":"midst","id":1}') + b"\x81\xfe\x10\x00half",
    ),
    "a fragmented message": (True, HANDSHAKE + frame(0x01, b'{"type":') + frame(0x00, b'"publish"') + b"\x80\xfe"),
    "a close": (True, HANDSHAKE + b"\x88\x82\0\0\0\0\x03"),
    "a line": (False, b"SUB midst\nPUB midst half"),
    "a long line": (False, b"SUB midst\nPUB midst " + b"x" * 60_000),
    "a telnet option": (False, b"SUB midst\n\xff\xfd"),
}


@pytest.mark.parametrize("midst", MIDST)
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_client_disconnects_in_the_middle_of_something(
    server, line_client, open_socket, eventually, bystander, midst, reset
):
    web, data = MIDST[midst]
    watcher = line_client(server.lines[0])
    with bystander(server):
        for _ in range(20):
            connection = open_socket(server.authority if web else server.lines[0])
            connection.sendall(data)
            (break_off if reset else socket.socket.close)(connection)

        def nobody():
            watcher.send("WHO midst")
            return watcher.receive_until("OK ") == ["OK 0"]

        eventually(nobody, "the end of their sessions")
    assert line_client(server.lines[0]).request("HIST midst") == "OK 0"


def test_processes_are_killed_in_the_middle_of_a_frame_and_of_a_line(server, line_client, eventually, bystander):
    """SIGKILL, so that their process sends no farewell. Both publish one event and half of another one."""
    peer = (
        "import socket, sys, time\n"
        "host, port = sys.argv[1].split(':')\n"
        "connection = socket.create_connection((host, int(port)))\n"
        "connection.sendall(bytes.fromhex(sys.argv[2]))\n"
        "time.sleep(60)\n"
    )
    whole = frame(0x81, b'{"type":"publish","channel":"killed","data":"whole"}')
    watcher = line_client(server.lines[0])
    watcher.request("SUB killed presence=on")
    with bystander(server):
        for address, data in [
            (server.authority, HANDSHAKE + whole + whole[:-3]),
            (server.lines[0], b"PUB killed whole\nPUB killed ha"),
        ]:
            process = subprocess.Popen([sys.executable, "-c", peer, address, data.hex()])
            assert watcher.receive().endswith(" whole")
            process.kill()
            process.wait()
        assert watcher.request("HIST killed last=0") == "OK 0"
    assert watcher.request("PING") == "PONG"


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_client_disconnects_during_a_long_reply(server, line_client, web_client, bystander, channel, reset):
    """A megabyte of history, of which the client reads a little."""
    publisher = line_client(server.lines[0])
    publisher.send("QUIET on", *[f"PUB {channel} {'x' * 60_000}"] * 50)
    publisher.receive()
    assert publisher.request("PING") == "PONG"
    with bystander(server) as other:
        for _ in range(5):
            reader, page = line_client(server.lines[0]), web_client(server.page)
            reader.send(f"HIST {channel}", f"SUB {channel} last=50")
            page.send(type="history", id=1, channel=channel)
            page.send(type="subscribe", id=2, channel=channel, last=50)
            assert reader.socket.recv(1_000)
            assert page.socket.recv(1_000)
            for client in (reader, page):
                (break_off if reset else socket.socket.close)(client.socket)
        other.wait_for_rounds()


# Half-open connections.


def test_a_half_closed_client_receives_all_replies(server, line_client, web_client, open_socket, bystander, channel):
    """After their FIN: earlier commands are run and answered, on lines, over HTTP and over a WebSocket."""
    with bystander(server):
        typist = line_client(server.lines[0])
        typist.send(*[f"PUB {channel} x"] * 500, f"HIST {channel} last=1")
        typist.socket.shutdown(socket.SHUT_WR)
        heard = typist.receive_rest()
        assert heard[:500] == [f"OK {offset}" for offset in range(1, 501)]
        assert heard[500:] == [f"MSG {channel} 500 {typist.id} x", "OK 1", "BYE"]
        with open_socket(server.authority) as asking:
            asking.sendall(f"GET /bridge.json HTTP/1.1\r\nHost: {server.authority}\r\n\r\n".encode())
            receive_until(asking, b"}")
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(65536) == b""
        page = web_client(server.page)
        page.socket.shutdown(socket.SHUT_WR)
        # It can no longer answer a close frame, and the server does not wait for that.
        assert page.receive_frame() == (0x88, b"\x03\xe8")
        with pytest.raises(EOFError):
            page.receive_frame()


def test_a_client_that_never_closes_its_half_is_aborted(server, line_client, web_client, open_socket, bystander):
    """At most ten seconds after our FIN. Meanwhile the server runs none of its commands."""
    watcher = line_client(server.lines[0])
    watcher.request("SUB stubborn")
    with bystander(server):
        before = open_files(server.process.pid)
        typist = line_client(server.lines[0])
        page = web_client(server.page)
        lost = open_socket(server.authority)
        typist.send("QUIT", "PUB stubborn after")
        page.socket.sendall(b"\x83\x80\0\0\0\0" + frame(0x81, b'{"type":"publish","channel":"stubborn","data":1}'))
        lost.sendall(b"nonsense\r\n\r\n")
        assert typist.receive_rest() == ["BYE"]
        assert page.receive_frame()[0] == 0x88
        assert lost.recv(100).startswith(b"HTTP/1.1 400 ")
        deadline = time.monotonic() + 14
        while open_files(server.process.pid) - before and time.monotonic() < deadline:
            typist.send_bytes(b"PUB stubborn after\n") if _is_open(typist.socket) else None
            time.sleep(0.1)
        assert not open_files(server.process.pid) - before
    assert watcher.request("HIST stubborn") == "OK 0"


def _is_open(connection):
    """Whether the other end would not answer with a reset."""
    connection.setblocking(False)
    try:
        connection.send(b"")
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    except OSError:
        return False


# The log's disk is full.


@pytest.fixture
def start_without_log(run, twistd):
    """``start_without_log(*options)``: a server whose log cannot be read; ``log`` is its other output. The options are
    those of twistd."""
    programs = []

    def starting(*options):
        ports = free_ports(2)
        lines, web = (f"tcp:{port}:interface=127.0.0.1" for port in ports)
        program = run(twistd, "-n", "--pidfile=", *options, "sockbridge", "--tcp", lines, "--web", web)
        programs.append(program)
        program.listens(*ports)
        lines, authority = (f"127.0.0.1:{port}" for port in ports)
        page = f"http://{authority}/"
        return SimpleNamespace(
            process=program.process, log=program.output, lines=[lines], authority=authority, pages=[page], page=page
        )

    yield starting
    for program in programs:
        program.process.terminate()
        assert program.process.wait(20) == -signal.SIGTERM


def ask_for_foreign_hosts(server, open_socket, count):
    """Each of the first hundred would be a line of the log."""
    for number in range(count):
        with open_socket(server.authority) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: evil%d\r\nConnection: close\r\n\r\n" % number)
            assert connection.recv(100).startswith(b"HTTP/1.1 421 ")


def test_a_full_log_disk_does_not_stop_the_server(start_without_log, open_socket, bystander):
    """Lines that cannot be written are lost; stderr reports it once."""
    server = start_without_log("--logfile=/dev/full")
    with bystander(server, grows=4 * MEGABYTE):
        ask_for_foreign_hosts(server, open_socket, 300)
    assert server.log() == "sockbridge: the log cannot be written: [Errno 28] No space left on device\n"


def limited(name, limit):
    """A launcher that sets a limit of the process (getrlimit(2)) before the start."""
    program = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_{name}, ({limit}, {limit})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program]


def test_a_disk_that_fills_up_does_not_stop_the_server(start, open_socket, bystander):
    """Simulated by a limit on file sizes, at the first lines or later."""
    server = start(launcher=limited("FSIZE", 2_000))
    ask_for_foreign_hosts(server, open_socket, 300)
    with bystander(server):
        pass
    assert 1_000 < len(server.log()) <= 2_000


# No files are left.

SHORTAGE = (
    "out of file descriptors (see ulimit -n): closed 1 new connections since the last message; existing connections "
    "are unaffected"
)


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls"])
def test_without_file_descriptors_open_connections_are_served(
    start, line_client, open_socket, eventually, bystander, certificate, tmp_path, kind
):
    """Excess connections are closed at once, the log reports it once, and the processor stays idle."""
    at_most = 150
    endpoint = {"tcp": TCP, "unix": f"unix:{tmp_path}/lines", "tls": f"ssl:0:interface=127.0.0.1:{certificate}"}[kind]
    server = start(tcp=(TCP, endpoint), launcher=limited("NOFILE", at_most))
    address = server.lines[1]
    usage = ProcessUsage([server.process.pid])
    with bystander(server, SHORTAGE) as other:
        crowd = [open_socket(address) for _ in range(3 * at_most)]
        other.wait_for_rounds()
        for connection in crowd[2 * at_most :]:
            assert connection.recv(100) == b""
        before, began = usage.cpu(), time.monotonic()
        time.sleep(0.5)
        spent, passed = usage.cpu() - before, time.monotonic() - began
        assert spent < 0.8 * passed, "it is busy with those whom it cannot take"
        for connection in crowd:
            connection.close()
        eventually(lambda: len(open_files(server.process.pid)) < at_most / 2, "files for new connections")
        typist = line_client(address, kind == "tls")
        assert typist.request("PING") == "PONG"


# The clock steps.

FAKETIME = Path("/usr/lib") / f"{platform.machine()}-linux-gnu" / "faketime" / "libfaketime.so.1"


@pytest.fixture
def wall(tmp_path):
    """A wall clock that can be set: ``wall.launcher`` starts a process that reads it, ``wall.step(seconds)`` sets it.
    The monotonic clock is not affected."""

    class Wall:
        offset = tmp_path / "offset"
        launcher = (
            "env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1",
            "DONT_FAKE_MONOTONIC=1",
        )  # fmt: skip

        def step(self, seconds):
            fresh = self.offset.with_suffix(".new")
            fresh.write_text(f"{seconds:+d}\n")
            fresh.rename(self.offset)

    wall = Wall()
    wall.step(0)
    return wall


def test_a_step_of_the_wall_clock_has_no_effect(start, line_client, web_client, open_socket, bystander, wall):
    """After a step back, no ping would be sent for an hour. After a step forward, every pending timeout would
    expire."""
    server = start("--ping-interval=1", "--ping-timeout=3", "--history-age=60", launcher=wall.launcher)
    typist, page = line_client(server.lines[0]), web_client(server.page)
    typist.request("PUB kitchen 21.5")

    def hears_pings(count):
        """Pings arrive each second or two: Autobahn counts whole seconds."""
        began = time.monotonic()
        for _ in range(count):
            head = page.socket.recv(2)
            assert head[0] == 0x89
            page.socket.sendall(frame(0x8A, page.socket.recv(head[1])))
        page.request(type="ping", id=1)  # the server has received the pong; the next ping is sent on time
        assert time.monotonic() - began < 3 * count

    sentence = "refused a request for host 'evil0'; --allow-host would allow it"
    with bystander(server, sentence):
        hears_pings(1)
        for seconds in (-3600, 3600):
            wall.step(seconds)
            hears_pings(2)
        ask_for_foreign_hosts(server, open_socket, 1)
        assert typist.request("HIST kitchen").startswith("MSG kitchen 1 ")
        assert typist.receive() == "OK 1"
        facts = typist.request("INFO")
        assert int(re.search(r"uptime=(\d+)", facts)[1]) < 60
    # The log contains the time of day.
    logged = next(line for line in server.log().splitlines() if line.endswith(sentence)).split(" ")[0]
    assert datetime.fromisoformat(logged).timestamp() - time.time() == pytest.approx(3600, abs=60)
