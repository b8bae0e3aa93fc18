"""The log as JSON: one object a line, for programs that read logs. Twistd's own observers write text only, so this also
takes their place: on stdout, in the file that rotates, and in syslog."""

import json
import math
import signal
import sys
import syslog
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from twisted.logger import FileLogObserver, ILogObserver, LogEvent, Logger, LogLevel, eventAsText
from twisted.python.logfile import LogFile
from zope.interface import implementer

from twistedsock.session.session import Session
from twistedsock.session.timeline import ClosedConnectionInfo, Step, closed_connection_info

OWN = ("time", "level", "namespace", "message", "traceback")
"""The names of what each line says; a field of an event that is called so gives way."""

LEGACY = ("format", "printed", "system", "isError", "why", "failure", "logLevel")
"""What Twisted's old log adds to each event, and says in other words as well."""

DEFAULT_FILE = "twistd.log"
"""Where a daemon logs that has not been told where, as ever with twistd."""

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


def write_json(event: LogEvent) -> str | None:
    """An event as one line, None where it says nothing. Only ASCII leaves: whatever peers are called, no byte of it
    moves a cursor or breaks a line."""
    message, traceback = eventAsText(event, False, False, False), _traceback(event)
    if not message and traceback is None:
        return None
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": "info" if level is None else level.name,
        "namespace": str(event.get("log_namespace", "")),
        "message": message,
    }
    told = OWN if event.get("log_namespace") != "log_legacy" else OWN + LEGACY
    for name, value in event.items():
        if not name.startswith("log_") and name not in told:
            plain, shown = _plain(value)
            if plain and shown != message:
                line[name] = shown
    if traceback is not None:
        line["traceback"] = traceback
    return json.dumps(line, separators=(",", ":")) + "\n"


def _plain(value: object) -> tuple[bool, object]:
    """Whether a value means something outside of Python, and what is shown of it."""
    if value is None or isinstance(value, bool | int | str):
        return True, value
    if isinstance(value, float):
        return True, value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return True, value.decode(errors="backslashreplace")
    return False, None


def _traceback(event: LogEvent) -> str | None:
    failure = event.get("log_failure")
    if failure is None:
        return None
    try:
        return str(failure.getTraceback())
    except Exception:  # an exception whose own words fail must not take the line with it
        return "the traceback could not be written"


@implementer(ILogObserver)
class SyslogObserver:
    """Each line as one message of syslog, where it is cut off if it is longer than that takes (mostly 8 KiB)."""

    def __init__(self, prefix: str, say: Callable[[int, str], None] = syslog.syslog) -> None:
        self._say = say
        syslog.openlog(prefix)

    def __call__(self, event: LogEvent) -> None:
        line = write_json(event)
        if line is not None:
            level: Any = event.get("log_level")
            self._say(_PRIORITIES.get(level, syslog.LOG_INFO), line.rstrip("\n"))


def json_observer(twistd: Mapping[str, Any], call: Callable[..., None]) -> ILogObserver:
    """What writes JSON where the options of ``twistd`` say that the log goes. ``call`` calls back in the reactor's
    thread. As in the text log, SIGUSR1 begins a new file."""
    if twistd.get("syslog"):
        return SyslogObserver(twistd.get("prefix") or "")
    name, foreground = twistd.get("logfile") or "", twistd.get("nodaemon")
    if name == "-" and not foreground:
        raise SystemExit("sockbridge: a daemon cannot log to stdout")
    if name == "-" or (foreground and not name):
        return FileLogObserver(sys.stdout, write_json)
    file = LogFile.fromFullPath(name or DEFAULT_FILE)
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: call(file.rotate))
    return FileLogObserver(file, write_json)


@implementer(ILogObserver)
class UnwrittenLog:
    """Says once, on the stderr that the process was started with, that the log cannot be written. What cannot be
    written is dropped by Twisted, and nobody else would be told: it tells the other observers only, and there are none.
    It tries again with each line, so the log goes on once there is room."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, event: LogEvent) -> None:
        if self._told or not isinstance(event.get("observer"), FileLogObserver):
            return
        self._told = True
        try:
            print(
                f"sockbridge: the log cannot be written: {event['log_failure'].value}", file=sys.__stderr__, flush=True
            )
        except (OSError, ValueError):
            pass  # stderr may be the same full disk, or closed


MAX_A_SECOND = 10
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
        if self._said >= MAX_A_SECOND:
            self._left_out += 1
            return
        self._said += 1
        record = closed_connection_info(session, self._clock(), 0.0)
        self._log.info(_format_of(record), **_fields_of(record))

    def _begin_anew(self) -> None:
        self._said = 0
        self.tell_left_out()

    def tell_left_out(self) -> None:
        """How many had no line since this was told last."""
        if self._left_out:
            self._log.info("clients that disconnected without a line of their own: {left_out}", left_out=self._left_out)
            self._left_out = 0


def _format_of(record: ClosedConnectionInfo) -> str:
    """With ``repr`` for what clients choose: it escapes whatever a terminal would not print."""
    names = "" if record.nick == record.id else " {nick!r}"
    if record.subject and record.subject != record.nick:
        names += " with a token of {subject!r}"
    traffic = "" if record.sent is None else ", {sent} bytes sent, {received} received"
    ended = f"disconnected after {{seconds}} s{traffic}, by the {record.by.replace('peer', 'client')}"
    return f"{{dialect}} client {{id}}{names} of {{client}} {ended}: {{why!r}}"


def _fields_of(record: ClosedConnectionInfo) -> dict[str, str | float | None]:
    fields = msgspec.structs.asdict(record)
    del fields["at"]  # each line has its time
    why = UNSAID.get(record.why or "cleanly", record.why) if record.why == record.how else record.why
    return fields | {"subject": record.subject or None, "why": why}


# TODO-MERGED-DOC: What becomes of a log that cannot be written, as on a full disk.

# TODO-MERGED-DOC: Logs a line for each session that has ended: whose it was, how long it lasted, what passed,
# and who ended it.
