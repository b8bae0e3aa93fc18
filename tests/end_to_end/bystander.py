"""Checks that clients are served while other clients attack the server or something fails."""

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from twistedsock.bench.measurement import ProcessUsage

MAX_LATENCY_SECONDS = 3.0
"""Maximum delay of an event on a busy machine: far less than the timeouts of the server, which are 10 s or more."""

_LINE = re.compile(r"^\S+ \[[^\]]*\] (.*)$", re.MULTILINE)
_DISCONNECTED = re.compile(r"^\S+ \[twistedsock\.server\.logging\.ConnectionLog#info\] ")
_number = itertools.count(1)


class Bystander:
    """A line client and a WebSocket client that are subscribed to a channel, and a third client that publishes on it
    all the time. ``rounds`` counts the events that both received, ``slowest`` is the longest delay in seconds."""

    def __init__(self, server: Any, line_client: Callable[..., Any], web_client: Callable[..., Any]) -> None:
        self._channel = f"bystander-{next(_number)}"
        self._line, self._publisher = line_client(server.lines[0]), line_client(server.lines[0])
        self._page = web_client(server.pages[0])
        self._line.request(f"SUB {self._channel}")
        self._page.request(type="subscribe", id=1, channel=self._channel)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds, self.slowest = 0, 0.0
        self._thread.start()
        self.wait_for_rounds()  # also waits until the server is ready
        self._usage = ProcessUsage([server.process.pid])
        self._memory_before = self._usage.memory()

    def growth(self) -> int:
        """Bytes by which the memory of the server has grown since the start."""
        return self._usage.memory() - self._memory_before

    def wait_for_rounds(self, rounds: int = 3) -> None:
        """Wait until this number of further events has arrived."""
        end = self.rounds + rounds
        deadline = time.monotonic() + 2 * MAX_LATENCY_SECONDS * rounds
        while self.rounds < end and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.rounds >= end or self._error, "the bystander is not served"

    def stop(self) -> None:
        """Stop, and check that all events arrived in time."""
        self.wait_for_rounds()
        self._stopped.set()
        self._thread.join()
        for client in (self._line, self._publisher, self._page):
            client.close()
        if self._error is not None:
            raise self._error
        assert self.slowest < MAX_LATENCY_SECONDS

    def _run(self) -> None:
        try:
            while not self._stopped.wait(0.01):
                self._publish()
        except BaseException as error:
            self._error = error

    def _publish(self) -> None:
        start, offset = time.monotonic(), self.rounds + 1
        assert self._publisher.request(f"PUB {self._channel} round {offset}") == f"OK {offset}"
        assert self._line.receive() == f"MSG {self._channel} {offset} {self._publisher.id} round {offset}"
        event = self._page.receive()
        assert (event["offset"], event["data"]) == (offset, f"round {offset}")
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.rounds += 1


def log_messages(log: str) -> list[str]:
    """Return the messages of a log without time and source, and without lines about disconnected clients. Lines of
    another format are returned unchanged."""
    lines = [line for line in log.splitlines() if not _DISCONNECTED.match(line)]
    return [found[1] if (found := _LINE.match(line)) else line for line in lines]


def open_files(pid: int) -> set[str]:
    """Return the open files of a process. Each socket has a unique name, which is not reused."""
    names = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            names.add(os.readlink(path))
    return names


@contextmanager
def run_bystander(
    server: Any,
    line_client: Callable[..., Any],
    web_client: Callable[..., Any],
    clients: list[Any],
    *logged: str,
    gone: bool = True,
    grows: int | None = None,
) -> Iterator[Bystander]:
    """Run a bystander during the block, and close the clients that the block adds to ``clients``. Check that the server
    has logged these messages only, that its memory has grown by less than ``grows`` bytes, and, with ``gone``, that no
    new connection is left."""
    logged_before = len(server.log())
    bystander = Bystander(server, line_client, web_client)
    open_before = open_files(server.process.pid)
    clients_before = len(clients)
    try:
        yield bystander
        assert grows is None or bystander.growth() < grows
    finally:
        for client in clients[clients_before:]:
            client.close()
        bystander.stop()
    logged_messages = log_messages(server.log()[logged_before:])
    assert logged_messages == list(logged), logged_messages
    deadline = time.monotonic() + (MAX_LATENCY_SECONDS if gone else 0)
    while (left := open_files(server.process.pid) - open_before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not (left and gone), "connections were left behind"
