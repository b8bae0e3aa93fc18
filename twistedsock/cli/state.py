"""`sockbridge state`: its options. ``state_actions`` works on the directory of ``--state``."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TextIO

SUMMARY = "show, verify, export, import or compact the events of --state"

DESCRIPTION = """\
Works on the directory that --state names. Without an action, shows what is in
it. A server can use the directory meanwhile if the action only shows or
exports; for the other actions, stop it."""

EXAMPLE = """\
  sockbridge state /var/lib/sockbridge
  sockbridge state /var/lib/sockbridge verify
  sockbridge state /var/lib/sockbridge export sensors/attic > attic.jsonl
  sockbridge state /var/lib/sockbridge import sensors/attic attic.jsonl
  sockbridge state /var/lib/sockbridge compact --state-age 2592000"""

FORMATS = ("jsonl", "csv")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory that --state names")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action")
    parser.usage = "sockbridge state [-h] DIR [ACTION ...]"  # argparse has no word for optional actions

    def add(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    add("verify", "check that everything can be read", VERIFY_DESCRIPTION)
    export = add("export", "write the events of a channel to stdout", EXPORT_DESCRIPTION)
    export.add_argument("channel", metavar="CHANNEL", help="the channel to export")
    export.add_argument("--format", choices=FORMATS, default="jsonl", help="JSON lines, or CSV with a header [jsonl]")
    importing = add("import", "append events to a channel", IMPORT_DESCRIPTION)
    importing.add_argument("channel", metavar="CHANNEL", help="the channel that gets the events")
    importing.add_argument("file", metavar="FILE", nargs="?", default="-", help="the file, - for stdin [-]")
    compact = add("compact", "shrink the file, and delete old events if limits are given", COMPACT_DESCRIPTION)
    for name, unit, text in (
        ("--state-age", "SECONDS", "delete events that are older than this"),
        ("--state-bytes", "BYTES", "delete the oldest events above this size"),
    ):
        compact.add_argument(name, type=_positive, metavar=unit, help=text)


VERIFY_DESCRIPTION = """\
Checks the database (PRAGMA integrity_check), reads every event, and checks that
the offsets of each channel have no gaps and its times never decrease. Prints a
line for each fault. The exit status is 0 without faults, otherwise 1."""

EXPORT_DESCRIPTION = """\
Writes a line for each event of a channel, the oldest first: its offset, its
time (RFC 3339, UTC), the nickname of its publisher, its name and its data. A
server can use the directory meanwhile."""

IMPORT_DESCRIPTION = """\
Appends events, in the JSON lines that export writes, to a channel. They keep
their times and get the next offsets, so they must not be older than the newest
event of the channel. All of them are imported, or none after an error."""

COMPACT_DESCRIPTION = """\
Deletes the events that the limits exclude (none without a limit), and writes
the file again without free space. This needs room on the disk for a second
file."""


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def run(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Run the action and return the exit status."""
    try:
        from twistedsock.cli.state_actions import ActionError, run_action
    except ImportError as error:
        print(f"sockbridge state: this Python has no SQLite: {error}", file=errors)
        return 1
    try:
        return run_action(given, out, errors)
    except BrokenPipeError:  # for example from head, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout at exit
    except ActionError as error:
        print(f"sockbridge state: {error}", file=errors)
    except OSError as error:
        print(f"sockbridge state: {error.filename or 'output'}: {error.strerror}", file=errors)
    return 1
