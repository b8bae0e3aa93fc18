"""Who is connected: sessions by id."""

from collections.abc import Callable, Iterator
from typing import Protocol

from twistedsock.core.dialect import Ending
from twistedsock.core.reader import Peer


class Guest(Protocol):
    """Who can be on the roster: a session."""

    peer: Peer

    def dismiss(self, ending: Ending, words: bytes) -> None:
        """Tell the peer why, and close."""

    def hold_events(self) -> None:
        """Send no events until the next review has ended."""

    def review(self) -> Iterator[object]:
        """The policy is another; step by step."""


class Roster:
    """``draw_id`` gives a short random name; it is asked again while somebody has that name."""

    def __init__(self, draw_id: Callable[[], bytes]) -> None:
        self._draw_id = draw_id
        self._guests: dict[bytes, Guest | None] = {}
        self._on_empty: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[Guest]:
        return iter([guest for guest in self._guests.values() if guest is not None])

    def __contains__(self, id: bytes) -> bool:
        return id in self._guests

    def new_id(self) -> bytes:
        """An id that nobody has; it is taken until ``remove``."""
        while (id := self._draw_id()) in self._guests:
            pass
        self._guests[id] = None
        return id

    def add(self, guest: Guest) -> None:
        self._guests[guest.peer.id] = guest

    def get(self, id: bytes) -> Guest | None:
        """Who has that id."""
        return self._guests.get(id)

    def remove(self, guest: Guest) -> None:
        self.give_back(guest.peer.id)

    def give_back(self, id: bytes) -> None:
        """Nobody has that id any longer."""
        self._guests.pop(id, None)
        if not self._guests and self._on_empty is not None:
            self._on_empty()

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call back when the last one is gone: now, if there is none."""
        self._on_empty = callback
        if not self._guests:
            callback()
