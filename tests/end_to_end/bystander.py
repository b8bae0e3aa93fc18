"""Somebody who is served while others attack, or while something breaks."""

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SOON = 3.0
"""Seconds within which an event must have arrived: on a machine that does ten other things, and far below the ten or
more that a peer who waits for a deadline of the bridge's would cost."""

_LINE = re.compile(r"^\S+ \[[^\]]*\] (.*)$", re.MULTILINE)
_DISCONNECTED = re.compile(r"^\S+ \[twistedsock\.server\.logging\.ConnectionLog#info\] ")
_number = itertools.count(1)


class Bystander:
    """A line peer and a WebSocket peer, subscribed to a channel of their own, and a third that publishes there, all
    the time. ``rounds`` is how often both have heard it, ``slowest`` how long that took at most."""

    def __init__(self, server: Any, line_client: Callable[..., Any], web_client: Callable[..., Any]) -> None:
        self._channel = f"bystander-{next(_number)}"
        self._line, self._publisher = line_client(server.lines[0]), line_client(server.lines[0])
        self._page = web_client(server.pages[0])
        self._line.request(f"SUB {self._channel}")
        self._page.request(type="subscribe", id=1, channel=self._channel)
        self._over = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds, self.slowest = 0, 0.0
        self._thread.start()

    def sees(self, rounds: int = 3) -> None:
        """Wait until so many more events have come through."""
        end = self.rounds + rounds
        deadline = time.monotonic() + 2 * SOON * rounds
        while self.rounds < end and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.rounds >= end or self._fault, "the bystander is not served"

    def ends(self) -> None:
        """It has been served all the time, and soon."""
        self.sees()
        self._over.set()
        self._thread.join()
        for client in (self._line, self._publisher, self._page):
            client.close()
        if self._fault is not None:
            raise self._fault
        assert self.slowest < SOON

    def _run(self) -> None:
        try:
            while not self._over.wait(0.01):
                self._publish()
        except BaseException as fault:
            self._fault = fault

    def _publish(self) -> None:
        start, offset = time.monotonic(), self.rounds + 1
        assert self._publisher.request(f"PUB {self._channel} round {offset}") == f"OK {offset}"
        assert self._line.receive() == f"MSG {self._channel} {offset} {self._publisher.id} round {offset}"
        event = self._page.receive()
        assert (event["offset"], event["data"]) == (offset, f"round {offset}")
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.rounds += 1


def sentences(log: str) -> list[str]:
    """What a log says, without when and where, and without the line for each client that has disconnected; a line of
    another form is a sentence too."""
    lines = [line for line in log.splitlines() if not _DISCONNECTED.match(line)]
    return [found[1] if (found := _LINE.match(line)) else line for line in lines]


def files(pid: int) -> set[str]:
    """The files, sockets above all, that a process has open; each socket has a name that is never given again."""
    names = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.add(os.readlink(path))
    return names


@contextmanager
def bystanding(
    server: Any, line_client: Callable[..., Any], web_client: Callable[..., Any], *logged: str, gone: bool = True
) -> Iterator[Bystander]:
    """While the block runs, a bystander is served. Afterwards the log has these sentences more, and no other, and where
    all who came are to be ``gone``, no connection is there that was not there before."""
    said = len(server.log())
    bystander = Bystander(server, line_client, web_client)
    bystander.sees()  # so it has quite started, too
    open_before = files(server.process.pid)
    try:
        yield bystander
    finally:
        bystander.ends()
    told = sentences(server.log()[said:])
    assert told == list(logged), told
    deadline = time.monotonic() + (SOON if gone else 0)
    while (left := files(server.process.pid) - open_before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not (left and gone), "connections were left behind"
