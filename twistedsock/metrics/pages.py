"""The channels that the console reads, and the pages of rows that are published to them. A page fits into one event."""

import re
from collections.abc import Sequence

import msgspec

from twistedsock.metrics.connection_journal import KINDS, ConnectionJournal, JournalEntry
from twistedsock.pubsub.names import RESERVED
from twistedsock.session.connection_info import ClosedConnectionInfo, ConnectionInfo

# The channels.

STATISTICS_CHANNEL = RESERVED + b"figures"

CLOSED_CHANNEL = RESERVED + b"closed"

TOP_CHANNEL = RESERVED + b"top"

PEER_PREFIX = RESERVED + b"peer/"
"""Before the id of a connection."""

MAX_CLOSED_KEPT = 500
"""Closed connections whose records are kept: about a MiB with their timelines, and 3 MiB at most."""

CLOSED_ROWS_PER_PAGE = 25
"""With the longest names and reasons, the page stays below ``MAX_PAGE_BYTES``."""

_ORDERS = {
    "channels": ("name", "rate", "readers"),
    "peers": ("newest", "lag", "sent", "id"),
    "log": ("all", *KINDS),
}

_PAGE = re.compile(rb"(channels|peers|log)/([a-z]+)/(0|[1-9][0-9]{0,5})", re.DOTALL)

_CLOSED = re.compile(rb"closed/(0|[1-9][0-9]{0,5})")

_FIND = re.compile(rb"(channels|peers|log)/find/(.+)", re.DOTALL)

_PEER = re.compile(rb"peer/([^/]+)", re.DOTALL)


class Topic(msgspec.Struct, frozen=True):
    """The topic of a channel under ``$sys/``."""

    kind: str
    """channels, peers, peer, top, closed or log."""
    order: str = ""
    """The order of channels and peers, or the kind of entries of the log."""
    page: int = 0
    text: bytes = b""
    """The search text of channels, peers and log in lower case, or the id of a peer."""


def parse_topic(channel: bytes) -> Topic | None:
    """The topic of a channel that is published only while it has subscribers. None for every other channel."""
    if not channel.startswith(RESERVED):
        return None
    if channel == TOP_CHANNEL:
        return Topic("top")
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


# The pages.

MAX_ROWS_PER_PAGE = 100

MAX_PAGE_BYTES = 48 * 1024
"""With the head of its event, a page fits into one chunk, and four of them into the history of its channel."""

TOP_ROWS = 6
"""Channels, and clients, of the summary."""

ROW_BYTES = 240
"""Bytes of a row without its names: keys, numbers of any length and commas."""

_encode = msgspec.json.Encoder().encode


class ChannelRow(msgspec.Struct, frozen=True, gc=False):
    channel: str
    readers: int
    offset: int
    epoch: str
    events: int
    """Events in the history."""
    bytes: int
    rate: float
    """Events per second."""


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


class TopPage(msgspec.Struct, frozen=True):
    """The busiest channels, and the clients that are furthest behind."""

    channels: list[ChannelRow]
    peers: list[ConnectionInfo]


class ClosedPage(msgspec.Struct, frozen=True):
    page: int
    pages: int
    total: int
    closed: list[ClosedConnectionInfo]


class LogPage(msgspec.Struct, frozen=True):
    page: int
    pages: int
    total: int
    log: list[JournalEntry]


def rows_per_page(max_name_bytes: int) -> int:
    """Rows of a page, if the names in one row have at most so many bytes together. JSON can double them."""
    return max(1, min(MAX_ROWS_PER_PAGE, MAX_PAGE_BYTES // (2 * max_name_bytes + ROW_BYTES)))


def page_count(total: int, rows: int) -> int:
    """At least 1."""
    return max(1, -(-total // rows))


def encode_channels_page(page: int, pages: int, total: int, rows: Sequence[ChannelRow]) -> bytes:
    return _encode(ChannelsPage(page, pages, total, list(rows)))


def encode_peers_page(page: int, pages: int, total: int, rows: Sequence[ConnectionInfo]) -> bytes:
    return _encode(PeersPage(page, pages, total, list(rows)))


def encode_top_page(channels: Sequence[ChannelRow], rows: Sequence[ConnectionInfo]) -> bytes:
    return _encode(TopPage(list(channels), list(rows)))


def encode_closed_page(page: int, pages: int, total: int, rows: Sequence[ClosedConnectionInfo]) -> bytes:
    return _encode(ClosedPage(page, pages, total, list(rows)))


LOG_ROWS_PER_PAGE = 50
"""With the longest names and details, half as many stay below ``MAX_PAGE_BYTES``."""


def log_entries(journal: ConnectionJournal, topic: Topic) -> list[JournalEntry]:
    """The entries of the connection log for a topic, the newest first."""
    if topic.text:
        text = topic.text.decode(errors="replace")
        return [entry for entry in journal.entries() if text in _log_text(entry)]
    return journal.entries(KINDS if topic.order == "all" else (topic.order,))


def encode_log_entries(topic: Topic, entries: Sequence[JournalEntry]) -> bytes:
    """A page of these entries. It is empty behind the last one."""
    longest = max([len(_encode(entry)) for entry in entries], default=1)
    rows = max(1, min(LOG_ROWS_PER_PAGE, MAX_PAGE_BYTES // longest))
    pages = 1 if topic.text else page_count(len(entries), rows)
    start = topic.page * rows
    return _encode(LogPage(topic.page, pages, len(entries), list(entries[start : start + rows])))


def _log_text(entry: JournalEntry) -> str:
    return "\n".join((entry.kind, entry.id, entry.nick, entry.subject, entry.client, entry.detail, entry.code)).lower()
