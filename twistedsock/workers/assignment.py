"""The assignment of a process that the supervisor starts, and the names of workers."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from twistedsock.config import Settings

MAX_WORKERS = 32
"""More than there are processors in most machines. One hub cannot keep more of them busy."""

_NAMES = "123456789abcdefghijklmnopqrstuvw"
"""The names of workers, by their numbers. They are short, because ids begin with them."""

STARTED = b"started"
"""The line that a process writes when it works. All other lines are events of its log."""

FIRST_PORT = 3
"""The first file descriptor of a process after stdin, stdout and stderr."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The first line on the stdin of a process. When its stdin ends, the supervisor has ended, and so must the
    process. Its listening sockets are the file descriptors from ``FIRST_PORT`` on: those of a worker in the order of
    the settings, or the one of the hub."""

    role: Literal["hub", "worker"]
    name: str = ""
    reactor: str
    """The module that installs the reactor."""
    settings: Settings
    config: str | None = None
    """The configuration file, which a reload reads again."""
    given: dict[str, Any] = {}
    """The options of the command line, as they were written."""
    hub_path: str
    restarts: int = 0
    """How often the process has been started again."""
    families: tuple[int, ...]
    """The address families of the listening sockets."""


def worker_name(index: int) -> str:
    """The name of the worker with this index, which begins with 0."""
    return _NAMES[index]


def worker_settings(settings: Settings) -> Settings:
    """The settings of one of several workers. The memory that all clients can use is divided among them, and only the
    hub opens the directory of the state."""
    return msgspec.structs.replace(
        settings,
        state="",
        max_buffered_bytes=max(1024 * 1024, settings.max_buffered_bytes // settings.workers),
        history_total_bytes=-(-settings.history_total_bytes // settings.workers),
    )


def command_of(assignment: Assignment) -> list[str]:
    """The command line, which tools such as ps show."""
    name = [assignment.name] if assignment.name else []
    return [sys.executable, "-P", "-m", "twistedsock.process", assignment.role, *name]


def environment() -> Mapping[str, str]:
    """The variables of a process. It finds the same modules as this one, wherever twistd was started."""
    path = [os.path.abspath(folder) for folder in sys.path if folder]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
