"""Who is connected: sessions by id."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twistedsock.core.session import Session


class Roster:
    """``draw_id`` gives a short random name; it is asked again while somebody has that name."""

    def __init__(self, draw_id: Callable[[], bytes]) -> None:
        self._draw_id = draw_id
        self._sessions: dict[bytes, Session | None] = {}
        self._on_empty: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> "Iterator[Session]":
        return iter([session for session in self._sessions.values() if session is not None])

    def __contains__(self, id: bytes) -> bool:
        return id in self._sessions

    def new_id(self) -> bytes:
        """An id that nobody has; it is taken until ``remove``."""
        while (id := self._draw_id()) in self._sessions:
            pass
        self._sessions[id] = None
        return id

    def add(self, session: "Session") -> None:
        self._sessions[session.peer.id] = session

    def remove(self, session: "Session") -> None:
        self._sessions.pop(session.peer.id, None)
        if not self._sessions and self._on_empty is not None:
            self._on_empty()

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call back when the last session is gone: now, if there is none."""
        self._on_empty = callback
        if not self._sessions:
            callback()
