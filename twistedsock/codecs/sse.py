"""The JSON dialect as server-sent events with ids, by which who comes back hears what it has missed.

An id tells where the stream stands in its channels once the event has been read. Who reads one channel shares the
dialect, and so the bytes, with all who do; where there are several channels, the id of an event depends on what the
stream has said before, so each such stream has a dialect of its own.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from twistedsock.codecs.framing import join_numbered, join_twice_numbered
from twistedsock.codecs.json_encoder import JsonEncoder, event_message
from twistedsock.codecs.payload import quote, quote_name
from twistedsock.pubsub.values import JSON, Batch, Position, Tag
from twistedsock.session.commands import MAX_OFFSET

RETRY_FIELD = b"retry: 2000\n\n"
"""Milliseconds after which a browser comes back: soon, but not so soon that all come at once when a server starts."""

KEEP_ALIVE_COMMENT = b":\n\n"
"""A comment, which no client sees: it keeps proxies from taking a silent stream for a dead one."""

_TYPE = len(b'{"type":"')

_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def one_line(message: bytes) -> bytes:
    """JSON whose line breaks, which can only stand between tokens, are spaces: a line break would end the field."""
    return message.translate(_BREAKS)


def event_fields(message: bytes) -> bytes:
    """What a message of the JSON dialect begins with as an event: its type, but for an event itself, so that
    ``onmessage`` of a browser gets those and nothing else."""
    kind = message[_TYPE : message.index(b'"', _TYPE)]
    return b"data: " if kind == b"event" else b"event: %b\ndata: " % kind


class SSEFraming:
    """A framing of messages of the JSON dialect: each is the data of one event."""

    def frame(self, message: bytes) -> bytes:
        return event_fields(message) + one_line(message) + b"\n\n"

    def frames(self, messages: list[bytes]) -> list[bytes]:
        return [self.frame(message) for message in messages]

    def numbered(self, before: bytes, first: int, after: bytes, payloads: Sequence[bytes], end: bytes) -> bytes:
        """The payloads are such as hold no line breaks."""
        return join_numbered(event_fields(before) + before, first, after, payloads, end + b"\n\n")

    def counted(self, before: bytes, first: int, count: int) -> bytes:
        begin = event_fields(before) + before
        return b"".join([b"%b%d\n\n" % (begin, number) for number in range(first, first + count)])

    def fragments(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        begun = False
        for piece in pieces:
            yield one_line(piece) if begun else event_fields(piece) + one_line(piece)
            begun = True
        yield b"\n\n"


_PLACE = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,16})")


def format_position(place: Position | None) -> bytes:
    """One of the places of an id."""
    return b"" if place is None else b"%b:%d" % (place.epoch, place.offset)


def format_event_id(places: Sequence[Position | None]) -> bytes:
    """The id of a stream that stands there."""
    return b",".join(map(format_position, places))


def parse_event_id(text: str, channels: int) -> list[Position | None] | None:
    """The places in an id of so many channels; None where it is no such id."""
    parts = text.split(",", channels)
    if len(parts) != channels:
        return None
    places: list[Position | None] = []
    for part in parts:
        found = _PLACE.fullmatch(part)
        if part and (found is None or int(found[2]) > MAX_OFFSET):
            return None
        places.append(None if found is None else Position(found[1].encode(), int(found[2])))
    return places


class SSEEncoder(JsonEncoder):
    """Of one channel."""

    overhead = JsonEncoder.overhead + 40

    def __init__(self) -> None:
        super().__init__(SSEFraming(), "events")

    def subscribed(
        self, tag: Tag, channel: bytes, position: Position, recovered: bool | None, start: int | None = None
    ) -> bytes:
        """It has no command to answer, and is said nonetheless. Its id is the place before ``start``: who is cut off
        before the first event comes back to there."""
        told = b"" if recovered is None else b',"recovered":' + (b"true" if recovered else b"false")
        place = Position(position.epoch, position.offset if start is None else start - 1)
        return b'event: ok\nid: %b\ndata: {"type":"ok","channel":%b,"offset":%d,"epoch":%b%b}\n\n' % (
            self._id_at(channel, place),
            quote_name(channel),
            position.offset,
            quote(position.epoch),
            told,
        )

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        payloads, quoted = batch.payloads, quote_name(channel)
        before, after = self._around(channel, epoch, batch.end - 1)
        if len(payloads) == 1 or not payloads.is_plain:
            return b"".join(
                [
                    b"%b%d%b%b\n\n" % (before, event.offset, after, one_line(event_message(quoted, event)))
                    for event in batch.events()
                ]
            )
        quotes = b"" if payloads.kind is JSON else b'"'
        return join_twice_numbered(
            before,
            batch.first,
            b'%b{"type":"event","channel":%b,"offset":' % (after, quoted),
            b',"from":%b,"name":%b,"data":%b' % (quote_name(batch.sender), quote_name(batch.name), quotes),
            payloads.items,
            quotes + b"}\n\n",
        )

    def _id_at(self, channel: bytes, place: Position) -> bytes:
        return format_position(place)

    def _around(self, channel: bytes, epoch: bytes, last: int) -> tuple[bytes, bytes]:
        """What stands before the offset in the id, and what from there to the message; ``last`` is the place after
        it."""
        return b"id: %b:" % epoch, b"\ndata: "


class MultiChannelSSEEncoder(SSEEncoder):
    """Of several channels, for one stream alone. ``known`` is where its client stands in each of them, None where it
    says nothing of that."""

    def __init__(self, known: dict[bytes, Position | None]) -> None:
        super().__init__()
        # In the order in which the channels stand in an id.
        self._places = {channel: format_position(place) for channel, place in known.items()}
        self.overhead += sum(map(len, self._places.values())) + 32 * len(self._places)

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        self._go_to(channel, last)
        return super().lost(channel, first, last)

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """What was written from ``cursor`` on has not been taken."""
        self._go_to(channel, cursor - 1)

    def _go_to(self, channel: bytes, offset: int) -> None:
        epoch = self._places[channel].partition(b":")[0]
        self._places[channel] = b"%b:%d" % (epoch, offset)

    def _id_at(self, channel: bytes, place: Position) -> bytes:
        self._places[channel] = format_position(place)
        return b",".join(self._places.values())

    def _around(self, channel: bytes, epoch: bytes, last: int) -> tuple[bytes, bytes]:
        sides: tuple[list[bytes], list[bytes]] = ([], [])
        side = 0
        for name, place in self._places.items():
            if name == channel:
                side = 1
            else:
                sides[side].append(place)
        self._places[channel] = b"%b:%d" % (epoch, last)
        before, after = sides
        return b"id: %b:" % b",".join([*before, epoch]), b"".join([b"," + place for place in after]) + b"\ndata: "


# TODO-MERGED-DOC: Messages as server-sent events (HTML, "Parsing an event stream"): fields, each a line, and an
# empty line.

# TODO-MERGED-DOC: The id of a server-sent event: where a stream stands in each of its channels
# (docs/streams.md, "Coming back"). A client keeps the last id that it got, and shows it when it comes back: a
# browser as ``Last-Event-ID`` (HTML, "The Last-Event-ID header"). ``5f2c1a:18`` is the event 18 of that epoch;
# where a stream has several channels, their places stand in the order in which they were asked for,
# ``5f2c1a:18,9ab3:40``. A place is empty where nothing has been told of its channel.
