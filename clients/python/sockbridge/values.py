"""The values that a client receives: events, and reports about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a channel: events with a greater offset follow. Offsets are comparable within one epoch only."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a channel.

    ``data`` is what the publisher sent: a text, a JSON value as ``json.loads`` returns it, or bytes. ``sender`` is the
    nick of the publisher, or its id. ``time`` is when the server accepted the event, in UTC.
    """

    channel: str
    offset: int
    time: datetime
    sender: str
    name: str
    data: Any
    epoch: str = field(default="", repr=False)

    @property
    def position(self) -> Position:
        """Store it when you have handled the event, and subscribe with ``since`` to continue after it."""
        return Position(self.epoch, self.offset)


@dataclass(frozen=True, slots=True)
class Lost:
    """Events that the client can no longer receive. ``last`` is None if the epoch has ended and their number is
    unknown."""

    channel: str
    first: int
    last: int | None
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class Reset:
    """The channel has a new epoch. Of the events that you have, those up to ``good`` are valid, and the server has lost
    later ones. The events after ``offset`` of the new epoch follow."""

    channel: str
    epoch: str
    good: int
    offset: int


@dataclass(frozen=True, slots=True)
class Member:
    """A subscriber of a channel."""

    id: str
    nick: str


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel in a list: the number of its subscribers, and the offset of its newest event."""

    name: str
    readers: int
    offset: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A client has subscribed (``joined``), or unsubscribed or disconnected."""

    channel: str
    member: Member
    joined: bool


Report = Event | Lost | Reset | Presence
"""The values that a subscription receives."""


@dataclass(frozen=True, slots=True)
class History:
    """Past events of a channel. ``lost`` are ranges of requested events that the server no longer has. ``position`` is
    that of the newest event of the channel."""

    events: Sequence[Event]
    lost: Sequence[Lost]
    position: Position


@dataclass(frozen=True, slots=True)
class Welcome:
    """The addresses of a connection as the server sees them: of the client, and its own."""

    id: str
    client_address: str
    server_address: str


def parse_time(milliseconds: int) -> datetime:
    """The time of an event on the wire: milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
