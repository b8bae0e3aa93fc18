"""Connections: opening them, what an idle one uses, and how all of them come back to a server that was restarted."""

import multiprocessing
import resource
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

from bench.contestant import Contestant
from bench.drivers.sockbridge import RecoveringJson
from bench.workloads import Workload
from twistedsock.bench.clients import (
    BATCH,
    MARK,
    DeliveryError,
    Exchange,
    Target,
    connect,
    payloads,
    perform,
    receive_until,
)
from twistedsock.bench.generator import OnProgress
from twistedsock.bench.measurement import ProcessUsage, percentile

WARM = 100
"""Connections that are opened before those that are measured: the first ones include what all connections share."""

SETTLED = 0.3
"""Seconds after which a server has finished deferred work, for example sending what it had collected."""

CHANNEL = b"pages-00000"

MISSED = 5
"""Events that each page has missed, if the server can recover them."""

STORM_SECONDS = 60.0
"""Time for all pages to come back."""

SPARE_FILES = 200
"""Files of this process other than the connections of pages."""

PING, PONG = b"\x89\x80" + bytes(4), b"\x8a\x00"
"""WebSocket frames (RFC 6455, section 5.5), which every server replies to itself."""

PING_SECONDS = 0.005

Found = dict[str, float | str]
"""Figures by name: a rate is per second, ``us`` means microseconds, ``note`` is a comment for readers."""


def connections(workload: Workload, target: Target, usage: ProcessUsage, told: OnProgress) -> Found:
    """Open this many connections and subscribe each to one channel, and measure what they use."""
    with ExitStack() as stack:
        _subscribed(target, WARM, stack)
        time.sleep(SETTLED)
        memory, cpu = usage.memory(), usage.cpu()
        start, busy = time.perf_counter(), time.process_time()
        _subscribed(target, workload.count, stack, told)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        time.sleep(SETTLED)
        return {
            **_each(workload.count, seconds, usage.cpu() - cpu, busy),
            "memory_each": (usage.memory() - memory) / workload.count / 1024,
        }


def _each(count: int, seconds: float, cpu: float, busy: float) -> Found:
    if not cpu:
        raise RuntimeError("the server has used no CPU time, so another process must have accepted the connections")
    return {
        "rate": count / seconds,
        "cost": cpu / count * 1e6,
        "per_cpu": count / cpu,
        "busy": busy / seconds,
    }


def _subscribed(
    target: Target, count: int, stack: ExitStack, told: OnProgress = lambda part: None
) -> list[socket.socket]:
    opened: list[socket.socket] = []
    while len(opened) < count:
        batch = connect(target, min(BATCH, count - len(opened)), stack)
        perform(batch, [target.driver.subscribe(CHANNEL, 1)])
        opened += batch
        told(len(opened) / count)
    return opened


def restart(workload: Workload, server: Contestant, told: OnProgress) -> Found:
    """Subscribe pages, restart the server, and let all pages connect again at once. The time begins when the server
    listens. If it recovers events, each page must receive those that it has missed. A probe sends pings meanwhile."""
    count = min(workload.count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)
    target = server.targets()[workload.reading]
    with ExitStack() as stack:
        step, missed = _position(target, stack)
        _subscribed(target, count, stack, lambda part: told(part / 2))
        server.restart()
    usage = ProcessUsage(server.pids())
    steps = [*target.driver.greet(target.host), step]
    with ExitStack() as stack:
        (probe,) = connect(target, 1, stack)
        cpu, start, busy = usage.cpu(), time.perf_counter(), time.process_time()
        with _probing(probe) as pings:
            rejected = _storm(target, count, steps, missed, stack, lambda part: told(0.5 + part / 2))
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
            cpu = usage.cpu() - cpu
        pings.sort()
        return {
            **_each(count, seconds, cpu, busy),
            "pages": count,
            "rejected": rejected,
            "missed": missed,
            "seconds": seconds,
            "ping": percentile(pings, 0.5) * 1e3,
            "worst ping": pings[-1] * 1e3,
        }


def _position(target: Target, stack: ExitStack) -> tuple[Exchange, int]:
    """How a page subscribes after the restart, and how many events it has missed then."""
    driver = target.driver
    subscribe = driver.subscribe(CHANNEL, 1)
    if not isinstance(driver, RecoveringJson):
        return subscribe, 0
    (first,) = connect(target, 1, stack)
    first.sendall(subscribe.request)
    reply = receive_until(first, subscribe.until, subscribe.begins)
    (publisher,) = connect(target, 1, stack)
    for frame in driver.publish(CHANNEL, payloads(MISSED, 32)):
        publisher.sendall(frame)
    data = b""
    while data.count(MARK) < MISSED:
        data += first.recv(65_536)
    return driver.recover(CHANNEL, reply), MISSED


class _Page:
    """A connection that is being opened. ``step`` is the exchange whose reply it waits for."""

    __slots__ = ("connection", "data", "step")

    def __init__(self, address: tuple[str, int]) -> None:
        self.connection = socket.socket()
        self.connection.setblocking(False)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.connect_ex(address)
        self.data = b""
        self.step = -1

    def is_back(self, steps: Sequence[Exchange], missed: int) -> bool:
        """Read, and send the next request. Returns whether all is done. Raises OSError if the connection has ended."""
        if self.step >= 0:
            more = self.connection.recv(65_536)
            self.data += more
            step = steps[self.step]
            if not more:
                raise ConnectionResetError
            if not self.data.startswith(step.begins[: len(self.data)]):
                raise DeliveryError(f"a page received {self.data[:500]!r}")
            if step.until not in self.data:
                return False
            if self.step == len(steps) - 1:
                return self.data.count(MARK) == missed
        self.step += 1
        self.data = b""
        if steps[self.step].request:
            self.connection.send(steps[self.step].request)
        return False


def _storm(
    target: Target, count: int, steps: Sequence[Exchange], missed: int, stack: ExitStack, told: OnProgress
) -> int:
    """Open all connections at once, do the steps on each, and open those again that the server rejects, as pages do.
    Returns how often that happened. Raises DeliveryError."""
    poll = stack.enter_context(select.epoll())
    pages: dict[int, _Page] = {}
    rejected = 0

    def open_page() -> None:
        page = _Page(target.address)
        pages[page.connection.fileno()] = page
        poll.register(page.connection, select.EPOLLOUT)

    @stack.callback
    def close_pages() -> None:
        for page in pages.values():
            page.connection.close()

    for _ in range(count):
        open_page()
    left, deadline = count, time.monotonic() + STORM_SECONDS
    while left:
        for number, _ in poll.poll(1.0):
            page = pages[number]
            try:
                if page.step < 0:
                    poll.modify(number, select.EPOLLIN)
                if page.is_back(steps, missed):
                    poll.unregister(number)
                    left -= 1
            except OSError:
                page.connection.close()
                rejected += 1
                open_page()
        told(1 - left / count)
        if time.monotonic() > deadline:
            raise DeliveryError(f"{left} of {count} pages have not come back after {STORM_SECONDS:.0f} s")
    return rejected


@contextmanager
def _probing(connection: socket.socket) -> Iterator[list[float]]:
    """Send pings from another process, so that the work of this one is not measured. The list is filled at the end."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_probe, args=(connection, there), daemon=True)
    process.start()
    found: list[float] = []
    try:
        yield found
    finally:
        here.send(None)
        found += here.recv() if here.poll(STORM_SECONDS) else []
        process.join(STORM_SECONDS)


def _probe(connection: socket.socket, stop: Connection) -> None:
    latencies: list[float] = []
    while not latencies or not stop.poll(PING_SECONDS):
        start = time.perf_counter()
        connection.sendall(PING)
        receive_until(connection, PONG)
        latencies.append(time.perf_counter() - start)
    stop.send(latencies)
