"""The standard streams of a command: they can be closed, full, or a pipe whose reader has ended."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from sockbridge.commands.common import WRONG_USAGE, complain


def open_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed, also for programs that this one starts. Otherwise the
    next socket gets the number of the stream, and the peer receives its text."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # open returns the lowest number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def run_with_streams(commands: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Run the command that ``options`` name, and return its exit status. Without standard output it does not run. If
    the program that reads the output has ended, the status is 0. A file that cannot be used is an error, for example
    output on a full disk."""
    if sys.stdout is None:
        complain(options, sys.stderr, "standard output is closed: to discard the output, use >/dev/null")
        return WRONG_USAGE
    try:
        status: int = commands[options.command].run(options, sys.stdout, sys.stderr)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return 0  # as in `sockbridge sub kitchen | head -1`
    except OSError as error:
        _discard_output()
        complain(options, sys.stderr, f"{error.filename or 'output'}: {(error.strerror or str(error)).lower()}")
        return WRONG_USAGE
    return status


def standard_input() -> BinaryIO:
    """Standard input. Raises OSError if it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "closed", "standard input")
    return sys.stdin.buffer


def _discard_output() -> None:
    """Python must not write the rest of the output at its exit."""
    with suppress(OSError):
        output = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
