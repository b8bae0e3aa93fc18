"""What `sockbridge watch` shows: channels with their last value, its age, their rate and a sparkline. The time is an
argument, and the screen is a list of lines."""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sockbridge.commands.common import format_data
from sockbridge.values import Event, Lost, Report, Reset

MAX_POINTS = 60
"""Numbers that are kept of each field. They fill the longest sparkline, and as many events are requested at first."""

MAX_FIELDS = 12
"""Numeric fields that are shown of a channel, as on the page. An event can have thousands."""

MAX_NODES = 500
"""Values of an event that are searched for numbers."""

RATE_SECONDS = 60.0
MAX_RATE_EVENTS = 500
"""The rate is that of the events in the last minute, or of so many if there are more."""

MAX_LABEL_CHARACTERS = MAX_FILTER_CHARACTERS = 80

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-~=*#@"
"""For terminals that do not use UTF-8."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
MAX_NUMBER_CHARACTERS = 40

WHOLE = ""
"""The field of data that is a number as a whole."""


class Style(Enum):
    """Of a line on the screen."""

    NORMAL = "normal"
    HEADING = "heading"
    FAINT = "faint"
    ALARM = "alarm"


class Order(Enum):
    """Of the channels: by name, the newest event first, or the most events a second first."""

    NAME = "name"
    AGE = "age"
    RATE = "rate"


def numbers_in(data: Any) -> Iterator[tuple[str, float]]:
    """The numbers in the data of an event with their fields, such as ``limits.max``, as on the page. A text that is a
    number counts as one."""
    if isinstance(data, str):
        if len(data) <= MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(data.strip()):
            yield WHOLE, float(data)
        return
    waiting: deque[tuple[str, Any]] = deque([(WHOLE, data)])
    for _ in range(MAX_NODES):
        if not waiting:
            return
        path, node = waiting.popleft()
        if isinstance(node, dict | list):
            room = MAX_NODES - len(waiting)
            children = node.items() if isinstance(node, dict) else enumerate(node)
            for (name, child), _ in zip(children, range(room), strict=False):
                waiting.append((f"{path}.{name}" if path else str(name), child))
        elif isinstance(node, int | float) and not isinstance(node, bool) and abs(node) < 1e300:
            yield path, float(node)


def sparkline(values: list[float], blocks: str = BLOCKS) -> str:
    """One character a value: the least is the lowest block. Equal values are in the middle."""
    least, greatest = min(values), max(values)
    step = (greatest - least) / (len(blocks) - 1)
    return "".join([blocks[round((value - least) / step)] if step else blocks[len(blocks) // 2] for value in values])


def format_number(value: float) -> str:
    return f"{value:.6g}"


def format_age(seconds: float) -> str:
    """At most four characters: 5s, 12m, 3h, 40d."""
    whole = max(int(seconds), 0)  # the clock of the server can be ahead
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h"
    return f"{min(whole // 86400, 999)}d"


def format_rate(per_second: float) -> str:
    """At most seven characters, by the second or by the minute."""
    if per_second >= 1:
        return f"{per_second:.3g}/s" if per_second < 1000 else f"{per_second / 1000:.3g}k/s"
    return f"{per_second * 60:.2g}/min" if per_second else ""


def clean(text: str, limit: int) -> str:
    """A text that cannot control a terminal, of at most ``limit`` characters: no control or format characters, no
    halves of surrogate pairs, and accents only as part of a letter."""
    text = unicodedata.normalize("NFC", text[:limit])
    return "".join(
        [each if each.isprintable() else "?" for each in text if not unicodedata.category(each).startswith("M")]
    )


def width_of(text: str) -> int:
    """Columns of a text from ``clean``: East Asian characters have two (UAX 11)."""
    return len(text) if text.isascii() else sum([_width_of(each) for each in text])


def _width_of(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int, *, right: bool = False) -> str:
    """A text with exactly ``width`` columns, shortened or filled up."""
    text = clean(text, 2 * width)
    if width_of(text) > width:
        kept, columns = "", 0
        for character in text:
            columns += _width_of(character)
            if columns >= width:
                break
            kept += character
        text = kept + "~" if width else ""
    filling = " " * (width - width_of(text))
    return filling + text if right else text + filling


@dataclass
class _Series:
    """The numbers of one field, and the number of events of the channel at the newest of them. ``label`` is its name in
    the table."""

    label: str
    updated: int = 0
    values: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))


@dataclass
class _Channel:
    name: str
    events: int = 0
    last: Event | None = None
    error: str = ""
    times: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RATE_EVENTS))
    series: dict[str, _Series] = field(default_factory=dict)

    @property
    def time(self) -> float:
        """Of the newest event."""
        return self.times[-1] if self.times else -math.inf

    def add(self, event: Event) -> None:
        self.events += 1
        self.last = event
        self.times.append(max(event.time.timestamp(), self.time))  # the clock of the server can have been set back
        for name, value in numbers_in(event.data):
            if name not in self.series:
                if len(self.series) >= MAX_FIELDS and not self._forget_a_field():
                    continue
                self.series[name] = _Series(f"  {clean(name, MAX_LABEL_CHARACTERS)}")
            series = self.series[name]
            series.values.append(value)
            series.updated = self.events

    def _forget_a_field(self) -> bool:
        """Make room for another field, if one has been missing in all events that are shown."""
        for name, series in self.series.items():
            if self.events - series.updated > MAX_POINTS:
                del self.series[name]
                return True
        return False

    def fields(self) -> list[_Series]:
        """The numbers that have a line of their own."""
        return [series for name, series in self.series.items() if name != WHOLE]

    def rate(self, now: float) -> float:
        """Events a second."""
        first = bisect_left(self.times, now - RATE_SECONDS)
        count = len(self.times) - first
        if first or len(self.times) < MAX_RATE_EVENTS:
            return count / RATE_SECONDS
        return count / max(now - self.times[0], 1.0)


@dataclass(frozen=True)
class _Columns:
    """The widths of a table. A narrow terminal has fewer columns: those that are zero are left out."""

    name: int
    value: int
    age: int
    rate: int
    spark: int

    @classmethod
    def of(cls, width: int, longest_name: int) -> _Columns:
        age = 5 if width >= 24 else 0
        rate = 8 if width >= 60 else 0
        spark = 0 if width < 40 else min(MAX_POINTS, (width - age - rate) // 3)
        rest = width - age - rate - (spark + 1 if spark else 0)
        name = min(max(longest_name, 8), rest // 2)
        return cls(name, max(rest - name - 1, 0), age, rate, spark)

    def line(self, name: str, value: str, age: str, rate: str, spark: str) -> str:
        text = fit(name, self.name)
        if self.value:
            text += " " + fit(value, self.value)
        if self.age:
            text += fit(age, self.age, right=True)
        if self.rate:
            text += fit(rate, self.rate, right=True)
        if self.spark:
            text += " " + fit(spark, self.spark)
        return text


MESSAGE_SECONDS = 10.0

HELP = "q quit  s order  / filter  arrows scroll"


class Dashboard:
    """``title`` names the server. ``press`` changes what ``render`` shows."""

    def __init__(self, title: str, blocks: str = BLOCKS) -> None:
        self.problem = ""
        """Why there is no connection."""
        self.total: int | None = None
        """Channels of the server, if not all of them are shown."""
        self._title = title
        self._blocks = blocks
        self._channels: dict[str, _Channel] = {}
        self._message, self._message_until = "", 0.0
        self._order = Order.NAME
        self._filter = ""
        self._is_typing = False
        self._top = 0
        self._page = 1

    def __contains__(self, channel: str) -> bool:
        return channel in self._channels

    def __len__(self) -> int:
        return len(self._channels)

    def add_channel(self, name: str) -> None:
        self._channels.setdefault(name, _Channel(name))

    def fail(self, name: str, error: str) -> None:
        """The server has refused or ended a subscription."""
        self._channels[name].error = error

    def notify(self, message: str, now: float) -> None:
        """Show a message for people for a while."""
        self._message, self._message_until = message, now + MESSAGE_SECONDS

    def add(self, report: Report, now: float) -> None:
        """An event of a channel, or a report of lost ones."""
        channel = self._channels[report.channel]
        channel.error = ""
        if isinstance(report, Event):
            channel.add(report)
        elif isinstance(report, Lost):
            self.notify(f"{report.channel}: events are lost", now)
        elif isinstance(report, Reset):
            self.notify(f"{report.channel}: events after {report.good} are void", now)

    # Keys.

    def press(self, key: str) -> bool:
        """A key: a character, or a name of curses such as KEY_UP. Returns False if the program is to end."""
        if self._is_typing:
            self._type(key)
        elif key in ("q", "Q"):
            return False
        elif key == "s":
            orders = list(Order)
            self._order = orders[(orders.index(self._order) + 1) % len(orders)]
        elif key == "/":
            self._is_typing = True
        elif key == "\x1b":
            self._filter = ""
        else:
            steps = {"KEY_UP": -1, "k": -1, "KEY_DOWN": 1, "j": 1, "KEY_PPAGE": -self._page, "KEY_NPAGE": self._page}
            steps |= {"KEY_HOME": -self._top, "KEY_END": 1_000_000_000}
            self._top = max(self._top + steps.get(key, 0), 0)
        return True

    def _type(self, key: str) -> None:
        if key in ("\n", "\r", "KEY_ENTER"):
            self._is_typing = False
        elif key == "\x1b":
            self._is_typing, self._filter = False, ""
        elif key in ("KEY_BACKSPACE", "\x7f", "\b"):
            self._filter = self._filter[:-1]
        elif len(key) == 1 and key.isprintable() and len(self._filter) < MAX_FILTER_CHARACTERS:
            self._filter += key
        self._top = 0

    # The screen.

    def render(self, width: int, height: int, now: float) -> list[tuple[str, Style]]:
        """The lines of a screen: at most ``height``, each with exactly ``width`` columns."""
        shown = self._shown(now)
        rows: list[tuple[_Channel, _Series | None]] = []
        for channel in shown:
            rows += [(channel, None), *[(channel, series) for series in channel.fields()]]
        names = [width_of(channel.name if series is None else series.label) for channel, series in rows]
        columns = _Columns.of(width, max(names, default=0))
        self._page = max(height - 3, 1)
        self._top = min(self._top, max(len(rows) - self._page, 0))
        lines = [
            (fit(self._heading(len(shown)), width), Style.NORMAL),
            (columns.line("channel", "last value", "age", "rate", "newest values"), Style.HEADING),
        ]
        for channel, series in rows[self._top : self._top + self._page]:
            lines.append(self._channel_line(columns, channel, now) if series is None else self._line(columns, series))
        if height < 4:
            return lines[:height]
        lines += [(" " * width, Style.NORMAL)] * (height - 1 - len(lines))
        return [*lines, self._footer(width, now)]

    def _shown(self, now: float) -> list[_Channel]:
        found = [each for each in self._channels.values() if self._filter.casefold() in each.name.casefold()]
        found.sort(key=lambda each: each.name)
        if self._order is Order.AGE:
            found.sort(key=lambda each: each.time, reverse=True)
        elif self._order is Order.RATE:
            found.sort(key=lambda each: each.rate(now), reverse=True)
        return found

    def _channel_line(self, columns: _Columns, channel: _Channel, now: float) -> tuple[str, Style]:
        if channel.error or channel.last is None:
            style = Style.ALARM if channel.error else Style.FAINT
            return columns.line(channel.name, channel.error, "", "", ""), style
        whole = channel.series.get(WHOLE)
        spark = "" if whole is None else self._sparkline(columns, whole)
        is_number = whole is not None and whole.updated == channel.events
        value = format_number(whole.values[-1]) if whole and is_number else format_data(channel.last.data)
        age, rate = format_age(now - channel.time), format_rate(channel.rate(now))
        return columns.line(channel.name, value, age, rate, spark), Style.NORMAL

    def _line(self, columns: _Columns, series: _Series) -> tuple[str, Style]:
        value, spark = format_number(series.values[-1]), self._sparkline(columns, series)
        return columns.line(series.label, value, "", "", spark), Style.NORMAL

    def _sparkline(self, columns: _Columns, series: _Series) -> str:
        return sparkline(list(series.values)[-columns.spark :], self._blocks) if columns.spark else ""

    def _heading(self, shown: int) -> str:
        count = f"{len(self)} channels" if self.total is None else f"{len(self)} of {self.total} channels"
        filtered = f"  filter: {self._filter} ({shown})" if self._filter else ""
        return f"{self._title}  {count}  order: {self._order.value}{filtered}"

    def _footer(self, width: int, now: float) -> tuple[str, Style]:
        if self._is_typing:
            return fit(f"filter: {self._filter}_", width), Style.NORMAL
        if self.problem:
            return fit(f"not connected: {self.problem}", width), Style.ALARM
        if now < self._message_until:
            return fit(self._message, width), Style.ALARM
        return fit(HELP, width), Style.FAINT
