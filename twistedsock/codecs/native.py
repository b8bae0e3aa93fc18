"""The protocol of subscribers in the server's own process: values of Python as MessagePack.

Such a subscriber has a session like every client, so it uses the same histories, encoding groups and limits. Its bytes
never leave the process, and need no parser of text. A session has one channel, so messages do not name it.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from twistedsock.errors import Error
from twistedsock.pubsub.values import Batch, Lost, Member, Page, Position, PresenceChange, Reset, Tag
from twistedsock.session.encoder import Endpoints, HistoryItem, Piece, SessionInfo


class SubscribedRecord(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The subscription has begun at ``position``, and gets the events from ``start`` on. ``recovered`` is None unless a
    position was asked for."""

    position: Position
    recovered: bool | None
    start: int


class RefusedRecord(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A command has failed."""

    code: bytes
    message: str


class EventsRecord(msgspec.Struct, frozen=True, tag=True, gc=False):
    epoch: bytes
    batch: Batch


class LostRecord(msgspec.Struct, frozen=True, tag=True, gc=False):
    """These events will not be sent, both offsets included."""

    first: int
    last: int


class ResetRecord(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The channel has a new epoch. Events up to ``good`` of the former one are valid. ``position`` is in the new one:
    the events after it follow."""

    position: Position
    good: int


class ClosingRecord(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The server is about to close the session, for this reason."""

    message: bytes


NativeRecord = SubscribedRecord | RefusedRecord | EventsRecord | LostRecord | ResetRecord | ClosingRecord

_LENGTH_BYTES = 4

_encode = msgspec.msgpack.Encoder().encode

_decode = msgspec.msgpack.Decoder(NativeRecord).decode


def _frame(record: NativeRecord) -> bytes:
    message = _encode(record)
    return len(message).to_bytes(_LENGTH_BYTES) + message


def read_records(data: bytes) -> Iterator[NativeRecord]:
    """The records in complete messages."""
    position = 0
    while position < len(data):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(data[position:start])
        yield _decode(data[start:position])


class NativeEncoder:
    """Replies to other commands than those of a subscription are empty: nothing in this process sends them."""

    title = "python"
    overhead = 100

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        return b""

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        return b""

    def subscribed(
        self,
        tag: Tag,
        channel: bytes,
        position: Position,
        recovered: bool | None,
        start: int | None = None,
        since: int | None = None,
    ) -> bytes:
        return _frame(SubscribedRecord(position, recovered, position.offset + 1 if start is None else start))

    def unsubscribed(self, tag: Tag, channel: bytes) -> bytes:
        return b""

    def nicked(self, tag: Tag, nick: bytes) -> bytes:
        return b""

    def authenticated(self, tag: Tag, nick: bytes, expires: int | None) -> bytes:
        return b""

    def pong(self, tag: Tag, text: bytes) -> bytes:
        return b""

    def facts(self, tag: Tag, facts: SessionInfo) -> bytes:
        return b""

    def refused(self, tag: Tag, error: Error) -> bytes:
        return _frame(RefusedRecord(error.code.value, error.message))

    def history(
        self, tag: Tag, channel: bytes, events: Iterable[HistoryItem], position: Position, lost: Lost | None = None
    ) -> Iterator[Piece]:
        return iter(())

    def members(self, tag: Tag, channel: bytes, members: Iterable[Member]) -> Iterator[bytes]:
        return iter(())

    def channels(self, tag: Tag, page: Page) -> Iterator[bytes]:
        return iter(())

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        return _frame(EventsRecord(epoch, batch))

    def with_time(self) -> "NativeEncoder":
        return self

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Nothing to do: this encoder does not remember what it has written."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes:
        return b""

    def presence_lost(self, channel: bytes) -> bytes:
        return b""

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        return _frame(LostRecord(first, last))

    def reset(self, channel: bytes, reset: Reset) -> bytes:
        return _frame(ResetRecord(Position(reset.epoch, reset.offset), reset.good))

    def notice(self, text: bytes, code: bytes = b"", channel: bytes = b"") -> bytes:
        return _frame(ClosingRecord(text))

    def bye(self, text: bytes) -> bytes:
        return b""


NATIVE_ENCODER = NativeEncoder()
"""One object, because subscribers with the same encoder share the encoded bytes."""
