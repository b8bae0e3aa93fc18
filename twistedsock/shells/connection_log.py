"""Logs a line for each session that has ended: whose it was, how long it lasted, what passed, and who ended it."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.logger import Logger

from twistedsock.core.journal import Step
from twistedsock.core.peer_record import EndRecord, end_record
from twistedsock.core.session import Session

MOST_A_SECOND = 10
"""Lines: 4 KB a second, which is 300 MB in a day of being flooded. Those that are left out are counted."""

UNSAID = {"cleanly": "it closed the connection", "broken": "its connection broke", "aborted": "it was cut off"}
"""Why, if the connection ended so and no reason was given."""


class ConnectionLog:
    """A ``Watcher`` of the journal. Nothing of what was published is logged, and no proof of an identity. ``clock`` is
    the broker's; ``call_later`` calls back after some seconds."""

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
        record = end_record(session, self._clock(), 0.0)
        self._log.info(_format_of(record), **_fields_of(record))

    def _begin_anew(self) -> None:
        self._said = 0
        self.tell_left_out()

    def tell_left_out(self) -> None:
        """How many had no line since this was told last."""
        if self._left_out:
            self._log.info("clients that disconnected without a line of their own: {left_out}", left_out=self._left_out)
            self._left_out = 0


def _format_of(record: EndRecord) -> str:
    """With ``repr`` for what clients choose: it escapes whatever a terminal would not print."""
    names = "" if record.nick == record.id else " {nick!r}"
    if record.subject and record.subject != record.nick:
        names += " with a token of {subject!r}"
    traffic = "" if record.sent is None else ", {sent} bytes sent, {received} received"
    ended = f"disconnected after {{seconds}} s{traffic}, by the {record.by.replace('peer', 'client')}"
    return f"{{dialect}} client {{id}}{names} of {{client}} {ended}: {{why!r}}"


def _fields_of(record: EndRecord) -> dict[str, str | float | None]:
    fields = msgspec.structs.asdict(record)
    del fields["at"]  # each line has its time
    why = UNSAID.get(record.why or "cleanly", record.why) if record.why == record.how else record.why
    return fields | {"subject": record.subject or None, "why": why}
