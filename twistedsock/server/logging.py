"""Log output: JSON lines, the report of a log that cannot be written, and a line for each disconnected client.

Twistd's own observers write text only. With JSON, the observers here replace them: on stdout, in the file that rotates,
and in syslog.
"""

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

from twistedsock.errors import Error
from twistedsock.session.connection_info import ClosedConnectionInfo, closed_connection_info
from twistedsock.session.encoder import Endpoints
from twistedsock.session.session import Session
from twistedsock.session.timeline import Step

# JSON lines.

LINE_FIELDS = ("time", "level", "namespace", "message", "traceback")
"""The fields of each line. Fields of an event with these names are left out."""

LEGACY_FIELDS = ("format", "printed", "system", "isError", "why", "failure", "logLevel")
"""Added to each event by Twisted's old log. Their content is in the other fields."""

DEFAULT_FILE = "twistd.log"
"""Where twistd logs in the background without --logfile."""

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


def format_json(event: LogEvent) -> str | None:
    """An event as one line, None if it has no message. The line is ASCII only, so that names chosen by clients cannot
    move a cursor or break a line."""
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
    excluded = LINE_FIELDS if event.get("log_namespace") != "log_legacy" else LINE_FIELDS + LEGACY_FIELDS
    for name, value in event.items():
        if not name.startswith("log_") and name not in excluded:
            is_plain, converted = _to_plain(value)
            if is_plain and converted != message:
                line[name] = converted
    if traceback is not None:
        line["traceback"] = traceback
    return json.dumps(line, separators=(",", ":")) + "\n"


def _to_plain(value: object) -> tuple[bool, object]:
    """Whether a value has a meaning outside Python, and its JSON form."""
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
    except Exception:  # the exception's own __str__ may fail, and the line must be written nevertheless
        return "the traceback could not be written"


@implementer(ILogObserver)
class SyslogObserver:
    """Writes each line as one message of syslog, which truncates long ones (mostly at 8 KiB)."""

    def __init__(self, prefix: str, send: Callable[[int, str], None] = syslog.syslog) -> None:
        self._send = send
        syslog.openlog(prefix)

    def __call__(self, event: LogEvent) -> None:
        line = format_json(event)
        if line is not None:
            level: Any = event.get("log_level")
            self._send(_PRIORITIES.get(level, syslog.LOG_INFO), line.rstrip("\n"))


def json_observer(twistd: Mapping[str, Any], call: Callable[..., None]) -> ILogObserver:
    """An observer that writes JSON to the log that the options of ``twistd`` name. ``call`` calls back in the reactor's
    thread. As in the text log, SIGUSR1 begins a new file."""
    if twistd.get("syslog"):
        return SyslogObserver(twistd.get("prefix") or "")
    name, foreground = twistd.get("logfile") or "", twistd.get("nodaemon")
    if name == "-" and not foreground:
        raise SystemExit("sockbridge: a daemon cannot log to stdout")
    if name == "-" or (foreground and not name):
        return FileLogObserver(sys.stdout, format_json)
    file = LogFile.fromFullPath(name or DEFAULT_FILE)
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda number, frame: call(file.rotate))
    return FileLogObserver(file, format_json)


# A log that cannot be written, as on a full disk.


@implementer(ILogObserver)
class LogFailureReporter:
    """Reports once, on the stderr with which the process was started, that the log cannot be written. Twisted drops
    such messages and informs the other observers only, and there are none. It tries again with each message, so logging
    continues as soon as that is possible."""

    def __init__(self) -> None:
        self._has_reported = False

    def __call__(self, event: LogEvent) -> None:
        if self._has_reported or not isinstance(event.get("observer"), FileLogObserver):
            return
        self._has_reported = True
        try:
            print(
                f"sockbridge: the log cannot be written: {event['log_failure'].value}", file=sys.__stderr__, flush=True
            )
        except (OSError, ValueError):
            pass  # stderr may be on the same full disk, or closed


# Disconnected clients.

MAX_LINES_PER_SECOND = 10
"""4 KB a second are 300 MB in a day. Clients without a line are counted."""

DEFAULT_REASONS = {"cleanly": "it closed the connection", "broken": "its connection broke", "aborted": "it was reset"}
"""The reasons of connections that ended without one."""


class ConnectionLog:
    """Logs a line for each session that has ended: its client, duration, traffic, and the reason. It is a listener of
    ``ConnectionEvents``. Neither published data nor credentials are logged. ``clock`` is the broker's; ``call_later``
    calls back after some seconds."""

    _log = Logger()

    def __init__(self, clock: Callable[[], float], call_later: Callable[..., Any]) -> None:
        self._clock = clock
        self._call_later = call_later
        self._lines = 0
        self.omitted = 0

    def opened(self, session: Session) -> None:
        """Not logged."""

    def stepped(self, session: Session, step: Step) -> None:
        """Not logged."""

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str) -> None:
        """Not logged."""

    def closed(self, session: Session) -> None:
        """Log the end of a session."""
        if self._lines == 0:
            self._call_later(1.0, self._end_second)
        if self._lines >= MAX_LINES_PER_SECOND:
            self.omitted += 1
            return
        self._lines += 1
        record = closed_connection_info(session, self._clock(), 0.0)
        self._log.info(_format_of(record), **_fields_of(record))

    def _end_second(self) -> None:
        self._lines = 0
        self.log_omitted()

    def log_omitted(self) -> None:
        """Log how many clients had no line since the last call."""
        if self.omitted:
            self._log.info("{omitted} more clients disconnected", omitted=self.omitted)
            self.omitted = 0


def _format_of(record: ClosedConnectionInfo) -> str:
    """Values that clients choose are formatted with ``repr``, which escapes what a terminal would not print."""
    names = "" if record.nick == record.id else " {nick!r}"
    if record.subject and record.subject != record.nick:
        names += " with a token of {subject!r}"
    traffic = "" if record.sent is None else ", {sent} bytes sent, {received} received"
    ended = f"disconnected after {{seconds}} s{traffic}, by the {record.by.replace('peer', 'client')}"
    return f"{{dialect}} client {{id}}{names} of {{client}} {ended}: {{why!r}}"


def _fields_of(record: ClosedConnectionInfo) -> dict[str, str | float | None]:
    fields = msgspec.structs.asdict(record)
    del fields["at"]  # each line has a time
    why = DEFAULT_REASONS.get(record.why or "cleanly", record.why) if record.why == record.how else record.why
    return fields | {"subject": record.subject or None, "why": why}
