"""The real backplane that keeps events in a directory, with a simulated thread and a simulated disk.

The disk takes time, and calls fail before or after they have an effect. When the node is killed, the transaction that
is being written is either complete or gone.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.simulation.backplanes import READ_BYTES, values_of
from tests.simulation.faults import FaultRates
from tests.simulation.record import EpochRecord, Record
from tests.simulation.world import Violation, World
from twistedsock.backplanes.sqlite import SQLiteBackplane
from twistedsock.backplanes.sqlite_keys import StoredKey
from twistedsock.backplanes.sqlite_store import Addition, Room, StoredChannel
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.values import Batch, Position

MAX_DELAY_SECONDS = 5.0


class SimulatedStore:
    """The events on the disk: the newest ``kept`` of each channel. It has the methods of ``sqlite_store.Store``."""

    is_unsynced = False

    def __init__(self, world: World, kept: int) -> None:
        self.record = Record()
        self._world = world
        self._kept = kept
        self._read_bytes = world.random.choice(READ_BYTES)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def reopen(self, error: Exception) -> None: ...

    def room(self) -> Room:
        return Room(0, 0, None)

    def append(self, additions: Sequence[Addition]) -> None:
        for channel, name, batches, _ in additions:
            epoch = self._epoch(channel)
            for batch in batches:
                if name != epoch.name or batch.first != epoch.head + 1:
                    raise Violation(f"{batch.first} of {name!r} is written after {epoch.head} of {epoch.name!r}")
                self.record.store(channel.decode(), epoch, batch, values_of(batch), self._world.now)
                epoch.kept_from = max(epoch.kept_from, batch.end - self._kept)
                self._world.note("disk", f"keeps {batch.first} to {batch.end - 1}", channel.decode())

    def read_keys(self, oldest: int) -> dict[bytes, StoredKey]:
        return {}  # no client of the simulation has keys

    def read_channel(self, channel: bytes, max_events: int, max_bytes: int, oldest: int) -> StoredChannel:
        epoch = self._epoch(channel)
        tail: list[Batch] = []
        for batch in reversed(epoch.batches_from(epoch.kept_from)):
            if batch.time < oldest or sum(map(len, tail)) >= max_events:
                break
            tail.insert(0, batch)
        before = epoch.batch_at(tail[0].first - 1 if tail else epoch.head)
        return StoredChannel(Position(epoch.name, epoch.head), tail, 0 if before is None else before.time)

    def read(self, channel: bytes, after: Position, limit: int) -> list[Batch]:
        epoch, found = self._epoch(channel), list[Batch]()
        limit = min(limit, self._read_bytes)
        if epoch.name == after.epoch:
            for batch in epoch.batches_from(max(epoch.kept_from, after.offset + 1)):
                found.append(batch)
                limit -= batch.payloads.size
                if limit <= 0:
                    break
        return found

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int:
        known = self._epoch(channel)
        return known.offset_before(time) if known.name == epoch else 0

    def _epoch(self, channel: bytes) -> EpochRecord:
        known = self.record.channels.get(channel.decode())
        if known is None:
            known = EpochRecord(b"e1", 0, None)
            self.record.begin_epoch(channel.decode(), known)
        return known


class SimulatedWorker:
    """The thread of a store: makes one call after the other, each of which takes time."""

    def __init__(self, world: World, store: SimulatedStore, rates: FaultRates, after_call: Callable[[], None]) -> None:
        self.is_killed = self.has_failed = False
        self._world = world
        self._store = store
        self._rates = rates
        self._after_call = after_call
        self._idle_at = 0.0
        self._waiting: deque[Callable[[Any], Any]] = deque()

    def start(self) -> None: ...

    def submit(self, call: Callable[[Any], Any], done: Callable[[Any], None]) -> None:
        world = self._world
        delay = world.delay(self._rates.request_delay) * (1_000 if world.fault(self._rates.slow) else 1)
        self._idle_at = max(self._idle_at, world.now) + min(MAX_DELAY_SECONDS, delay)
        self._waiting.append(call)
        world.at(self._idle_at, partial(self._run, done))

    def stop(self, done: Callable[[Any], None]) -> None:
        self.submit(lambda store: None, done)

    def kill(self) -> None:
        self.is_killed = True
        if self._waiting and self._world.chance(0.5):
            self._waiting.popleft()(self._store)  # it had been written, but the node was not called

    def _run(self, done: Callable[[Any], None]) -> None:
        if self.is_killed:
            return
        call = self._waiting.popleft()
        result: Any = OSError("disk full")
        fails = self._world.fault(self._rates.fail)
        if not fails:
            result = call(self._store)
            if self._world.fault(self._rates.lose_answer):
                fails, result = True, OSError("input/output error")
        if fails:
            self._world.note("disk", str(result))
            self.has_failed = True
        done(result)
        self._after_call()


class DiskBackplanes:
    """One disk, and the backplane of the node that runs."""

    max_nodes = 1
    shares_members = True

    def __init__(self, world: World, rates: FaultRates) -> None:
        self._world = world
        self._rates = rates
        self._store = SimulatedStore(world, kept=world.random.choice((5, 30, 10_000)))
        self.record = self._store.record
        self._limits = Limits(history_events=world.random.choice((3, 100)))
        self._workers: dict[SQLiteBackplane, SimulatedWorker] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Called when the disk has failed, and when it works again."""

    def keeps(self, backplane: SQLiteBackplane, channel: str, epoch: str, offset: int) -> bool:
        kept = self.record.channels[channel]
        return kept.name.decode() == epoch and kept.kept_from <= offset

    def has_failed_to_read(self, backplane: SQLiteBackplane, channel: str) -> bool:
        return self._workers[backplane].has_failed

    def losses(self, backplane: SQLiteBackplane) -> int:
        return 0

    def connect(self, name: str, after_call: Callable[[], None]) -> SQLiteBackplane:
        world = self._world
        worker = SimulatedWorker(world, self._store, self._rates, after_call)
        backplane = SQLiteBackplane(
            worker,
            self._draw_epoch,
            self._limits,
            world.wall,
            partial(self._schedule, worker),
            lambda exception: self.on_change(),
        )
        self._workers[backplane] = worker
        return backplane

    def disconnect(self, backplane: SQLiteBackplane) -> None:
        self._workers[backplane].kill()

    def step(self) -> None:
        """Its faults happen when it is called."""

    def _schedule(self, worker: SimulatedWorker, seconds: float, call: Callable[[], None]) -> None:
        self._world.after(seconds, lambda: None if worker.is_killed else call())

    def _draw_epoch(self) -> bytes:
        return b"e%d" % self._world.serial()
