"""A result that may arrive later, without a reactor.

A backplane returns a value if it has it, and a ``Future`` if it has to wait for it. So the memory backplane pays
nothing for the delays of a distant one.
"""

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from twistedsock.errors import Error

T = TypeVar("T")

U = TypeVar("U")


class Future(Generic[T]):
    """A value or an error that is set once."""

    __slots__ = ("_callbacks", "_outcome")

    def __init__(self) -> None:
        self._outcome: T | Error | None = None
        self._callbacks: list[Callable[[T | Error], None]] = []

    @property
    def outcome(self) -> T | Error | None:
        """The value or the error, None if it is not there yet."""
        return self._outcome

    def settle(self, outcome: T | Error) -> None:
        """Set the outcome, and call all callbacks with it. Raises RuntimeError if there is an outcome already."""
        if self._outcome is not None:
            raise RuntimeError("this future has been settled already")
        self._outcome = outcome
        for callback in self._callbacks:
            callback(outcome)
        self._callbacks.clear()

    def then(self, callback: Callable[[T | Error], None]) -> None:
        """Call ``callback`` with the outcome: now if there is one, else when it is set."""
        if self._outcome is None:
            self._callbacks.append(callback)
        else:
            callback(self._outcome)


def map_result(answer: T | Error | Future[T], step: Callable[[T], U | Error | Future[U]]) -> U | Error | Future[U]:
    """The result of ``step`` for a value that is here or arrives later. An error is returned as it is."""
    if isinstance(answer, Error):
        return answer
    if not isinstance(answer, Future):
        return step(answer)
    following = Future[U]()

    def settle(outcome: T | Error) -> None:
        on_result(outcome if isinstance(outcome, Error) else step(outcome), following.settle)

    answer.then(settle)
    return following


def on_result(answer: T | Error | Future[T], callback: Callable[[T | Error], None]) -> None:
    """Call ``callback`` with a value or an error that is here or arrives later."""
    if isinstance(answer, Future):
        answer.then(callback)
    else:
        callback(answer)


Steps = Generator["Future[Any]", None, T]
"""Work that waits now and then: it yields a future, and may continue when that is settled. Its result is returned."""


def wait_for(answer: T | Error | Future[T]) -> Steps[T | Error]:
    """The outcome of an answer, for other steps: ``outcome = yield from wait_for(answer)``. The caller that runs them
    must continue when the future is settled; if that happens earlier, it is yielded again."""
    if not isinstance(answer, Future):
        return answer
    while answer.outcome is None:
        yield answer
    return answer.outcome


def complete(steps: Steps[T | Error]) -> T | Error | Future[T]:
    """Run steps to their end, now or whenever they can continue."""
    try:
        awaited = next(steps)
    except StopIteration as end:
        outcome: T | Error = end.value
        return outcome
    running = _Running(steps)
    awaited.then(running.proceed)
    return running.result


class _Running(Generic[T]):
    """Steps that wait. A class, because a function that refers to itself would keep them until a garbage
    collection."""

    __slots__ = ("_steps", "result")

    def __init__(self, steps: Steps[T | Error]) -> None:
        self._steps = steps
        self.result = Future[T]()

    def proceed(self, outcome: object) -> None:
        try:
            awaited = next(self._steps)
        except StopIteration as end:
            self.result.settle(end.value)
        else:
            awaited.then(self.proceed)
