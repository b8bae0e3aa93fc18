"""Tests of the first offset of a subscription, with a row for each rule of the section "Recovery"."""

import pytest

from twistedsock.limits.settings import Limits
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.values import Batch, Payloads, Position
from twistedsock.session.commands import Subscribe, resume_offset
from twistedsock.stats import Stats

HEAD, KEPT = 20, 10


@pytest.fixture
def channel() -> Channel:
    """A channel with twenty events, of which the history contains 11 to 20."""
    channel = Channel(b"k", Position(b"e", 0), Limits(history_events=KEPT), Stats())
    channel.head = HEAD
    channel.history.extend([Batch(1, HEAD + 1, b"p", b"p", b"message", Payloads((b"",) * HEAD, 0))], 0.0)
    return channel


@pytest.mark.parametrize(
    ("options", "start", "recovered"),
    [
        ({}, 21, None),
        ({"last": 3}, 18, None),
        ({"last": 0}, 21, None),
        ({"last": 500}, 11, None),
        ({"since": 15, "epoch": b"e"}, 16, True),
        ({"since": 10, "epoch": b"e"}, 11, True),
        ({"since": 20, "epoch": b"e"}, 21, True),
        ({"since": 9, "epoch": b"e"}, 10, False),
        ({"since": 0, "epoch": b"e"}, 1, False),
        ({"since": 21, "epoch": b"e"}, 21, False),
        ({"since": 15, "epoch": b"other"}, 21, False),
        ({"since": 15, "epoch": b"other", "last": 2}, 19, False),
        ({"since": 21, "epoch": b"e", "last": 2}, 19, False),
        ({"since": 15, "epoch": b"e", "last": 2}, 16, True),
        ({"since": 9, "epoch": b"e", "last": 2}, 10, False),
    ],
)
def test_first_offset_of_a_subscription(
    channel: Channel, options: dict[str, object], start: int, recovered: bool | None
) -> None:
    command = Subscribe(b"k", **options)  # type: ignore[arg-type]
    assert resume_offset(command, channel) == (start, recovered)


@pytest.mark.parametrize(
    ("options", "start", "recovered"),
    [
        ({"last": 5}, 11, None),
        ({"since": 10, "epoch": b"e"}, 11, True),
        ({"since": 9, "epoch": b"e"}, 10, False),
        ({"since": 9, "epoch": b"e", "last": 5}, 10, False),
        ({"since": 11, "epoch": b"e", "last": 5}, 11, False),
    ],
)
def test_first_offset_when_the_history_is_empty(options: dict[str, object], start: int, recovered: bool | None) -> None:
    channel = Channel(b"k", Position(b"e", 10), Limits(), Stats())
    command = Subscribe(b"k", **options)  # type: ignore[arg-type]
    assert resume_offset(command, channel) == (start, recovered)
