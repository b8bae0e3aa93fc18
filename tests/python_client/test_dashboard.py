"""What `sockbridge watch` shows."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sockbridge.commands.dashboard import (
    ASCII_BLOCKS,
    MAX_FIELDS,
    MAX_POINTS,
    Dashboard,
    Style,
    fit,
    format_age,
    format_number,
    format_rate,
    numbers_in,
    sparkline,
    width_of,
)
from sockbridge.values import Event, Lost, Reset

NOW = 1_800_000_000.0


class Board:
    """A dashboard, and a clock."""

    def __init__(self, *channels: str, blocks: str = ASCII_BLOCKS) -> None:
        self.dashboard = Dashboard("here", blocks)
        self.now = NOW
        for channel in channels:
            self.dashboard.add_channel(channel)

    def publish(self, channel: str, *values: Any) -> None:
        for value in values:
            time = datetime.fromtimestamp(self.now, UTC)
            self.dashboard.add(Event(channel, 1, time, "ann", "message", value), self.now)

    def lines(self, width: int = 80, height: int = 24) -> list[str]:
        """The screen, whose lines have the right size."""
        lines = [text for text, _ in self.dashboard.render(width, height, self.now)]
        assert len(lines) == height and {width_of(line) for line in lines} <= {width}
        return lines

    def rows(self, width: int = 80, height: int = 24) -> list[list[str]]:
        """The words of the table."""
        return [line.split() for line in self.lines(width, height)[2:-1] if line.strip()]

    def names(self) -> list[str]:
        return [row[0] for row in self.rows()]

    def press(self, *keys: str) -> None:
        for key in keys:
            assert self.dashboard.press(key)


def test_channel_has_its_value_age_rate_and_newest_values() -> None:
    board = Board("kitchen")
    board.publish("kitchen", 20, 21.5, "19")
    board.now += 5
    assert board.rows() == [["kitchen", "19", "5s", "3/min", "~@_"]]


def test_numbers_of_objects_have_lines_of_their_own() -> None:
    board = Board("kitchen")
    board.publish("kitchen", {"celsius": 20, "limits": {"max": 30}, "on": True}, {"celsius": 21})
    assert board.rows() == [
        ["kitchen", '{"celsius":', "21}", "0s", "2/min"],
        ["celsius", "21", "_@"],
        ["limits.max", "30", "="],
    ]


def test_text_replaces_the_number_as_the_last_value() -> None:
    board = Board("kitchen")
    board.publish("kitchen", 20, "off")
    assert board.rows() == [["kitchen", "off", "0s", "2/min", "="]]


def test_channel_without_events_or_rights_has_its_line() -> None:
    board = Board("a", "b")
    board.dashboard.fail("b", "forbidden")
    assert board.rows() == [["a"], ["b", "forbidden"]]
    assert [style for _, style in board.dashboard.render(80, 24, NOW)[2:4]] == [Style.FAINT, Style.ALARM]
    board.publish("b", "hello")
    assert board.rows()[1][:2] == ["b", "hello"]


@pytest.mark.parametrize("width", range(0, 100, 3))
@pytest.mark.parametrize("height", [1, 2, 3, 4, 24])
def test_screen_has_the_size_of_the_terminal(width: int, height: int) -> None:
    board = Board("kitchen", "k" * 200, "日本語" * 40)
    board.publish("kitchen", {"a": 1, "日本語": 2})
    board.publish("k" * 200, "x" * 100_000)
    board.publish("日本語" * 40, "日本語" * 1000, b"\x00")
    board.lines(width, height)


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (80, ["channel", "last value", "age", "rate", "newest values"]),
        (50, ["channel", "last value", "age", "newest values"]),
        (30, ["channel", "last value", "age"]),
        (20, ["channel", "last value"]),
    ],
)
def test_narrow_terminal_has_fewer_columns(width: int, headings: list[str]) -> None:
    heading = Board("kitchen").lines(width)[1]
    assert [word for word in ("channel", "last value", "age", "rate", "newest values") if word in heading] == headings


ESCAPES = "\x1b]0;x\x07\x9b2J\u202e\u2028\ud800" + "e\u0301" * 3 + "a" + "\u0301" * 50


def test_nothing_that_clients_choose_controls_the_terminal() -> None:
    board = Board(ESCAPES)
    for data in (ESCAPES, [ESCAPES], {ESCAPES: 1}):
        board.publish(ESCAPES, data)
        board.dashboard.notify(ESCAPES, NOW)
        for line in board.lines():
            assert line.isprintable() and line.encode()
    board.dashboard.problem = ESCAPES
    assert board.lines()[-1].isprintable()


class TestKeys:
    def test_q_ends(self) -> None:
        assert not Board().dashboard.press("q")

    def test_s_orders_by_name_by_age_and_by_rate(self) -> None:
        board = Board("b", "a", "c")
        board.publish("b", 1, 1, 1)
        board.now += 1
        board.publish("c", 1, 1)
        board.now += 1
        board.publish("a", 1)
        assert board.names() == ["a", "b", "c"]
        board.press("s")
        assert board.names() == ["a", "c", "b"]
        board.press("s")
        assert board.names() == ["b", "c", "a"]
        board.press("s")
        assert board.names() == ["a", "b", "c"]

    def test_filter_selects_names(self) -> None:
        board = Board("kitchen", "garden", "Kiosk")
        board.press("/", "k", "i", "q", "KEY_BACKSPACE", "KEY_UP", "\t")
        assert board.names() == ["Kiosk", "kitchen"] and board.lines()[-1].rstrip() == "filter: ki_"
        board.press("\n")
        assert "filter: ki (2)" in board.lines()[0] and "q quit" in board.lines()[-1]
        board.press("\x1b")
        assert len(board.names()) == 3
        board.press("/", "x", "\x1b")
        assert len(board.names()) == 3

    def test_arrows_scroll_to_the_ends_and_not_further(self) -> None:
        board = Board(*[f"c{number:02}" for number in range(20)])

        def first() -> str:
            return board.rows(80, 8)[0][0]

        for key, name in (
            ("KEY_UP", "c00"),
            ("KEY_DOWN", "c01"),
            ("j", "c02"),
            ("k", "c01"),
            ("KEY_NPAGE", "c06"),
            ("KEY_END", "c15"),
            ("KEY_DOWN", "c15"),
            ("KEY_PPAGE", "c10"),
            ("KEY_HOME", "c00"),
            ("KEY_RESIZE", "c00"),
        ):
            board.press(key)
            assert first() == name, key


def test_messages_disappear_and_problems_stay() -> None:
    board = Board("kitchen")
    for report in (Lost("kitchen", 1, 2), Reset("kitchen", "e2", 7, 0)):
        board.dashboard.add(report, board.now)
        assert "kitchen: events" in board.lines()[-1]
    board.now += 10
    assert "q quit" in board.lines()[-1]
    board.dashboard.problem = "connection refused"
    board.now += 100
    assert board.lines()[-1].startswith("not connected: connection refused")


def test_heading_counts_channels_that_are_not_shown() -> None:
    board = Board("kitchen")
    assert board.lines()[0].startswith("here  1 channels  order: name")
    board.dashboard.total = 1180
    assert board.lines()[0].startswith("here  1 of 1180 channels")


def test_fields_are_limited_and_old_ones_make_room() -> None:
    board = Board("kitchen")
    board.publish("kitchen", {f"a{number}": number for number in range(1000)})
    assert len(board.rows()) == 1 + MAX_FIELDS
    board.publish("kitchen", *[{"new": 1}] * (MAX_POINTS + 1))
    assert len(board.rows()) == 1 + MAX_FIELDS and board.rows()[-1][0] == "new"


def test_rate_of_many_events_is_that_of_the_newest() -> None:
    board = Board("kitchen")
    for _ in range(60):
        board.publish("kitchen", *[1] * 100)
        board.now += 1
    assert board.rows()[0][3] == "100/s"
    board.now += 600
    assert board.rows()[0][2] == "10m" and "/" not in board.lines()[2]


@pytest.mark.parametrize(
    ("data", "numbers"),
    [
        (21.5, {"": 21.5}),
        (" 21.5 ", {"": 21.5}),
        ("-1e3", {"": -1000.0}),
        ("1_000", {}),
        ("nan", {}),
        ("1" * 50, {}),
        (True, {}),
        (None, {}),
        (b"1", {}),
        (float("inf"), {}),
        ([1, [2, "3"]], {"0": 1.0, "1.0": 2.0}),
        ({"a": {"b": 1}, "c": 2}, {"c": 2.0, "a.b": 1.0}),
    ],
)
def test_numbers_are_found_as_on_the_page(data: Any, numbers: dict[str, float]) -> None:
    assert dict(numbers_in(data)) == numbers


def test_search_for_numbers_is_limited() -> None:
    assert len(list(numbers_in([[1] * 1000] * 1000))) < 500
    assert len(list(numbers_in(list(range(100_000))))) == 499


def test_sparkline_goes_from_the_least_to_the_greatest_value() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5]) == sparkline([7]) == "▅"
    assert sparkline([-1e299, 1e299]) == "▁█"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86400, "1d"), (1e9, "999d")],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0, ""), (0.0167, "1/min"), (0.5, "30/min"), (1, "1/s"), (123.4, "123/s"), (12_345, "12.3k/s")]
)
def test_rates_are_short(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_numbers_have_six_digits() -> None:
    assert [format_number(value) for value in (21.5, 1 / 3, 1e10, 3.0)] == ["21.5", "0.333333", "1e+10", "3"]


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [("abc", 5, "abc  "), ("abcdef", 5, "abcd~"), ("日本語", 5, "日本~"), ("日本語", 4, "日~ "), ("a", 0, "")],
)
def test_text_fits_the_columns(text: str, width: int, fitted: str) -> None:
    assert fit(text, width) == fitted
    assert fit("7", 3, right=True) == "  7"
