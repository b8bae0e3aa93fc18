"""The values of publish/subscribe: positions, events, publications, batches, members. Names are UTF-8, and so are text
and JSON.

Those that pass between processes are ``array_like``: msgspec encodes them as arrays, without the names of their fields.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from typing import Self

import msgspec
from msgspec.structs import replace

from twistedsock.pubsub.names import DEFAULT_EVENT_NAME

Tag = bytes | None
"""The id that a client gave to a command, which the reply repeats. None if it gave none."""


class Position(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A point in the events of a channel: after the event with this offset, 0 before the first. Offsets of different
    epochs cannot be compared."""

    epoch: bytes
    offset: int


class PayloadKind(Enum):
    """TEXT is any UTF-8 text, JSON is one JSON value as JSON text, BYTES are any bytes."""

    TEXT = "text"
    JSON = "json"
    BYTES = "bytes"


# As names of their own: on Python 3.11, `PayloadKind.TEXT` costs more than the check of a short payload.
TEXT, JSON, BYTES = PayloadKind.TEXT, PayloadKind.JSON, PayloadKind.BYTES

StoredKind = bool | PayloadKind
"""The kind of payloads in stored events: False for text and True for JSON, as versions without bytes write them, so
that these can read all other events of newer nodes."""


def store_kind(kind: PayloadKind) -> StoredKind:
    return kind if kind is BYTES else kind is JSON


def read_kind(stored: StoredKind) -> PayloadKind:
    if isinstance(stored, PayloadKind):
        return stored
    return JSON if stored else TEXT


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing published on a channel. It holds no reference that can be part of a cycle, so it needs no garbage
    collector."""

    offset: int
    """1, 2, 3 … in its channel."""
    publisher: bytes
    """The id of the client that published it."""
    sender: bytes
    """The nick of the publisher, or its id if it has none."""
    name: bytes
    payload: bytes
    """The text or the bytes that were sent. For a JSON value, its JSON text."""
    kind: PayloadKind
    time: int = 0
    """When it was published: milliseconds since 1970, UTC. 0 if unknown."""


class Payloads(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One or more payloads of the same kind."""

    items: Sequence[bytes]
    size: int
    """Bytes of all items together."""
    kind: PayloadKind = TEXT
    is_plain: bool = False
    """True if every encoder can copy the items unchanged (text in JSON between quotes): ASCII without control
    characters, and text also without characters that JSON escapes or a start that the line protocol reads as JSON.
    Always False for bytes, and also if this has not been checked."""

    def __len__(self) -> int:
        return len(self.items)

    def part(self, start: int, stop: int) -> "Payloads":
        items = self.items[start:stop]
        return Payloads(items, sum(map(len, items)), self.kind, self.is_plain)


def join_payloads(several: Sequence[Payloads]) -> Payloads:
    """All items of several payloads of the same kind, in their order."""
    return Payloads(
        tuple(chain.from_iterable([payloads.items for payloads in several])),
        sum([payloads.size for payloads in several]),
        several[0].kind,
        all([payloads.is_plain for payloads in several]),
    )


class RepeatedOffset(int):
    """The result of a publication whose key was used before: the offset of the first event that was published then."""


class Publication(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request to create one event, or several in a row that differ only in their payloads."""

    channel: bytes
    payloads: Payloads
    name: bytes = DEFAULT_EVENT_NAME
    key: bytes = b""
    """If it is not empty: publications with the same key create events only once, also on several nodes, as long as the
    backplane remembers the key. The result of all others is the ``RepeatedOffset`` of the first, or ``KEY_REUSED`` if
    they have another fingerprint."""
    fingerprint: bytes = b""
    """Of the request with the key."""

    def can_join(self, other: "Publication") -> bool:
        """True if both can be published as one, because they differ only in their payloads. An option that is added to
        publications must be compared here."""
        return (
            self.channel == other.channel
            and self.name == other.name
            and self.payloads.kind is other.payloads.kind
            and not self.key
            and not other.key
        )

    def joined(self, following: Sequence[Self]) -> Self:
        """This publication and those that follow it as one. ``can_join`` must be true of each."""
        return replace(self, payloads=join_payloads([self.payloads, *[other.payloads for other in following]]))


class Batch(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Events that one client published in a row, and that differ only in offset and payload. They are delivered, stored
    and encoded together, because each alone would cost several times as much."""

    first: int
    """The offset of the first event."""
    end: int
    """The offset after that of the last event."""
    publisher: bytes
    sender: bytes
    name: bytes
    payloads: Payloads
    time: int = 0
    """When they were published: milliseconds since 1970, UTC. It never decreases within a channel. 0 if unknown."""

    def __len__(self) -> int:
        return self.end - self.first

    def part(self, start: int, stop: int) -> "Batch":
        """The events from offset ``start`` on and before ``stop``. There must be at least one."""
        if start <= self.first and stop >= self.end:
            return self
        start, stop = max(start, self.first), min(stop, self.end)
        payloads = self.payloads.part(start - self.first, stop - self.first)
        return Batch(start, stop, self.publisher, self.sender, self.name, payloads, self.time)

    def events(self) -> Iterator[Event]:
        kind, time = self.payloads.kind, self.time
        for offset, payload in enumerate(self.payloads.items, self.first):
            yield Event(offset, self.publisher, self.sender, self.name, payload, kind, time)


class Lost(msgspec.Struct, frozen=True, gc=False):
    """The offsets of events that cannot be sent any more, both included."""

    first: int
    last: int


class ChannelState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The state of a channel in its backplane, for a node that opens it, and when the channel gets a new epoch."""

    position: Position
    """Of the newest event."""
    tail: Sequence[Batch] = ()
    """The newest events, without gaps, up to ``position``; as many as the backplane wants the node to keep."""
    time: int = 0
    """The time of the newest event before ``tail``; 0 if there is none, or if it is unknown."""
    begin: int = 0
    """The offset before the first event of this epoch."""
    previous: Position | None = None
    """The epoch before this one, and the newest of its events that is still valid; None if that is unknown. If its
    offset is ``begin``, the offsets of both epochs are one sequence."""


class Reset(msgspec.Struct, frozen=True, gc=False):
    """A subscription moves to a new epoch of its channel."""

    epoch: bytes
    """The new epoch."""
    good: int
    """The newest event of the former epoch that the subscriber was sent and that is still valid, 0 if none is."""
    offset: int
    """The subscriber is sent the events of the new epoch after this offset."""
    lost: Lost | None
    """Valid events of the former epoch that the subscriber will not be sent."""


class DisconnectClient(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A command to other nodes: disconnect the client with this id, with this message, and a code for programs."""

    id: bytes
    message: bytes
    code: bytes


NodeCommand = DisconnectClient


class Member(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A subscriber as presence lists it. The nick is the id if the client has none."""

    id: bytes
    nick: bytes


class PresenceChange(msgspec.Struct, frozen=True, gc=False):
    """A member has joined a channel or left it."""

    member: Member
    joined: bool


CHANGE_COST = 176
"""Bytes of memory of a presence change that is kept, with its member and the longest nick."""

BATCH_COST = 280
"""Bytes of memory that a batch needs in the history beside its events: its objects, and a name and a time of its own.
200 were measured on CPython 3.11, and 40 more for the name and for the time each."""

EVENT_COST = 48
"""Bytes of memory that each event of a batch needs beside its payload: 41 were measured. Both are counted, so that a
limit in bytes limits the memory even for events of one byte."""


def cost(batch: Batch) -> int:
    """The bytes that a batch counts for in limits."""
    return BATCH_COST + EVENT_COST * (batch.end - batch.first) + batch.payloads.size


class ChannelInfo(msgspec.Struct, frozen=True, gc=False):
    """A channel in a list. ``events`` is the number of events in its history, ``size`` their cost in bytes, and
    ``newest`` the newest of them, None if there is none."""

    channel: bytes
    readers: int
    position: Position
    events: int
    size: int
    newest: Event | None = None


class Page(msgspec.Struct, frozen=True):
    """A part of a list of channels. ``total`` is the number of channels on all pages. ``following`` is the ``after`` of
    the next page, None if there is none."""

    channels: list[ChannelInfo]
    total: int
    following: bytes | None
