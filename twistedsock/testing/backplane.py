"""A backplane that answers late, in bursts, and fails on demand."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from twistedsock.backplanes.memory import MemoryBackplane
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error
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
    cost,
)

T = TypeVar("T")


def events_after(batches: Iterable[Batch], offset: int, limit: int) -> list[Batch]:
    """What ``Backplane.read`` returns of the batches of a channel."""
    found: list[Batch] = []
    for batch in batches:
        if batch.end > offset + 1 and limit > 0:
            found.append(batch.part(offset + 1, batch.end))
            limit -= cost(batch)
    return found


def newest_before(batches: Iterable[Batch], time: int) -> int:
    """What ``Backplane.offset_before`` returns of them."""
    return max([batch.end - 1 for batch in batches if batch.time < time], default=0)


class LateBackplane:
    """The memory backplane, but requests wait for ``release``. The next ``failing`` of them fail. Set ``is_ready`` to
    False to make it unavailable. The next ``skipping`` batches are not delivered, and the next ``repeating`` ones are
    delivered twice: both are faults of a backplane, which the server must survive. With ``keeps_history`` it returns
    all events that it has ordered from ``read``, except those before ``first_kept``; ``sent`` are the commands for
    other nodes."""

    is_ready = True

    def __init__(self, inner: MemoryBackplane, keeps_history: bool = False, node_name: bytes = b"") -> None:
        self.keeps_history = keeps_history
        self.node_name = node_name
        self.sent: list[NodeCommand] = []
        self._inner = inner
        self._log: dict[tuple[bytes, bytes], list[Batch]] = {}
        self._keys: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self._node: Any = None
        self._delivered: list[Callable[[], None]] = []
        self._asked: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.failing = self.skipping = self.repeating = 0
        self.first_kept = 1

    def __len__(self) -> int:
        """The number of requests without a response."""
        return len(self._asked)

    def start(self, node: Any) -> None:
        self._node = node
        self._inner.start(self)

    def stop(self) -> None: ...

    def release(self, most: int | None = None, backwards: bool = False) -> None:
        """Respond to the ``most`` oldest requests (None: all), or, ``backwards``, to the newest first."""
        count = len(self._asked) if most is None else min(most, len(self._asked))
        for _ in range(count):
            later, act = self._asked.pop() if backwards else self._asked.popleft()
            if self.failing:
                self.failing -= 1
                later.settle(UNAVAILABLE)
                continue
            # In one step, the delivery first: who is answered may ask at once for what was delivered.
            answer = act()
            self._deliver_now()
            later.settle(answer)

    def restart(self, inner: MemoryBackplane) -> None:
        """Drop all data, so that the channels get new epochs. Nodes learn that from the next event."""
        self._inner = inner
        inner.start(self)

    def announce(self, channel: bytes, good: Position | None = None) -> None:
        """Report the epoch of a channel, after ``restart``. ``good`` is the newest event of the former epoch that is
        still valid."""
        self._node.reset(channel, msgspec.structs.replace(self._inner.open(channel), previous=good))

    def _ask(self, act: Callable[[], T | Error]) -> Future[T]:
        later = Future[T]()
        self._asked.append((later, act))
        return later

    # Calls of the broker.

    def publish(self, publisher: Client, publication: Publication) -> Future[int]:
        # The nick is the one of now, not of later.
        now = Client(publisher.id, publisher.principal)
        now.nick = publisher.nick
        return self._ask(lambda: self._publish(now, publication))

    def _publish(self, publisher: Client, publication: Publication) -> int | Error:
        key = (publication.channel, publication.key)
        if publication.key and key in self._keys:
            first, fingerprint = self._keys[key]
            return RepeatedOffset(first) if fingerprint == publication.fingerprint else KEY_REUSED
        first = self._inner.publish(publisher, publication)
        self._keys[key] = first, publication.fingerprint
        return first

    def open(self, channel: bytes) -> Future[ChannelState]:
        return self._ask(lambda: self._inner.open(channel))

    def read(self, channel: bytes, after: Position, limit: int) -> Future[Sequence[Batch]]:
        return self._ask(lambda: self._read(channel, after, limit))

    def _read(self, channel: bytes, after: Position, limit: int) -> Sequence[Batch]:
        return events_after(self._log.get((channel, after.epoch), ()), max(after.offset, self.first_kept - 1), limit)

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Future[int]:
        def find() -> int:
            log = self._log.get((channel, epoch), ())
            return newest_before([batch for batch in log if batch.end > self.first_kept], time)

        return self._ask(find)

    def close(self, channel: bytes) -> None:
        self._inner.close(channel)

    def join(self, channel: bytes, member: Member) -> None:
        self._inner.join(channel, member)
        self._deliver_now()

    def rename(self, channel: bytes, member: Member) -> None:
        self._inner.rename(channel, member)

    def leave(self, channel: bytes, member: Member) -> None:
        self._inner.leave(channel, member)
        self._deliver_now()

    def members(self, channel: bytes) -> Future[list[Member]]:
        return self._ask(lambda: self._inner.members(channel))

    def send(self, command: NodeCommand) -> None:
        self.sent.append(command)

    # Calls of the inner backplane.

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        if self.keeps_history:
            self._log.setdefault((name, epoch), []).append(batch)
        if self.skipping:
            self.skipping -= 1
            return
        times = 2 if self.repeating else 1
        self.repeating -= times - 1
        self._delivered += [lambda: self._node.deliver(name, epoch, batch)] * times

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        self._delivered.append(lambda: self._node.presence_changed(name, change))

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None:
        """Not called: the inner backplane does not count members."""

    def local_members(self, name: bytes) -> list[Member]:
        members: list[Member] = self._node.local_members(name)
        return members

    def reset(self, name: bytes, state: ChannelState) -> None:
        self._node.reset(name, state)

    def run_command(self, command: NodeCommand) -> None:
        self._node.run_command(command)

    def _deliver_now(self) -> None:
        delivered, self._delivered = self._delivered, []
        for deliver in delivered:
            deliver()
