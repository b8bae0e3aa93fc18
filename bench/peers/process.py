"""Start a server as a child process on ports of its own, and end it."""

import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from twistedsock.bench.clients import Target
from twistedsock.bench.measurement import family

HOST = "127.0.0.1"

PATIENCE = 60.0
"""Seconds until a server must listen: Crossbar.io takes several on a busy machine."""

LOOKED_SECONDS = 0.02
"""Between two checks whether a server has started."""

FAREWELL = 10.0
"""Seconds until a server must end, before it is killed."""

INSTALLED = Path(__file__).resolve().parent.parent / ".peers"
"""Where bench/install puts everything that is not a Debian package."""


class NotStarted(RuntimeError):
    """A server is not running. The message contains its output."""


class Plan(NamedTuple):
    """The command that starts a server, and the addresses of its ports."""

    command: Sequence[str | Path]
    targets: Mapping[str, Target]


class Server(ABC):
    """A server that is compared: everything that bench/contestant.py requires except what differs between servers."""

    name: str
    wires: frozenset[str]

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._command: Sequence[str | Path] = ()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._targets: Mapping[str, Target] = {}

    @abstractmethod
    def missing(self) -> str:
        """Missing programs, and how to install them. Empty if it can run."""

    @abstractmethod
    def version(self) -> str:
        """The version that it reports."""

    @abstractmethod
    def plan(self, folder: Path) -> Plan:
        """Choose ports, and write the configuration into the folder."""

    def start(self) -> None:
        """Start it with all its files in a temporary folder, and wait until it listens. Raises NotStarted."""
        if missing := self.missing():
            raise NotStarted(f"{self.name} cannot be started: {missing}")
        allow_files()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        try:
            self._command, self._targets = self.plan(Path(self._folder.name))
            self._run()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """End it, and start it again with the same ports and files."""
        if self._process is not None:
            end(self._process)
        self._run()

    def _run(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._log.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for address in {target.address for target in self._targets.values()}:
            self._await_listening(address)

    def stop(self) -> None:
        """Ask its first process to end, kill the remaining ones, and remove its files."""
        if self._process is not None:
            end(self._process)
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def pids(self) -> tuple[int, ...]:
        """Its processes. Their sum is what the server uses."""
        return () if self._process is None else family(self._process.pid)

    def targets(self) -> Mapping[str, Target]:
        """Its address for each protocol."""
        return self._targets

    def log(self) -> str:
        """Its output since the start."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        if self._folder is None:
            raise RuntimeError(f"{self.name} does not run")
        return Path(self._folder.name, "log")

    def _await_log(self, words: str) -> None:
        """Wait until the output contains words. Raises NotStarted."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.log():
            if time.monotonic() > deadline:
                raise NotStarted(f"{self.name} has not reported {words!r}; it said:\n{self.log()}")
            time.sleep(LOOKED_SECONDS)

    def _await_listening(self, address: tuple[str, int]) -> None:
        """Wait until this port accepts connections. Raises NotStarted if the process ends or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status = self._process.poll() if self._process is not None else None
            if status is not None:
                raise NotStarted(f"{self.name} ended with {status} instead of listening; it said:\n{self.log()}")
            try:
                socket.create_connection(address, timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise NotStarted(
                        f"{self.name} does not listen after {PATIENCE:.0f} s; it said:\n{self.log()}"
                    ) from None
                time.sleep(LOOKED_SECONDS)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start it, and stop it at the end. Raises NotStarted."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_ports(count: int) -> list[int]:
    """Free loopback ports: most of these servers cannot choose one and report it."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants. File descriptors refer to them, so that a process that reuses one of their
    numbers is never affected."""
    held = []
    for pid in family(process.pid) if process.poll() is None else ():
        try:
            held.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    process.terminate()
    try:
        process.wait(FAREWELL)
    except subprocess.TimeoutExpired:
        pass
    for descriptor in held:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(descriptor)
    process.wait()


def allow_files() -> None:
    """Raise the limit of open files as far as the system allows. Child processes inherit it; each connection needs
    one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def output_of(*command: str | Path) -> str:
    """The output of a command, for versions."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout + done.stderr
