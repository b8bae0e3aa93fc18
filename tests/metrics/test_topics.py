"""A channel's name says which page it is."""

import pytest

from twistedsock.metrics.tables import Topic, parse_topic


@pytest.mark.parametrize(
    ("channel", "topic"),
    [
        (b"$sys/channels/name/0", Topic("channels", "name", 0)),
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
    ],
)
def test_a_page(channel: bytes, topic: Topic) -> None:
    assert parse_topic(channel) == topic


@pytest.mark.parametrize(
    "channel",
    [
        b"kitchen",
        b"channels/name/0",
        b"$sys/figures",
        b"$sys/closed",
        b"$sys/peers/foo",
        b"$sys/peers/name/0",
        b"$sys/channels/newest/0",
        b"$sys/channels/name/",
        b"$sys/channels/name/01",
        b"$sys/channels/name/-1",
        b"$sys/channels/name/1000000",
        b"$sys/channels/name/\xd9\xa1",  # a digit, but none of ours
        b"$sys/channels/find/",
        b"$sys/peer/",
        b"$sys/peer/a/b",
        b"$sys/",
    ],
)
def test_no_page(channel: bytes) -> None:
    assert parse_topic(channel) is None
