"""The logs of the processes that the supervisor starts: they write events to a pipe, and the supervisor logs them."""

import json
import os
from datetime import datetime
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import implementer

from twistedsock.server.logging import LINE_FIELDS, format_json

STDOUT = 1


@implementer(ILogObserver)
class PipeObserver:
    """Writes each event as a line of JSON for the supervisor."""

    def __call__(self, event: LogEvent) -> None:
        line = format_json(event)
        if line is not None:
            write_line(line.rstrip("\n").encode())


def write_line(line: bytes) -> None:
    """Write a line for the supervisor, which reads them at once."""
    data = memoryview(line + b"\n")
    try:
        while data:
            data = data[os.write(STDOUT, data) :]
    except OSError:
        pass  # the supervisor has ended: this process is about to


class _RelayedFailure:
    """The traceback of an exception in another process, as log observers ask for it."""

    def __init__(self, traceback: str) -> None:
        self._traceback = traceback

    def getTraceback(self) -> str:
        return self._traceback


def log_event(line: bytes, process: str) -> None:
    """Log an event of another process, with its name. A line that is not an event was printed by something else."""
    try:
        fields: dict[str, Any] = json.loads(line)
        level = LogLevel.levelWithName(fields["level"])
        event = {name: value for name, value in fields.items() if name not in LINE_FIELDS}
        event |= {"log_time": datetime.fromisoformat(fields["time"]).timestamp(), "log_level": level}
        event |= {"log_namespace": fields["namespace"], "log_format": "{log_message}", "log_message": fields["message"]}
        if "traceback" in fields:
            event["log_failure"] = _RelayedFailure(fields["traceback"])
    except (ValueError, KeyError, TypeError):
        log_output(line, process)
        return
    _publish(event, process)


def log_output(line: bytes, process: str) -> None:
    """Log what another process has printed, for example the reason for which Python cannot run it."""
    text = line.decode(errors="backslashreplace")
    event = {"log_level": LogLevel.warn, "log_namespace": "stderr", "log_format": "{line}", "line": text}
    _publish(event, process)


def _publish(event: dict[str, Any], process: str) -> None:
    event["log_system"] = f"{process}: {event['log_namespace']}#{event['log_level'].name}"
    event["process"] = process
    globalLogPublisher(event)
