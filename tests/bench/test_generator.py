"""Publishers publish as far as the slowest reader lets them, and no further."""

from typing import Any

import pytest

from twistedsock.bench.clients import Expected, Stream
from twistedsock.bench.generator import WINDOW, Publisher, Room, window

FRAMES = [b"PUB a %03d\n" % number for number in range(100)]


@pytest.mark.parametrize("frames", [FRAMES, [b"x" * (number % 7 + 1) for number in range(100)]])
def test_a_publisher_sends_whole_events_up_to_what_is_allowed(wire: Any, frames: list[bytes]) -> None:
    connection = wire()
    publisher = Publisher(connection, frames)
    assert publisher.publish(10)
    assert connection.sent == b"".join(frames[:10])
    assert publisher.publish(1_000)
    assert connection.sent == b"".join(frames)


def test_a_publisher_goes_on_where_the_socket_was_full(wire: Any) -> None:
    connection = wire(room=25)
    publisher = Publisher(connection, FRAMES)
    assert not publisher.publish(5)
    assert connection.sent == b"".join(FRAMES)[:25]
    connection.room = 1_000_000
    assert publisher.publish(5)
    assert connection.sent == b"".join(FRAMES[:5])


def reader(expected: Expected) -> Stream:
    return Stream(None, expected, "reader", None)  # type: ignore[arg-type]


def room(wire: Any, publishers: int, readers: int, ahead: int) -> tuple[list[Any], list[Stream], Room]:
    expected = Expected([b"a"] * len(FRAMES) * publishers, foretold=True)
    connections = [wire() for _ in range(publishers)]
    streams = [reader(expected) for _ in range(readers)]
    return connections, streams, Room([Publisher(each, FRAMES) for each in connections], streams, ahead)


def events(connection: Any) -> int:
    return connection.sent.count(b"\n")


def test_no_publisher_is_further_ahead_than_the_window(wire: Any) -> None:
    (connection,), streams, one = room(wire, 1, 3, 20)
    assert one.push() == []
    assert events(connection) == 20
    for stream in streams[:2]:
        stream.take(b"a" * 20)
    one.push()
    assert events(connection) == 20, "one reader has nothing yet"
    streams[2].take(b"a" * 10)
    one.push()
    assert events(connection) == 30


def test_what_is_allowed_is_sent_in_large_pieces(wire: Any) -> None:
    (connection,), (stream,), one = room(wire, 1, 1, 20)
    one.push()
    stream.take(b"a" * 4)
    one.push()
    assert events(connection) == 20
    stream.take(b"a")
    one.push()
    assert events(connection) == 25


def test_publishers_share_the_window(wire: Any) -> None:
    connections, _, one = room(wire, 4, 1, 20)
    one.push()
    assert [events(each) for each in connections] == [5, 5, 5, 5]


def test_in_the_end_all_is_sent(wire: Any) -> None:
    (connection,), (stream,), one = room(wire, 1, 1, 7)
    while not stream.is_complete:
        one.push()
        stream.take(b"a" * (events(connection) - stream.position))
    assert connection.sent == b"".join(FRAMES)


def test_a_room_tells_whose_socket_is_full(wire: Any) -> None:
    connection = wire(room=15)
    publisher = Publisher(connection, FRAMES)
    one = Room([publisher], [reader(Expected([b"a"] * 100, True))], 20)
    assert one.push() == [publisher]
    connection.room = 1_000
    assert one.send() == []
    assert events(connection) == 20


@pytest.mark.parametrize(
    ("size", "channels", "ahead"), [(32, 1, WINDOW), (200, 1, 6_446), (4_096, 1, 717), (32, 5_000, 125)]
)
def test_the_window_is_smaller_than_a_log(size: int, channels: int, ahead: int) -> None:
    assert window(size, channels) == ahead
    assert ahead * (size + 288) < 4 * 1024 * 1024
    assert ahead * (size + 288) * channels < 256 * 1024 * 1024
