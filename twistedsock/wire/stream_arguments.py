"""What a stream of server-sent events, or who waits for events, asks for: channels, and where it stands in them."""

from collections.abc import Sequence

import msgspec

from twistedsock.core.commands import MOST, Subscribe
from twistedsock.core.errors import SINCE_WITHOUT_EPOCH, Code, Refusal
from twistedsock.core.names import check_channel
from twistedsock.core.visitor import Place
from twistedsock.wire.arguments import Arguments, wrong
from twistedsock.wire.event_ids import read_id
from twistedsock.wire.problems import Refused

MOST_TOGETHER = 32
"""Channels of one stream: each event carries the place in all of them."""

LAST_EVENT_ID = ("lastEventId", "last-event-id")
"""Query parameters with the id of the last event. Polyfills of EventSource, which cannot set headers everywhere, append
the first to a URL that may have the second already, so the first is the newer one."""

NO_CHANNEL = Refusal(Code.BAD_ARGUMENT, "channel: at least one must be named")
TOO_MANY = Refusal(Code.BAD_ARGUMENT, f"channel: at most {MOST_TOGETHER} can be read together")
BAD_ID = Refusal(
    Code.BAD_ARGUMENT,
    "the last event id is none of these channels: it has epoch:offset for each, with commas between, in the order in "
    "which they are named",
)


class Asked(msgspec.Struct, frozen=True):
    """``known`` are the channels, in the order of an id, with the place from which to go on in each."""

    known: dict[bytes, Place | None]
    last: int | None
    presence: bool = False

    def commands(self) -> list[Subscribe]:
        """What a session is to be asked for it."""
        return [
            Subscribe(
                channel,
                last=self.last,
                since=None if place is None else place.offset,
                epoch=None if place is None else place.epoch,
                presence=self.presence,
            )
            for channel, place in self.known.items()
        ]


def read_channels(arguments: Arguments) -> list[bytes]:
    """Those that a query names, each once. Raises ``Refused``."""
    return list(dict.fromkeys(name.encode() for name in arguments.texts("channel")))


def read_asked(arguments: Arguments, channels: Sequence[bytes], last_event_id: str) -> Asked:
    """What is asked of these channels. ``last_event_id`` is the header of that name: a browser that comes back shows
    it, and asks for the rest as before; it goes before the query. Raises ``Refused``."""
    if not channels:
        raise Refused(NO_CHANNEL)
    if len(channels) > MOST_TOGETHER:
        raise Refused(TOO_MANY)
    for channel in channels:
        refusal = check_channel(channel)
        if refusal is not None:
            raise Refused(refusal)
    since, epoch = arguments.whole("since", MOST), arguments.text("epoch")
    if (since is None) is not (epoch is None):
        raise Refused(SINCE_WITHOUT_EPOCH)
    last = arguments.whole("last", MOST)
    presence = arguments.choice("presence", ("on", "off")) == "on"
    id = last_event_id or next(filter(None, map(arguments.text, LAST_EVENT_ID)), "")
    places: Sequence[Place | None] = [None] * len(channels)
    if id:
        known = read_id(id, len(channels))
        if known is None:
            raise Refused(BAD_ID)
        places = known
    elif since is not None and epoch is not None:
        if len(channels) > 1:
            raise wrong("since", "it is of one channel; of several, last-event-id tells the place in each")
        places = [Place(since, epoch.encode())]
    return Asked(dict(zip(channels, places, strict=True)), last, presence)
