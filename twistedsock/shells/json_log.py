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

from twisted.logger import FileLogObserver, ILogObserver, LogEvent, LogLevel, eventAsText
from twisted.python.logfile import LogFile
from zope.interface import implementer

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
