"""Start a Redis and two servers on it, for `make cluster`, and a web server for a page with both.

Each line of output begins with the name of its program. A program that ends is started again. Ctrl-C or SIGTERM ends
all of them; the data of Redis is in a temporary folder, which is deleted then.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from urllib.error import HTTPError
from urllib.request import urlopen

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

START_SECONDS = 30.0
"""Time in which a server must be ready after its start."""

STOP_SECONDS = 15.0
"""Time for a program to end after SIGTERM. Servers wait up to 5 seconds for their clients."""

RESTART_SECONDS = 1.0
"""Time before a program that has ended is started again."""

_output = threading.Lock()


def show(name: str, line: str) -> None:
    with _output:
        print(f"{name:>6} | {line}", flush=True)


class Failed(Exception):
    """The cluster cannot start. The message says why."""


class Program:
    """A program that runs, with a name for its output."""

    def __init__(self, name: str, command: Sequence[str], folder: str) -> None:
        self.name = name
        self._command = command
        self._folder = folder
        self.start()

    def start(self) -> None:
        # A session of its own: Ctrl-C in the terminal must not reach it, because the servers end before Redis does.
        self.process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                show(self.name, line.rstrip("\n"))

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        self.process.terminate()

    def wait(self) -> None:
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()


class Page(SimpleHTTPRequestHandler):
    """The examples, of which the page with both servers is one."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


class Cluster:
    """``options`` are those of both servers. Each of ``ports`` has the line port and the web port of a server."""

    def __init__(self, options: Sequence[str], ports: Sequence[tuple[int, int]], page_port: int) -> None:
        self.stopping = threading.Event()
        self._options = options
        self._ports = dict(zip(("one", "two"), ports, strict=True))
        self._page_port = page_port
        self._redis: list[Program] = []
        self._servers: list[Program] = []

    def run(self) -> None:
        """Run until ``stopping`` is set. Raises ``Failed``."""
        redis = shutil.which("redis-server")
        if redis is None:
            raise Failed("redis-server is missing: run tools/apt-install redis-server, or install Redis or Valkey")
        try:
            page = ThreadingHTTPServer(("127.0.0.1", self._page_port), partial(Page, directory=str(EXAMPLES)))
        except OSError as error:
            raise Failed(f"cannot listen on port {self._page_port} for the page: {error.strerror}") from None
        with page, TemporaryDirectory(prefix="sockbridge-") as folder:
            threading.Thread(target=page.serve_forever, daemon=True).start()
            try:
                self._start(redis, folder, page.server_port)
                if self._wait_until_ready():
                    self._explain(page.server_port)
                while not self.stopping.wait(RESTART_SECONDS):
                    self._start_again()
            finally:
                self._stop()
                page.shutdown()

    def _start(self, redis: str, folder: str, page_port: int) -> None:
        socket = f"{folder}/redis.sock"
        files = ("--dir", folder, "--appendonly", "yes", "--save", "", "--loglevel", "warning")
        self._redis.append(Program("redis", (redis, "--port", "0", "--unixsocket", socket, *files), folder))
        twistd = (str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "sockbridge")
        shared = ("--backplane", f"unix://{socket}?db=0", "--allow-origin", f"http://127.0.0.1:{page_port}")
        for name, (lines, web) in self._ports.items():
            endpoints = ("--tcp", f"tcp:{lines}:interface=127.0.0.1", "--web", f"tcp:{web}:interface=127.0.0.1")
            self._servers.append(Program(name, (*twistd, *endpoints, *shared, *self._options), folder))

    def _wait_until_ready(self) -> bool:
        """Return True when both servers are ready, and False if the cluster stops before."""
        end = time.monotonic() + START_SECONDS
        for server in self._servers:
            while not is_ready(self._ports[server.name][1]):
                for program in (*self._redis, *self._servers):
                    if program.has_ended():
                        program.wait()  # shows the rest of its output
                        raise Failed(f"{program.name} has ended: its output says why")
                if time.monotonic() > end:
                    raise Failed(f"{server.name} is not ready after {START_SECONDS:.0f} s")
                if self.stopping.wait(0.1):
                    return False
        return True

    def _explain(self, page_port: int) -> None:
        (lines_one, web_one), (lines_two, web_two) = self._ports.values()
        where = f"one=http://127.0.0.1:{web_one}&two=http://127.0.0.1:{web_two}"
        for line in (
            "",
            "Two servers are one for their clients. Open the page with both:",
            f"    http://127.0.0.1:{page_port}/two_servers.html?{where}",
            "or the page of each:",
            f"    one: http://127.0.0.1:{web_one}/    telnet 127.0.0.1 {lines_one}",
            f"    two: http://127.0.0.1:{web_two}/    telnet 127.0.0.1 {lines_two}",
            "Type SUB kitchen in one terminal, and PUB kitchen hello in another one.",
            *[f"    kill -9 {each.process.pid}    # {each.name}" for each in (*self._servers, *self._redis)],
            "ends a process, and shows what clients notice. It is started again. Ctrl-C ends all.",
            "",
        ):
            show("", line)

    def _start_again(self) -> None:
        for program in (*self._redis, *self._servers):
            if program.has_ended():
                program.wait()
                program.start()
                show("", f"{program.name} has ended and is started again: kill -9 {program.process.pid}")

    def _stop(self) -> None:
        # Redis last: what the servers have to store when they stop must reach it.
        for programs in (self._servers, self._redis):
            for program in programs:
                program.stop()
            for program in programs:
                program.wait()


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--ports", type=int, nargs=4, default=(8081, 8082, 8091, 8092), metavar="PORT")
    parser.add_argument("--page-port", type=int, default=8080)
    parser.add_argument("options", nargs="*", help="options of both servers, after --")
    chosen = parser.parse_args(arguments)
    ports = list(zip(chosen.ports[::2], chosen.ports[1::2], strict=True))

    cluster = Cluster(chosen.options, ports, chosen.page_port)

    def stop(number: int, frame: FrameType | None) -> None:
        # Not an exception, which could interrupt the start of a program before it is known.
        cluster.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        cluster.run()
    except Failed as error:
        print(f"make cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
