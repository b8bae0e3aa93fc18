"""The lists under ``$sys/`` of several processes together: each reports its first rows, and one of them merges these.

A list that is sorted by a property of one process's rows is exact up to ``MAX_MERGED_ROWS``. A channel that is in use
in several processes is one row, with its subscribers added up.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from twistedsock.metrics.connection_journal import ConnectionJournal, JournalEntry
from twistedsock.metrics.pages import (
    CLOSED_ROWS_PER_PAGE,
    MAX_CLOSED_KEPT,
    TOP_ROWS,
    ChannelRow,
    Topic,
    encode_channels_page,
    encode_closed_page,
    encode_log_entries,
    encode_peers_page,
    encode_top_page,
    log_entries,
    page_count,
    rows_per_page,
)
from twistedsock.metrics.tables import ChannelTable, ConnectionTable, Steps
from twistedsock.session.connection_info import ClosedConnectionInfo, ConnectionInfo

MAX_MERGED_ROWS = 1_000
"""Rows that each process reports: ten pages. Sorting those of 32 processes takes about 10 ms."""

MAX_LOG_ROWS = 500
"""All that a connection log has."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first rows of a list of one process."""

    total: int = 0
    max_name_bytes: int = 1
    channels: list[ChannelRow] = []
    peers: list[ConnectionInfo] = []
    closed: list[ClosedConnectionInfo] = []
    log: list[JournalEntry] = []


encode_part = msgspec.json.Encoder().encode

_read_part = msgspec.json.Decoder(Part).decode


def rows_needed(topic: Topic) -> int:
    """How many rows of each process the page of a topic can contain."""
    if topic.kind == "channels" or topic.kind == "top":
        return MAX_MERGED_ROWS  # of the subscribers that are added up, any can be the most
    per_page, kept = {
        "peers": (100, MAX_MERGED_ROWS),
        "closed": (CLOSED_ROWS_PER_PAGE, MAX_CLOSED_KEPT),
        "log": (MAX_LOG_ROWS, MAX_LOG_ROWS),
    }[topic.kind]
    return min((topic.page + 1) * per_page, kept)


def own_part(
    topic: Topic,
    now: float,
    channel_table: Callable[[float], Steps[ChannelTable]],
    connection_table: Callable[[float], Steps[ConnectionTable]],
    newest_closed: Callable[[], list[ClosedConnectionInfo]],
    journal: ConnectionJournal,
) -> Steps[Part]:
    """The first rows of a list of this process."""
    limit = rows_needed(topic)
    if topic.kind == "channels":
        channels = yield from channel_table(now)
        rows, total = yield from channels.first(topic, limit)
        return Part(total=total, max_name_bytes=channels.max_name_bytes, channels=rows)
    if topic.kind == "peers":
        connections = yield from connection_table(now)
        peers, total = yield from connections.first(topic, now, limit)
        return Part(total=total, max_name_bytes=connections.max_name_bytes, peers=peers)
    if topic.kind == "top":
        channels = yield from channel_table(now)
        rows, _ = yield from channels.first(Topic("channels", "rate"), limit)
        connections = yield from connection_table(now)
        return Part(channels=rows, peers=(yield from connections.slowest(now)))
    if topic.kind == "closed":
        closed = newest_closed()
        return Part(total=len(closed), closed=closed[:limit])
    entries = log_entries(journal, topic)
    return Part(total=len(entries), log=entries)


def merged_page(topic: Topic, own: Part, reports: Sequence[bytes]) -> Steps[bytes]:
    """The encoded page of a topic. ``reports`` are the encoded parts of other processes."""
    parts = [own]
    for report in reports:
        with suppress(msgspec.MsgspecError):  # of a server with another version
            parts.append(_read_part(report))
        yield
    name_bytes = max([part.max_name_bytes for part in parts])
    total = sum([part.total for part in parts])
    if topic.kind == "channels":
        channels = yield from _merged_channels(parts, topic.order)
        shown, pages = _page_of(channels, topic, rows_per_page(name_bytes), len(channels))
        return encode_channels_page(topic.page, pages, max([len(channels), *[part.total for part in parts]]), shown)
    if topic.kind == "top":
        channels = yield from _merged_channels(parts, "rate")
        slowest = sorted([peer for part in parts for peer in part.peers], key=_PEER_KEYS["lag"])
        return encode_top_page(channels[:TOP_ROWS], slowest[:TOP_ROWS])
    if topic.kind == "peers":
        peers = sorted([peer for part in parts for peer in part.peers], key=_PEER_KEYS[topic.order or "newest"])
        shown, pages = _page_of(peers, topic, rows_per_page(name_bytes), min(total, MAX_MERGED_ROWS))
        return encode_peers_page(topic.page, pages, total, shown)
    if topic.kind == "closed":
        closed = sorted([row for part in parts for row in part.closed], key=lambda row: -row.at)
        shown, pages = _page_of(closed, topic, CLOSED_ROWS_PER_PAGE, min(total, MAX_CLOSED_KEPT))
        return encode_closed_page(topic.page, pages, total, shown)
    return encode_log_entries(topic, sorted([entry for part in parts for entry in part.log], key=_newest_entry))


def _page_of(rows: list[Any], topic: Topic, size: int, available: int) -> tuple[list[Any], int]:
    """The rows of a page, and the number of pages of ``available`` rows."""
    start = topic.page * size
    return rows[start : start + size], 1 if topic.text else page_count(available, size)


def _merged_channels(parts: Sequence[Part], order: str) -> Steps[list[ChannelRow]]:
    rows: dict[str, ChannelRow] = {}
    for part in parts:
        for row in part.channels:
            known = rows.get(row.channel)
            rows[row.channel] = row if known is None else _joined(known, row)
        yield
    return sorted(rows.values(), key=_CHANNEL_KEYS[order or "rate"])


def _joined(one: ChannelRow, other: ChannelRow) -> ChannelRow:
    """A channel that two processes use. Each of them receives all of its events."""
    newer, older = (one, other) if one.offset >= other.offset else (other, one)
    return msgspec.structs.replace(
        newer,
        readers=newer.readers + older.readers,
        events=max(newer.events, older.events),
        bytes=max(newer.bytes, older.bytes),
        rate=max(newer.rate, older.rate),
    )


def _newest_entry(entry: JournalEntry) -> int:
    return -entry.number


_CHANNEL_KEYS: dict[str, Callable[[ChannelRow], Any]] = {
    "name": lambda row: row.channel,
    "rate": lambda row: (-row.rate, row.channel),
    "readers": lambda row: (-row.readers, row.channel),
}

_PEER_KEYS: dict[str, Callable[[ConnectionInfo], Any]] = {
    "newest": lambda peer: peer.age,
    "lag": lambda peer: (-peer.lag if peer.behind else 0, peer.age),
    "sent": lambda peer: (-(peer.sent or 0), peer.age),
    "id": lambda peer: peer.id,
}
"""As ``ConnectionTable.order``."""
