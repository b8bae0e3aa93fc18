"""What is published, and who publishes: the values that travel. Names and payloads are UTF-8 bytes."""

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from typing import Self

import msgspec
from msgspec.structs import replace

from twistedsock.pubsub.names import DEFAULT_EVENT_NAME

Tag = bytes | None


class Position(msgspec.Struct, frozen=True, gc=False):
    """A point in the events of a channel: after the event with this offset, 0 before the first. Offsets of different
    epochs cannot be compared."""

    epoch: bytes
    offset: int


class PayloadKind(Enum):
    """TEXT is any UTF-8 text, JSON is one JSON value as JSON text."""

    TEXT = "text"
    JSON = "json"


# As names of their own: on Python 3.11, `PayloadKind.TEXT` costs more than the check of a short payload.
TEXT, JSON = PayloadKind.TEXT, PayloadKind.JSON


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing published on a channel. It holds no reference that can be part of a cycle, so it needs no garbage
    collector."""

    offset: int
    """Its place in the channel: 1, 2, 3 …"""
    publisher: bytes
    """The id of the peer that published it."""
    sender: bytes
    """What readers see as its sender: the publisher's nick, or its id while it has none."""
    name: bytes
    payload: bytes
    """Text as it was typed, or a JSON value as the JSON text it came as."""
    kind: PayloadKind


class Payloads(msgspec.Struct, frozen=True, gc=False):
    """One or more payloads of the same kind."""

    items: Sequence[bytes]
    size: int
    """Bytes of all items together."""
    kind: PayloadKind = TEXT
    is_plain: bool = False
    """True if every encoder can copy the items unchanged (text in JSON between quotes): ASCII without control
    characters, and text also without characters that JSON escapes or a start that the line protocol reads as JSON.
    False also means that nobody has checked."""

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


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A request to create one event, or several in a row that differ only in their payloads."""

    channel: bytes
    payloads: Payloads
    name: bytes = DEFAULT_EVENT_NAME

    def can_join(self, other: "Publication") -> bool:
        """True if both can be published as one, because they differ only in their payloads. An option that is added to
        publications must be compared here."""
        return self.channel == other.channel and self.name == other.name and self.payloads.kind is other.payloads.kind

    def joined(self, following: Sequence[Self]) -> Self:
        """This publication and those that follow it as one. ``can_join`` must be true of each."""
        return replace(self, payloads=join_payloads([self.payloads, *[other.payloads for other in following]]))


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Events that one peer published in a row, which differ in offset and payload alone. They travel, wait and are kept
    together: one by one, each would cost several times as much."""

    first: int
    """The offset of the first of them."""
    end: int
    """The offset after the last of them."""
    publisher: bytes
    sender: bytes
    name: bytes
    payloads: Payloads

    def __len__(self) -> int:
        return self.end - self.first

    def part(self, start: int, stop: int) -> "Batch":
        """The events from offset ``start`` on and before ``stop``, of which there must be one."""
        if start <= self.first and stop >= self.end:
            return self
        start, stop = max(start, self.first), min(stop, self.end)
        payloads = self.payloads.part(start - self.first, stop - self.first)
        return Batch(start, stop, self.publisher, self.sender, self.name, payloads)

    def events(self) -> Iterator[Event]:
        """One by one."""
        kind = self.payloads.kind
        for offset, payload in enumerate(self.payloads.items, self.first):
            yield Event(offset, self.publisher, self.sender, self.name, payload, kind)


class Lost(msgspec.Struct, frozen=True, gc=False):
    """A range of offsets, both included, whose events cannot be sent any more."""

    first: int
    last: int


class Member(msgspec.Struct, frozen=True, gc=False):
    """A subscriber as others see it; the nick is the id while there is none."""

    id: bytes
    nick: bytes


class PresenceChange(msgspec.Struct, frozen=True, gc=False):
    """A member came to a channel or left it."""

    member: Member
    joined: bool


CHANGE_COST = 176
"""Bytes of memory that a join or a leave takes where it is kept for later, with its member and the longest nick."""

BATCH_COST = 240
"""Bytes of bookkeeping that a batch costs in the log: its objects, its offset, its place there, and a name that nothing
else holds. 192 were measured on CPython 3.11, and 40 more for the name."""

EVENT_COST = 48
"""Bytes that each event of a batch costs beyond its payload: the head of the bytes object, and its place. 41 were
measured. Both are counted, so that a bound in bytes is one on memory even for events of one byte."""


def cost(batch: Batch) -> int:
    """What a batch counts against the bounds in bytes."""
    return BATCH_COST + EVENT_COST * (batch.end - batch.first) + batch.payloads.size
