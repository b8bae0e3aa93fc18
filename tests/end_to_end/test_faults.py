"""What happens when peers die, files and disks run out, or the clock steps: those who are there are served, and nothing
is left behind. ``bystander`` sees to both."""

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

import pytest

from tests.end_to_end.bystander import files
from tests.server.websocket_streams import HANDSHAKE, frame
from twistedsock.bench.measurement import Usage

pytestmark = pytest.mark.end_to_end

MEGABYTE = 1024 * 1024
TCP = "tcp:0:interface=127.0.0.1"


def break_off(connection):
    """Close with a reset, as a kernel does for a process that is killed with unread input."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def authority(server):
    return server.page.partition("://")[2].rstrip("/")


# Peers that die.

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
def test_a_peer_that_goes_in_the_midst_of_something(
    server, line_client, open_socket, eventually, bystander, midst, reset
):
    web, data = MIDST[midst]
    watcher = line_client(server.lines[0])
    with bystander(server):
        for _ in range(20):
            connection = open_socket(authority(server) if web else server.lines[0])
            connection.sendall(data)
            (break_off if reset else socket.socket.close)(connection)

        def nobody():
            watcher.send("WHO midst")
            return watcher.receive_until("OK ") == ["OK 0"]

        eventually(nobody, "the end of their sessions")
        watcher.close()
    assert line_client(server.lines[0]).request("HIST midst") == "OK 0"


def test_processes_that_are_killed_in_the_midst_of_a_frame_and_of_a_line(server, line_client, eventually, bystander):
    """SIGKILL, so that nobody says goodbye for them; both publish one event, and half of another."""
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
            (authority(server), HANDSHAKE + whole + whole[:-3]),
            (server.lines[0], b"PUB killed whole\nPUB killed ha"),
        ]:
            process = subprocess.Popen([sys.executable, "-c", peer, address, data.hex()])
            assert watcher.receive().endswith(" whole")
            process.kill()
            process.wait()
        assert watcher.request("HIST killed last=0") == "OK 0"
    assert watcher.request("PING") == "PONG"
    watcher.close()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_peer_that_goes_during_a_long_reply(server, line_client, web_client, bystander, channel, reset):
    """A megabyte of history, of which it reads a little."""
    publisher = line_client(server.lines[0])
    publisher.send("QUIET on", *[f"PUB {channel} {'x' * 60_000}"] * 50)
    publisher.receive()
    assert publisher.request("PING") == "PONG"
    publisher.close()
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
        other.sees()


# Half-open connections.


def test_a_peer_that_has_finished_talking_reads_to_the_end(
    server, line_client, web_client, open_socket, bystander, channel
):
    """FIN from them: what came before is run and answered, on lines, in HTTP and over a WebSocket."""
    with bystander(server):
        typist = line_client(server.lines[0])
        typist.send(*[f"PUB {channel} x"] * 500, f"HIST {channel} last=1")
        typist.socket.shutdown(socket.SHUT_WR)
        heard = typist.receive_rest()
        assert heard[:500] == [f"OK {offset}" for offset in range(1, 501)]
        assert heard[500:] == [f"MSG {channel} 500 {typist.id} x", "OK 1", "BYE"]
        typist.close()
        with open_socket(authority(server)) as asking:
            asking.sendall(f"GET /bridge.json HTTP/1.1\r\nHost: {authority(server)}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"}"):
                answer += asking.recv(65536)
            asking.shutdown(socket.SHUT_WR)
            assert asking.recv(65536) == b""
        page = web_client(server.page)
        page.socket.shutdown(socket.SHUT_WR)
        # It cannot answer a close frame any more, and nobody waits for that.
        assert page.receive_frame() == (0x88, b"\x03\xe8")
        with pytest.raises(EOFError):
            page.receive_frame()
        page.close()


def test_a_peer_that_never_closes_its_end_is_let_go_in_the_end(server, line_client, web_client, open_socket, bystander):
    """After our FIN. Ten seconds at most, and meanwhile nothing of what it says is run."""
    watcher = line_client(server.lines[0])
    watcher.request("SUB stubborn")
    with bystander(server):
        before = files(server.process.pid)
        typist = line_client(server.lines[0])
        page = web_client(server.page)
        lost = open_socket(authority(server))
        typist.send("QUIT", "PUB stubborn after")
        page.socket.sendall(b"\x83\x80\0\0\0\0" + frame(0x81, b'{"type":"publish","channel":"stubborn","data":1}'))
        lost.sendall(b"nonsense\r\n\r\n")
        assert typist.receive_rest() == ["BYE"]
        assert page.receive_frame()[0] == 0x88
        assert lost.recv(100).startswith(b"HTTP/1.1 400 ")
        deadline = time.monotonic() + 14
        while files(server.process.pid) - before and time.monotonic() < deadline:
            typist.send_bytes(b"PUB stubborn after\n") if _is_open(typist.socket) else None
            time.sleep(0.1)
        assert not files(server.process.pid) - before
        for connection in (typist, page, lost):
            connection.close()
    assert watcher.request("HIST stubborn") == "OK 0"
    watcher.close()


def _is_open(connection):
    """Whether the other end would not answer with a reset."""
    connection.setblocking(False)
    try:
        connection.send(b"")
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    except OSError:
        return False


# The log's disk is full.


class WithoutLog:
    """A bridge of whose log nothing can be read; what it prints besides is ``log``."""

    def __init__(self, twistd, folder, environment, *options):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            lines, web = one.getsockname()[1], other.getsockname()[1]
        endpoints = ["--tcp", f"tcp:{lines}:interface=127.0.0.1", "--web", f"tcp:{web}:interface=127.0.0.1"]
        self._said = folder / "said"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [twistd, "-n", "--pidfile=", *options, "sockbridge", *endpoints],
                cwd=folder,
                env=environment,
                stdout=said,
                stderr=said,
            )
        self.lines, self.pages = [f"127.0.0.1:{lines}"], [f"http://127.0.0.1:{web}/"]
        self.page = self.pages[0]

    def log(self):
        return self._said.read_text()

    def listens(self):
        assert self.process.poll() is None, self.log()
        try:
            socket.create_connection(("127.0.0.1", int(self.lines[0].split(":")[1]))).close()
        except ConnectionRefusedError:
            return False
        return True


@pytest.fixture
def start_without_log(twistd, tmp_path, environment, eventually):
    """``start_without_log(*options)``: of twistd's own."""
    bridges = []

    def starting(*options):
        bridges.append(WithoutLog(twistd, tmp_path, environment, *options))
        eventually(bridges[-1].listens, "the port of the bridge")
        return bridges[-1]

    yield starting
    for server in bridges:
        server.process.terminate()
        assert server.process.wait(20) == -signal.SIGTERM


def ask_for_foreign_hosts(server, open_socket, count):
    """Each of the first hundred would be a line of the log."""
    for number in range(count):
        with open_socket(authority(server)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: evil%d\r\nConnection: close\r\n\r\n" % number)
            assert connection.recv(100).startswith(b"HTTP/1.1 421 ")


def test_a_full_disk_for_the_log_stops_nobody(start_without_log, open_socket, bystander):
    """What cannot be written is lost, which is told once on stderr."""
    server = start_without_log("--logfile=/dev/full")
    usage = Usage([server.process.pid])
    with bystander(server):
        before = usage.memory()
        ask_for_foreign_hosts(server, open_socket, 300)
        assert usage.memory() - before < 4 * MEGABYTE
    assert server.log() == "sockbridge: the log cannot be written: [Errno 28] No space left on device\n"


def limited(name, limit):
    """A launcher that sets a limit of the process's (getrlimit(2)) before it begins."""
    program = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_{name}, ({limit}, {limit})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program]


def test_a_disk_that_fills_up_while_it_runs_stops_nobody(start, open_socket, bystander):
    """Here a limit on the size of files does, at the first lines or after some."""
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
def test_a_bridge_without_files_serves_those_it_has_and_recovers(
    start, line_client, open_socket, bystander, certificate, tmp_path, kind
):
    """Whoever is too much is closed at once, the log says it once, and the processor is left alone."""
    at_most = 150
    endpoint = {"tcp": TCP, "unix": f"unix:{tmp_path}/lines", "tls": f"ssl:0:interface=127.0.0.1:{certificate}"}[kind]
    server = start(tcp=(TCP, endpoint), launcher=limited("NOFILE", at_most))
    address = server.lines[1]
    usage = Usage([server.process.pid])
    with bystander(server, SHORTAGE) as other:
        crowd = [open_socket(address) for _ in range(3 * at_most)]
        other.sees()
        for connection in crowd[2 * at_most :]:
            assert connection.recv(100) == b""
        before, began = usage.cpu(), time.monotonic()
        time.sleep(0.5)
        spent, passed = usage.cpu() - before, time.monotonic() - began
        assert spent < 0.8 * passed, "it is busy with those whom it cannot take"
        for connection in crowd:
            connection.close()
        typist = line_client(address, kind == "tls")
        assert typist.request("PING") == "PONG"
        typist.close()


# The clock steps.

FAKETIME = Path("/usr/lib") / f"{platform.machine()}-linux-gnu" / "faketime" / "libfaketime.so.1"


@pytest.fixture
def wall(tmp_path):
    """A clock on the wall that can be set: ``wall.launcher`` starts a process that looks at it, ``wall.step(seconds)``
    sets it. The steady clock goes on as it does."""

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


def test_a_clock_that_steps_by_an_hour_changes_nothing(start, line_client, web_client, open_socket, bystander, wall):
    """Back, no ping would come for an hour; forward, all who have a second to answer would be dropped."""
    server = start("--ping-interval=1", "--ping-timeout=3", "--history-age=60", launcher=wall.launcher)
    typist, page = line_client(server.lines[0]), web_client(server.page)
    typist.request("PUB kitchen 21.5")

    def hears_pings(count):
        """They come each second, or two: Autobahn counts in whole ones."""
        began = time.monotonic()
        for _ in range(count):
            head = page.socket.recv(2)
            assert head[0] == 0x89
            page.socket.sendall(frame(0x8A, page.socket.recv(head[1])))
        page.request(type="ping", id=1)  # it has seen the pong, and goes by the time at which the next ping is due
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
    # The log tells the time of day.
    logged = next(line for line in server.log().splitlines() if line.endswith(sentence)).split(" ")[0]
    assert datetime.fromisoformat(logged).timestamp() - time.time() == pytest.approx(3600, abs=60)
    for client in (typist, page):
        client.close()
