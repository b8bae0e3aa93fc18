"""The channels of the console, and how much fits into a page."""

import json

import pytest

from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.metrics.pages import (
    MAX_PAGE_BYTES,
    MAX_ROWS_PER_PAGE,
    ChannelRow,
    Topic,
    encode_channels_page,
    encode_peers_page,
    page_count,
    parse_topic,
    rows_per_page,
)
from twistedsock.pubsub.names import CHANNEL_BYTES
from twistedsock.session.connection_info import ConnectionInfo

MANY = 10**15


@pytest.mark.parametrize(
    ("channel", "topic"),
    [
        (b"$sys/channels/name/0", Topic("channels", "name", 0)),
        (b"$sys/log/all/0", Topic("log", "all", 0)),
        (b"$sys/top", Topic("top")),
        (b"$sys/log/refused/3", Topic("log", "refused", 3)),
        (b"$sys/log/find/Ann", Topic("log", text=b"ann")),
        (b"$sys/channels/rate/12", Topic("channels", "rate", 12)),
        (b"$sys/channels/readers/999999", Topic("channels", "readers", 999_999)),
        (b"$sys/peers/newest/0", Topic("peers", "newest", 0)),
        (b"$sys/peers/lag/1", Topic("peers", "lag", 1)),
        (b"$sys/peers/sent/1", Topic("peers", "sent", 1)),
        (b"$sys/peers/id/1", Topic("peers", "id", 1)),
        (b"$sys/channels/find/Kitchen/0", Topic("channels", text=b"kitchen/0")),
        (b"$sys/peers/find/8081", Topic("peers", text=b"8081")),
        (b"$sys/peers/find/127.0.0.1:5", Topic("peers", text=b"127.0.0.1:5")),
        (b"$sys/peer/k3x9p", Topic("peer", text=b"k3x9p")),
        (b"kitchen", None),
        (b"channels/name/0", None),
        (b"$sys/figures", None),
        (b"$sys/closed", None),
        (b"$sys/peers/foo", None),
        (b"$sys/peers/name/0", None),
        (b"$sys/channels/newest/0", None),
        (b"$sys/channels/name/", None),
        (b"$sys/channels/name/01", None),
        (b"$sys/channels/name/-1", None),
        (b"$sys/channels/name/1000000", None),
        (b"$sys/channels/name/\xd9\xa1", None),  # an Arabic digit
        (b"$sys/channels/find/", None),
        (b"$sys/peer/", None),
        (b"$sys/peer/a/b", None),
        (b"$sys/", None),
    ],
)
def test_parses_the_topic_of_a_channel(channel: bytes, topic: Topic | None) -> None:
    assert parse_topic(channel) == topic


# Pages.


def test_longer_names_leave_fewer_rows_on_a_page() -> None:
    assert rows_per_page(0) == rows_per_page(30) == MAX_ROWS_PER_PAGE == 100
    assert rows_per_page(10**6) == 1


def test_there_is_at_least_one_page() -> None:
    assert [page_count(total, 100) for total in (0, 1, 100, 101, 1000)] == [1, 1, 1, 2, 10]


def test_page_with_the_longest_channel_names_fits_into_a_chunk() -> None:
    name = '"' * CHANNEL_BYTES  # JSON doubles each byte
    row = ChannelRow(name, MANY, MANY, "e" * 16, MANY, MANY, 123456.78)
    page = encode_channels_page(9, 9, MANY, [row] * rows_per_page(CHANNEL_BYTES))
    assert len(page) < MAX_PAGE_BYTES < CHUNK_BYTES - 1024
    assert json.loads(page)["channels"][0]["channel"] == name


def test_page_with_the_longest_client_names_fits_into_a_chunk() -> None:
    names = ("i" * 10, '"' * 32, '"' * 200, "a" * 108, "b" * 108)
    identifier, nick, subject, client, server = names
    row = ConnectionInfo(
        identifier, nick, subject, "events", client, server,
        12345678.9, "closing", 100_000, 100_000, MANY, MANY, MANY, MANY, 12345.678,
    )  # fmt: skip
    page = encode_peers_page(9, 9, MANY, [row] * rows_per_page(sum(map(len, names))))
    assert len(page) < MAX_PAGE_BYTES
    assert json.loads(page)["peers"][0]["from"] == client


# Sorting.
