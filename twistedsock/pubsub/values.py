"""What is published, and who publishes: the values that travel. Names and payloads are UTF-8 bytes."""

from collections.abc import Iterator, Sequence

import msgspec

Tag = bytes | None


class Position(msgspec.Struct, frozen=True, gc=False):
    """A point in the events of a channel: after the event with this offset, 0 before the first. Offsets of different
    epochs cannot be compared."""

    epoch: bytes
    offset: int


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing published on a channel. It holds no reference but to bytes, so it needs no garbage collector."""

    offset: int
    """Its place in the channel: 1, 2, 3 …"""
    publisher: bytes
    """The id of the peer that published it."""
    sender: bytes
    """What readers see as its sender: the publisher's nick, or its id while it has none."""
    name: bytes
    payload: bytes
    """Text as it was typed, or a JSON value as the JSON text it came as."""
    is_json: bool


class Payloads(msgspec.Struct, frozen=True, gc=False):
    """Payloads of one kind, all text or all JSON: at least one."""

    payloads: Sequence[bytes]
    size: int
    """Bytes of all of them together."""
    is_json: bool = False
    is_verbatim: bool = False
    """Every dialect writes them as they are, a text in JSON between quotes: ASCII without control characters, and text
    without anything that JSON escapes or that a line takes for JSON. False where nobody has looked."""

    def __len__(self) -> int:
        return len(self.payloads)

    def part(self, start: int, stop: int) -> "Payloads":
        payloads = self.payloads[start:stop]
        return Payloads(payloads, sum(map(len, payloads)), self.is_json, self.is_verbatim)


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
    content: Payloads

    def __len__(self) -> int:
        return self.end - self.first

    def part(self, start: int, stop: int) -> "Batch":
        """The events from offset ``start`` on and before ``stop``, of which there must be one."""
        if start <= self.first and stop >= self.end:
            return self
        start, stop = max(start, self.first), min(stop, self.end)
        content = self.content.part(start - self.first, stop - self.first)
        return Batch(start, stop, self.publisher, self.sender, self.name, content)

    def events(self) -> Iterator[Event]:
        """One by one."""
        content = self.content
        for offset, payload in enumerate(content.payloads, self.first):
            yield Event(offset, self.publisher, self.sender, self.name, payload, content.is_json)


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
    return BATCH_COST + EVENT_COST * (batch.end - batch.first) + batch.content.size
