"""The hub and its workers in one process, without sockets: data that one end has written arrives at the other when
``step`` is called."""

from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from tests.backplanes.contract import Stage
from tests.backplanes.disk_stage import ManualWorker
from twistedsock.backplanes.hub import Hub
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.memory_history import MemoryHistoryBackplane
from twistedsock.backplanes.sqlite import SQLiteBackplane
from twistedsock.backplanes.sqlite_store import Store
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Backplane


class Pipe:
    """The connection of one worker, as the outlet of both ends. ``piece`` is how many bytes arrive at a time. Bytes are
    kept back while ``reads`` is False."""

    def __init__(self, machine: "Machine", worker: WorkerBackplane, piece: int | None = None) -> None:
        self.machine = machine
        self.worker = worker
        self.piece = piece
        self.reads = True
        self.is_open = True
        self.to_worker = bytearray()
        self.link = machine.hub.connect(self)
        worker.connected(ToHub(self))

    def write(self, data: bytes) -> None:
        """Of the hub."""
        self.to_worker += data
        if not self.reads:
            self.link.pause()

    def deliver(self) -> None:
        """Let the worker read."""
        if self.reads and self.to_worker:
            piece = self.piece or len(self.to_worker)
            data = bytes(self.to_worker[:piece])
            del self.to_worker[:piece]
            self.worker.received(data)

    def read_again(self) -> None:
        self.reads = True
        self.machine.do(self.link.resume)

    def close(self) -> None:
        """Ends the connection at both ends, as when a process is killed."""
        if self.is_open:
            self.is_open = False
            self.to_worker.clear()
            self.link.lost()
            self.worker.lost()


class ToHub:
    """The outlet of the worker."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> None:
        piece = self._pipe.piece or len(data)
        for start in range(0, len(data), piece):
            self._pipe.machine.do(lambda part=data[start : start + piece]: self._receive(part))

    def _receive(self, data: bytes) -> None:
        if self._pipe.is_open:
            self._pipe.link.received(data)

    def close(self) -> None:
        self._pipe.close()


class Machine:
    """A hub and everything that waits to be done, in its order. ``now`` is the time in seconds."""

    def __init__(self, **limits: Any) -> None:
        self.now = 1_000.0
        self.limits = Limits(**limits)
        self.reports: list[str] = []
        self.pipes: list[Pipe] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._numbers = count(1)
        self.start_hub()

    def start_hub(self) -> None:
        """Start a hub that knows nothing, as after the former one was killed."""
        for pipe in self.pipes:
            pipe.close()
        self.pipes.clear()
        self._calls.clear()
        self._later.clear()
        name = b"h%d" % next(self._numbers)
        self.hub = Hub(self.build(), name, lambda: self.now, self.schedule, self.reports.append)
        self.hub.start()

    def build(self) -> Backplane:
        """The backplane of the hub."""
        return MemoryHistoryBackplane(self.draw_epoch, lambda: self.now, lambda: self.now, self.limits)

    def draw_epoch(self) -> bytes:
        return b"e%d" % next(self._numbers)

    def worker(self, name: bytes, piece: int | None = None) -> WorkerBackplane:
        """A worker that is connected."""
        worker = WorkerBackplane(name, self.do)
        self.connect(worker, piece)
        return worker

    def connect(self, worker: WorkerBackplane, piece: int | None = None) -> Pipe:
        pipe = self.begin_to_connect(worker, piece)
        self.settle()
        return pipe

    def begin_to_connect(self, worker: WorkerBackplane, piece: int | None = None) -> Pipe:
        self.pipes.append(Pipe(self, worker, piece))
        return self.pipes[-1]

    def do(self, call: Callable[[], None]) -> None:
        """At the end of the turn."""
        self._calls.append(call)

    def schedule(self, seconds: float, call: Callable[[], None]) -> None:
        if seconds:
            self._later.append((self.now + seconds, call))
        else:
            self.do(call)

    def step(self) -> bool:
        """Do one thing; whether there is more."""
        if self._calls:
            self._calls.popleft()()
        else:
            for pipe in list(self.pipes):
                pipe.deliver()
        return bool(self._calls) or any(pipe.reads and pipe.to_worker for pipe in self.pipes)

    def settle(self) -> None:
        while self.step():
            pass

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self._later if at <= self.now]
        self._later = [(at, call) for at, call in self._later if at > self.now]
        for call in due:
            call()
        self.settle()


class DiskMachine(Machine):
    """Its hub has a store, which does one thing at a time. As a context manager, it closes the files at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        super().__init__()

    def build(self) -> Backplane:
        self.worker_of_store = ManualWorker(Store(self._directory, self.draw_epoch, self.reports.append))
        return SQLiteBackplane(
            self.worker_of_store,
            self.draw_epoch,
            self.limits,
            lambda: self.now,
            self.schedule,
            lambda error: self.hub.announce_ready(),
        )

    def __enter__(self) -> "DiskMachine":
        return self

    def __exit__(self, *error: object) -> None:
        self.worker_of_store.store.close()

    def step(self) -> bool:
        if self.worker_of_store.calls and not self._calls:
            self.worker_of_store.step()
            return True
        return super().step() or bool(self.worker_of_store.calls)


class WorkerStage(Stage):
    """One worker. The ids of its clients begin with its name."""

    backplane: WorkerBackplane

    def __init__(self, machine: Machine, name: bytes, piece: int | None = None) -> None:
        self.machine = machine
        super().__init__(machine.worker(name, piece))
        machine.settle()

    @property
    def pipe(self) -> Pipe:
        """Its newest connection."""
        return [pipe for pipe in self.machine.pipes if pipe.worker is self.backplane][-1]

    def publish(self, channel: bytes, *payloads: bytes, by: bytes = b"p1", settle: bool = True) -> None:
        super().publish(channel, *payloads, by=self.backplane.node_name + b"-" + by, settle=settle)

    def step(self) -> bool:
        return self.machine.step()
