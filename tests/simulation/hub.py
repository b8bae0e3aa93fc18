"""The real hub of several workers, and the real backplanes of the workers, on simulated sockets.

The hub keeps its events in memory or on the simulated disk. It is killed and starts again. Connections are cut, also in
the middle of a message, and are slow; each end can notice that earlier than the other. A node of the run is a worker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.simulation.backplanes import FailedReads
from tests.simulation.disk import DiskBackplanes
from tests.simulation.faults import FaultRates
from tests.simulation.memory import RecordedHistoryBackplane
from tests.simulation.record import Record
from tests.simulation.world import Violation, World
from twistedsock.backplanes.hub import Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.hub_messages import ProtocolError
from twistedsock.errors import Error
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Batch, Position

MAX_AWAY_SECONDS = 10.0

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.02, 1.0

PIECES = (1, 7, 60, 4_000)
"""Bytes that arrive together, if a write is divided."""

BUFFER_BYTES = 20_000
"""Bytes that a socket accepts. The hub waits while more have not arrived."""


@dataclass
class HubFaults:
    """Probabilities in each step of a run."""

    kill: float = 0.0
    """That the hub is killed."""
    cut: float = 0.0
    """That a connection is cut."""
    stall: float = 0.0
    """That a worker reads and writes nothing for a while."""


class Process:
    """The process of a hub. After it was killed, nothing that it has scheduled is done."""

    def __init__(self, world: World, disconnect: Callable[[], None]) -> None:
        self.hub: Hub
        self.is_running = True
        self.pipes: dict[Pipe, None] = {}
        self.disconnect = disconnect
        """Ends the backplane of the hub."""
        self._world = world

    def schedule(self, seconds: float, call: Callable[[], None]) -> None:
        self._world.after(max(seconds, 0.0001), lambda: call() if self.is_running else None)

    def kill(self) -> None:
        self.is_running = False
        self.disconnect()
        for pipe in list(self.pipes):
            pipe.cut()


class Outlet:
    """The transport of one end."""

    def __init__(self, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self.write = write
        self.close = close


class Pipe:
    """The connection of a worker to the hub. Both ends write bytes that arrive later, in pieces."""

    def __init__(self, backplanes: "HubBackplanes", process: Process, worker: "Worker") -> None:
        self.is_open = True
        self._backplanes = backplanes
        self._world = backplanes.world
        self._process = process
        self._worker = worker
        self._arrivals = {True: 0.0, False: 0.0}
        self._unread = 0
        self._is_paused = False
        process.pipes[self] = None
        self._link = process.hub.connect(Outlet(partial(self._write, False), self.cut))
        worker.connected(Outlet(partial(self._write, True), self.cut))

    def stall(self, seconds: float) -> None:
        now = self._world.now
        self._arrivals = {way: max(arrival, now) + seconds for way, arrival in self._arrivals.items()}

    def cut(self) -> None:
        """Bytes that have not arrived are lost, perhaps a part of a message. Both ends notice it at different times."""
        if not self.is_open:
            return
        self.is_open = False
        world, random = self._world, self._world.random
        delays = (0.0, 0.0, 0.001, 0.5, 4.0) if world.has_faults else (0.0,)
        world.after(random.choice(delays[:4]), self._worker.lose)
        world.after(random.choice(delays), self._lose_link)

    def _lose_link(self) -> None:
        self._process.pipes.pop(self, None)
        if self._process.is_running:
            self._link.lost()

    def _write(self, to_hub: bool, data: bytes) -> None:
        if not self.is_open:
            return
        size = self._world.random.choice(PIECES) if self._world.chance(0.1) else len(data)
        size = max(size, len(data) // 20, 1)
        for start in range(0, len(data), size):
            self._send(to_hub, data[start : start + size])
        if not to_hub:
            self._unread += len(data)
            if self._unread > BUFFER_BYTES and not self._is_paused:
                self._is_paused = True
                self._link.pause()

    def _send(self, to_hub: bool, piece: bytes) -> None:
        arrival = max(self._arrivals[to_hub], self._world.now + self._backplanes.delay())
        self._arrivals[to_hub] = arrival
        self._world.at(arrival, partial(self._arrive_at_hub if to_hub else self._arrive_at_worker, piece))

    def _arrive_at_hub(self, piece: bytes) -> None:
        if self.is_open and self._process.is_running:
            self._link.received(piece)

    def _arrive_at_worker(self, piece: bytes) -> None:
        if not self.is_open:
            return
        self._unread -= len(piece)
        self._worker.receive(piece)
        if self._is_paused and not self._unread and self._process.is_running:
            self._is_paused = False
            self._link.resume()


class Worker(WorkerBackplane):
    """Connects to the hub again and again, as ``workers.hub_sockets`` does."""

    def __init__(self, backplanes: "HubBackplanes", name: bytes, after_call: Callable[[], None]) -> None:
        super().__init__(name, partial(backplanes.world.after, 0.0001))
        self.failed_reads = FailedReads()
        self.pipe: Pipe | None = None
        self._is_killed = False
        self._backplanes = backplanes
        self._after_call = after_call
        self._pause = FIRST_RETRY_SECONDS

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        return self.failed_reads.watch(channel, super().read(channel, after, limit))

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        return self.failed_reads.watch(channel, super().offset_before(channel, epoch, time))

    def try_to_connect(self) -> None:
        process = self._backplanes.process
        if self._is_killed:
            return
        if process.is_running:
            self.pipe = Pipe(self._backplanes, process, self)
        else:
            self._try_again()

    def _try_again(self) -> None:
        self._backplanes.world.after(self._pause, self.try_to_connect)
        self._pause = min(2 * self._pause, MAX_RETRY_SECONDS)

    def receive(self, data: bytes) -> None:
        if not self._is_killed:
            try:
                self.received(data)
            except ProtocolError as error:
                raise Violation(f"a worker cannot read the messages of the hub: {error}") from error
            if self.is_connected:
                self._pause = FIRST_RETRY_SECONDS
            self._after_call()

    def lose(self) -> None:
        """The connection has ended."""
        if not self._is_killed:
            self.pipe = None
            self.lost()
            self._after_call()
            self._try_again()

    def kill(self) -> None:
        self._is_killed = True
        if self.pipe is not None:
            self.pipe.cut()


class HubBackplanes:
    max_nodes = 3
    shares_members = True

    def __init__(self, world: World, rates: FaultRates, faults: HubFaults | None = None) -> None:
        random = world.random
        self.world = world
        self._rates = rates
        rates.disconnect = rates.disconnect or 0.001  # nodes that start are not connected at once either
        if faults is None:
            kill, cut, stall = random.choice((0.0, 0.002, 0.01)), random.choice((0.0, 0.01)), random.choice((0.0, 0.01))
            faults = HubFaults(kill, cut, stall)
        self.faults = faults
        self._disk = DiskBackplanes(world, rates) if random.random() < 0.5 else None
        self.record = Record() if self._disk is None else self._disk.record
        self._limits = Limits(
            history_events=random.choice((5, 30, 1_000)),
            history_bytes=random.choice((3_000, 100_000)),
            history_total_bytes=random.choice((10_000, 1_000_000)),
            history_age=random.choice((20.0, 300.0)),
        )
        self._workers: dict[Worker, None] = {}
        self._start_hub()

    def keeps(self, backplane: Worker, channel: str, epoch: str, offset: int) -> bool:
        store: Any = self.process.hub.backplane
        if self._disk is not None:
            return channel in self.record.channels and self._disk.keeps(store, channel, epoch, offset)
        found = store.read(channel.encode(), Position(epoch.encode(), offset - 1), 1)
        return bool(found) and found[0].first <= offset

    def has_failed_to_read(self, backplane: Worker, channel: str) -> bool:
        return channel.encode() in backplane.failed_reads or self._has_disk_failed

    def losses(self, backplane: Worker) -> int:
        return 0

    def connect(self, name: str, after_call: Callable[[], None]) -> Worker:
        worker = Worker(self, b"%06d" % self.world.serial(), after_call)
        self._workers[worker] = None
        worker.try_to_connect()
        return worker

    def disconnect(self, backplane: Worker) -> None:
        del self._workers[backplane]
        backplane.kill()

    def step(self) -> None:
        world, process = self.world, self.process
        backplane: Any = process.hub.backplane
        if self._disk is None:
            backplane.expire()
        elif self._disk.has_failed_to_read(backplane, ""):
            self._has_disk_failed = True
        if world.fault(self.faults.kill) and process.is_running:
            world.note("hub", "is killed, and starts again")
            process.kill()
            world.after(min(MAX_AWAY_SECONDS, world.delay(1)), self._start_hub)
        pipes = [worker.pipe for worker in self._workers if worker.pipe is not None]
        if pipes and world.fault(self.faults.cut):
            world.note("hub", "loses a connection")
            world.random.choice(pipes).cut()
        if pipes and world.fault(self.faults.stall):
            world.random.choice(pipes).stall(min(MAX_AWAY_SECONDS, world.delay(2)))

    def delay(self) -> float:
        world = self.world
        delay = world.delay(self._rates.request_delay)
        return min(MAX_AWAY_SECONDS, delay * 1_000) if world.fault(self._rates.slow) else delay

    def _start_hub(self) -> None:
        self._has_disk_failed = False
        world, disk = self.world, self._disk
        if disk is None:
            process = Process(world, lambda: None)
            backplane: Any = RecordedHistoryBackplane(world, self.record, self._limits)
        else:
            disk.on_change = lambda: process.hub.announce_ready()
            backplane = disk.connect("hub", lambda: None)
            process = Process(world, partial(disk.disconnect, backplane))
        name = b"h%d" % world.serial()
        process.hub = Hub(backplane, name, lambda: world.now, process.schedule, self._report)
        process.hub.start()
        self.process = process

    def _report(self, sentence: str) -> None:
        self.world.note("hub", sentence)
        if "connected again" not in sentence and "does not read" not in sentence:
            raise Violation(f"the hub reports: {sentence}")
