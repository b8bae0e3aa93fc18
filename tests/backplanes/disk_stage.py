"""A SQLite backplane on a directory, whose store does one thing after the other when a test lets it."""

import sqlite3
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Self

from tests.backplanes.contract import Stage
from twistedsock.backplanes.sqlite import SQLiteBackplane, StateStatistics
from twistedsock.backplanes.sqlite_store import Store
from twistedsock.limits.settings import Limits

StartDiskStage = Callable[..., "DiskStage"]

Call = tuple[Callable[[Store], Any], Callable[[Any], None]]


class ManualWorker:
    """Calls the store when ``step`` is called. The next ``failing`` calls raise instead."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: deque[Call] = deque()
        self.failing = 0

    def start(self) -> None:
        self.store.open()

    def submit(self, call: Callable[[Store], Any], done: Callable[[Any], None]) -> None:
        self.calls.append((call, done))

    def stop(self, done: Callable[[Any], None]) -> None:
        self.submit(Store.close, done)

    def step(self) -> None:
        call, done = self.calls.popleft()
        result: Any
        try:
            if self.failing:
                self.failing -= 1
                raise sqlite3.OperationalError("disk I/O error")
            result = call(self.store)
        except Exception as error:
            result = error
        done(result)


class DiskStage(Stage):
    """A backplane on the files of a directory. ``now`` is the wall clock. Names of epochs begin with ``epochs``.
    ``run`` names the run of the system. As a context manager, it closes the files at the end, whatever still waits."""

    def __init__(
        self, directory: Path, epochs: bytes = b"e", syncs_later: bool = False, run: bytes = b"run", **limits: Any
    ) -> None:
        self.now = 1_000.0
        self.reports: list[str] = []
        self.damage: list[str] = []
        self.scheduled: list[tuple[float, Callable[[], None]]] = []
        self._epochs = (epochs + b"%d" % number for number in count(1))
        store = Store(directory, self.draw_epoch, self.damage.append, syncs_later, lambda: run)
        self.worker = ManualWorker(store)
        super().__init__(
            SQLiteBackplane(
                self.worker,
                self.draw_epoch,
                Limits(**limits),
                lambda: self.now,
                lambda delay, call: self.scheduled.append((delay, call)),
                lambda error: self.reports.append(str(error)),
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.worker.store.close()

    @property
    def statistics(self) -> StateStatistics:
        assert isinstance(self.backplane, SQLiteBackplane)
        return self.backplane.statistics()

    def draw_epoch(self) -> bytes:
        return next(self._epochs)

    def end_turn(self) -> None:
        due = [entry for entry in self.scheduled if not entry[0]]
        self.scheduled = [entry for entry in self.scheduled if entry[0]]
        for _, call in due:
            call()

    def pass_time(self) -> None:
        """Let everything run that is scheduled."""
        scheduled, self.scheduled = self.scheduled, []
        for _, call in scheduled:
            call()
        self.settle()

    def step(self) -> bool:
        self.end_turn()
        if self.worker.calls:
            self.worker.step()
        return bool(self.worker.calls) or any(not delay for delay, _ in self.scheduled)

    def fail_next(self) -> None:
        self.worker.failing = 1

    def stop(self) -> None:
        self.backplane.stop()
        self.settle()
