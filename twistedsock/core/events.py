"""What is published, and who publishes: the values that travel. Names and payloads are UTF-8 bytes."""

import msgspec


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


class Member(msgspec.Struct, frozen=True, gc=False):
    """A subscriber as others see it; the nick is the id while there is none."""

    id: bytes
    nick: bytes


class PresenceChange(msgspec.Struct, frozen=True, gc=False):
    """A member came to a channel or left it."""

    member: Member
    joined: bool


EVENT_COST = 160
"""Bytes of bookkeeping an event costs in the log beyond its payload: the object, its offset and its place in the log.
137 were measured on CPython 3.11. Counted, so that a bound in bytes is one on memory even for events of one byte."""


def cost(event: Event) -> int:
    """What an event counts against the bounds in bytes."""
    return len(event.payload) + EVENT_COST
