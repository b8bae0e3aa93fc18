"""SVG drawings made of text: shapes, labels, and the two kinds of chart of the report."""

from collections.abc import Sequence
from html import escape

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, SOFT, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
"""A drawing has its own background, so that it is readable on a dark page."""


class Drawing:
    """``title`` and ``words`` describe the picture for readers who cannot see it."""

    def __init__(self, width: int, height: int, title: str, words: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.words = words
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 13,
        anchor: str = "start",
        bold: bool = False,
        ink: str = INK,
    ) -> None:
        """``y`` is the baseline of the text."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{ink}"{weight}>'
            f"{escape(words)}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, ink: str, round_: float = 2) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_:g}" fill="{ink}"/>'
        )

    def line(self, points: Sequence[tuple[float, float]], ink: str, width: float = 1) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="{width:g}" stroke-linejoin="round"/>'
        )

    def dot(self, x: float, y: float, ink: str) -> None:
        self._parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{ink}" stroke="{PAPER}" stroke-width="1"/>'
        )

    def svg(self) -> str:
        """The file."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title words" '
                f'font-family="{FONT}">',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="words">{escape(self.words)}</desc>',
                f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="8" fill="{PAPER}" '
                f'stroke="{GRID}"/>',
                *self._parts,
                "</svg>",
                "",
            ]
        )
