"""The memory backplane of a hub, which keeps the newest events of all channels for its workers."""

from collections.abc import Callable, Sequence

from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.limits.principal import Principal
from twistedsock.limits.settings import Limits
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.history import History
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, ChannelState, Position, PresenceChange, Publication


class _Log:
    """The newest events of one channel. ``size`` is what counts for ``owner``, who published the first of them."""

    __slots__ = ("history", "is_open", "owner", "size")

    def __init__(self, history: History, owner: Principal) -> None:
        self.history = history
        self.owner = owner
        self.size = 0
        self.is_open = False


class MemoryHistoryBackplane(MemoryBackplane):
    """Like ``MemoryBackplane``, and keeps as much history as ``limits`` allow: of one channel, and of all together. If
    they are too large together, the channel of the client that has most gives way. ``clock`` is monotonic. Call
    ``expire`` every few seconds."""

    keeps_history = True

    def __init__(
        self,
        draw_epoch: Callable[[], bytes],
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        super().__init__(draw_epoch, wall_clock)
        self._clock = clock
        self._limits = limits
        self._logs: dict[bytes, _Log] = {}
        self._kept = EvictionQueue[bytes](limits.history_total_bytes)
        self._principal: Principal = b""

    @property
    def history_bytes(self) -> int:
        """The cost of all events that are kept."""
        return self._kept.shares.total

    def start(self, node: Node) -> None:
        super().start(_Recorder(node, self._record))

    def publish(self, publisher: Client, publication: Publication) -> int:
        self._principal = publisher.principal
        return super().publish(publisher, publication)

    def _record(self, channel: bytes, batch: Batch) -> None:
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = _Log(History(self._limits, batch.first), self._principal)
        elif not log.size:
            log.owner = self._principal
        log.history.extend([batch], self._clock())
        self._account(channel, log)
        while self._kept.is_full:
            victim = self._kept.next_victim()
            largest = self._logs[victim]
            largest.history.shrink(largest.size // 2)
            self._account(victim, largest)

    def _account(self, channel: bytes, log: _Log) -> None:
        """The size of a history has changed."""
        size = log.history.size
        if not log.size and size:
            self._kept.add(log.owner, channel, size)
        elif log.size and not size:
            self._kept.remove(log.owner, channel, log.size)
        else:
            self._kept.shares.add(log.owner, size - log.size)
        log.size = size

    def open(self, channel: bytes) -> ChannelState:
        position = super().open(channel).position
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = _Log(History(self._limits, position.offset + 1), b"")
        log.is_open = True
        history = log.history
        history.expire(self._clock())
        self._account(channel, log)
        return ChannelState(position, history.read(history.first, self._limits.history_bytes), history.dropped_time)

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        log, sequence = self._logs.get(channel), self._sequences.get(channel)
        if log is None or sequence is None or sequence.epoch != after.epoch:
            return ()
        return log.history.read(after.offset + 1, limit)

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int:
        log, sequence = self._logs.get(channel), self._sequences.get(channel)
        if log is None or sequence is None or sequence.epoch != epoch:
            return 0
        found = log.history.first_since(time)
        return found - 1 if found > log.history.first else 0

    def close(self, channel: bytes) -> None:
        """The channel is kept as long as it has history."""
        log = self._logs.get(channel)
        if log is not None:
            log.is_open = False
            self._forget_if_empty(channel, log)

    def expire(self) -> None:
        """Drop the events that are too old."""
        now = self._clock()
        for channel, log in list(self._logs.items()):
            log.history.expire(now)
            self._account(channel, log)
            self._forget_if_empty(channel, log)

    def _forget_if_empty(self, channel: bytes, log: _Log) -> None:
        if not (log.is_open or log.history):
            del self._logs[channel]
            super().close(channel)


class _Recorder:
    """Stands between a backplane and its node, and records what is delivered."""

    def __init__(self, node: Node, record: Callable[[bytes, Batch], None]) -> None:
        self._node = node
        self._record = record
        self.local_members = node.local_members
        self.members_changed = node.members_changed
        self.reset = node.reset
        self.run_command = node.run_command

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        self._record(name, batch)
        self._node.deliver(name, epoch, batch)

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        self._node.presence_changed(name, change)
