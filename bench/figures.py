"""The figures of docs/performance.md: `python bench/figures.py`, or with names of some of them.

Starts a bridge of its own on free ports of the loopback, loads it from processes of its own, reads the bridge's own
CPU time and memory from /proc, and stops. Each figure counts every byte that every reader gets: it fails when one is
lost or doubled.
"""

import argparse
import base64
import multiprocessing
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from twistedsock.core.events import Event
from twistedsock.wire.dialects import JSON_IN_MESSAGES, LINES

TICKS = os.sysconf("SC_CLK_TCK")
CHUNK = 60_000
"""Bytes that the publisher sends at once."""
WINDOW = 8_000
"""Events that the publisher is ahead of the slowest reader at most: the bridge's log holds 10,000."""
PATIENCE = 120.0
"""Seconds after which a figure is given up."""


class Server:
    """A bridge in a process of its own."""

    def __init__(self, *options: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.log = Path(self.folder.name, "log")
        twistd = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile=", f"--logfile={self.log}", *_twistd(options)]
        self.process = subprocess.Popen(command, cwd=self.folder.name)
        self.tcp = self._port(r"lines on 127\.0\.0\.1:(\d+)")
        self.web = self._port(r"web on 127\.0\.0\.1:(\d+)")

    def cpu_since(self, before: float) -> float:
        """Seconds of CPU since then; a tick of the kernel's clock (10 ms) at least."""
        return max(self.cpu() - before, 1 / TICKS)

    def cpu(self) -> float:
        """Seconds of CPU so far, the kernel's part included."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.folder.cleanup()

    def _port(self, pattern: str) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text()) if self.log.exists() else None
            if found:
                return int(found[1])
            time.sleep(0.05)
        raise SystemExit(f"the bridge did not start:\n{self.log.read_text()}")


def _twistd(options: tuple[str, ...]) -> list[str]:
    return [
        "sockbridge",
        "--tcp=tcp:0:interface=127.0.0.1",
        "--web=tcp:0:interface=127.0.0.1",
        "--max-connections-per-address=100000",
        *options,
    ]


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        server.stop()


def line_socket(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.tcp))
    read_until(connection, b"\n")
    return connection


def web_socket(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.web))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.web}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()
    )
    head = read_until(connection, b'"}')
    assert b" 101 " in head, head
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = connection.recv(4096)
        assert more, data
        data += more
    return data


def subscribe(connection: socket.socket, kind: str, channel: str) -> None:
    if kind == "line":
        connection.sendall(f"SUB {channel}\n".encode())
        read_until(connection, b"\n")
    else:
        message = f'{{"type":"subscribe","id":1,"channel":"{channel}"}}'.encode()
        connection.sendall(bytes((0x81, 0x80 | len(message), 0, 0, 0, 0)) + message)
        read_until(connection, b'"}')


def connect(server: Server, kind: str, channel: str | None) -> socket.socket:
    connection = line_socket(server) if kind == "line" else web_socket(server)
    if channel is not None:
        subscribe(connection, kind, channel)
    return connection


def expected_bytes(kind: str, channel: str, sender: str, payload: str, count: int) -> int:
    """What one reader gets of ``count`` events, to the byte."""
    dialect = LINES if kind == "line" else JSON_IN_MESSAGES
    name, who, data = channel.encode(), sender.encode(), payload.encode()
    events = [Event(offset, who, who, b"message", data, False) for offset in range(1, count + 1)]
    return sum(map(len, dialect.events(name, events)))


class Readers:
    """Readers of one channel in a process of their own, each of which must get ``expected`` bytes."""

    def __init__(self, server: Server, kind: str, readers: int, expected: int) -> None:
        self.expected = expected
        self._slowest = multiprocessing.Value("q", 0)
        self._ready, self._done = multiprocessing.Event(), multiprocessing.Queue()
        fork = multiprocessing.get_context("fork")
        self._process = fork.Process(target=self._read, args=(server, kind, readers))
        self._process.start()
        self._ready.wait(PATIENCE)

    def progress(self) -> float:
        """What part of all the slowest of them has."""
        return self._slowest.value / self.expected

    def finish(self) -> float:
        """Wait until all have all; gives the seconds of CPU that reading took."""
        outcome = self._done.get(timeout=2 * PATIENCE)
        self._process.join()
        if isinstance(outcome, str):
            raise SystemExit(f"no figure: {outcome}")
        return float(outcome)

    def _read(self, server: Server, kind: str, readers: int) -> None:
        try:
            allow_files()
            selector = selectors.EpollSelector()
            counts = []
            for _ in range(readers):
                connection = connect(server, kind, "bench")
                connection.setblocking(False)
                counts.append([0])
                selector.register(connection, selectors.EVENT_READ, counts[-1])
            self._ready.set()
            before = resource.getrusage(resource.RUSAGE_SELF)
            words = self._count(selector, counts)
            after = resource.getrusage(resource.RUSAGE_SELF)
            self._done.put(words or after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        except OSError as error:
            self._done.put(f"a reader failed: {error}")

    def _count(self, selector: selectors.EpollSelector, counts: list[list[int]]) -> str:
        buffer, expected = bytearray(1 << 20), self.expected
        missing, deadline = len(counts), time.monotonic() + PATIENCE
        while missing and time.monotonic() < deadline:
            for key, _ in selector.select(1.0):
                size = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]
                key.data[0] += size
                if key.data[0] == expected:
                    missing -= 1
                elif key.data[0] > expected or not size:
                    return f"a reader got {key.data[0]} bytes where {expected} were expected"
            self._slowest.value = min(count[0] for count in counts)
        return f"{missing} readers did not get all" if missing else ""


def allow_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def a_publisher(server: Server, quiet: bool = True) -> socket.socket:
    publisher = line_socket(server)
    publisher.sendall(b"NICK bench\nQUIET on\n" if quiet else b"NICK bench\n")
    read_until(publisher, b"OK\n" if quiet else b"OK bench\n")
    return publisher


def fan_out(kind: str, readers: int, events: int, size: int) -> None:
    """One publisher over lines to many readers, as fast as they go: no more than WINDOW events ahead of the slowest, as
    the log is no longer than that."""
    payload = "x" * size
    with serving() as server:
        publisher = a_publisher(server)
        reading = Readers(server, kind, readers, expected_bytes(kind, "bench", "bench", payload, events))
        line = f"PUB bench {payload}\n".encode()
        at_once = max(1, CHUNK // len(line))
        before, start = server.cpu(), time.monotonic()
        for sent in range(0, events, at_once):
            while sent - reading.progress() * events > WINDOW:
                time.sleep(0.0005)
            publisher.sendall(line * min(at_once, events - sent))
        busy = reading.finish()
        elapsed, used = time.monotonic() - start, server.cpu_since(before)
        deliveries = readers * events
        print(
            f"| fan-out 1 to {readers:,}, {kind} readers, {size} B | {deliveries / elapsed:,.0f} a second "
            f"| {deliveries / used:,.0f} a CPU second | {used / deliveries * 1e6:.3f} us "
            f"| readers' process {busy / elapsed:.0%} busy |",
            flush=True,
        )


def paced(kind: str, readers: int, rate: int, seconds: float, size: int) -> None:
    """One event at a time, so that nothing can be joined: the cost of a delivery at rest."""
    payload, events = "x" * size, int(rate * seconds)
    with serving() as server:
        publisher = a_publisher(server)
        reading = Readers(server, kind, readers, expected_bytes(kind, "bench", "bench", payload, events))
        line = f"PUB bench {payload}\n".encode()
        before, start = server.cpu(), time.monotonic()
        for number in range(events):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            publisher.sendall(line)
        busy = reading.finish()
        elapsed, used = time.monotonic() - start, server.cpu_since(before)
        deliveries = readers * events
        print(
            f"| paced, {rate} events a second to {readers:,} {kind} readers, {size} B | {rate * readers:,} a second "
            f"| {deliveries / used:,.0f} a CPU second | {used / deliveries * 1e6:.2f} us "
            f"| readers' process {busy / elapsed:.0%} busy |",
            flush=True,
        )


def idle(kind: str, connections: int) -> None:
    """Memory of the bridge for each connection that does nothing."""
    allow_files()
    with serving() as server:
        warm = [connect(server, kind, None) for _ in range(100)]
        before, used = server.memory(), server.cpu()
        idlers = [connect(server, kind, None) for _ in range(connections)]
        used = server.cpu_since(used)
        each = (server.memory() - before) / connections
        print(
            f"| idle {kind} connection, mean of {connections:,} | {each / 1024:.2f} KiB "
            f"| {connections / used:,.0f} set up a CPU second | | |",
            flush=True,
        )
        for connection in [*warm, *idlers]:
            connection.close()


def stalled(kind: str, readers: int, events: int, size: int) -> None:
    """Memory of the bridge while readers that have stopped reading miss many events; a live one gets them all."""
    allow_files()
    payload = "x" * size
    with serving() as server:
        sleepers = [connect(server, kind, "bench") for _ in range(readers)]
        publisher = a_publisher(server, quiet=False)
        reading = Readers(server, kind, 1, expected_bytes(kind, "bench", "bench", payload, events))
        before = server.memory()
        line = f"PUB bench {payload}\n".encode()
        # A window of what is not answered yet, so that the live reader can keep up with the log.
        for _ in range(0, events, 200):
            publisher.sendall(line * 200)
            answers = 0
            while answers < 200:
                answers += publisher.recv(65536).count(b"\n")
        reading.finish()
        grown = (server.memory() - before) / 1024 / 1024
        print(
            f"| {readers} stalled {kind} readers, {events:,} events of {size} B | {grown:.1f} MiB grown "
            f"| the live reader lost nothing | | |",
            flush=True,
        )
        for connection in sleepers:
            connection.close()


FIGURES: dict[str, list[Callable[[], None]]] = {
    "fan-out": [
        partial(fan_out, kind, readers, events, 32)
        for kind in ("line", "websocket")
        for readers, events in ((100, 100_000), (1_000, 20_000))
    ],
    "paced": [
        partial(paced, kind, readers, 500_000 // readers // 20, 5.0, 32)
        for kind in ("line", "websocket")
        for readers in (100, 1_000)
    ],
    "idle": [partial(idle, kind, 5_000) for kind in ("line", "websocket")],
    "stalled": [partial(stalled, kind, 400, 40_000, 200) for kind in ("line", "websocket")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"which of {', '.join(FIGURES)}; all of them if none is named")
    chosen = parser.parse_args().figures or list(FIGURES)
    for name in chosen:
        if name not in FIGURES:
            parser.error(f"there is no figure {name!r}")
    print("| what | figure | of the bridge's CPU | CPU per delivery | |\n|---|---|---|---|---|", flush=True)
    for name in chosen:
        for measure in FIGURES[name]:
            measure()


if __name__ == "__main__":
    main()
