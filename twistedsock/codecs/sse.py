"""Server-sent events: JSON messages as fields of an event stream (HTML, "Server-sent events"), with event ids.

An event id holds the position of the stream in each of its channels, after that event (docs/reference/streams.md).
The browser sends the last id in ``Last-Event-ID`` when it reconnects, and the stream continues there. ``5f2c1a:18`` is
event 18 of that epoch; a stream of several channels has one position for each, in the order in which they were
requested: ``5f2c1a:18,9ab3:40``. The position of a channel that has not been confirmed yet is empty.

Streams of one channel share an encoder, and so the encoded bytes. In a stream of several channels, the id of an event
depends on the events before, so each such stream has an encoder of its own.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from twistedsock.codecs.framing import join_numbered, join_twice_numbered
from twistedsock.codecs.json_encoder import JsonEncoder, event_message, event_parts, subscribed_fields
from twistedsock.codecs.payload import quote_name
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Batch, Position, Reset, Tag
from twistedsock.session.commands import MAX_OFFSET
from twistedsock.session.encoder import Piece

RETRY_FIELD = b"retry: 2000\n\n"
"""Milliseconds after which a browser reconnects: soon, but not so soon that all of them overload a restarted server."""

KEEP_ALIVE_COMMENT = b":\n\n"
"""A comment, which clients ignore. It keeps proxies from closing an idle stream."""

_TYPE = len(b'{"type":"')

_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def one_line(message: bytes) -> bytes:
    """JSON with spaces for its line breaks, which can only be between tokens: a line break would end the field."""
    return message.translate(_BREAKS)


def event_fields(message: bytes) -> bytes:
    """The fields before a JSON message: its type as the event type. Events have none, so that ``onmessage`` of a
    browser receives events only."""
    kind = message[_TYPE : message.index(b'"', _TYPE)]
    return b"data: " if kind == b"event" else b"event: %b\ndata: " % kind


class SSEFraming:
    """Each JSON message is the data of one server-sent event."""

    def frame(self, message: bytes) -> bytes:
        return event_fields(message) + one_line(message) + b"\n\n"

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [self.frame(message) for message in messages]

    def numbered(self, before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
        """``payloads`` contain no line breaks."""
        return join_numbered(event_fields(before) + before, first, after, payloads, end + b"\n\n")

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        begin = event_fields(before) + before
        return b"".join([b"%b%d\n\n" % (begin, number) for number in range(first, first + count)])

    def fragments(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        begun = False
        for piece in pieces:
            if isinstance(piece, Future):
                yield piece
                continue
            yield one_line(piece) if begun else event_fields(piece) + one_line(piece)
            begun = True
        yield b"\n\n"


_POSITION = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,16})")


def format_position(position: Position | None) -> bytes:
    """One position of an event id, empty for None."""
    return b"" if position is None else b"%b:%d" % (position.epoch, position.offset)


def format_event_id(positions: Sequence[Position | None]) -> bytes:
    """The event id for the positions in all channels of a stream."""
    return b",".join(map(format_position, positions))


def parse_event_id(text: str, channels: int) -> list[Position | None] | None:
    """The positions in an event id of ``channels`` channels; None if it is not valid."""
    parts = text.split(",", channels)
    if len(parts) != channels:
        return None
    positions: list[Position | None] = []
    for part in parts:
        found = _POSITION.fullmatch(part)
        if part and (found is None or int(found[2]) > MAX_OFFSET):
            return None
        positions.append(None if found is None else Position(found[1].encode(), int(found[2])))
    return positions


class SSEEncoder(JsonEncoder):
    """For streams of one channel."""

    overhead = JsonEncoder.overhead + 40

    def __init__(self) -> None:
        super().__init__(SSEFraming(), "events")

    def subscribed(
        self,
        tag: Tag,
        channel: bytes,
        position: Position,
        recovered: bool | None,
        start: int | None = None,
        since: int | None = None,
    ) -> bytes:
        """Sent although there was no command. Its id is the position before ``start``, so that a client that
        is disconnected before the first event continues there."""
        last = Position(position.epoch, position.offset if start is None else start - 1)
        fields = subscribed_fields(channel, position, recovered, since)
        return b'event: ok\nid: %b\ndata: {"type":"ok"%b}\n\n' % (self._id_at(channel, last), fields)

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        payloads, quoted = batch.payloads, quote_name(channel)
        id_start, id_end = self._id_parts(channel, epoch, batch.end - 1)
        if len(payloads) == 1 or not payloads.is_plain:
            return b"".join(
                [
                    b"%b%d%b%b\n\n" % (id_start, event.offset, id_end, one_line(event_message(quoted, event)))
                    for event in batch.events()
                ]
            )
        before, between, after = event_parts(quoted, batch)
        return join_twice_numbered(id_start, batch.first, id_end + before, between, payloads.items, after + b"\n\n")

    def reset(self, channel: bytes, reset: Reset) -> bytes:
        """Its id is the position in the new epoch."""
        position = Position(reset.epoch, reset.offset)
        return b"id: %b\n" % self._id_at(channel, position) + super().reset(channel, reset)

    def _id_at(self, channel: bytes, position: Position) -> bytes:
        return format_position(position)

    def _id_parts(self, channel: bytes, epoch: bytes, last: int) -> tuple[bytes, bytes]:
        """The parts of the id before and after the offset; ``last`` is the offset of the last event."""
        return b"id: %b:" % epoch, b"\ndata: "


class MultiChannelSSEEncoder(SSEEncoder):
    """For one stream of several channels. ``known`` has the position of the client in each channel, None if the client
    did not send one."""

    def __init__(self, known: dict[bytes, Position | None]) -> None:
        super().__init__()
        # In the order of the positions in an id.
        self._positions = {channel: format_position(position) for channel, position in known.items()}
        self.overhead += sum(map(len, self._positions.values())) + 32 * len(self._positions)

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        self._set_offset(channel, last)
        return super().lost(channel, first, last)

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """The socket did not accept the events from ``cursor`` on: rewind the position."""
        self._set_offset(channel, cursor - 1)

    def _set_offset(self, channel: bytes, offset: int) -> None:
        epoch = self._positions[channel].partition(b":")[0]
        self._positions[channel] = b"%b:%d" % (epoch, offset)

    def _id_at(self, channel: bytes, position: Position) -> bytes:
        self._positions[channel] = format_position(position)
        return b",".join(self._positions.values())

    def _id_parts(self, channel: bytes, epoch: bytes, last: int) -> tuple[bytes, bytes]:
        sides: tuple[list[bytes], list[bytes]] = ([], [])
        side = 0
        for name, position in self._positions.items():
            if name == channel:
                side = 1
            else:
                sides[side].append(position)
        self._positions[channel] = b"%b:%d" % (epoch, last)
        before, after = sides
        return b"id: %b:" % b",".join([*before, epoch]), b"".join([b"," + position for position in after]) + b"\ndata: "


# There is one object of each, because subscribers with the same encoder share the encoded bytes.

SSE_ENCODER = SSEEncoder()
"""Server-sent events of one channel."""

JSON_SSE_ENCODER = JsonEncoder(SSEFraming(), "events")
"""JSON as server-sent events, for clients that cannot open a WebSocket."""
