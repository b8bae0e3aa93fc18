"""The chart: memory over time, and below it the work of the server."""

from collections.abc import Sequence

from bench.charts import evenly, head, short
from bench.soak.samples import MIB, Sample
from bench.soak.verdict import Verdict
from bench.svg import GRID, INK, SOFT, Drawing

WIDTH = 840
LEFT, RIGHT = 84, WIDTH - 120
MEMORY, FIT, CONNECTIONS, CHANNELS, DELIVERIES = "#d9480f", INK, "#1c7ed6", "#2b8a3e", "#7048e8"
LAST_THIRD = "#fff4e6"

TITLE = "Memory of a bridge under churn"


class Panel:
    """A plot over time between two heights, from zero to ``most``."""

    def __init__(self, drawing: Drawing, top: float, bottom: float, seconds: float, most: float) -> None:
        self._drawing = drawing
        self._top, self._bottom = top, bottom
        self._seconds = seconds
        self._most = most or 1.0

    def across(self, at: float) -> float:
        return LEFT + at / self._seconds * (RIGHT - LEFT)

    def up(self, value: float) -> float:
        return self._bottom - value / self._most * (self._bottom - self._top)

    def grid(self, words: str) -> None:
        """``words`` is the name of the axis, with its unit."""
        self._drawing.text(LEFT - 60, self._top - 10, words, size=12, ink=SOFT)
        for value in evenly(self._most):
            self._drawing.line([(LEFT, self.up(value)), (RIGHT, self.up(value))], GRID)
            self._drawing.text(LEFT - 8, self.up(value) + 4, short(value), size=12, anchor="end", ink=SOFT)

    def curve(
        self, points: Sequence[tuple[float, float]], ink: str, name: str, width: float = 1, lower: float = 0
    ) -> None:
        """Write the name behind the end of the curve, ``lower`` by this much."""
        self._drawing.line([(self.across(at), self.up(value)) for at, value in points], ink, width)
        self._drawing.text(RIGHT + 8, self.up(points[-1][1]) + 4 + lower, name, size=12, ink=ink, bold=True)


def draw(samples: Sequence[Sample], verdict: Verdict | None) -> Drawing:
    """Requires at least one sample."""
    seconds = samples[-1].at
    subtitle = f"{seconds / 60:.3g} minutes of connections, channels and slow readers that come and go"
    words = verdict.words() if verdict else "too short to judge"
    least, most = min(sample.resident for sample in samples), max(sample.resident for sample in samples)
    description = f"{subtitle}. Resident memory between {least / MIB:.0f} and {most / MIB:.0f} MiB; {words}."
    drawing = Drawing(WIDTH, 640, TITLE, description)
    head(drawing, TITLE, subtitle)
    above = Panel(drawing, 106, 360, seconds, most / MIB * 1.08)
    if verdict is not None:
        start = above.across(seconds * 2 / 3)
        drawing.box(start, 106, RIGHT - start, 254, LAST_THIRD)
    above.grid("MiB")
    above.curve([(sample.at, sample.anonymous / MIB) for sample in samples], SOFT, "anonymous")
    above.curve([(sample.at, sample.resident / MIB) for sample in samples], MEMORY, "resident", 2)
    if verdict is not None:
        drawing.line([(above.across(at), above.up(value / MIB)) for at, value in verdict.fit], FIT, 1.5)
        drawing.text(
            RIGHT - 6,
            350,
            f"last third: {verdict.rise:+.2%} along its fit",
            size=12,
            anchor="end",
            ink=INK,
        )
    _thin(drawing, 410, 480, samples, "connections", CONNECTIONS, "connections")
    _thin(drawing, 524, 584, samples, "deliveries", DELIVERIES, "deliveries a second")
    panel = Panel(drawing, 524, 584, seconds, 1)
    for minute in evenly(seconds / 60):
        drawing.line([(panel.across(minute * 60), 584), (panel.across(minute * 60), 589)], SOFT)
        drawing.text(panel.across(minute * 60), 604, short(minute), size=12, anchor="middle", ink=SOFT)
    drawing.text((LEFT + RIGHT) / 2, 624, "minutes", size=12, anchor="middle", ink=SOFT)
    return drawing


def _thin(
    drawing: Drawing, top: float, bottom: float, samples: Sequence[Sample], name: str, ink: str, words: str
) -> None:
    points = [(sample.at, float(getattr(sample, name))) for sample in samples]
    panel = Panel(drawing, top, bottom, samples[-1].at, max(value for _, value in points))
    panel.grid(words)
    panel.curve(points, ink, "")
