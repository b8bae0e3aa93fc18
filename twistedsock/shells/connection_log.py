"""One line of the log for each peer that has gone: who it was, how long it stayed, what passed, and who ended it."""

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from twistedsock.core.journal import Step
from twistedsock.core.session import Session

MOST_A_SECOND = 10
"""Lines: 4 KB a second, which is 300 MB in a day of being flooded. Those that are left out are counted."""

UNSAID = {
    "cleanly": ("peer", "it closed the connection"),
    "broken": ("peer", "its connection broke"),
    "aborted": ("server", "it was cut off"),
}
"""By whom, and why, where nobody has said a word before the connection ended so."""


class ConnectionLog:
    """A ``Watcher`` of the journal. It tells nothing of what was published, and nothing that proves who somebody is.
    ``clock`` is the broker's; ``call_later`` calls back after some seconds."""

    _log = Logger()

    def __init__(self, clock: Callable[[], float], call_later: Callable[..., Any]) -> None:
        self._clock = clock
        self._call_later = call_later
        self._said = 0
        self._left_out = 0

    def opened(self, session: Session) -> None:
        """Nothing to say yet."""

    def stepped(self, session: Session, step: Step) -> None:
        """Nothing to say yet."""

    def closed(self, session: Session) -> None:
        """A peer has gone."""
        if self._said == 0:
            self._call_later(1.0, self._begin_anew)
        if self._said >= MOST_A_SECOND:
            self._left_out += 1
            return
        self._said += 1
        self._log.info(
            "{dialect} peer {id} of {client} has gone after {seconds} s: {why}", **_about(session, self._clock)
        )

    def _begin_anew(self) -> None:
        self._said = 0
        self.tell_left_out()

    def tell_left_out(self) -> None:
        """How many had no line since this was told last."""
        if self._left_out:
            self._log.info("peers that have gone without a line of their own: {left_out}", left_out=self._left_out)
            self._left_out = 0


def _about(session: Session, clock: Callable[[], float]) -> dict[str, str | float | None]:
    identity, traffic = session.identity, session.traffic()
    steps = {step.name: step for step in session.steps}
    closing, how = steps.get("closing"), steps["closed"].words
    by, why = UNSAID.get(how, UNSAID["cleanly"]) if closing is None else (closing.by, closing.words)
    return {
        "id": session.peer.id.decode(),
        "nick": session.peer.nick.decode(),
        "subject": identity.subject.decode() if identity is not None and identity.subject else None,
        "dialect": session.dialect_title,
        "client": session.ends.client.decode(errors="replace"),
        "server": session.ends.server.decode(errors="replace"),
        "seconds": round(clock() - session.accepted_at, 3),
        "received": None if traffic is None else traffic.received,
        "sent": None if traffic is None else traffic.sent,
        "by": by,
        "why": why,
        "how": how,
    }
