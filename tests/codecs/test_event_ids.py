"""An id names a place in each channel, or is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.sse import format_event_id, parse_event_id
from twistedsock.pubsub.values import Position
from twistedsock.session.commands import MAX_OFFSET

PLACES = st.none() | st.builds(
    Position, st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True).map(str.encode), st.integers(0, MAX_OFFSET)
)


def test_of_one_channel_and_of_several() -> None:
    """As the documents show them."""
    assert parse_event_id("5f2c1a:18", 1) == [Position(b"5f2c1a", 18)]
    assert parse_event_id("5f2c1a:18,9ab3:40", 2) == [Position(b"5f2c1a", 18), Position(b"9ab3", 40)]
    assert parse_event_id("5f2c1a:18,", 2) == [Position(b"5f2c1a", 18), None]
    assert format_event_id([None, Position(b"e1", 0), None]) == b",e1:0,"


@given(places=st.lists(PLACES, min_size=1, max_size=40))
def test_what_is_written_is_read(places: list[Position | None]) -> None:
    assert parse_event_id(format_event_id(places).decode(), len(places)) == places


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("18", 1),
        (":18", 1),
        ("e1:", 1),
        ("e1:x", 1),
        ("e1:-1", 1),
        ("e1:1 ", 1),
        ("e 1:1", 1),
        ("e1:1,e2:2", 1),
        ("e1:1", 2),
        ("e1:1,e2:2,e3:3", 2),
        (f"e1:{MAX_OFFSET + 1}", 1),
        ("e1:" + "9" * 17, 1),
        ("e1:١", 1),
        ("e" * 65 + ":1", 1),
    ],
)
def test_what_is_no_id_of_these_channels(text: str, channels: int) -> None:
    assert parse_event_id(text, channels) is None


@given(text=st.text(max_size=30), channels=st.integers(1, 3))
def test_whatever_comes_is_read_or_refused(text: str, channels: int) -> None:
    places = parse_event_id(text, channels)
    assert places is None or len(places) == channels
