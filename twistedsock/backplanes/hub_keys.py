"""The keys of publications that the hub remembers, so that a repeated publication gets the offset of the first one."""

from collections import OrderedDict
from collections.abc import Callable

from twistedsock.errors import Error
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.future import Future, on_result

KEY_SECONDS = 600.0
"""How long the key of a publication is remembered, as in ``session.request.Idempotency``."""

MAX_KEYS = 50_000
"""Keys that are remembered, about 300 bytes each. The oldest one of the client that has most is forgotten first."""

Key = tuple[bytes, bytes]
"""A channel, and the key of a publication."""


class PublicationKeys:
    """``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys: OrderedDict[Key, tuple[float, bytes, Future[int]]] = OrderedDict()
        self._queue = EvictionQueue[Key](MAX_KEYS)

    def find(self, key: Key) -> Future[int] | None:
        """The answer to a former publication with this key, which may not have arrived yet."""
        oldest = self._clock() - KEY_SECONDS
        while self._keys:
            first, (at, _, _) = next(iter(self._keys.items()))
            if at > oldest:
                break
            self._forget(first)
        known = self._keys.get(key)
        return None if known is None else known[2]

    def remember(self, key: Key, principal: bytes, answer: int | Error | Future[int]) -> Future[int]:
        """Remember the answer to a publication of a client with this principal. An error is not remembered, because the
        next attempt can succeed."""
        remembered = Future[int]()
        self._keys[key] = (self._clock(), principal, remembered)
        self._queue.add(principal, key)
        while self._queue.is_full:
            self._forget(self._queue.next_victim())

        def settle(outcome: int | Error) -> None:
            if isinstance(outcome, Error) and self._keys.get(key, (0, b"", None))[2] is remembered:
                self._forget(key)
            remembered.settle(outcome)

        on_result(answer, settle)
        return remembered

    def _forget(self, key: Key) -> None:
        self._queue.remove(self._keys.pop(key)[1], key)
