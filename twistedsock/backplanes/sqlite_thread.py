"""The thread of a store: it waits for the disk, so that the reactor need not."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from twistedsock.backplanes.sqlite_store import Store

Done = Callable[[Any], None]
"""Is called in the thread of the reactor with the result, or with the exception."""


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
