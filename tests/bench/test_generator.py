"""Publishers, which wait for the slowest subscriber of their channel."""

from typing import Any

import pytest

from twistedsock.bench.clients import ExpectedData, Stream
from twistedsock.bench.generator import WINDOW, ChannelLoad, Publisher, window

FRAMES = [b"PUB a %03d\n" % number for number in range(100)]


@pytest.mark.parametrize("frames", [FRAMES, [b"x" * (number % 7 + 1) for number in range(100)]])
def test_publisher_sends_whole_events_up_to_the_allowed_number(wire: Any, frames: list[bytes]) -> None:
    connection = wire()
    publisher = Publisher(connection, frames)
    assert publisher.publish(10)
    assert connection.sent == b"".join(frames[:10])
    assert publisher.publish(1_000)
    assert connection.sent == b"".join(frames)


def test_publisher_continues_after_full_socket(wire: Any) -> None:
    connection = wire(room=25)
    publisher = Publisher(connection, FRAMES)
    assert not publisher.publish(5)
    assert connection.sent == b"".join(FRAMES)[:25]
    connection.room = 1_000_000
    assert publisher.publish(5)
    assert connection.sent == b"".join(FRAMES[:5])


def reader(expected: ExpectedData) -> Stream:
    return Stream(None, expected, "reader", None)  # type: ignore[arg-type]


def room(wire: Any, publishers: int, readers: int, ahead: int) -> tuple[list[Any], list[Stream], ChannelLoad]:
    expected = ExpectedData([b"a"] * len(FRAMES) * publishers, is_predictable=True)
    connections = [wire() for _ in range(publishers)]
    streams = [reader(expected) for _ in range(readers)]
    return connections, streams, ChannelLoad([Publisher(each, FRAMES) for each in connections], streams, ahead)


def events(connection: Any) -> int:
    return connection.sent.count(b"\n")


def test_publishers_stay_within_the_window(wire: Any) -> None:
    (connection,), streams, one = room(wire, 1, 3, 20)
    assert one.push() == []
    assert events(connection) == 20
    for stream in streams[:2]:
        stream.feed(b"a" * 20)
    one.push()
    assert events(connection) == 20, "one reader has nothing yet"
    streams[2].feed(b"a" * 10)
    one.push()
    assert events(connection) == 30


def test_publishes_in_large_pieces(wire: Any) -> None:
    (connection,), (stream,), one = room(wire, 1, 1, 20)
    one.push()
    stream.feed(b"a" * 4)
    one.push()
    assert events(connection) == 20
    stream.feed(b"a")
    one.push()
    assert events(connection) == 25


def test_publishers_share_the_window(wire: Any) -> None:
    connections, _, one = room(wire, 4, 1, 20)
    one.push()
    assert [events(each) for each in connections] == [5, 5, 5, 5]


def test_all_events_are_sent_at_the_end(wire: Any) -> None:
    (connection,), (stream,), one = room(wire, 1, 1, 7)
    while not stream.is_complete:
        one.push()
        stream.feed(b"a" * (events(connection) - stream.position))
    assert connection.sent == b"".join(FRAMES)


def test_returns_publishers_with_full_sockets(wire: Any) -> None:
    connection = wire(room=15)
    publisher = Publisher(connection, FRAMES)
    one = ChannelLoad([publisher], [reader(ExpectedData([b"a"] * 100, True))], 20)
    assert one.push() == [publisher]
    connection.room = 1_000
    assert one.send() == []
    assert events(connection) == 20


@pytest.mark.parametrize(
    ("size", "channels", "ahead"), [(32, 1, WINDOW), (200, 1, 5_957), (4_096, 1, 711), (32, 5_000, 111)]
)
def test_window_is_smaller_than_history(size: int, channels: int, ahead: int) -> None:
    assert window(size, channels) == ahead
    assert ahead * (size + 328) < 4 * 1024 * 1024
    assert ahead * (size + 328) * channels < 256 * 1024 * 1024
