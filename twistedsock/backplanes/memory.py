"""The backplane of a server with a single process."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from twistedsock.limits.principal import LOCAL
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, ChannelState, Member, NodeCommand, Position, PresenceChange, Publication

MAX_REMEMBERED = 10_000
"""Closed channels whose position is kept, so that a subscriber that returns to a quiet channel learns correctly that it
missed nothing. Each takes about 430 bytes with the longest name, or 950 if each was published to by another client. The
one that was closed first is forgotten, of the client that has most."""


class OffsetSequence:
    """The offsets of one channel in one epoch."""

    __slots__ = ("epoch", "head", "publisher", "time")

    def __init__(self, epoch: bytes) -> None:
        self.epoch = epoch
        self.head = 0
        self.time = 0
        """The time of the newest event."""
        self.publisher = LOCAL
        """The principal that published the first event."""


class MemoryBackplane:
    """Answers all calls at once, and delivers the events of all channels, open or not. ``draw_epoch`` returns a random
    name for an epoch, ``wall_clock`` the seconds since 1970. If that clock is set back, the time of the newest event of
    a channel is repeated until it is reached again."""

    is_ready = True
    node_name = b""
    keeps_history = False

    def __init__(self, draw_epoch: Callable[[], bytes], wall_clock: Callable[[], float]) -> None:
        self._draw_epoch = draw_epoch
        self._wall_clock = wall_clock
        self._sequences: dict[bytes, OffsetSequence] = {}
        self._closed: dict[bytes, OffsetSequence] = {}
        self._published = EvictionQueue[bytes](MAX_REMEMBERED)
        # Closed channels without any event.
        self._empty: OrderedDict[bytes, None] = OrderedDict()
        self._node: Node

    def start(self, node: Node) -> None:
        self._node = node

    def stop(self) -> None:
        """Nothing to do: there is nothing to keep."""

    def publish(self, publisher: Client, publication: Publication) -> int:
        channel, payloads = publication.channel, publication.payloads
        sequence = self._sequences.get(channel) or self._start(channel)
        if not sequence.head:
            sequence.publisher = publisher.principal
        first = sequence.head + 1
        end = first + len(payloads.items)
        sequence.head = end - 1
        time = int(self._wall_clock() * 1000)
        if time > sequence.time:
            sequence.time = time
        batch = Batch(first, end, publisher.id, publisher.nick, publication.name, payloads, sequence.time)
        self._node.deliver(channel, sequence.epoch, batch)
        return first

    def open(self, channel: bytes) -> ChannelState:
        sequence = self._sequences.get(channel) or self._start(channel)
        return ChannelState(Position(sequence.epoch, sequence.head), time=sequence.time)

    def read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        """Nothing: the node has all events that there are."""
        return ()

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> int:
        """0: there are no other events than those of the node."""
        return 0

    def close(self, channel: bytes) -> None:
        sequence = self._sequences.pop(channel, None)
        if sequence is None:  # it was opened on another backplane
            return
        self._closed[channel] = sequence
        if sequence.head:
            self._published.add(sequence.publisher, channel)
        else:
            self._empty[channel] = None
        if len(self._closed) > MAX_REMEMBERED:
            # A client that uses many names must not make the positions of other clients be forgotten.
            self._forget(next(iter(self._empty)) if self._empty else self._published.next_victim())

    def join(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=True))

    def rename(self, channel: bytes, member: Member) -> None:
        """Does nothing: ``members`` asks the node, which has the current nicks."""

    def leave(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=False))

    def members(self, channel: bytes) -> list[Member]:
        return self._node.local_members(channel)

    def send(self, command: NodeCommand) -> None:
        """Nothing to do: there are no other nodes."""

    def _start(self, channel: bytes) -> OffsetSequence:
        sequence = self._forget(channel) if channel in self._closed else OffsetSequence(self._draw_epoch())
        self._sequences[channel] = sequence
        return sequence

    def _forget(self, channel: bytes) -> OffsetSequence:
        sequence = self._closed.pop(channel)
        if sequence.head:
            self._published.remove(sequence.publisher, channel)
        else:
            del self._empty[channel]
        return sequence
