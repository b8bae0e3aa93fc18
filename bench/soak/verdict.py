"""Whether memory is flat at the end: two figures that are robust against noise, with a limit for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

MAX_GROWTH = 0.01
"""Flat means less than one per cent."""

FEWEST = 300
"""Minimum number of points, one second apart: before that a server is still warming up."""

Point = tuple[float, float]
"""Seconds since the start, and the value at that time."""


def slope(points: Sequence[Point]) -> float:
    """Theil–Sen: the median of the slopes between all pairs. Up to 29 % of the points can be arbitrary without changing
    it much (Sen, Journal of the American Statistical Association 63, 1968)."""
    slopes = [
        (later - earlier) / (then - before)
        for index, (before, earlier) in enumerate(points)
        for then, later in points[index + 1 :]
        if then > before
    ]
    return median(slopes) if slopes else 0.0


@dataclass(frozen=True)
class Verdict:
    """``rise`` is the gain of the fit over the last third, ``beyond`` the distance of its end above the middle of the
    run, and ``growth`` that of the last tenth: all relative to the level. The C library returns memory at times, and
    reusing it is not growth: a rise counts only if it ends above the middle. ``fit`` contains the ends of the fitted
    line. A negative value counts as flat."""

    level: float
    rise: float
    beyond: float
    growth: float
    fit: tuple[Point, Point]

    @property
    def flat(self) -> bool:
        return min(self.rise, self.beyond) < MAX_GROWTH and self.growth < MAX_GROWTH

    def words(self) -> str:
        """One line."""
        return (
            f"memory is {'flat' if self.flat else 'NOT flat'} at its end: {self.rise:+.2%} along the fit of the last "
            f"third, whose end is {self.beyond:+.2%} beside the middle; {self.growth:+.2%} from the middle to the last "
            f"tenth; {MAX_GROWTH:.0%} allowed"
        )


def judge(points: Sequence[Point]) -> Verdict | None:
    """None if there are too few points."""
    if len(points) < FEWEST:
        return None
    start, end = points[0][0], points[-1][0]
    last = _between(points, end - (end - start) / 3, end)
    level = median(value for _, value in last)
    each = slope(last)
    offset = median(value - each * at for at, value in last)
    first, final = last[0][0], last[-1][0]
    tenth = (end - start) / 10
    middle = (start + end) / 2
    before = median(value for _, value in _between(points, middle - tenth / 2, middle + tenth / 2))
    after = median(value for _, value in _between(points, end - tenth, end))
    low, high = offset + each * first, offset + each * final
    rise, beyond, growth = (high - low) / level, (high - before) / level, after / before - 1
    return Verdict(level, rise, beyond, growth, ((first, low), (final, high)))


def _between(points: Sequence[Point], start: float, end: float) -> list[Point]:
    return [point for point in points if start <= point[0] <= end]
