"""What was published under a key that the client has chosen: who asks again, because the answer got lost, is told what
the first time was told, and nothing is published twice."""

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from twistedsock.core.errors import Code, Refusal
from twistedsock.core.later import Later, when_known
from twistedsock.core.principal import Principal
from twistedsock.core.shares import Aging

REMEMBERED_BYTES = 16 * 1024 * 1024
"""What was answered under all keys, with what each key costs: some 10,000 keys. The batch form's answers are long."""

AGE = 600.0
"""Seconds that a key is remembered: longer than programs ask again for, also those that wait longer each time."""

KEY_COST = 1_400
"""Bytes that a key takes beside its answer: 930 to 1,360 were measured, with the longest key and channel, and many or
few clients."""

OTHER_REQUEST = Refusal(Code.BAD_ARGUMENT, "this Idempotency-Key has been used for another request")


class Told(msgspec.Struct, frozen=True, gc=False):
    """An answer. Where it tells only of what was not done, it ``is_done`` is False, and it is not remembered."""

    body: bytes
    is_done: bool = True


class Answered(msgspec.Struct, frozen=True):
    """``again`` is whether it answers an earlier request."""

    outcome: Told | Refusal | Later[Told]
    again: bool


Name = tuple[Principal, bytes, bytes]
"""Who asks, where, and the key."""


class _Entry(msgspec.Struct):
    fingerprint: bytes
    at: float
    outcome: Told | Later[Told]
    size: int


class Idempotency:
    """``clock`` gives seconds that never go back. When there are too many keys, the oldest of the principal that holds
    most is forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The oldest first.
        self._entries: OrderedDict[Name, _Entry] = OrderedDict()
        self._names = Aging[Name](REMEMBERED_BYTES)

    def __len__(self) -> int:
        return len(self._entries)

    def once(self, name: Name, fingerprint: bytes, act: Callable[[], Told | Refusal | Later[Told]]) -> Answered:
        """Act, unless it has been done, or is being done, under that name: then this is answered. ``fingerprint`` tells
        requests apart. What was refused is forgotten, as it may be done the next time."""
        now = self._clock()
        while self._entries and next(iter(self._entries.values())).at <= now - AGE:
            self._forget(next(iter(self._entries)))
        known = self._entries.get(name)
        if known is not None:
            if known.fingerprint != fingerprint:
                return Answered(OTHER_REQUEST, False)
            return Answered(known.outcome, True)
        pending = Later[Told]()
        entry = self._entries[name] = _Entry(fingerprint, now, pending, KEY_COST)
        self._names.add(name[0], name, KEY_COST)
        try:
            answer = act()
        except BaseException:
            self._drop(name, entry)
            raise
        when_known(answer, lambda outcome: self._note(name, entry, outcome))
        when_known(answer, pending.settle)
        return Answered(answer, False)

    def _note(self, name: Name, entry: _Entry, outcome: Told | Refusal) -> None:
        if isinstance(outcome, Refusal) or not outcome.is_done:
            self._drop(name, entry)
        elif self._entries.get(name) is entry:
            entry.outcome, entry.size = outcome, len(outcome.body) + KEY_COST
            self._names.shares.add(name[0], len(outcome.body))
            while self._names.is_full:
                self._forget(self._names.first_to_go())

    def _drop(self, name: Name, entry: _Entry) -> None:
        if self._entries.get(name) is entry:
            self._forget(name)

    def _forget(self, name: Name) -> None:
        self._names.remove(name[0], name, self._entries.pop(name).size)
