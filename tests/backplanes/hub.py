"""A backplane that connects several nodes, in one process: the reference for those that use a network.

All nodes talk to one ``Hub``. It handles their messages one by one, in order, when ``step`` is called. The members of a
node are a lease: they leave when the node has not renewed it in time.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    Batch,
    ChannelState,
    Member,
    NodeCommand,
    Position,
    PresenceChange,
    Publication,
    RepeatedOffset,
)
from twistedsock.testing.backplane import events_after, newest_before

T = TypeVar("T")

LEASE_SECONDS = 15.0

TAIL_BATCHES = 2
"""Batches that a node gets when it opens a channel. It reads older ones when they are needed."""


class Log:
    """One channel."""

    def __init__(self, epoch: bytes) -> None:
        self.epoch = epoch
        self.begin = 0
        self.previous: Position | None = None
        self.batches: list[Batch] = []
        self.members: dict[bytes, tuple[bytes, Member]] = {}
        """By their id, with the name of their node."""

    @property
    def head(self) -> int:
        return self.batches[-1].end - 1 if self.batches else self.begin

    def state(self) -> ChannelState:
        tail, older = self.batches[-TAIL_BATCHES:], self.batches[:-TAIL_BATCHES]
        position = Position(self.epoch, self.head)
        return ChannelState(position, tail, older[-1].time if older else 0, self.begin, self.previous)


class Hub:
    """``now`` is the time in seconds. The next ``failing`` requests fail."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.failing = 0
        self.messages: deque[Callable[[], None]] = deque()
        self.logs: dict[bytes, Log] = {}
        self.nodes: dict[bytes, HubBackplane] = {}
        self._keys: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self._epochs = 0

    def step(self) -> bool:
        """Handle a message; whether there are more."""
        if self.messages:
            self.messages.popleft()()
        return bool(self.messages)

    def log(self, channel: bytes) -> Log:
        if channel not in self.logs:
            self.logs[channel] = Log(self._draw_epoch())
        return self.logs[channel]

    def append(self, publisher: Client, publication: Publication) -> tuple[int | Error, Batch | None]:
        """The answer, and the new batch: None if the key is known."""
        channel, payloads = publication.channel, publication.payloads
        key = (channel, publication.key)
        if publication.key and key in self._keys:
            first, fingerprint = self._keys[key]
            return (RepeatedOffset(first) if fingerprint == publication.fingerprint else KEY_REUSED), None
        log = self.log(channel)
        first = log.head + 1
        end, time = first + len(payloads), int(self.now * 1000)
        batch = Batch(first, end, publisher.id, publisher.nick, publication.name, payloads, time)
        log.batches.append(batch)
        self._keys[key] = first, publication.fingerprint
        return first, batch

    def followers(self, channel: bytes) -> list["HubBackplane"]:
        return [node for node in self.nodes.values() if channel in node.open_channels]

    def change(self, channel: bytes, change: PresenceChange) -> None:
        for node in self.followers(channel):
            node.node.presence_changed(channel, change)

    def expire_leases(self) -> None:
        """The members of nodes that have not renewed their lease leave."""
        gone = {name for name, node in self.nodes.items() if node.lease_ends <= self.now}
        for name in gone:
            del self.nodes[name]
        for channel, log in self.logs.items():
            for id, (name, member) in list(log.members.items()):
                if name in gone:
                    del log.members[id]
                    self.change(channel, PresenceChange(member, joined=False))

    def roll_back(self, channel: bytes, good: int, continues: bool = True) -> None:
        """Lose the events after an offset, as a database that is restored from a copy does."""
        log = self.logs[channel]
        log.previous = Position(log.epoch, good)
        log.epoch, log.begin = self._draw_epoch(), good if continues else 0
        log.batches = [batch.part(batch.first, good + 1) for batch in log.batches if batch.first <= good]
        if not continues:
            log.batches.clear()
        for node in self.followers(channel):
            node.node.reset(channel, log.state())

    def _draw_epoch(self) -> bytes:
        self._epochs += 1
        return b"e%d" % self._epochs


class HubBackplane:
    """The connection of one node. Events are not sent to it while it is not ``is_ready``."""

    keeps_history = True

    def __init__(self, hub: Hub, node_name: bytes) -> None:
        self.node_name = node_name
        self.is_ready = False
        self.lease_ends = 0.0
        self.open_channels: set[bytes] = set()
        self.node: Node
        self._hub = hub

    def start(self, node: Node) -> None:
        self.node = node
        self.is_ready = True
        self._hub.nodes[self.node_name] = self
        self.renew_lease()

    def stop(self) -> None:
        """The members of this node leave at once."""
        self.lease_ends = 0.0
        self._hub.expire_leases()
        self.is_ready = False

    def renew_lease(self) -> None:
        """Call this more often than the lease ends."""
        self.lease_ends = self._hub.now + LEASE_SECONDS

    def disconnect(self) -> None:
        """The connection is lost: nothing is sent to the node, and its requests fail."""
        self.is_ready = False

    def reconnect(self) -> None:
        """Report what was missed in all open channels."""
        self.is_ready = True
        for channel in list(self.open_channels):
            self.node.reset(channel, self._hub.log(channel).state())

    def publish(self, publisher: Client, publication: Publication) -> Error | Future[int]:
        sender = publisher.snapshot()

        def publish() -> int | Error:
            answer, batch = self._hub.append(sender, publication)
            if batch is not None:
                epoch = self._hub.log(publication.channel).epoch
                for node in self._hub.followers(publication.channel):
                    if node.is_ready:
                        node.node.deliver(publication.channel, epoch, batch)
            return answer

        return self._ask(publish)

    def open(self, channel: bytes) -> Error | Future[ChannelState]:
        def follow() -> ChannelState:
            self.open_channels.add(channel)
            return self._hub.log(channel).state()

        return self._ask(follow)

    def close(self, channel: bytes) -> None:
        self.open_channels.discard(channel)

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        return self._ask(partial(self._read, channel, after, limit))

    def _read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        log = self._hub.log(channel)
        return events_after(log.batches, after.offset, limit) if log.epoch == after.epoch else []

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        def find() -> int:
            log = self._hub.log(channel)
            return newest_before(log.batches, time) if log.epoch == epoch else 0

        return self._ask(find)

    def join(self, channel: bytes, member: Member) -> None:
        def join() -> None:
            self._hub.log(channel).members[member.id] = (self.node_name, member)
            self._hub.change(channel, PresenceChange(member, joined=True))

        self._hub.messages.append(join)

    def rename(self, channel: bytes, member: Member) -> None:
        def rename() -> None:
            self._hub.log(channel).members[member.id] = (self.node_name, member)

        self._hub.messages.append(rename)

    def leave(self, channel: bytes, member: Member) -> None:
        def leave() -> None:
            if self._hub.log(channel).members.pop(member.id, None) is not None:
                self._hub.change(channel, PresenceChange(member, joined=False))

        self._hub.messages.append(leave)

    def members(self, channel: bytes) -> Error | Future[list[Member]]:
        return self._ask(lambda: [member for _, member in self._hub.log(channel).members.values()])

    def send(self, command: NodeCommand) -> None:
        def run() -> None:
            for node in list(self._hub.nodes.values()):
                if node is not self:
                    node.node.run_command(command)

        self._hub.messages.append(run)

    def _ask(self, act: Callable[[], T | Error]) -> Error | Future[T]:
        if not self.is_ready:
            return UNAVAILABLE
        answer, hub = Future[T](), self._hub

        def run() -> None:
            if hub.failing:
                hub.failing -= 1
                answer.settle(UNAVAILABLE)
            else:
                answer.settle(act())

        hub.messages.append(run)
        return answer
