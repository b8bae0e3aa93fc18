"""The JSON dialect as server-sent events with ids, by which who comes back hears what it has missed.

An id tells where the stream stands in its channels once the event has been read. Who reads one channel shares the
dialect, and so the bytes, with all who do; where there are several channels, the id of an event depends on what the
stream has said before, so each such stream has a dialect of its own.
"""

from twistedsock.core.commands import Tag
from twistedsock.core.dialect import Position
from twistedsock.core.events import Batch
from twistedsock.core.visitor import Place
from twistedsock.wire.event_ids import write_place
from twistedsock.wire.event_stream import EventStream, one_line
from twistedsock.wire.framing import number_twice
from twistedsock.wire.json_dialect import JsonDialect, event_message
from twistedsock.wire.payloads import quote, quote_name


class EventsDialect(JsonDialect):
    """Of one channel."""

    overhead = JsonDialect.overhead + 40

    def __init__(self) -> None:
        super().__init__(EventStream(), "events")

    def subscribed(
        self, tag: Tag, channel: bytes, position: Position, recovered: bool | None, start: int | None = None
    ) -> bytes:
        """It has no command to answer, and is said nonetheless. Its id is the place before ``start``: who is cut off
        before the first event comes back to there."""
        told = b"" if recovered is None else b',"recovered":' + (b"true" if recovered else b"false")
        place = Place(position.head if start is None else start - 1, position.epoch)
        return b'event: ok\nid: %b\ndata: {"type":"ok","channel":%b,"offset":%d,"epoch":%b%b}\n\n' % (
            self._id_at(channel, place),
            quote_name(channel),
            position.head,
            quote(position.epoch),
            told,
        )

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        content, quoted = batch.content, quote_name(channel)
        before, after = self._around(channel, epoch, batch.end - 1)
        if len(content) == 1 or not content.is_verbatim:
            return b"".join(
                [
                    b"%b%d%b%b\n\n" % (before, event.offset, after, one_line(event_message(quoted, event)))
                    for event in batch.events()
                ]
            )
        quotes = b"" if content.is_json else b'"'
        return number_twice(
            before,
            batch.first,
            b'%b{"type":"event","channel":%b,"offset":' % (after, quoted),
            b',"from":%b,"name":%b,"data":%b' % (quote_name(batch.sender), quote_name(batch.name), quotes),
            content.payloads,
            quotes + b"}\n\n",
        )

    def _id_at(self, channel: bytes, place: Place) -> bytes:
        return write_place(place)

    def _around(self, channel: bytes, epoch: bytes, last: int) -> tuple[bytes, bytes]:
        """What stands before the offset in the id, and what from there to the message; ``last`` is the place after
        it."""
        return b"id: %b:" % epoch, b"\ndata: "


class SeveralEvents(EventsDialect):
    """Of several channels, for one stream alone. ``known`` is where its client stands in each of them, None where it
    says nothing of that."""

    def __init__(self, known: dict[bytes, Place | None]) -> None:
        super().__init__()
        # In the order in which the channels stand in an id.
        self._places = {channel: write_place(place) for channel, place in known.items()}
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

    def _id_at(self, channel: bytes, place: Place) -> bytes:
        self._places[channel] = write_place(place)
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
