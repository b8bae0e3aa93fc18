"""Snapshots of all channels and connections, in several orders, as pages that fit into one event.

Everything is done in steps of about a millisecond, because a server can have 100,000 connections.
"""

from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from typing import TypeVar

from twistedsock.metrics.pages import (
    TOP_ROWS,
    ChannelRow,
    Topic,
    encode_channels_page,
    encode_peers_page,
    page_count,
    rows_per_page,
)
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.names import NICK_BYTES, is_reserved
from twistedsock.session.connection_info import ConnectionInfo, connection_info
from twistedsock.session.session import Session

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that yields after each millisecond or two, so that other work can have its turn."""

# Sorting.

SORTED_PER_STEP = 1_000


def sorted_in_slices(keys: Sequence[float] | Sequence[bytes]) -> Steps[list[int]]:
    """The indices of ``keys`` in ascending order. The sort is stable. It is a bucket sort with the borders of a sample,
    which sorts one bucket a step."""
    count, key = len(keys), keys.__getitem__
    borders = sorted(map(key, range(0, count, max(1, count // 256))))  # type: ignore[type-var]
    borders = borders[:: max(1, len(borders) * SORTED_PER_STEP // max(1, count))] if count > SORTED_PER_STEP else []
    buckets: list[list[int]] = [[] for _ in range(len(borders) + 1)]
    add = [bucket.append for bucket in buckets]
    for start in range(0, count, SORTED_PER_STEP):
        for index in range(start, min(start + SORTED_PER_STEP, count)):
            add[bisect_right(borders, key(index))](index)  # type: ignore[type-var]
        yield
    order: list[int] = []
    for bucket in buckets:
        bucket.sort(key=key)
        order += bucket
        yield
    return order


# The tables.

CHANNELS_PER_STEP = 1_000

Heads = dict[Channel, int]
"""The offset of the last event of each channel."""


class ChannelTable:
    """A snapshot of all channels, taken at ``at``. An order is computed when it is needed for the first time."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.channels: list[Channel] = []
        self.rates: list[float] = []
        self.heads: Heads = {}
        self.max_name_bytes = 0
        self._orders: dict[str, list[int]] = {}

    def fill(self, channels: Iterable[Channel], previous: "ChannelTable | None") -> Steps[None]:
        """Add all channels except those under ``$sys/``. Rates are computed from the previous snapshot; a channel that
        is new since then, or whose offsets have begun again, has the rate 0."""
        heads: Heads = {} if previous is None else previous.heads
        seconds = 1.0 if previous is None else max(0.001, self.at - previous.at)
        waiting = list(channels)
        for start in range(0, len(waiting), CHANNELS_PER_STEP):
            part = [channel for channel in waiting[start : start + CHANNELS_PER_STEP] if not is_reserved(channel.name)]
            self.channels += part
            self.heads.update([(channel, channel.head) for channel in part])
            self.rates += [max(0, channel.head - heads.get(channel, channel.head)) / seconds for channel in part]
            self.max_name_bytes = max([self.max_name_bytes, *[len(channel.name) for channel in part]])
            yield

    def order(self, name: str) -> Steps[list[int]]:
        """The indices of the channels, ascending by name, or descending by rate or subscribers and then by name."""
        known = self._orders.get(name)
        if known is not None:
            return known
        channels = self.channels
        if name == "name":
            order = yield from sorted_in_slices([channel.name for channel in channels])
        else:
            by_name = yield from self.order("name")
            keys = (
                [-self.rates[index] for index in by_name]
                if name == "rate"
                else [-len(channels[index].subscriptions) for index in by_name]
            )
            yield
            order = [by_name[index] for index in (yield from sorted_in_slices(keys))]
        self._orders[name] = order
        return order

    def page(self, topic: Topic) -> Steps[bytes]:
        """The encoded page of a topic. It is empty behind the last one."""
        order = yield from self._order_for(topic)
        rows = rows_per_page(self.max_name_bytes)
        start = topic.page * rows
        pages = 1 if topic.text else page_count(len(order), rows)
        return encode_channels_page(topic.page, pages, len(order), self._rows(order[start : start + rows]))

    def first(self, topic: Topic, limit: int) -> Steps[tuple[list[ChannelRow], int]]:
        """The first rows of a topic, and how many there are."""
        order = yield from self._order_for(topic)
        return self._rows(order[:limit]), len(order)

    def _order_for(self, topic: Topic) -> Steps[list[int]]:
        return (yield from self._find(topic.text) if topic.text else self.order(topic.order))

    def _rows(self, indices: Sequence[int]) -> list[ChannelRow]:
        return [self._row(index) for index in indices]

    def busiest(self) -> Steps[list[ChannelRow]]:
        """The first rows of the order by rate."""
        return self._rows((yield from self.order("rate"))[:TOP_ROWS])

    def _find(self, text: bytes) -> Steps[list[int]]:
        order, found = (yield from self.order("rate")), list[int]()
        for start in range(0, len(order), CHANNELS_PER_STEP):
            part = order[start : start + CHANNELS_PER_STEP]
            found += [index for index in part if text in self.channels[index].name.lower()]
            yield
        return found

    def _row(self, index: int) -> ChannelRow:
        channel = self.channels[index]
        return ChannelRow(
            channel.name.decode(),
            len(channel.subscriptions),
            channel.head,
            channel.epoch.decode(),
            len(channel.history),
            channel.history.size,
            round(self.rates[index], 2),
        )


CONNECTIONS_PER_STEP = 1_000

MAX_SOCKETS_READ = 2_000
"""Sockets whose sent bytes are read for each snapshot. With more connections, the rest keep the number that was read
before."""

SOCKETS_PER_STEP = 250
"""Fewer, because each is a system call."""


class ConnectionTable:
    """A snapshot of all sessions, taken at ``at``. An order is computed when it is needed for the first time.
    ``max_name_bytes`` is the maximum for the names of one connection."""

    def __init__(self, at: float, max_name_bytes: int) -> None:
        self.at = at
        self.sessions: list[Session] = []
        self.sent: dict[Session, int] = {}
        self.next_socket = 0
        self.max_name_bytes = max_name_bytes
        self._orders: dict[str, list[int]] = {}
        self._texts: list[bytes] = []

    def fill(self, sessions: Iterable[Session], previous: "ConnectionTable | None") -> None:
        """Add sessions. Their sent bytes are copied from the previous snapshot."""
        self.sessions = list(sessions)
        if previous is not None:
            self.sent, self.next_socket = previous.sent, previous.next_socket

    def order(self, name: str) -> Steps[list[int]]:
        """The indices of the sessions: the newest first, by id, or descending by lag or sent bytes."""
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
                yield from self._read_sockets()
            for start in range(0, count, CONNECTIONS_PER_STEP):
                part = [self.sessions[index] for index in newest[start : start + CONNECTIONS_PER_STEP]]
                if name == "sent":
                    keys += [-self.sent[session] for session in part]
                else:
                    keys += [-session.lag if session.behind else 0 for session in part]
                yield
            if any(keys):
                order = [newest[index] for index in (yield from sorted_in_slices(keys))]
            else:  # most of the time no session is behind
                order = newest
        self._orders[name] = order
        return order

    def _read_sockets(self) -> Steps[None]:
        sessions, count = self.sessions, len(self.sessions)
        start = self.next_socket if self.next_socket < count else 0
        known = self.sent
        self.sent = {}
        for first in range(0, count, CONNECTIONS_PER_STEP):
            part = sessions[first : first + CONNECTIONS_PER_STEP]
            self.sent.update([(session, known.get(session, 0)) for session in part])
            yield
        chosen = (sessions[start:] + sessions[:start])[:MAX_SOCKETS_READ]
        for first in range(0, len(chosen), SOCKETS_PER_STEP):
            for session in chosen[first : first + SOCKETS_PER_STEP]:
                traffic = session.tcp_stats()
                if traffic is not None:
                    self.sent[session] = traffic.sent
            yield
        self.next_socket = (start + MAX_SOCKETS_READ) % count if count > MAX_SOCKETS_READ else 0

    def page(self, topic: Topic, now: float) -> Steps[bytes]:
        """The encoded page of a topic. It is empty behind the last one."""
        order = yield from self._order_for(topic)
        rows = rows_per_page(self.max_name_bytes)
        pages = 1 if topic.text else page_count(len(order), rows)
        start = topic.page * rows
        shown = [connection_info(self.sessions[index], now) for index in order[start : start + rows]]
        return encode_peers_page(topic.page, pages, len(order), shown)

    def first(self, topic: Topic, now: float, limit: int) -> Steps[tuple[list[ConnectionInfo], int]]:
        """The first rows of a topic, and how many there are."""
        order = yield from self._order_for(topic)
        return [connection_info(self.sessions[index], now) for index in order[:limit]], len(order)

    def _order_for(self, topic: Topic) -> Steps[list[int]]:
        return (yield from self._find(topic.text) if topic.text else self.order(topic.order))

    def slowest(self, now: float) -> Steps[list[ConnectionInfo]]:
        """The clients that are furthest behind. Clients that are not behind are left out."""
        order = yield from self.order("lag")
        sessions = [self.sessions[index] for index in order[:TOP_ROWS]]
        return [connection_info(session, now) for session in sessions if session.behind]

    def _find(self, text: bytes) -> Steps[list[int]]:
        order, texts = (yield from self.order("newest")), self._texts
        while len(texts) < len(self.sessions):
            texts += [
                _search_text(session) for session in self.sessions[len(texts) : len(texts) + CONNECTIONS_PER_STEP]
            ]
            yield
        found = [index for index in order if text in texts[index]]
        yield
        return found


def max_name_bytes(session: Session) -> int:
    """Maximum bytes of all names of a session, which can still change its nick."""
    client, endpoints = session.client, session.endpoints
    return len(client.id) + NICK_BYTES + len(endpoints.client) + len(endpoints.server) + len(_subject(session))


def _search_text(session: Session) -> bytes:
    client = session.client
    return b"\n".join((client.id, client.nick, _subject(session), session.endpoints.client)).lower()


def _subject(session: Session) -> bytes:
    identity = session.identity
    return b"" if identity is None else identity.subject
