"""Times as text, and the moments that clients ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.times import format_time, parse_bound, parse_moment
from twistedsock.session.history_query import Moment

HALF_PAST_FIVE = 1_795_930_200_123


def test_formats_milliseconds_as_utc() -> None:
    assert format_time(HALF_PAST_FIVE) == b"2026-11-29T05:30:00.123Z"
    assert format_time(0) == b"1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-29T05:30:00.123Z",
        "2026-11-29t05:30:00.123z",
        "2026-11-29 05:30:00.123456789Z",
        "2026-11-29T06:30:00.123+01:00",
        "2026-11-28T22:00:00.123-07:30",
    ],
)
def test_parses_absolute_times(text: str) -> None:
    assert parse_moment(text) == Moment(HALF_PAST_FIVE)


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("-250ms", -250), ("-90s", -90_000), ("-5m", -300_000), ("-1h", -3_600_000), ("-0d", 0)]
)
def test_parses_times_relative_to_now(text: str, milliseconds: int) -> None:
    moment = parse_moment(text)
    assert moment == Moment(milliseconds, is_relative=True)
    assert moment.at(1_000_000.5) == 1_000_000_500 + milliseconds


def test_absolute_times_do_not_depend_on_now() -> None:
    assert Moment(17).at(1_000_000.0) == 17


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "-17",
        "1h",
        "-1w",
        "-1 h",
        "-1h30m",
        "-1234567890123s",
        "2026-11-29",
        "2026-11-29T05:30Z",
        "2026-11-29T05:30:00",
        "2026-11-29T05:30:00.Z",
        "2026-02-30T05:30:00Z",
        "2026-11-29T25:30:00Z",
        "2026-11-29T24:00:00Z",
        "2026-11-29T23:59:60Z",
        "2026-11-29T05:30:00+25:00",
        "2026-11-29T05:30:00+24:00",
        "2026-11-29T05:30:00-05:60",
        "0000-11-29T05:30:00Z",
        "2026-11-29T05:30:00Z\n",
        "\u0662026-11-29T05:30:00Z",
    ],
)
def test_rejects_everything_else(text: str) -> None:
    assert parse_moment(text) is None


@given(st.integers(0, 253_402_300_799_999))
def test_a_formatted_time_is_parsed_as_the_same(milliseconds: int) -> None:
    assert parse_moment(format_time(milliseconds).decode()) == Moment(milliseconds)


@pytest.mark.parametrize(
    ("text", "bound"),
    [("0", 0), ("0017", 17), ("9007199254740991", 2**53 - 1), ("1970-01-01T00:00:01Z", Moment(1_000))],
)
def test_bounds_are_offsets_or_times(text: str, bound: int | Moment) -> None:
    assert parse_bound(text) == bound


@pytest.mark.parametrize("text", ["", "9007199254740992", "1" * 5_000, "+17", "1_0", "\u0661", "yesterday"])
def test_rejects_other_bounds(text: str) -> None:
    assert parse_bound(text) is None
