"""Idempotency keys: a client that repeats a publication with the same key publishes it once, and gets the first answer.

HTTP requests have them in the header ``Idempotency-Key`` (draft-ietf-httpapi-idempotency-key-header), JSON messages in
the field ``key``."""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from twistedsock.errors import KEY_REUSED, Error
from twistedsock.limits.principal import Principal
from twistedsock.limits.shares import EvictionQueue
from twistedsock.pubsub.future import Future, map_result, on_result
from twistedsock.pubsub.values import Publication, RepeatedOffset

MAX_REMEMBERED_BYTES = 16 * 1024 * 1024
"""Maximum memory of all responses that are remembered: about 10,000 keys. Responses to batches are long."""

KEY_LIFETIME_SECONDS = 600.0
"""Seconds that a key is remembered: longer than programs repeat a request, also with increasing delays."""

KEY_BYTES = 1_400
"""Memory of a key without its response, in bytes: 930 to 1,360 were measured, with the longest key and channel, and
many or few clients."""


DIGEST_BYTES = 16
"""Enough that two keys, or two requests, are never equal by chance."""


class PublishResponse(msgspec.Struct, frozen=True, gc=False):
    """The ``body`` of an HTTP response, or the ``offset`` that a session replies with. If nothing was published,
    ``is_done`` is False, and it is not remembered. ``is_repeated`` is True if the backplane knew the key from another
    node, or from before a restart."""

    body: bytes = b""
    is_done: bool = True
    is_repeated: bool = False
    offset: int = 0


class OnceResult(msgspec.Struct, frozen=True):
    """``is_repeated`` is True if the outcome is the response to an earlier request."""

    outcome: PublishResponse | Error | Future[PublishResponse]
    is_repeated: bool


Name = tuple[Principal, bytes, bytes]
"""The client, the channel, which is empty for a batch, and the key."""

Publish = Callable[[bytes, bytes], PublishResponse | Error | Future[PublishResponse]]
"""Publishes. The arguments are the key for the backplane, or empty, and the fingerprint of the request."""

P = TypeVar("P", bound=Publication)


class _Entry(msgspec.Struct):
    fingerprint: bytes
    at: float
    outcome: PublishResponse | Future[PublishResponse]
    size: int


class Idempotency:
    """``clock`` is monotonic. If there are too many keys, the oldest one of the principal with the most is dropped.
    With ``is_shared``, the backplane remembers keys too, because another node, or process, can get the next attempt."""

    def __init__(self, clock: Callable[[], float], is_shared: bool = False) -> None:
        self._clock = clock
        self._is_shared = is_shared
        # The oldest first.
        self._entries: OrderedDict[Name, _Entry] = OrderedDict()
        self._names = EvictionQueue[Name](MAX_REMEMBERED_BYTES)

    def __len__(self) -> int:
        return len(self._entries)

    def publish_once(
        self, principal: Principal, publication: P, publish: Callable[[P], int | Error | Future[int]]
    ) -> int | Error | Future[int]:
        """The offset of a publication with a key. If the client has published it before, a ``RepeatedOffset``. Its keys
        are not those of HTTP requests, whose fingerprints differ."""
        payloads = publication.payloads
        content = b"\0".join((payloads.kind.value.encode(), publication.name, *payloads.items))

        def act(key: bytes, fingerprint: bytes) -> PublishResponse | Error | Future[PublishResponse]:
            answer = publish(replace(publication, key=key, fingerprint=fingerprint))
            return map_result(answer, lambda offset: PublishResponse(offset=offset))

        result = self.once((principal, publication.channel, b"\0" + publication.key), content, act)
        repeat: Callable[[int], int] = RepeatedOffset if result.is_repeated else lambda offset: offset
        return map_result(result.outcome, lambda response: repeat(response.offset))

    def once(self, name: Name, content: bytes, publish: Publish) -> OnceResult:
        """Call ``publish``, unless it was called under that name before: then return that response. ``content``
        distinguishes requests. Errors are not remembered, because the next attempt can succeed."""
        fingerprint, shared = _digest(content), b""
        if self._is_shared:
            principal, channel, key = name
            shared = _digest(b"\0".join((repr(principal).encode(), channel, key)))
        now = self._clock()
        while self._entries and next(iter(self._entries.values())).at <= now - KEY_LIFETIME_SECONDS:
            self._forget(next(iter(self._entries)))
        known = self._entries.get(name)
        if known is not None:
            if known.fingerprint != fingerprint:
                return OnceResult(KEY_REUSED, False)
            return OnceResult(known.outcome, True)
        pending = Future[PublishResponse]()
        entry = self._entries[name] = _Entry(fingerprint, now, pending, KEY_BYTES)
        self._names.add(name[0], name, KEY_BYTES)
        try:
            answer = publish(shared, fingerprint)
        except BaseException:
            self._drop(name, entry)
            raise
        on_result(answer, lambda outcome: self._note(name, entry, outcome))
        on_result(answer, pending.settle)
        return OnceResult(answer, False)

    def _note(self, name: Name, entry: _Entry, outcome: PublishResponse | Error) -> None:
        if isinstance(outcome, Error) or not outcome.is_done:
            self._drop(name, entry)
        elif self._entries.get(name) is entry:
            entry.outcome, entry.size = outcome, len(outcome.body) + KEY_BYTES
            self._names.shares.add(name[0], len(outcome.body))
            while self._names.is_full:
                self._forget(self._names.next_victim())

    def _drop(self, name: Name, entry: _Entry) -> None:
        if self._entries.get(name) is entry:
            self._forget(name)

    def _forget(self, name: Name) -> None:
        self._names.remove(name[0], name, self._entries.pop(name).size)


def _digest(content: bytes) -> bytes:
    return sha256(content).digest()[:DIGEST_BYTES]
