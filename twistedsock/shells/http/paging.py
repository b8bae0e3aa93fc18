"""Lists that are told a page at a time, by name: who reads on asks for what comes ``after`` the last that was told."""

from collections.abc import Callable, Iterable
from heapq import nsmallest
from typing import TypeVar

import msgspec

from twistedsock.wire.arguments import Arguments

T = TypeVar("T")

PAGE = 100
"""Entries of a list, where nothing else is asked for."""

MOST_ON_PAGE = 1_000
"""At most: some hundred kibibytes, which are written in one go."""

PAGING = ("after", "limit")
"""The arguments by which a page is asked for."""


class Paging(msgspec.Struct, frozen=True):
    """What is wanted: ``most`` entries at most, of those behind ``after``."""

    after: bytes
    most: int

    def page(self, entries: Iterable[T], name: Callable[[T], bytes]) -> tuple[list[T], bytes | None]:
        """Those that are wanted, by name, and what the next page is ``after``; None where there is none."""
        found = nsmallest(self.most + 1, [entry for entry in entries if name(entry) > self.after], key=name)
        return found[: self.most], name(found[self.most - 1]) if len(found) > self.most else None


def read_paging(arguments: Arguments) -> Paging:
    """Raises ``Refused``."""
    after = (arguments.text("after") or "").encode()
    return Paging(after, arguments.whole("limit", MOST_ON_PAGE, least=1) or PAGE)
