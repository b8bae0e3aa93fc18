"""Charts: bars side by side, and curves with logarithmic axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from bench.svg import GRID, INK, SOFT, Drawing

WIDTH = 840
MARGIN = 24
NAMES = 130
"""Columns for the names of bars."""
LABELS = 150
"""Columns for the figures behind the longest bar."""
BAR, GAP, HEAD = 18, 6, 30


@dataclass(frozen=True)
class Entry:
    """One bar, or one curve; ``label`` is what is written behind the bar."""

    name: str
    ink: str
    values: Sequence[tuple[float, float]]
    label: str = ""

    @property
    def value(self) -> float:
        return self.values[0][1]


def short(value: float) -> str:
    """Text for an axis: 20 M, 5 k, 0.05."""
    for unit, words in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{words}"
    return f"{value:g}"


def bars(title: str, subtitle: str, sections: Sequence[tuple[str, Sequence[Entry]]], logarithmic: bool) -> Drawing:
    """One section below another, all with the same scale. Logarithmic bars begin at a power of ten below the
    smallest."""
    sections = [section for section in sections if section[1]]
    height = 84 + sum(HEAD + len(entries) * (BAR + GAP) + 8 for _, entries in sections) + 30
    everything = [entry for _, entries in sections for entry in entries]
    words = "; ".join(
        f"{heading}: " + ", ".join(f"{entry.name} {entry.label}" for entry in entries) for heading, entries in sections
    )
    drawing = Drawing(WIDTH, height, title, f"{subtitle}. {words}.")
    head(drawing, title, subtitle + (", logarithmic scale" if logarithmic else ""))
    left, room = MARGIN + NAMES, WIDTH - 2 * MARGIN - NAMES - LABELS
    most = max(entry.value for entry in everything)
    least = min(entry.value for entry in everything if entry.value > 0)
    low = floor(log10(least) - 0.01)
    span = log10(most) - low

    def across(value: float) -> float:
        part = max(0.0, log10(value) - low) / span if logarithmic else value / most
        return left + part * room

    for value in [10.0**power for power in range(low, floor(log10(most)) + 1)] if logarithmic else evenly(most):
        drawing.line([(across(value), 76), (across(value), height - 34)], GRID)
        drawing.text(across(value), height - 16, short(value), size=12, anchor="middle", ink=SOFT)
    y = 84.0
    for heading, entries in sections:
        drawing.text(MARGIN, y + 12, heading, bold=True)
        y += HEAD - 6
        for entry in entries:
            length = max(2.0, across(entry.value) - left)
            drawing.text(left - 10, y + 13.5, entry.name, anchor="end", bold=entry is entries[0])
            drawing.box(left, y, length, BAR, entry.ink)
            drawing.text(left + length + 8, y + 13.5, entry.label, ink=SOFT)
            y += BAR + GAP
        y += 14
    return drawing


def curves(
    title: str,
    subtitle: str,
    below: str,
    beside: str,
    entries: Sequence[Entry],
    ticks: Sequence[tuple[float, str]] = (),
) -> Drawing:
    """Both axes are logarithmic. ``ticks`` replaces the labels of the lower axis."""
    height = 440
    words = "; ".join(
        f"{entry.name}: " + ", ".join(f"{_place(x, ticks)} {_figure(y)}" for x, y in entry.values) for entry in entries
    )
    drawing = Drawing(WIDTH, height, title, f"{subtitle}. {beside} against {below}. {words}.")
    head(drawing, title, subtitle)
    left, right, top, bottom = MARGIN + 46, WIDTH - 140, 96, height - 56
    xs = [x for entry in entries for x, _ in entry.values]
    ys = [y for entry in entries for _, y in entry.values]
    low, high = _ends(min(ys), max(ys))

    def across(x: float) -> float:
        first, last = (min(xs), max(xs)) if ticks else (log10(min(xs)), log10(max(xs)))
        return left + ((x if ticks else log10(x)) - first) / ((last - first) or 1) * (right - left)

    def up(y: float) -> float:
        return bottom - (log10(y) - low) / (high - low) * (bottom - top)

    drawing.text(MARGIN, top - 14, beside, size=12, ink=SOFT)
    for value in _steps(low, high):
        drawing.line([(left, up(value)), (right, up(value))], GRID)
        drawing.text(left - 8, up(value) + 4, short(value), size=12, anchor="end", ink=SOFT)
    for value in sorted(set(xs)):
        drawing.line([(across(value), bottom), (across(value), bottom + 5)], SOFT)
        drawing.text(across(value), bottom + 20, _place(value, ticks), size=12, anchor="middle", ink=SOFT)
    drawing.line([(left, bottom), (right, bottom)], SOFT)
    drawing.text((left + right) / 2, bottom + 42, below, size=12, anchor="middle", ink=SOFT)
    for entry in reversed(entries):
        points = [(across(x), up(y)) for x, y in entry.values]
        drawing.line(points, entry.ink, 2.5)
        for point in points:
            drawing.dot(*point, entry.ink)
    for entry, y in zip(entries, _apart([up(entry.values[-1][1]) for entry in entries]), strict=True):
        end = across(entry.values[-1][0])
        drawing.line([(end + 6, up(entry.values[-1][1])), (right + 14, y)], entry.ink, 1)
        drawing.text(right + 18, y + 4, entry.name, bold=True, ink=entry.ink)
    return drawing


def head(drawing: Drawing, title: str, subtitle: str) -> None:
    drawing.text(MARGIN, 36, title, size=18, bold=True, ink=INK)
    drawing.text(MARGIN, 58, subtitle, ink=SOFT)


def evenly(most: float) -> list[float]:
    """About four steps of 1, 2 or 5 from zero."""
    power = 10.0 ** floor(log10(most / 4))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power * 5 >= most)
    return [round(number * step, 9) for number in range(floor(most / step) + 1)]


def _place(x: float, ticks: Sequence[tuple[float, str]]) -> str:
    return dict(ticks).get(x, f"{x:,.0f}")


def _figure(y: float) -> str:
    return f"{y:.3g}"


def _ends(least: float, most: float) -> tuple[float, float]:
    """First and last power, as logarithms: the nearest of 1, 3, 10, 30 … on either side."""
    around = range(floor(log10(least)) - 1, ceil(log10(most)) + 2)
    steps = sorted(log10(digit) + power for power in around for digit in (1, 3))
    low = max(step for step in steps if step <= log10(least))
    return low, min(step for step in steps if step >= log10(most) and step > low)


def _steps(low: float, high: float) -> list[float]:
    """1, 3, 10, 30 …: the positions of lines."""
    found = []
    for power in range(floor(low) - 1, ceil(high) + 1):
        for digit in (1, 3):
            value = digit * 10.0**power
            if low - 1e-9 <= log10(value) <= high + 1e-9:
                found.append(float(f"{value:.1g}"))
    return found


def _apart(places: Sequence[float], distance: float = 17) -> list[float]:
    """The same positions, moved apart as far as their labels need."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, after in zip(order, order[1:], strict=False):
        moved[after] = max(moved[after], moved[before] + distance)
    overlap = max(0.0, moved[order[-1]] - max(places)) / 2
    return [place - overlap for place in moved]
