"""The values of the Python API: events, positions, members, errors."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import BYTES, JSON, Event, Member, Position

NOT_UTF8 = Error(ErrorCode.NOT_UTF8, "invalid text: contains an unpaired surrogate, which UTF-8 cannot express")

TIME_ZERO = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

_read_json = msgspec.json.Decoder().decode


class BridgeError(Exception):
    """The server has rejected a call. ``code`` is the stable part, for programs (docs/reference/errors.md); ``message``
    is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class BridgePosition(NamedTuple):
    """A point in the events of a channel: after the event with this offset, 0 before the first. Offsets of different
    epochs cannot be compared."""

    epoch: str
    offset: int


class BridgeMember(NamedTuple):
    """A subscriber of a channel. The nick is the id if the client has none."""

    id: str
    nick: str


class BridgeEvent:
    """An event. Its attributes are read-only."""

    __slots__ = ("_epoch", "_event", "_value", "channel")

    def __init__(self, channel: str, epoch: bytes, event: Event) -> None:
        self.channel = channel
        self._epoch = epoch
        self._event = event

    @property
    def offset(self) -> int:
        """The number of the event in its channel: 1, 2, 3 …"""
        return self._event.offset

    @property
    def position(self) -> BridgePosition:
        """The position after this event. With it, ``subscribe(since=…)`` continues behind the event."""
        return BridgePosition(self._epoch.decode(), self._event.offset)

    @property
    def time(self) -> datetime:
        """When the event was published, in UTC with milliseconds. It never decreases within a channel. A ``datetime``,
        because Python compares and formats those; ``timestamp()`` returns seconds since 1970."""
        return TIME_ZERO + self._event.time * MILLISECOND

    @property
    def sender(self) -> str:
        """The nick of the publisher, or its id if it has none."""
        return self._event.sender.decode()

    @property
    def name(self) -> str:
        """The name of the event, ``message`` if the publisher gave none."""
        return self._event.name.decode()

    @property
    def value(self) -> Any:
        """The text as ``str``, the bytes as ``bytes``, or the value of the JSON text: ``dict``, ``list``, ``str``,
        ``int``, ``float``, ``bool`` or None. All receivers of this object share a ``dict`` or ``list``."""
        if not hasattr(self, "_value"):
            payload, kind = self._event.payload, self._event.kind
            self._value = payload if kind is BYTES else _read_json(payload) if kind is JSON else payload.decode()
        return self._value

    def __repr__(self) -> str:
        return f"<BridgeEvent {self.channel} {self.offset} {self.name} from {self.sender}: {self.value!r}>"


class BridgeHistory(NamedTuple):
    """A part of a history, the oldest event first."""

    events: list[BridgeEvent]
    lost: tuple[int, int] | None
    """The first and the last offset of requested events that have been dropped, or may have been; None if all are
    there."""
    position: BridgePosition
    """After the newest event of the channel: ``subscribe(since=position)`` continues there."""


def encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise exception_of(NOT_UTF8) from None


def exception_of(error: Error) -> BridgeError:
    return BridgeError(error.code.value.decode(), error.message)


def position_of(position: Position) -> BridgePosition:
    return BridgePosition(position.epoch.decode(), position.offset)


def member_of(member: Member) -> BridgeMember:
    return BridgeMember(member.id.decode(), member.nick.decode())
