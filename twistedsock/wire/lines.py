"""Bytes to lines: LF or CRLF, at any cut, bounded."""

from collections.abc import Callable

from twistedsock.core.commands import Command, Mistake, Quit
from twistedsock.core.errors import Code, Refusal

CTRL_D = b"\x04"
"""As the first byte of a line it is QUIT at once, as a terminal would have it; it needs no line end."""

Item = bytes | Command


class LineSplitter:
    """``feed`` gives the lines that are complete, without their ends. Of a line that is too long nothing is kept: a
    ``Mistake`` stands in its place, and the rest up to its end is skipped. ``whole`` is asked first whether all lines
    that have come together are one command; it is told how long a line may be. ``begun`` is the line that
    is not complete yet."""

    __slots__ = ("_most", "_skipping", "_whole", "begun")

    def __init__(self, most: int, whole: Callable[[bytes, int], Command | None] = lambda block, most: None) -> None:
        self._most = most
        self._whole = whole
        # The line that is not complete yet: as bytes, each feed would cost its length; in pieces, a piece of two bytes
        # would take the memory of fifty.
        self.begun: bytearray | None = None
        self._skipping = False

    @property
    def unfinished(self) -> bool:
        """Whether a line has begun."""
        return self.begun is not None or self._skipping

    def feed(self, data: bytes) -> list[Item]:
        """Items in their order; what stands behind the last line end is kept for the next feed."""
        end = data.rfind(b"\n") + 1
        items: list[Item] = []
        if end:
            block, rest = data[:end], data[end:]
            if self._skipping:
                self._skipping = False
                block = block[block.find(b"\n") + 1 :]
            elif self.begun is not None:
                block = b"".join((self.begun, block))
                self.begun = None
            command = self._whole(block, self._most)
            items = [command] if command is not None else self._lines(block)
        else:
            rest = data
        if rest and not self._skipping:
            self._keep(rest, items)
        return items

    def skip(self, refusal: Refusal) -> Mistake:
        """Forget the line that has begun, and skip its rest; gives what stands in its place."""
        self.begun, self._skipping = None, True
        return Mistake(refusal)

    def _lines(self, block: bytes) -> list[Item]:
        lines = block.split(b"\n")
        del lines[-1]
        # A block of plain short lines, which is nearly all there is, needs no look at each.
        if len(block) > self._most or b"\r" in block or CTRL_D in block:
            return [self._finish(line) for line in lines]
        return list[Item](lines)

    def _finish(self, line: bytes) -> Item:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(CTRL_D):
            return Quit()
        return line if len(line) <= self._most else Mistake(self._too_long())

    def _keep(self, rest: bytes, items: list[Item]) -> None:
        if self.begun is None:
            if rest.startswith(CTRL_D):
                items.append(Quit())
                return
            self.begun = bytearray()
        self.begun += rest
        # One byte more than allowed may still be the CR of its end.
        if len(self.begun) > self._most + rest.endswith(b"\r"):
            items.append(self.skip(self._too_long()))

    def _too_long(self) -> Refusal:
        return Refusal(Code.TOO_LONG, f"a line is at most {self._most} bytes; this one was skipped")
