"""A page stays far below a chunk, whatever the names are."""

import json

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.metrics.tables import MAX_PAGE, ROWS, ChannelRow, channels_page, pages_for, peers_page, rows_for
from twistedsock.pubsub.names import CHANNEL_BYTES
from twistedsock.session.timeline import ConnectionInfo

MANY = 10**15


def test_a_page_of_usual_names_has_a_hundred_rows() -> None:
    assert rows_for(0) == rows_for(30) == ROWS == 100
    assert rows_for(10**6) == 1


def test_there_is_one_page_at_least() -> None:
    assert [pages_for(total, 100) for total in (0, 1, 100, 101, 1000)] == [1, 1, 1, 2, 10]


def test_the_longest_channels_fit() -> None:
    """Of signs that JSON writes as two."""
    rows = rows_for(CHANNEL_BYTES)
    row = ChannelRow('"' * CHANNEL_BYTES, MANY, MANY, "e" * 16, MANY, MANY, 123456.78)
    page = channels_page(9, 9, MANY, [row] * rows)
    assert len(page) < MAX_PAGE < CHUNK_BYTES - 1024
    assert json.loads(page)["channels"][0]["channel"] == '"' * CHANNEL_BYTES


def test_the_longest_peers_fit() -> None:
    names = ("i" * 10, '"' * 32, '"' * 200, "a" * 108, "b" * 108)
    rows = rows_for(sum(map(len, names)))
    identifier, nick, subject, client, server = names
    row = ConnectionInfo(
        identifier, nick, subject, "events", client, server,
        12345678.9, "closing", 100_000, 100_000, MANY, MANY, MANY, MANY, 12345.678,
    )  # fmt: skip
    page = peers_page(9, 9, MANY, [row] * rows)
    assert len(page) < MAX_PAGE
    assert json.loads(page)["peers"][0]["from"] == client
