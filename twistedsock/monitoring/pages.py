"""Pages of long lists, each one event that stays far below a chunk."""

from collections.abc import Sequence

import msgspec

from twistedsock.core.peer_record import EndRecord, PeerRecord

ROWS = 100
"""What people look through on one page."""

MOST_PAGE = 48 * 1024
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
    peers: list[PeerRecord]


class EndsPage(msgspec.Struct, frozen=True):
    page: int
    pages: int
    total: int
    closed: list[EndRecord]


def rows_for(longest: int) -> int:
    """How many rows make a page where the names of one have so many bytes together at most; JSON may double them."""
    return max(1, min(ROWS, MOST_PAGE // (2 * longest + ROW_COST)))


def pages_for(total: int, rows: int) -> int:
    """How many pages there are: one at least."""
    return max(1, -(-total // rows))


def channels_page(page: int, pages: int, total: int, rows: Sequence[ChannelRow]) -> bytes:
    return _encode(ChannelsPage(page, pages, total, list(rows)))


def peers_page(page: int, pages: int, total: int, rows: Sequence[PeerRecord]) -> bytes:
    return _encode(PeersPage(page, pages, total, list(rows)))


def ends_page(page: int, pages: int, total: int, rows: Sequence[EndRecord]) -> bytes:
    return _encode(EndsPage(page, pages, total, list(rows)))
