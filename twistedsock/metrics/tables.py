"""Pages of long lists, each one event that stays far below a chunk."""

import re
from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar

import msgspec

from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.names import NICK_BYTES, RESERVED, is_reserved
from twistedsock.session.session import Session
from twistedsock.session.timeline import ClosedConnectionInfo, ConnectionInfo, connection_info

ROWS = 100
"""What people look through on one page."""

MAX_PAGE = 48 * 1024
"""Bytes of a page: with the head of its event it fits into one chunk, and four of them into the log of its channel."""

ROW_COST = 240
"""Bytes of a row beside its names: keys, numbers of any length and commas."""

_encode = msgspec.json.Encoder().encode


class ChannelRow(msgspec.Struct, frozen=True, gc=False):
    """``events`` and ``bytes`` are those in the log, ``rate`` is in events a second."""

    channel: str
    readers: int
    offset: int
    epoch: str
    events: int
    bytes: int
    rate: float


class ChannelsPage(msgspec.Struct, frozen=True):
    page: int
    pages: int
    total: int
    channels: list[ChannelRow]


class PeersPage(msgspec.Struct, frozen=True):
    page: int
    pages: int
    total: int
    peers: list[ConnectionInfo]


class EndsPage(msgspec.Struct, frozen=True):
    page: int
    pages: int
    total: int
    closed: list[ClosedConnectionInfo]


def rows_for(longest: int) -> int:
    """How many rows make a page where the names of one have so many bytes together at most; JSON may double them."""
    return max(1, min(ROWS, MAX_PAGE // (2 * longest + ROW_COST)))


def pages_for(total: int, rows: int) -> int:
    """How many pages there are: one at least."""
    return max(1, -(-total // rows))


def channels_page(page: int, pages: int, total: int, rows: Sequence[ChannelRow]) -> bytes:
    return _encode(ChannelsPage(page, pages, total, list(rows)))


def peers_page(page: int, pages: int, total: int, rows: Sequence[ConnectionInfo]) -> bytes:
    return _encode(PeersPage(page, pages, total, list(rows)))


def ends_page(page: int, pages: int, total: int, rows: Sequence[ClosedConnectionInfo]) -> bytes:
    return _encode(EndsPage(page, pages, total, list(rows)))


FIGURES = RESERVED + b"figures"

CLOSED = RESERVED + b"closed"

PEER = RESERVED + b"peer/"
"""Before the id of a peer."""

ENDS = 500
"""Sessions that have ended whose records are kept: with their timelines about a MiB, and 3 MiB at most."""

ENDS_ROWS = 25
"""On one page of them: 25 with the longest names and reasons stay below ``pages.MAX_PAGE``."""

CHANNEL_ORDERS = ("name", "rate", "readers")

PEER_ORDERS = ("newest", "lag", "sent", "id")

_PAGE = re.compile(rb"(channels|peers)/([a-z]+)/(0|[1-9][0-9]{0,5})", re.DOTALL)

_CLOSED = re.compile(rb"closed/(0|[1-9][0-9]{0,5})")

_FIND = re.compile(rb"(channels|peers)/find/(.+)", re.DOTALL)

_PEER = re.compile(rb"peer/([^/]+)", re.DOTALL)

_ORDERS = {"channels": CHANNEL_ORDERS, "peers": PEER_ORDERS}


class Topic(msgspec.Struct, frozen=True):
    """``kind`` is channels, peers, peer or closed. Of channels and peers, either ``order`` and ``page`` are given, or
    ``text``, in small letters, which is looked for. Of a peer, ``text`` is its id. Of closed, ``page`` is given."""

    kind: str
    order: str = ""
    page: int = 0
    text: bytes = b""


def parse_topic(channel: bytes) -> Topic | None:
    """What a channel is about that is told only while somebody reads it; None for any other."""
    if not channel.startswith(RESERVED):
        return None
    name = channel[len(RESERVED) :]
    if found := _FIND.fullmatch(name):
        return Topic(found[1].decode(), text=found[2].lower())
    if found := _PAGE.fullmatch(name):
        kind, order = found[1].decode(), found[2].decode()
        return Topic(kind, order, int(found[3])) if order in _ORDERS[kind] else None
    if found := _CLOSED.fullmatch(name):
        return Topic("closed", page=int(found[1]))
    if found := _PEER.fullmatch(name):
        return Topic("peer", text=found[1])
    return None


T = TypeVar("T")

Work = Generator[None, None, T]
"""Done bit by bit; wherever it yields, others may have their turn. A bit takes a millisecond or two at most."""

SORTED_PER_STEP = 1_000
"""What is looked at, or sorted, in one bit, about."""


def sorted_in_slices(keys: Sequence[float] | Sequence[bytes]) -> Work[list[int]]:
    """The places of ``keys``, the smallest first; those that are equal stay in their order. They are put into boxes,
    by borders that a sample gives, and each box is sorted by itself."""
    count, key = len(keys), keys.__getitem__
    borders = sorted(map(key, range(0, count, max(1, count // 256))))  # type: ignore[type-var]
    borders = borders[:: max(1, len(borders) * SORTED_PER_STEP // max(1, count))] if count > SORTED_PER_STEP else []
    boxes: list[list[int]] = [[] for _ in range(len(borders) + 1)]
    add = [box.append for box in boxes]
    for start in range(0, count, SORTED_PER_STEP):
        for place in range(start, min(start + SORTED_PER_STEP, count)):
            add[bisect_right(borders, key(place))](place)  # type: ignore[type-var]
        yield
    ranked: list[int] = []
    for box in boxes:
        box.sort(key=key)
        ranked += box
        yield
    return ranked


CHANNELS_PER_STEP = 1_000
"""Channels that are looked at in one bit of work."""

Heads = dict[Channel, int]
"""Where each channel stood."""


class ChannelTable:
    """What is told until the next look. An order is made when somebody asks for it first."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.channels: list[Channel] = []
        self.rates: list[float] = []
        self.heads: Heads = {}
        self._longest = 0
        self._orders: dict[str, list[int]] = {}

    def take(self, channels: Iterable[Channel], before: "ChannelTable | None") -> Work[None]:
        """Look at all but the server's own. A rate is the difference to the look before; who was not there then has
        the rate 0."""
        heads: Heads = {} if before is None else before.heads
        seconds = 1.0 if before is None else max(0.001, self.at - before.at)
        waiting = list(channels)
        for start in range(0, len(waiting), CHANNELS_PER_STEP):
            part = [channel for channel in waiting[start : start + CHANNELS_PER_STEP] if not is_reserved(channel.name)]
            self.channels += part
            self.heads.update([(channel, channel.head) for channel in part])
            self.rates += [(channel.head - heads.get(channel, channel.head)) / seconds for channel in part]
            self._longest = max([self._longest, *[len(channel.name) for channel in part]])
            yield

    def order(self, name: str) -> Work[list[int]]:
        """The places of the channels: by name, or the most first; where there are as many, by name."""
        known = self._orders.get(name)
        if known is not None:
            return known
        channels = self.channels
        if name == "name":
            order = yield from sorted_in_slices([channel.name for channel in channels])
        else:
            names = yield from self.order("name")
            keys = (
                [-self.rates[place] for place in names]
                if name == "rate"
                else [-len(channels[place].subscriptions) for place in names]
            )
            yield
            order = [names[place] for place in (yield from sorted_in_slices(keys))]
        self._orders[name] = order
        return order

    def answer(self, topic: Topic) -> Work[bytes]:
        """The page that is asked for; one behind the last is empty."""
        if topic.text:
            return (yield from self._find(topic.text))
        order = yield from self.order(topic.order)
        rows = rows_for(self._longest)
        start = topic.page * rows
        shown = [self._row(place) for place in order[start : start + rows]]
        return channels_page(topic.page, pages_for(len(order), rows), len(order), shown)

    def _find(self, text: bytes) -> Work[bytes]:
        order, found = (yield from self.order("rate")), list[int]()
        for start in range(0, len(order), CHANNELS_PER_STEP):
            part = order[start : start + CHANNELS_PER_STEP]
            found += [place for place in part if text in self.channels[place].name.lower()]
            yield
        rows = min(ROWS, rows_for(self._longest))
        return channels_page(0, 1, len(found), [self._row(place) for place in found[:rows]])

    def _row(self, place: int) -> ChannelRow:
        channel = self.channels[place]
        return ChannelRow(
            channel.name.decode(),
            len(channel.subscriptions),
            channel.head,
            channel.epoch.decode(),
            len(channel.history),
            channel.history.size,
            round(self.rates[place], 2),
        )


CONNECTIONS_PER_STEP = 1_000
"""Peers that are looked at in one bit of work."""

SOCKETS = 2_000
"""Sockets that are asked what they have sent, for the order by that, at each look; of more peers, those that were not
asked keep what they had sent before."""

SOCKETS_PART = 250
"""Of these, in one bit of work: each is a system call."""


class ConnectionTable:
    """What is told until the next look. An order is made when somebody asks for it first."""

    def __init__(self, at: float, longest: int) -> None:
        """``longest`` is how many bytes all the names of one peer have at most."""
        self.at = at
        self.sessions: list[Session] = []
        self.sent: dict[Session, int] = {}
        self.asked_to = 0
        self._longest = longest
        self._orders: dict[str, list[int]] = {}
        self._texts: list[bytes] = []
        self._before: ConnectionTable | None = None

    def take(self, sessions: Iterable[Session], before: "ConnectionTable | None") -> None:
        """Look at all. What their sockets had sent is known from ``before``."""
        self.sessions = list(sessions)
        if before is not None:
            self.sent, self.asked_to = before.sent, before.asked_to

    def order(self, name: str) -> Work[list[int]]:
        """The places of the sessions."""
        known = self._orders.get(name)
        if known is not None:
            return known
        count = len(self.sessions)
        newest = list(range(count - 1, -1, -1))
        if name == "newest":
            order = newest
        elif name == "id":
            order = yield from sorted_in_slices([session.client.id for session in self.sessions])
        else:
            keys: list[float] = []
            if name == "sent":
                yield from self._ask_sockets()
            for start in range(0, count, CONNECTIONS_PER_STEP):
                part = [self.sessions[place] for place in newest[start : start + CONNECTIONS_PER_STEP]]
                if name == "sent":
                    keys += [-self.sent[session] for session in part]
                else:
                    keys += [-session.lag if session.behind else 0 for session in part]
                yield
            if any(keys):
                order = [newest[place] for place in (yield from sorted_in_slices(keys))]
            else:  # most of the time nobody is behind
                order = newest
        self._orders[name] = order
        return order

    def _ask_sockets(self) -> Work[None]:
        sessions, count = self.sessions, len(self.sessions)
        start = self.asked_to if self.asked_to < count else 0
        known = self.sent
        self.sent = {}
        for first in range(0, count, CONNECTIONS_PER_STEP):
            part = sessions[first : first + CONNECTIONS_PER_STEP]
            self.sent.update([(session, known.get(session, 0)) for session in part])
            yield
        asked = (sessions[start:] + sessions[:start])[:SOCKETS]
        for first in range(0, len(asked), SOCKETS_PART):
            for session in asked[first : first + SOCKETS_PART]:
                traffic = session.tcp_stats()
                if traffic is not None:
                    self.sent[session] = traffic.sent
            yield
        self.asked_to = (start + SOCKETS) % count if count > SOCKETS else 0

    def answer(self, topic: Topic, now: float) -> Work[bytes]:
        """The page that is asked for; one behind the last is empty."""
        if topic.text:
            order = yield from self._find(topic.text)
        else:
            order = yield from self.order(topic.order)
        rows = rows_for(self._longest)
        pages = 1 if topic.text else pages_for(len(order), rows)
        start = topic.page * rows
        shown = [connection_info(self.sessions[place], now) for place in order[start : start + rows]]
        return peers_page(topic.page, pages, len(order), shown)

    def _find(self, text: bytes) -> Work[list[int]]:
        order, texts = (yield from self.order("newest")), self._texts
        while len(texts) < len(self.sessions):
            texts += [_text(session) for session in self.sessions[len(texts) : len(texts) + CONNECTIONS_PER_STEP]]
            yield
        found = [place for place in order if text in texts[place]]
        yield
        return found


def _subject(session: Session) -> bytes:
    identity = session.identity
    return b"" if identity is None else identity.subject


def longest_names(session: Session) -> int:
    """Bytes of all its names at most, as it may change its nick."""
    peer, ends = session.client, session.endpoints
    return len(peer.id) + NICK_BYTES + len(ends.client) + len(ends.server) + len(_subject(session))


def _text(session: Session) -> bytes:
    """In what is looked for."""
    peer = session.client
    return b"\n".join((peer.id, peer.nick, _subject(session), session.endpoints.client)).lower()


# TODO-MERGED-DOC: Which page a channel's name asks for.

# TODO-MERGED-DOC: Sorting that can be interrupted, so that nobody waits for it.

# TODO-MERGED-DOC: One look at all channels: their rates, and the orders in which they are told.

# TODO-MERGED-DOC: One look at all peers, and the orders in which they are told.
