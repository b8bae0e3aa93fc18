"""Publications that wait for the disk.

While a transaction is being written, the publications of the next turns are gathered for the following one. So many are
written together when there are many.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

from twistedsock.backplanes.sqlite_keys import NewKey
from twistedsock.backplanes.sqlite_store import Addition, Store
from twistedsock.backplanes.sqlite_thread import Done, StoreWorker
from twistedsock.errors import Error, ErrorCode
from twistedsock.limits.settings import TIME_SLICE_SECONDS
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Batch, Position, cost
from twistedsock.stats import Histogram

MAX_GATHERED_BYTES = 8 * 1024 * 1024
"""Cost of the publications that wait for the disk. It is reached if the disk is slower than the publishers: then they
get an error. One transaction writes all of them."""

SYNC_SECONDS = 1.0
"""How often transactions are synced, if the store does not sync each one."""

COMMIT_SPANS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds. An SSD takes less than the fourth, a hard disk less than the seventh."""

DISK_TOO_SLOW = Error(ErrorCode.UNAVAILABLE, "disk too slow for the publications that wait: try again later")


class DiskChannel:
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


class Waiting:
    """A publication that waits for the disk."""

    __slots__ = ("answer", "batch", "channel", "key", "name")

    def __init__(self, name: bytes, channel: DiskChannel, batch: Batch, key: NewKey | None) -> None:
        self.name = name
        self.channel = channel
        self.batch = batch
        self.key = key
        self.answer = Future[int]()


class _Commit(NamedTuple):
    """``is_unsynced``: a loss of power can still undo it."""

    seconds: float
    is_unsynced: bool


class CommitUser(Protocol):
    """The backplane whose publications wait."""

    @property
    def is_ready(self) -> bool:
        """Whether the store can be used."""
        ...

    def settle(self, waiting: Waiting, error: Error | None) -> None:
        """Answer a publication, and deliver it if there is no error."""

    def fail(self, error: Exception) -> None:
        """The store has failed, and nothing that waits is known to be safe: call ``reject_all``."""

    def has_answered(self) -> None:
        """All publications have been answered."""


class Commits:
    """``schedule`` calls a function after a turn or after some seconds."""

    def __init__(
        self, user: CommitUser, worker: StoreWorker, schedule: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self.durations = Histogram(COMMIT_SPANS)
        """In seconds."""
        self._user = user
        self._worker = worker
        self._schedule = schedule
        self._gathered: list[Waiting] = []
        self._gathered_bytes = 0
        self._committing: list[Waiting] = []
        self._committing_bytes = 0
        self._is_committing = self._is_commit_scheduled = self._is_sync_scheduled = False
        # Publications that are being answered, with this error if there is one.
        self._settling: deque[Waiting] = deque()
        self._settling_error: Error | None = None
        # Results of the store that arrived meanwhile.
        self._arrived: deque[tuple[Done, Any]] = deque()

    @property
    def is_idle(self) -> bool:
        return not (self._is_committing or self._gathered or self._settling)

    @property
    def waiting_publications(self) -> int:
        """Publications that are gathered, or being committed."""
        return len(self._gathered) + len(self._committing)

    @property
    def waiting_bytes(self) -> int:
        return self._gathered_bytes + self._committing_bytes

    def submit(self, call: Callable[[Store], Any], done: Done) -> None:
        """Have the store do something. ``done`` is called when all publications of transactions before have been
        answered and delivered."""
        self._worker.submit(call, partial(self._arrive, done))

    def _arrive(self, done: Done, result: Any) -> None:
        if self._settling or self._arrived:
            self._arrived.append((done, result))
        else:
            done(result)

    def add(self, waiting: Waiting) -> bool:
        """Write a publication with the next transaction. Returns False if too many wait."""
        size = cost(waiting.batch)
        if self._gathered_bytes + size > MAX_GATHERED_BYTES and self._gathered:
            return False
        self._gathered.append(waiting)
        self._gathered_bytes += size
        if not (self._is_committing or self._is_commit_scheduled):
            self._is_commit_scheduled = True
            self._schedule(0, self._commit)  # after this turn, in which more may be published
        return True

    def _commit(self) -> None:
        self._is_commit_scheduled = False
        if self._is_committing or not self._gathered:
            return
        group, self._gathered = self._gathered, []
        self._committing, self._committing_bytes, self._gathered_bytes = group, self._gathered_bytes, 0
        self._is_committing = True

        def append(store: Store) -> _Commit:
            by_channel: dict[bytes, list[Waiting]] = {}
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

        self.submit(append, self._committed)

    def _committed(self, result: _Commit | Exception) -> None:
        self._is_committing = False
        group, self._committing, self._committing_bytes = self._committing, [], 0
        if isinstance(result, Exception):
            self._gathered[:0] = group
            self._user.fail(result)
            return
        self.durations.observe(result.seconds)
        if result.is_unsynced and not self._is_sync_scheduled:
            self._is_sync_scheduled = True
            self._schedule(SYNC_SECONDS, self._sync)
        self._settle(group, None)

    def reject_all(self, error: Error) -> None:
        """Answer publications that were gathered, or whose transaction has failed, with an error."""
        failed, self._gathered, self._gathered_bytes = self._gathered, [], 0
        self._settle(failed, error)

    def _settle(self, group: list[Waiting], error: Error | None) -> None:
        """Answer publications, and deliver them if there is no error. Those before have been answered."""
        self._settling = deque(group)
        self._settling_error = error
        self._settle_slice()

    def _settle_slice(self) -> None:
        """Continue after this turn if there are many, so that other clients need not wait."""
        end = monotonic() + TIME_SLICE_SECONDS
        try:
            while self._settling:
                self._user.settle(self._settling.popleft(), self._settling_error)
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
        if self.is_idle:
            self._user.has_answered()

    def _sync(self) -> None:
        """Make the transactions of the last second durable."""

        def sync(store: Store) -> bool:
            store.sync()
            return store.is_unsynced

        if self._user.is_ready:
            self.submit(sync, self._synced)
        else:
            self._is_sync_scheduled = False

    def _synced(self, result: bool | Exception) -> None:
        self._is_sync_scheduled = False
        if isinstance(result, Exception):
            self._user.fail(result)
        elif result:
            self._is_sync_scheduled = True
            self._schedule(SYNC_SECONDS, self._sync)
