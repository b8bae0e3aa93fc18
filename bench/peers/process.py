"""Starting a server as a process of ours, on ports of its own, and ending it."""

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
"""Seconds that a server may take to listen: Crossbar.io takes several on a busy machine."""

FAREWELL = 10.0
"""Seconds that a server may take to end before it is killed."""

INSTALLED = Path(__file__).resolve().parent.parent / ".peers"
"""Where bench/install puts what is no Debian package."""


class NotStarted(RuntimeError):
    """A server does not run; says why, with what it said."""


class Plan(NamedTuple):
    """How a server is to be started, and where it will then listen."""

    command: Sequence[str | Path]
    targets: Mapping[str, Target]


class Server(ABC):
    """A server that is compared: what bench/contestant.py asks for, but for what differs between them."""

    name: str
    wires: frozenset[str]

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._targets: Mapping[str, Target] = {}

    @abstractmethod
    def missing(self) -> str:
        """What it needs and is not there, with how to get it; empty when nothing is missing."""

    @abstractmethod
    def version(self) -> str:
        """As it calls itself."""

    @abstractmethod
    def plan(self, folder: Path) -> Plan:
        """Choose ports, and write what it needs into the folder."""

    def start(self) -> None:
        """Start it, all its files in a temporary folder, and wait until it listens. Raises NotStarted."""
        if missing := self.missing():
            raise NotStarted(f"{self.name} cannot be started: {missing}")
        allow_files()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        try:
            command, self._targets = self.plan(Path(self._folder.name))
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, cwd=self._folder.name, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            for target in self._targets.values():
                self._await_listening(target.address)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask its first process to end, kill what is left of the others, and remove its files."""
        if self._process is not None:
            end(self._process)
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def pids(self) -> tuple[int, ...]:
        """Its processes: what they use together is what it costs."""
        return () if self._process is None else family(self._process.pid)

    def targets(self) -> Mapping[str, Target]:
        """Where it listens, for each of its wires."""
        return self._targets

    def log(self) -> str:
        """What it has said since it was started."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        if self._folder is None:
            raise RuntimeError(f"{self.name} does not run")
        return Path(self._folder.name, "log")

    def _await_listening(self, address: tuple[str, int]) -> None:
        """Until somebody listens there. Raises NotStarted when the process ends, or takes too long."""
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
                time.sleep(0.02)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start it, and stop it at the end. Raises NotStarted."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on: most of these servers cannot choose one and tell."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants. They are held by descriptors, so that nobody else with a number that was
    theirs is ever meant."""
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
    """As many open files as the system lets us have, which what we start inherits: one for each connection."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def output_of(*command: str | Path) -> str:
    """What a command prints: versions."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout + done.stderr
