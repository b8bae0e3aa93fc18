"""The keys of publications that the hub remembers, so that a repeated publication gets the offset of the first one."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from twistedsock.errors import KEY_REUSED, Error
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.future import Future, map_result, on_result
from twistedsock.pubsub.values import RepeatedOffset

KEY_SECONDS = 600.0
"""How long the key of a publication is remembered, as in ``session.idempotency.Idempotency``."""

MAX_KEYS = 50_000
"""Keys that are remembered, about 300 bytes each. The oldest one of the client that has most is forgotten first."""

Key = tuple[bytes, bytes]
"""A channel, and the key of a publication."""


class _Use(NamedTuple):
    """The first publication with a key, of a client with this principal, and its answer."""

    time: float
    principal: bytes
    fingerprint: bytes
    answer: Future[int]


class PublicationKeys:
    """``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys: OrderedDict[Key, _Use] = OrderedDict()
        self._queue = EvictionQueue[Key](MAX_KEYS)

    def find(self, key: Key, fingerprint: bytes) -> int | Error | Future[int] | None:
        """The answer to a repeated publication, None if it is the first with this key. That of the first may not have
        arrived yet."""
        oldest = self._clock() - KEY_SECONDS
        while self._keys:
            first, use = next(iter(self._keys.items()))
            if use.time > oldest:
                break
            self._forget(first)
        known = self._keys.get(key)
        if known is None:
            return None
        return map_result(known.answer, _repeated) if known.fingerprint == fingerprint else KEY_REUSED

    def remember(
        self, key: Key, principal: bytes, fingerprint: bytes, answer: int | Error | Future[int]
    ) -> Future[int]:
        """Remember the answer to a publication of a client with this principal. An error is not remembered, because the
        next attempt can succeed."""
        remembered = Future[int]()
        use = self._keys[key] = _Use(self._clock(), principal, fingerprint, remembered)
        self._queue.add(principal, key)
        while self._queue.is_full:
            self._forget(self._queue.next_victim())

        def settle(outcome: int | Error) -> None:
            if isinstance(outcome, Error) and self._keys.get(key) is use:
                self._forget(key)
            remembered.settle(outcome)

        on_result(answer, settle)
        return remembered

    def _forget(self, key: Key) -> None:
        self._queue.remove(self._keys.pop(key).principal, key)


def _repeated(offset: int) -> int:
    return RepeatedOffset(offset)
