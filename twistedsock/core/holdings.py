"""What all connections of one bridge hold together: input that has not ended or waits to be run, and output that waits
to be read. Each of them may hold some; if all did, at once, no machine would have the memory."""

LITTLE = 2 * 1024
"""Bytes that each place of a connection may hold without being counted: they are a part of what a connection costs
anyway. So who holds hardly anything is served whatever the others hold, and who counts has little to count."""


class Holdings:
    """The sum, and its bound. Whoever holds something counts it here as it grows and shrinks, asks then whether that
    was too much, and lets go of it if so: who asks for more gives way, and nobody else is disturbed."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.held = 0
        self.most = most

    @property
    def too_much(self) -> bool:
        """Whether more is held than may be."""
        return self.held > self.most

    def recount(self, counted: int, size: int) -> int:
        """A place holds ``size`` bytes now, and ``counted`` was given before, first 0; gives how many are counted from
        now on. The last ``size`` of a place must be 0."""
        now = size if size > LITTLE else 0
        self.held += now - counted
        return now
