"""An answer that may take a while, without a reactor.

A backplane answers with a value when it knows it at once, and with a ``Later`` when it does not. So the memory
backplane pays nothing for the patience that a distant one needs.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from twistedsock.errors import Error

T = TypeVar("T")

U = TypeVar("U")


class Future(Generic[T]):
    """A value, or a refusal, that comes once and is told to whoever asked for it."""

    __slots__ = ("_listeners", "_outcome")

    def __init__(self) -> None:
        self._outcome: T | Error | None = None
        self._listeners: list[Callable[[T | Error], None]] = []

    def settle(self, outcome: T | Error) -> None:
        """Tell the outcome to all listeners. A second outcome is a bug of the caller: RuntimeError."""
        if self._outcome is not None:
            raise RuntimeError("this answer has been given already")
        self._outcome = outcome
        for listener in self._listeners:
            listener(outcome)
        self._listeners.clear()

    def then(self, listener: Callable[[T | Error], None]) -> None:
        """Call ``listener`` with the outcome: now if it is there, else when it comes."""
        if self._outcome is None:
            self._listeners.append(listener)
        else:
            listener(self._outcome)


def map_result(answer: T | Error | Future[T], step: Callable[[T], U | Error | Future[U]]) -> U | Error | Future[U]:
    """What ``step`` makes of an answer, now or later; a refusal stays what it is."""
    if isinstance(answer, Error):
        return answer
    if not isinstance(answer, Future):
        return step(answer)
    following = Future[U]()

    def go_on(outcome: T | Error) -> None:
        on_result(outcome if isinstance(outcome, Error) else step(outcome), following.settle)

    answer.then(go_on)
    return following


def on_result(answer: T | Error | Future[T], listener: Callable[[T | Error], None]) -> None:
    """Call ``listener`` with an answer that is there already or comes later."""
    if isinstance(answer, Future):
        answer.then(listener)
    else:
        listener(answer)
