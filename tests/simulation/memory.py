"""The real backplanes that keep events in memory, and forget them when their process ends."""

from collections.abc import Callable
from typing import Any

from tests.simulation.backplanes import values_of
from tests.simulation.faults import FaultRates
from tests.simulation.record import EpochRecord, Record
from tests.simulation.world import World
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.backplanes.memory_history import MemoryHistoryBackplane
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.values import Batch, ChannelState


class Notes:
    """Records the epochs that a backplane begins, and the events that it orders."""

    def __init__(self, world: World, record: Record) -> None:
        self._world = world
        self._record = record

    def draw_name(self) -> bytes:
        return b"e%d" % self._world.serial()

    def epoch(self, channel: bytes, name: bytes) -> EpochRecord:
        """The epoch that a channel has now."""
        known = self._record.epochs.get((channel.decode(), name.decode()))
        if known is None:
            known = EpochRecord(name, 0, None)
            self._record.begin_epoch(channel.decode(), known)
        return known

    def event(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        known = self.epoch(channel, epoch)
        self._record.store(channel.decode(), known, batch, values_of(batch), self._world.now)


class RecordedBackplane(MemoryBackplane):
    def __init__(self, world: World, record: Record) -> None:
        self._notes = Notes(world, record)
        super().__init__(self._notes.draw_name, world.wall)

    def start(self, node: Node) -> None:
        super().start(RecordingNode(node, self._notes))

    def open(self, channel: bytes) -> ChannelState:
        state = super().open(channel)
        self._notes.epoch(channel, state.position.epoch)
        return state


class RecordedHistoryBackplane(MemoryHistoryBackplane):
    def __init__(self, world: World, record: Record, limits: Limits) -> None:
        self._notes = Notes(world, record)
        super().__init__(self._notes.draw_name, world.wall, lambda: world.now, limits)

    def start(self, node: Node) -> None:
        super().start(RecordingNode(node, self._notes))

    def open(self, channel: bytes) -> ChannelState:
        state = super().open(channel)
        self._notes.epoch(channel, state.position.epoch)
        return state


class RecordingNode:
    """Passes calls to a node. Each event is noted before it is delivered."""

    def __init__(self, node: Node, notes: Notes) -> None:
        self._node = node
        self._notes = notes
        self.presence_changed = node.presence_changed
        self.members_changed = node.members_changed
        self.local_members = node.local_members
        self.run_command = node.run_command
        self.reset = node.reset

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        self._notes.event(name, epoch, batch)
        self._node.deliver(name, epoch, batch)


class MemoryBackplanes:
    max_nodes = 1
    shares_members = True

    def __init__(self, world: World, rates: FaultRates) -> None:
        self.record = Record()
        self._world = world

    def keeps(self, backplane: RecordedBackplane, channel: str, epoch: str, offset: int) -> bool:
        return False

    def has_failed_to_read(self, backplane: RecordedBackplane, channel: str) -> bool:
        return False

    def losses(self, backplane: RecordedBackplane) -> int:
        return 0

    def connect(self, name: str, after_call: Callable[[], None]) -> Any:
        return RecordedBackplane(self._world, self.record)

    def disconnect(self, backplane: RecordedBackplane) -> None:
        """Its events are lost."""

    def step(self) -> None:
        """It has no faults."""
