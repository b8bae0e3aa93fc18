"""The backplane of a single process: there are no others to reach."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from twistedsock.limits.principal import LOCAL
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Batch, Member, Position, PresenceChange, Publication

REMEMBERED = 10_000
"""Closed channels whose place in the numbers is remembered, so that a reader who comes back to a quiet channel can be
told truly that it missed nothing. About 430 bytes each with the longest name, 950 where each was published by another
client. Of the client that has most, the longest closed is forgotten first."""


class Node(Protocol):
    """What a backplane tells: the broker."""

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None: ...
    def presence_changed(self, name: bytes, change: PresenceChange) -> None: ...
    def local_members(self, name: bytes) -> list[Member]: ...


class Run:
    """The run of numbers of one channel."""

    __slots__ = ("epoch", "head", "publisher")

    def __init__(self, epoch: bytes) -> None:
        self.epoch = epoch
        self.head = 0
        self.publisher = LOCAL
        """The principal that published first."""


class MemoryBackplane:
    """Answers everything at once, and delivers every channel whether it is open or not. ``draw_epoch`` gives a random
    name for a run of numbers."""

    is_ready = True
    """It cannot be away."""

    def __init__(self, draw_epoch: Callable[[], bytes]) -> None:
        self._draw_epoch = draw_epoch
        self._runs: dict[bytes, Run] = {}
        self._closed: dict[bytes, Run] = {}
        self._published = EvictionQueue[bytes](REMEMBERED)
        # Closed channels on which nothing was ever published.
        self._empty: OrderedDict[bytes, None] = OrderedDict()
        self._node: Node

    def attach(self, node: Node) -> None:
        """Name the node to tell. To be called once, before anything else."""
        self._node = node

    def publish(self, publisher: Client, publication: Publication) -> int:
        channel, payloads = publication.channel, publication.payloads
        run = self._runs.get(channel) or self._begin(channel)
        if not run.head:
            run.publisher = publisher.principal
        first = run.head + 1
        end = first + len(payloads.items)
        run.head = end - 1
        batch = Batch(first, end, publisher.id, publisher.nick, publication.name, payloads)
        self._node.deliver(channel, run.epoch, batch)
        return first

    def open(self, channel: bytes) -> Position:
        run = self._runs.get(channel) or self._begin(channel)
        return Position(run.epoch, run.head)

    def close(self, channel: bytes) -> None:
        run = self._runs.pop(channel, None)
        if run is None:  # of a time before this backplane
            return
        self._closed[channel] = run
        if run.head:
            self._published.add(run.publisher, channel)
        else:
            self._empty[channel] = None
        if len(self._closed) > REMEMBERED:
            # Clients that use many names must not push out what is remembered of others.
            self._forget(next(iter(self._empty)) if self._empty else self._published.next_victim())

    def join(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=True))

    def rename(self, channel: bytes, member: Member) -> None:
        """Nobody is told: ``members`` asks the node, which knows."""

    def leave(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=False))

    def members(self, channel: bytes) -> list[Member]:
        return self._node.local_members(channel)

    def _begin(self, channel: bytes) -> Run:
        run = self._forget(channel) if channel in self._closed else Run(self._draw_epoch())
        self._runs[channel] = run
        return run

    def _forget(self, channel: bytes) -> Run:
        """It is not closed any longer, or not remembered."""
        run = self._closed.pop(channel)
        if run.head:
            self._published.remove(run.publisher, channel)
        else:
            del self._empty[channel]
        return run
