"""What who waits for events is answered, as JSON: about so much at most that leaves in one go, and where to go on."""

from collections.abc import Sequence

from twistedsock.core.events import Lost
from twistedsock.core.visitor import Kept, Place
from twistedsock.wire.event_ids import write_id
from twistedsock.wire.http_answers import head_of
from twistedsock.wire.json_dialect import event_message
from twistedsock.wire.payloads import quote, quote_name

MOST_POLLED = 256 * 1024
"""Bytes of events in one answer, and one event at least; the next request gets the rest."""


def of_one(kept: Kept) -> bytes:
    """What has come on one channel."""
    told, place = _object(kept, MOST_POLLED)
    return b'{%b,"next":%b}\n' % (told, quote(write_id([place])))


def of_several(several: Sequence[Kept]) -> bytes:
    """What has come on several, in the order in which they were asked for."""
    objects, places, room = list[bytes](), list[Place](), MOST_POLLED
    for kept in several:
        told, place = _object(kept, room)
        room -= len(told)
        objects.append(b"{%b}" % told)
        places.append(place)
    return b'{"channels":[%b],"next":%b}\n' % (b",".join(objects), quote(write_id(places)))


def _object(kept: Kept, room: int) -> tuple[bytes, Place]:
    quoted = quote_name(kept.channel)
    messages, last, size = list[bytes](), kept.start - 1, 0
    for event in kept.events:
        # A gap is told by the next answer, which begins there.
        if size > room or isinstance(event, Lost):
            break
        messages.append(event_message(quoted, event))
        size += len(messages[-1])
        last = event.offset
    return b'%b,"events":[%b]' % (head_of(kept), b",".join(messages)), Place(last, kept.position.epoch)
