"""The id of a server-sent event: where a stream stands in each of its channels (docs/streams.md, "Coming back").

A client keeps the last id that it got, and shows it when it comes back: a browser as ``Last-Event-ID`` (HTML, "The
Last-Event-ID header"). ``5f2c1a:18`` is the event 18 of that epoch; where a stream has several channels, their places
stand in the order in which they were asked for, ``5f2c1a:18,9ab3:40``. A place is empty where nothing has been told of
its channel.
"""

import re
from collections.abc import Sequence

from twistedsock.core.commands import MOST
from twistedsock.core.visitor import Place

_PLACE = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,16})")


def write_place(place: Place | None) -> bytes:
    """One of the places of an id."""
    return b"" if place is None else b"%b:%d" % (place.epoch, place.offset)


def write_id(places: Sequence[Place | None]) -> bytes:
    """The id of a stream that stands there."""
    return b",".join(map(write_place, places))


def read_id(text: str, channels: int) -> list[Place | None] | None:
    """The places in an id of so many channels; None where it is no such id."""
    parts = text.split(",", channels)
    if len(parts) != channels:
        return None
    places: list[Place | None] = []
    for part in parts:
        found = _PLACE.fullmatch(part)
        if part and (found is None or int(found[2]) > MOST):
            return None
        places.append(None if found is None else Place(int(found[2]), found[1].encode()))
    return places
