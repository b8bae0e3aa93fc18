"""Bytes to lines: LF or CRLF, at any cut, bounded."""

from twistedsock.core.commands import Mistake, Quit
from twistedsock.core.errors import Code, Refusal

CTRL_D = b"\x04"
"""As the first byte of a line it is QUIT at once, as a terminal would have it; it needs no line end."""

Item = bytes | Mistake | Quit


class LineSplitter:
    """``feed`` gives the lines that are complete, without their ends. Of a line that is too long nothing is kept: a
    ``Mistake`` stands in its place, and the rest up to its end is skipped."""

    __slots__ = ("_most", "_pieces", "_size", "_skipping")

    def __init__(self, most: int) -> None:
        self._most = most
        # The line that is not complete yet, in pieces: joining them at each feed would cost the square of its length.
        self._pieces: list[bytes] | None = None
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> list[Item]:
        """Items in their order; what stands behind the last line end is kept for the next feed."""
        *lines, rest = data.split(b"\n")
        items: list[Item] = []
        if lines:
            careful = len(data) > self._most or b"\r" in data or CTRL_D in data
            if self._skipping:
                self._skipping = False
                del lines[0]
            elif self._pieces is not None:
                lines[0] = b"".join([*self._pieces, lines[0]])
                self._pieces, self._size, careful = None, 0, True
            # A chunk of plain short lines, which is nearly all there is, needs no look at each.
            items = [self._finish(line) for line in lines] if careful else list[Item](lines)
        if rest and not self._skipping:
            self._keep(rest, items)
        return items

    def _finish(self, line: bytes) -> Item:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(CTRL_D):
            return Quit()
        return line if len(line) <= self._most else self._too_long()

    def _keep(self, rest: bytes, items: list[Item]) -> None:
        if self._pieces is None:
            if rest.startswith(CTRL_D):
                items.append(Quit())
                return
            self._pieces = []
        self._pieces.append(rest)
        self._size += len(rest)
        # One byte more than allowed may still be the CR of its end.
        if self._size > self._most + rest.endswith(b"\r"):
            self._pieces, self._size, self._skipping = None, 0, True
            items.append(self._too_long())

    def _too_long(self) -> Mistake:
        return Mistake(Refusal(Code.TOO_LONG, f"a line is at most {self._most} bytes; this one was skipped"))
