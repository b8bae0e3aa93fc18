"""The backplane that keeps events in a directory, so that they survive the end of the process and of the machine.

A publication is answered, and delivered, when it is safe on the disk. The transactions run in a thread of their own:
while one is being written, the publications of the next turns are gathered for the following one. So many are written
together when there are many, and the reactor never waits for the disk.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from twistedsock.backplanes.sqlite_keys import NewKey, StoredKey
from twistedsock.backplanes.sqlite_store import Addition, Room, Store, StoredChannel
from twistedsock.backplanes.sqlite_trim import AgeLimit
from twistedsock.errors import KEY_REUSED, UNAVAILABLE, Error, ErrorCode
from twistedsock.limits.settings import TIME_SLICE_SECONDS, Limits
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
    cost,
)
from twistedsock.stats import Histogram

T = TypeVar("T")

MAX_GATHERED_BYTES = 8 * 1024 * 1024
"""Cost of the publications that wait for the disk. It is reached if the disk is slower than the publishers: then they
get an error. One transaction writes all of them."""

RETRY_SECONDS = 2.0
"""Pause before the store is opened again after an error of the disk."""

SYNC_SECONDS = 1.0
"""How often transactions are synced, if the store does not sync each one."""

TRIM_SECONDS = 60.0
"""How often events that are too old are deleted from the disk, and the room that the rest takes is measured."""

KEY_LIFETIME_SECONDS = 600.0
"""How long the key of a publication is remembered, as in ``session.request.Idempotency``."""

COMMIT_SPANS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds. An SSD takes less than the fourth, a hard disk less than the seventh."""

DISK_TOO_SLOW = Error(ErrorCode.UNAVAILABLE, "disk too slow for the publications that wait: try again later")

Done = Callable[[Any], None]
"""Is called in the thread of the reactor with the result, or with the exception."""


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


class StoreWorker(Protocol):
    """Calls functions with the store, one after the other, and reports their results in the same order."""

    def start(self) -> None:
        """Open the store. Raises StoreError if that is not possible."""

    def submit(self, call: Callable[[Store], Any], done: Done) -> None: ...

    def stop(self, done: Done) -> None:
        """Close the store when everything before is done."""


class StoreThread:
    """A thread for one store. ``call_in_reactor`` calls a function in the thread of the reactor."""

    def __init__(self, store: Store, call_in_reactor: Callable[..., object]) -> None:
        self._store = store
        self._call_in_reactor = call_in_reactor
        self._calls: SimpleQueue[tuple[Callable[[Store], Any], Done]] = SimpleQueue()
        self._opened: SimpleQueue[Exception | None] = SimpleQueue()
        self._is_open = True

    def start(self) -> None:
        Thread(target=self._run, name="store", daemon=True).start()
        error = self._opened.get()
        if error is not None:
            raise error

    def submit(self, call: Callable[[Store], Any], done: Done) -> None:
        self._calls.put((call, done))

    def stop(self, done: Done) -> None:
        def close(store: Store) -> None:
            self._is_open = False
            store.close()

        self.submit(close, done)

    def _run(self) -> None:
        try:
            self._store.open()
        except Exception as error:
            self._opened.put(error)
            return
        self._opened.put(None)
        while self._is_open:
            call, done = self._calls.get()
            result: Any
            try:
                result = call(self._store)
            except Exception as error:
                result = error
            self._call_in_reactor(done, result)


class _Channel:
    """A channel that the node has open, or that waits for the disk. ``head`` and ``time`` include the publications that
    wait."""

    __slots__ = ("epoch", "head", "is_open", "time", "waiting")

    def __init__(self, position: Position, time: int) -> None:
        self.epoch = position.epoch
        self.head = position.offset
        self.time = time
        self.is_open = False
        self.waiting = 0
        """Publications that are not committed yet."""


class _Waiting:
    """A publication that waits for the disk."""

    __slots__ = ("answer", "batch", "channel", "key", "name")

    def __init__(self, name: bytes, channel: _Channel, batch: Batch, key: NewKey | None) -> None:
        self.name = name
        self.channel = channel
        self.batch = batch
        self.key = key
        self.answer = Future[int]()


class _Commit(NamedTuple):
    """``is_unsynced``: a loss of power can still undo it."""

    seconds: float
    is_unsynced: bool


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
        self._channels: dict[bytes, _Channel] = {}
        # Those that the node has open, also while the store is being opened again.
        self._open: dict[bytes, None] = {}
        # Requests for channels that are being read from the disk.
        self._loading: dict[bytes, list[Callable[[StoredChannel | Error], None]]] = {}
        # Answers to publications before the store was opened, by channel and key. None while they are being read. Those
        # of this node are remembered by ``session.request.Idempotency``.
        self._keys: dict[bytes, StoredKey] | None = None
        self._gathered: list[_Waiting] = []
        self._gathered_bytes = 0
        self._committing: list[_Waiting] = []
        self._committing_bytes = 0
        self._is_committing = self._is_commit_scheduled = self._is_sync_scheduled = False
        # Publications that are being answered, with this error if there is one.
        self._settling: deque[_Waiting] = deque()
        self._settling_error: Error | None = None
        # Results of the store that arrived meanwhile.
        self._arrived: deque[tuple[Done, Any]] = deque()
        self._commits = Histogram(COMMIT_SPANS)
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
                self._fail(outcome, [])
            else:
                self._keys = outcome

        self._keys = None
        oldest = self._oldest_key()
        self._submit(lambda store: store.read_keys(oldest), read)

    def _oldest_key(self) -> int:
        return int((self._wall_clock() - KEY_LIFETIME_SECONDS) * 1000)

    def stop(self) -> Future[bool]:
        """The future is settled when all publications have been written and answered."""
        stopping = self._stopping = Future[bool]()
        self._stop_if_idle()
        return stopping

    def _stop_if_idle(self) -> None:
        stopping = self._stopping
        if stopping is not None and not (self._is_committing or self._gathered or self._settling):
            self._stopping = None
            self.is_ready = False
            self._worker.stop(lambda result: stopping.settle(True))

    def _submit(self, call: Callable[[Store], Any], done: Done) -> None:
        """Have the store do something. ``done`` is called when all publications of transactions before have been
        answered and delivered."""
        self._worker.submit(call, partial(self._arrive, done))

    def _arrive(self, done: Done, result: Any) -> None:
        if self._settling or self._arrived:
            self._arrived.append((done, result))
        else:
            done(result)

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

    def _gather(self, channel: _Channel, publisher: Client, publication: Publication) -> int | Error | Future[int]:
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
        size = cost(batch)
        if self._gathered_bytes + size > MAX_GATHERED_BYTES and self._gathered:
            return DISK_TOO_SLOW
        waiting = _Waiting(publication.channel, channel, batch, key)
        channel.head = end - 1
        channel.waiting += 1
        self._gathered.append(waiting)
        self._gathered_bytes += size
        if not (self._is_committing or self._is_commit_scheduled):
            self._is_commit_scheduled = True
            self._schedule(0, self._commit)  # after this turn, in which more may be published
        return waiting.answer

    def _commit(self) -> None:
        self._is_commit_scheduled = False
        if self._is_committing or not self._gathered:
            return
        group, self._gathered = self._gathered, []
        self._committing, self._committing_bytes, self._gathered_bytes = group, self._gathered_bytes, 0
        self._is_committing = True

        def append(store: Store) -> _Commit:
            by_channel: dict[bytes, list[_Waiting]] = {}
            for waiting in group:
                by_channel.setdefault(waiting.name, []).append(waiting)
            started = monotonic()
            store.append(
                [
                    Addition(
                        name,
                        waiting[0].channel.epoch,
                        [each.batch for each in waiting],
                        [each.key for each in waiting if each.key is not None],
                    )
                    for name, waiting in by_channel.items()
                ]
            )
            return _Commit(monotonic() - started, store.is_unsynced)

        self._submit(append, self._committed)

    def _committed(self, result: _Commit | Exception) -> None:
        self._is_committing = False
        group, self._committing, self._committing_bytes = self._committing, [], 0
        if isinstance(result, Exception):
            self._fail(result, group)
            return
        self._commits.observe(result.seconds)
        if result.is_unsynced and not self._is_sync_scheduled:
            self._is_sync_scheduled = True
            self._schedule(SYNC_SECONDS, self._sync)
        self._settle(group, None)

    def _settle(self, group: list[_Waiting], error: Error | None) -> None:
        """Answer publications, and deliver them if there is no error. Those before have been answered."""
        self._settling = deque(group)
        self._settling_error = error
        self._settle_slice()

    def _settle_slice(self) -> None:
        """Continue after this turn if there are many, so that other clients need not wait."""
        end = monotonic() + TIME_SLICE_SECONDS
        try:
            while self._settling:
                self._settle_one(self._settling.popleft(), self._settling_error)
                if monotonic() >= end:
                    break
        finally:  # the rest is answered also if an observer has an error
            if self._settling:
                self._schedule(0, self._settle_slice)
        if self._settling:
            return
        while self._arrived and not self._settling:
            done, result = self._arrived.popleft()
            done(result)
        self._commit()
        self._stop_if_idle()

    def _settle_one(self, waiting: _Waiting, error: Error | None) -> None:
        channel = waiting.channel
        channel.waiting -= 1
        if error is None and channel.is_open:
            self._node.deliver(waiting.name, channel.epoch, waiting.batch)
        waiting.answer.settle(waiting.batch.first if error is None else error)
        self._forget_if_unused(waiting.name)

    def _sync(self) -> None:
        """Make the transactions of the last second durable."""

        def sync(store: Store) -> bool:
            store.sync()
            return store.is_unsynced

        if self.is_ready:
            self._submit(sync, self._synced)
        else:
            self._is_sync_scheduled = False

    def _synced(self, result: bool | Exception) -> None:
        self._is_sync_scheduled = False
        if isinstance(result, Exception):
            self._fail(result, [])
        elif result:
            self._is_sync_scheduled = True
            self._schedule(SYNC_SECONDS, self._sync)

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
        self._submit(
            lambda store: store.read_channel(channel, limits.history_events, limits.history_bytes, oldest),
            partial(self._loaded, channel),
        )

    def _loaded(self, channel: bytes, outcome: StoredChannel | Exception) -> None:
        result: StoredChannel | Error = UNAVAILABLE
        if isinstance(outcome, Exception):
            self._fail(outcome, [])
        elif self.is_ready or self._stopping is not None:
            result = outcome
            if channel not in self._channels:
                newest = outcome.tail[-1].time if outcome.tail else outcome.time
                self._channels[channel] = _Channel(outcome.position, newest)
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
                self._fail(outcome, [])
                answer.settle(UNAVAILABLE)
            else:
                answer.settle(outcome)

        self._submit(call, done)
        return answer

    # Faults of the disk.

    def _fail(self, exception: Exception, group: list[_Waiting]) -> None:
        """Nothing that waits is known to be safe. Answer with errors until the store works again."""
        if self.is_ready:
            self.is_ready = False
            self._report(exception)
            self._schedule(RETRY_SECONDS, partial(self._reopen, exception))
        failed, self._gathered, self._gathered_bytes = [*group, *self._gathered], [], 0
        self._settle(failed, UNAVAILABLE)

    def _reopen(self, after: Exception) -> None:
        self._submit(lambda store: store.reopen(after), self._reopened)

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
                    self._fail(result, [])
                elif result:
                    self.trim(max_age, max_bytes, ages)
                else:
                    self._measure()

            self._submit(lambda store: store.trim(oldest, max_bytes, new_epoch, limits, oldest_key), trimmed)

    def _measure(self) -> None:
        if self.is_ready:
            self._submit(lambda store: store.room(), self._measured)

    def _measured(self, result: Room | Exception) -> None:
        if isinstance(result, Exception):
            self._fail(result, [])
        else:
            self._room = result

    def statistics(self) -> StateStatistics:
        """Only reads what is known: it does not wait for the disk."""
        room = self._room
        return StateStatistics(
            self.is_ready,
            self._commits,
            len(self._gathered) + len(self._committing),
            self._gathered_bytes + self._committing_bytes,
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
