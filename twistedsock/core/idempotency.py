"""What was published under a key that the client has chosen: who asks again, because the answer got lost, is told what
the first time was told, and nothing is published twice."""

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from twistedsock.core.errors import Code, Refusal
from twistedsock.core.later import Later, when_known
from twistedsock.core.principal import Principal

KEYS = 10_000
"""Keys in all: some megabytes. Who publishes by the thousand a second has better ways."""

KEYS_OF_ONE = 1_000
"""Keys of one client, so that it forgets its own before others' are forgotten."""

REMEMBERED_BYTES = 16 * 1024 * 1024
"""What was answered under all keys, with what each key costs: the batch form's answers are long."""

BYTES_OF_ONE = 2 * 1024 * 1024
"""Of these, those of one client: some twenty of the longest answers."""

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


class _Client(msgspec.Struct):
    names: OrderedDict[Name, None]
    size: int = 0


class Idempotency:
    """``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The oldest first, and each client's own too.
        self._entries: OrderedDict[Name, _Entry] = OrderedDict()
        self._clients: dict[Principal, _Client] = {}
        self._size = 0

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
        entry = self._entries[name] = _Entry(fingerprint, now, pending, 0)
        self._clients.setdefault(name[0], _Client(OrderedDict())).names[name] = None
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
            client = self._clients[name[0]]
            client.size += entry.size
            self._size += entry.size
            while len(client.names) > KEYS_OF_ONE or client.size > BYTES_OF_ONE:
                self._forget(next(iter(client.names)))
            while len(self._entries) > KEYS or self._size > REMEMBERED_BYTES:
                self._forget(next(iter(self._entries)))

    def _drop(self, name: Name, entry: _Entry) -> None:
        if self._entries.get(name) is entry:
            self._forget(name)

    def _forget(self, name: Name) -> None:
        entry, client = self._entries.pop(name), self._clients[name[0]]
        self._size -= entry.size
        client.size -= entry.size
        del client.names[name]
        if not client.names:
            del self._clients[name[0]]
