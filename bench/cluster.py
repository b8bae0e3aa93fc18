"""`python -m bench.cluster`: servers of one, two and four processes, and what their cluster costs.

Prints tables in Markdown. All rates share the processors of this machine with the load generator, so compare CPU times,
and rates within one run.
"""

import argparse
import itertools
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.clusters import Cluster, Kind, SockbridgeOnRedis, SockbridgeWorkers, await_ready, kinds
from bench.machine import describe
from bench.peers.process import allow_files
from twistedsock.bench.clients import Exchange, Target, connect, exchange, payloads, perform, receive_until
from twistedsock.bench.generator import ChannelLoad, Load, LoadResult, Publisher, window
from twistedsock.bench.loads import reader_streams, reply_stream
from twistedsock.bench.measurement import percentile

SECONDS = 2.0
"""Duration of one measurement."""

SETTLED = 0.5
"""Seconds in which servers tell each other who subscribes; only sockbridge answers when that is done."""

TRIED = 0.3
"""Seconds of the trial that predicts how many events take ``SECONDS``."""

WARM = 20
"""Events of the first load, which includes work that is done once."""

NUMBERS = itertools.count(1)
"""Every load has channels of its own."""

SIZE = 32
"""Bytes of a payload."""


@dataclass(frozen=True)
class Shape:
    """``channels``, each with one publisher and ``readers``. The readers of a channel are spread over all processes,
    beginning with another one than that of its publisher. At most ``rate`` events a second."""

    title: str
    channels: int
    readers: int
    rate: float | None = None


SHAPES = (
    Shape("1 publisher, 200 readers, flat out", 1, 200),
    Shape("20 publishers, each with a reader on another process, flat out", 20, 1),
    Shape("1 publisher, 200 readers, 200 events a second", 1, 200, 200.0),
    Shape("1 publisher, 1 reader on another process, 200 events a second", 1, 1, 200.0),
)

BY_READERS = [Shape(f"1 channel, {count:,} readers", 1, count) for count in (1, 10, 100, 1_000)]
BY_CHANNELS = [Shape(f"{count:,} channels, 1 reader each", count, 1) for count in (10, 100, 500)]


@dataclass(frozen=True)
class Found:
    """``rate`` is in events a second, times are CPU seconds for each event, of the processes that clients connect
    to and of what joins them. ``latencies`` are in seconds, and empty without a fixed rate."""

    rate: float
    nodes: float
    joint: float
    busy: float
    latencies: Sequence[float]


class Crowd:
    """The connections of a shape."""

    def __init__(self, shape: Shape, targets: Sequence[Target], stack: ExitStack) -> None:
        self._shape = shape
        self._targets = targets
        self._loads = 0
        # Before a thousand connections are open: see Load.
        self._poll = stack.enter_context(select.epoll())
        self._publishers: list[socket.socket] = []
        self._readers: list[list[socket.socket]] = []
        for channel in range(shape.channels):
            [publisher] = connect(self._target(channel), 1, stack)
            perform([publisher], targets[0].driver.prepare())
            self._publishers.append(publisher)
            counts = [0] * len(targets)
            for reader in range(shape.readers):
                counts[(channel + 1 + reader) % len(targets)] += 1
            found = [connect(target, count, stack) for target, count in zip(targets, counts, strict=True) if count]
            self._readers.append([reader for part in found for reader in part])

    def _target(self, channel: int) -> Target:
        return self._targets[channel % len(self._targets)]

    def run(self, events: int) -> LoadResult:
        """``events`` of each publisher to new channels."""
        self._loads += 1
        driver = self._targets[0].driver
        texts = payloads(events, SIZE)
        names = [b"cluster-%d" % next(NUMBERS) for _ in range(self._shape.channels)]
        for start in range(0, len(names), 50):
            steps: list[tuple[socket.socket, Exchange]] = []
            for name, readers in zip(names[start : start + 50], self._readers[start : start + 50], strict=True):
                steps += [(reader, driver.subscribe(name, self._loads)) for reader in readers]
            exchange(steps)
        time.sleep(SETTLED)
        rooms, replies = [], []
        for name, publisher, readers in zip(names, self._publishers, self._readers, strict=True):
            deliveries = driver.deliveries(name, texts, self._loads)
            streams = reader_streams(driver, readers, deliveries, in_order=True)
            rooms.append(
                ChannelLoad([Publisher(publisher, driver.publish(name, texts))], streams, window(SIZE, len(names)))
            )
            replies.append(reply_stream(driver, publisher, name, events, len(readers), alone=True))
        return Load(rooms, replies, lambda part: None, self._poll).run(self._shape.rate)


def measure(cluster: Cluster, shape: Shape, seconds: float) -> Found:
    """Raises DeliveryError if an event is lost, repeated, or out of order."""
    with ExitStack() as stack:
        crowd = Crowd(shape, cluster.targets, stack)
        crowd.run(WARM)
        if shape.rate is None:
            few = max(WARM, 4_000 // (shape.channels * max(1, shape.readers // 10)))
            trial = crowd.run(few)
            events = max(few, min(100_000 // shape.channels, int(few * seconds / max(trial.seconds, TRIED / 10))))
        else:
            events = int(shape.rate * seconds)
        nodes, joint = cluster.nodes.cpu(), cluster.joint.cpu()
        outcome = crowd.run(events)
        nodes, joint = cluster.nodes.cpu() - nodes, cluster.joint.cpu() - joint
    all_events = events * shape.channels
    busy = outcome.busy / outcome.seconds
    return Found(all_events / outcome.seconds, nodes / all_events, joint / all_events, busy, sorted(outcome.latencies))


def row(title: str, count: int, shape: Shape, found: Found) -> str:
    cells = [title, f"{count}", f"{found.rate:,.0f}", f"{found.rate * shape.readers:,.0f}"]
    cells += [f"{found.nodes * 1e6:.1f}", f"{found.joint * 1e6:.1f}", f"{found.busy:.0%}"]
    if found.latencies:
        cells += [f"{percentile(found.latencies, part) * 1e3:.2f}" for part in (0.5, 0.99)]
    return f"| {' | '.join(cells)} |"


HEAD = ["", "processes", "events/s", "deliveries/s", "nodes, µs/event", "Redis or hub, µs/event", "generator busy"]


def table(shape: Shape, rows: Sequence[str]) -> str:
    head = HEAD + (["median, ms", "99 %, ms"] if shape.rate else [])
    return "\n".join([f"\n### {shape.title}\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def compare(chosen: Sequence[Kind], counts: Sequence[int], seconds: float, rounds: int) -> Iterator[str]:
    """One table for each shape: within a round, one server after the other."""
    rows: dict[Shape, dict[tuple[str, int], list[Found]]] = {shape: {} for shape in SHAPES}
    for _ in range(rounds):
        for count in counts:
            for kind in chosen:
                with kind.running(count) as cluster:
                    for shape in SHAPES:
                        found = measure(cluster, shape, seconds)
                        rows[shape].setdefault((kind.name, count), []).append(found)
                        print(row(kind.name, count, shape, found), file=sys.stderr, flush=True)
    for shape, by_server in rows.items():
        yield table(shape, [row(name, count, shape, middle(found)) for (name, count), found in by_server.items()])


def middle(found: Sequence[Found]) -> Found:
    """The medians of the rounds, of each figure."""
    latencies = [each.latencies for each in found]
    return Found(
        median(each.rate for each in found),
        median(each.nodes for each in found),
        median(each.joint for each in found),
        median(each.busy for each in found),
        [median(values) for values in zip(*latencies, strict=False)],
    )


def costs(seconds: float) -> Iterator[str]:
    """What more readers and channels cost two processes on one Redis."""
    rows = []
    with SockbridgeOnRedis().running(2) as cluster:
        for shape in [*BY_READERS, *BY_CHANNELS]:
            rows.append(row(shape.title, 2, shape, measure(cluster, shape, seconds)))
            print(rows[-1], file=sys.stderr, flush=True)
    yield table(Shape("Two processes on one Redis: readers and channels", 1, 1), rows)


def failures() -> Iterator[str]:
    """How long it takes until a failure is noticed."""
    rows = ["\n### Failures\n", "| | seconds |", "|---|---:|"]
    for title, number in (("Redis is killed", signal.SIGKILL), ("Redis does not answer", signal.SIGSTOP)):
        with SockbridgeOnRedis().running(1) as cluster:
            server, redis = cluster.servers
            [pid] = redis.pids()
            os.kill(pid, number)
            try:
                rows.append(f"| {title}, until /readyz is 503 | {await_ready(server, False):.2f} |")
            finally:
                os.kill(pid, signal.SIGCONT)
    for kind, title in ((SockbridgeOnRedis(), "on Redis"), (SockbridgeWorkers(), "of --workers")):
        with kind.running(2) as cluster:
            rows.append(f"| a process {title} is killed, until its member leaves | {leaving(cluster):.1f} |")
    yield "\n".join(rows)


def leaving(cluster: Cluster) -> float:
    """Seconds until a client receives the leave of a member, after the process of that member was killed."""
    with ExitStack() as stack:
        [watcher] = connect(cluster.targets[0], 1, stack)
        watcher.sendall(b"SUB kitchen presence=on\n")
        own = node_of(watcher)
        [member] = connect(cluster.targets[1], 1, stack)
        while (other := node_of(member)) == own:  # the kernel chooses the worker
            [member] = connect(cluster.targets[1], 1, stack)
        member.sendall(b"SUB kitchen\n")
        receive_until(watcher, b"JOIN kitchen %b-" % other)
        # A worker has its name in its command. A server has one process.
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in cluster.nodes.pids}
        workers = [pid for pid, command in commands.items() if command.endswith(b"\0worker\0%b\0" % other)]
        start = time.monotonic()
        os.kill(workers[0] if workers else cluster.servers[1].pids()[0], signal.SIGKILL)
        receive_until(watcher, b"LEAVE kitchen %b-" % other)
        return time.monotonic() - start


def node_of(connection: socket.socket) -> bytes:
    """The name of the process that serves a line connection."""
    connection.sendall(b"INFO\n")
    reply = receive_until(connection, b" nick=")
    return reply.rpartition(b" id=")[2].partition(b"-")[0]


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.cluster", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=(1, 2, 4), metavar="N", help="processes (1 2 4)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="how often each is measured (1)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each measurement ({SECONDS:g})")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # no server must be left behind
    allow_files()
    chosen = [kind for kind in kinds() if not kind.missing()]
    for kind in kinds():
        if kind.missing():
            print(f"{kind.name} is left out: {kind.missing()}", file=sys.stderr)
    for name, value in describe().items():
        print(f"{name}: {value}")
    versions = {part.name: part.version() for kind in chosen for part in kind.parts}
    print("versions:", ", ".join(" ".join(each) for each in versions.items()))
    for part in (compare(chosen, given.counts, given.seconds, given.rounds), costs(given.seconds), failures()):
        for text in part:
            print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
