"""What tests run beside the server: programs, a web server of another origin, and a proxy that cuts connections."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.documents import CHECKOUT

TIMEOUT_SECONDS = 20.0
"""Timeout of all waits: enough for a busy machine."""


def wait_until(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_SECONDS) -> Any:
    """Wait until ``condition`` returns a true value, which is returned. ``what`` describes it."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out waiting for {what}")
        time.sleep(0.01)
    return result


def free_ports(count: int) -> list[int]:
    """Ports that are not in use."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def accepts_connections(*ports: int) -> bool:
    try:
        for port in ports:
            socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def path_of(program: str) -> str:
    """The path of an installed program. Debian installs some of them outside the PATH of users."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found, f"{program} is missing: run tools/install-commands"
    return found


class Program:
    """A running program, and its output in the file ``path``."""

    def __init__(self, folder: Path, command: tuple[str, ...], path: Path, **how: Any) -> None:
        self.path = path
        with path.open("wb") as output:
            # A process group of its own, because shell scripts have children.
            self.process = subprocess.Popen(
                command,
                **{"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, **how},
                start_new_session=True,
            )

    def output(self) -> str:
        return self.path.read_text()

    def prints(self, pattern: str, timeout: float = TIMEOUT_SECONDS) -> re.Match[str]:
        """Wait until the output contains the pattern. ``^`` and ``$`` are the ends of a line."""
        try:
            found: re.Match[str] = wait_until(lambda: re.search(pattern, self.output(), re.MULTILINE), pattern, timeout)
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} in the output: {self.output()}") from error
        return found

    def listens(self, *ports: int) -> None:
        """Wait until the program accepts connections."""

        def does() -> bool:
            assert self.process.poll() is None, self.output()
            return accepts_connections(*ports)

        wait_until(does, f"{self.process.args!r} to listen")

    def stop(self, number: int = signal.SIGTERM) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.communicate(timeout=TIMEOUT_SECONDS)


class FileRequest(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # browsers report a missing one
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server that delivers the files of a folder. Yields its origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(FileRequest, directory=str(folder))) as web_server:
        thread = threading.Thread(target=web_server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{web_server.server_port}"
        web_server.shutdown()
        thread.join()


class CuttingProxy:
    """Forwards bytes between clients and ``port``, and can cut all its connections. It accepts no new ones while
    ``refuses`` is set, and forwards nothing while ``holds`` is, as a network that is interrupted."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refuses = False
        self.holds = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.own_port = self._listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.own_port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        cut, self._open = self._open, []
        for each in cut:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self.refuses = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                try:
                    if self.refuses:
                        raise ConnectionRefusedError
                    server = socket.create_connection(("127.0.0.1", self.port))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                while self.holds:
                    time.sleep(0.01)
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def run_node(program: str) -> str:
    """Run a program for Node.js in the folder with the npm packages. Returns its output."""
    command = ["node", "--input-type=module", "--eval", program]
    finished = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert not finished.stderr and finished.returncode == 0, finished.stderr
    return finished.stdout
