"""The backplane that keeps events in a directory, so that they survive the end of the process and of the machine.

A publication is answered, and delivered, when it is safe on the disk. The transactions run in a thread of their own, so
the reactor never waits for the disk.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from twistedsock.backplanes.sqlite_commits import DISK_TOO_SLOW, Commits, DiskChannel, Waiting
from twistedsock.backplanes.sqlite_keys import NewKey, StoredKey
from twistedsock.backplanes.sqlite_store import Room, Store, StoredChannel
from twistedsock.backplanes.sqlite_thread import StoreWorker
from twistedsock.backplanes.sqlite_trim import AgeLimit
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Node
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.names import Pattern
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
from twistedsock.stats import Histogram

T = TypeVar("T")

RETRY_SECONDS = 2.0
"""Pause before the store is opened again after an error of the disk."""

TRIM_SECONDS = 60.0
"""How often events that are too old are deleted from the disk, and the room that the rest takes is measured."""

KEY_LIFETIME_SECONDS = 600.0
"""How long the key of a publication is remembered, as in ``session.idempotency.Idempotency``."""


class StateStatistics(msgspec.Struct):
    """The state of the store for metrics. Bytes and the oldest event are those of the last measurement."""

    is_ready: bool
    commits: Histogram
    """Durations of the commits, in seconds."""
    waiting_publications: int
    """Publications that are gathered, or being committed."""
    waiting_bytes: int
    file_bytes: int
    used_bytes: int
    oldest_seconds: float
    """Age of the oldest event, 0 without events."""


class SQLiteBackplane:
    """``draw_epoch`` returns a random name, ``wall_clock`` the seconds since 1970. ``schedule`` calls a function after
    a turn or after some seconds. ``report`` is called with an exception of the store, and with None when it works
    again."""

    node_name = b""
    keeps_history = True

    def __init__(
        self,
        worker: StoreWorker,
        draw_epoch: Callable[[], bytes],
        limits: Limits,
        wall_clock: Callable[[], float],
        schedule: Callable[[float, Callable[[], None]], object],
        report: Callable[[Exception | None], object],
    ) -> None:
        self.is_ready = False
        self._worker = worker
        self._draw_epoch = draw_epoch
        self._limits = limits
        self._wall_clock = wall_clock
        self._schedule = schedule
        self._report = report
        self._commits = Commits(self, worker, schedule)
        self._channels: dict[bytes, DiskChannel] = {}
        # Those that the node has open, also while the store is being opened again.
        self._open: dict[bytes, None] = {}
        # Requests for channels that are being read from the disk.
        self._loading: dict[bytes, list[Callable[[StoredChannel | Error], None]]] = {}
        # Answers to publications before the store was opened, by channel and key. None while they are being read. Those
        # of this node are remembered by ``session.idempotency.Idempotency``.
        self._keys: dict[bytes, StoredKey] | None = None
        self._room = Room(0, 0, None)
        self._stopping: Future[bool] | None = None
        self._node: Node

    def start(self, node: Node) -> None:
        """Open the store. Raises StoreError if that is not possible."""
        self._node = node
        self._worker.start()
        self.is_ready = True
        self._read_keys()
        self._measure()

    def _read_keys(self) -> None:
        def read(outcome: dict[bytes, StoredKey] | Exception) -> None:
            if isinstance(outcome, Exception):
                self.fail(outcome)
            else:
                self._keys = outcome

        self._keys = None
        oldest = self._oldest_key()
        self._commits.submit(lambda store: store.read_keys(oldest), read)

    def _oldest_key(self) -> int:
        return int((self._wall_clock() - KEY_LIFETIME_SECONDS) * 1000)

    def stop(self) -> Future[bool]:
        """The future is settled when all publications have been written and answered."""
        stopping = self._stopping = Future[bool]()
        if self._commits.is_idle:
            self.has_answered()
        return stopping

    def has_answered(self) -> None:
        """Stop if that is due, because no publication waits."""
        stopping = self._stopping
        if stopping is not None:
            self._stopping = None
            self.is_ready = False
            self._worker.stop(lambda result: stopping.settle(True))

    # Publications.

    def publish(self, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        if not self.is_ready:
            return UNAVAILABLE
        channel = self._channels.get(publication.channel)
        has_keys = self._keys is not None or not publication.key
        if channel is not None and has_keys:
            return self._gather(channel, publisher.snapshot(), publication)
        answer, sender = Future[int](), publisher.snapshot()

        def loaded(outcome: StoredChannel | Error) -> None:
            if isinstance(outcome, Error):
                answer.settle(outcome)
            else:
                on_result(self._gather(self._channels[publication.channel], sender, publication), answer.settle)

        self._load(publication.channel, loaded)  # the keys are read before
        return answer

    def _gather(self, channel: DiskChannel, publisher: Client, publication: Publication) -> int | Error | Future[int]:
        payloads, key = publication.payloads, None
        if publication.key:
            key = NewKey(publication.channel + b"\0" + publication.key, channel.head + 1, publication.fingerprint)
            known = (self._keys or {}).get(key.key)
            if known is not None and known.epoch == channel.epoch and known.time >= self._oldest_key():
                return RepeatedOffset(known.first) if known.fingerprint == key.fingerprint else KEY_REUSED
        channel.time = max(channel.time, int(self._wall_clock() * 1000))
        first = channel.head + 1
        end = first + len(payloads.items)
        batch = Batch(first, end, publisher.id, publisher.nick, publication.name, payloads, channel.time)
        waiting = Waiting(publication.channel, channel, batch, key)
        if not self._commits.add(waiting):
            return DISK_TOO_SLOW
        channel.head = end - 1
        channel.waiting += 1
        return waiting.answer

    def settle(self, waiting: Waiting, error: Error | None) -> None:
        """Answer a publication, and deliver it if there is no error."""
        channel = waiting.channel
        channel.waiting -= 1
        if error is None and channel.is_open:
            self._node.deliver(waiting.name, channel.epoch, waiting.batch)
        waiting.answer.settle(waiting.batch.first if error is None else error)
        self._forget_if_unused(waiting.name)

    # Channels.

    def open(self, channel: bytes) -> Error | Future[ChannelState]:
        if not self.is_ready:
            return UNAVAILABLE
        answer = Future[ChannelState]()

        def loaded(outcome: StoredChannel | Error) -> None:
            if isinstance(outcome, Error):
                answer.settle(outcome)
                return
            self._open[channel] = None
            self._channels[channel].is_open = True
            answer.settle(ChannelState(outcome.position, outcome.tail, outcome.time))

        self._load(channel, loaded)
        return answer

    def _load(self, channel: bytes, loaded: Callable[[StoredChannel | Error], None]) -> None:
        """Read the position and the newest events of a channel. Waiting batches are delivered afterwards."""
        if channel in self._loading:
            self._loading[channel].append(loaded)
            return
        self._loading[channel] = [loaded]
        limits = self._limits
        oldest = int((self._wall_clock() - limits.history_age) * 1000)
        self._commits.submit(
            lambda store: store.read_channel(channel, limits.history_events, limits.history_bytes, oldest),
            partial(self._loaded, channel),
        )

    def _loaded(self, channel: bytes, outcome: StoredChannel | Exception) -> None:
        result: StoredChannel | Error = UNAVAILABLE
        if isinstance(outcome, Exception):
            self.fail(outcome)
        elif self.is_ready or self._stopping is not None:
            result = outcome
            if channel not in self._channels:
                newest = outcome.tail[-1].time if outcome.tail else outcome.time
                self._channels[channel] = DiskChannel(outcome.position, newest)
        for loaded in self._loading.pop(channel, ()):
            loaded(result)
        self._forget_if_unused(channel)

    def close(self, channel: bytes) -> None:
        self._open.pop(channel, None)
        known = self._channels.get(channel)
        if known is not None:
            known.is_open = False
            self._forget_if_unused(channel)

    def _forget_if_unused(self, channel: bytes) -> None:
        known = self._channels.get(channel)
        if known is not None and not (known.is_open or known.waiting or channel in self._loading):
            del self._channels[channel]

    def read(self, channel: bytes, after: Position, limit: int) -> Error | Future[Sequence[Batch]]:
        return self._ask(lambda store: store.read(channel, after, limit))

    def offset_before(self, channel: bytes, epoch: bytes, time: int) -> Error | Future[int]:
        return self._ask(lambda store: store.offset_before(channel, epoch, time))

    def _ask(self, call: Callable[[Store], T]) -> Error | Future[T]:
        if not self.is_ready:
            return UNAVAILABLE
        answer = Future[T]()

        def done(outcome: T | Exception) -> None:
            if isinstance(outcome, Exception):
                self.fail(outcome)
                answer.settle(UNAVAILABLE)
            else:
                answer.settle(outcome)

        self._commits.submit(call, done)
        return answer

    # Faults of the disk.

    def fail(self, error: Exception) -> None:
        """Nothing that waits is known to be safe. Answer with errors until the store works again."""
        if self.is_ready:
            self.is_ready = False
            self._report(error)
            self._schedule(RETRY_SECONDS, partial(self._reopen, error))
        self._commits.reject_all(UNAVAILABLE)

    def _reopen(self, after: Exception) -> None:
        self._commits.submit(lambda store: store.reopen(after), self._reopened)

    def _reopened(self, result: Exception | None) -> None:
        if isinstance(result, Exception):
            self._schedule(RETRY_SECONDS, partial(self._reopen, result))
            return
        self.is_ready = True
        self._report(None)
        # The store is the truth: a transaction that failed may have been written.
        self._channels.clear()
        self._read_keys()
        for name in list(self._open):
            self._load(name, partial(self._reloaded, name))

    def _reloaded(self, name: bytes, outcome: StoredChannel | Error) -> None:
        if not isinstance(outcome, Error) and name in self._open:
            self._channels[name].is_open = True
            self._node.reset(name, ChannelState(outcome.position, outcome.tail, outcome.time))

    # Room on the disk.

    def trim(self, max_age: float, max_bytes: int, ages: Sequence[tuple[Pattern, float]] = ()) -> None:
        """Delete events that are too old, or too many, and channels that have had no event for so long, in steps. The
        first of ``ages`` that matches a channel counts instead of ``max_age``. Call this every ``TRIM_SECONDS``."""
        if self.is_ready:
            new_epoch = self._draw_epoch()
            now = self._wall_clock()
            oldest, oldest_key = int((now - max_age) * 1000), self._oldest_key()
            if self._keys and all(known.time < oldest_key for known in self._keys.values()):
                self._keys = {}
            limits = [AgeLimit(pattern, int((now - age) * 1000)) for pattern, age in ages]

            def trimmed(result: bool | Exception) -> None:
                if isinstance(result, Exception):
                    self.fail(result)
                elif result:
                    self.trim(max_age, max_bytes, ages)
                else:
                    self._measure()

            self._commits.submit(lambda store: store.trim(oldest, max_bytes, new_epoch, limits, oldest_key), trimmed)

    def _measure(self) -> None:
        if self.is_ready:
            self._commits.submit(lambda store: store.room(), self._measured)

    def _measured(self, result: Room | Exception) -> None:
        if isinstance(result, Exception):
            self.fail(result)
        else:
            self._room = result

    def statistics(self) -> StateStatistics:
        """Only reads what is known: it does not wait for the disk."""
        room = self._room
        return StateStatistics(
            self.is_ready,
            self._commits.durations,
            self._commits.waiting_publications,
            self._commits.waiting_bytes,
            room.file_bytes,
            room.used_bytes,
            0.0 if room.oldest is None else max(0.0, self._wall_clock() - room.oldest / 1000),
        )

    # Presence, of which the node knows everything.

    def join(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=True))

    def rename(self, channel: bytes, member: Member) -> None:
        """Does nothing: ``members`` asks the node."""

    def leave(self, channel: bytes, member: Member) -> None:
        self._node.presence_changed(channel, PresenceChange(member, joined=False))

    def members(self, channel: bytes) -> list[Member]:
        return self._node.local_members(channel)

    def send(self, command: NodeCommand) -> None:
        """Nothing to do: there are no other nodes."""
