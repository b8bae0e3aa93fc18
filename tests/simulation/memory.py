"""The real backplane of a single process, which forgets all events when the node stops."""

from collections.abc import Callable
from typing import Any

from tests.simulation.backplanes import values_of
from tests.simulation.faults import FaultRates
from tests.simulation.record import EpochRecord, Record
from tests.simulation.world import World
from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.pubsub.values import Batch, ChannelState


class RecordedBackplane(MemoryBackplane):
    """Records the epochs that it begins, and the events that it orders."""

    def __init__(self, world: World, record: Record) -> None:
        super().__init__(self._draw_name, world.wall)
        self._world = world
        self._record = record

    def start(self, node: Any) -> None:
        super().start(RecordingNode(node, self.note_event))

    def open(self, channel: bytes) -> ChannelState:
        state = super().open(channel)
        self._epoch(channel, state.position.epoch)
        return state

    def note_event(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        known = self._epoch(channel, epoch)
        self._record.store(channel.decode(), known, batch, values_of(batch), self._world.now)

    def _epoch(self, channel: bytes, name: bytes) -> EpochRecord:
        known = self._record.epochs.get((channel.decode(), name.decode()))
        if known is None:
            known = EpochRecord(name, 0, None)
            self._record.begin_epoch(channel.decode(), known)
        return known

    def _draw_name(self) -> bytes:
        return b"e%d" % self._world.serial()


class RecordingNode:
    """Passes calls to a node. ``note_event`` is called before each delivery."""

    def __init__(self, node: Any, note_event: Callable[[bytes, bytes, Batch], None]) -> None:
        self._node = node
        self._note_event = note_event
        self.presence_changed = node.presence_changed
        self.local_members = node.local_members

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        self._note_event(name, epoch, batch)
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

    def connect(self, name: str, after_call: Callable[[], None]) -> RecordedBackplane:
        return RecordedBackplane(self._world, self.record)

    def disconnect(self, backplane: RecordedBackplane) -> None:
        """Its events are lost."""

    def step(self) -> None:
        """It has no faults."""
