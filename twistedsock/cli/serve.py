"""`sockbridge serve`: starts the server in the foreground."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

SUMMARY = "start the server in the foreground"

DESCRIPTION = """\
Starts the server in the foreground, as `twistd -n sockbridge` does. All options
can stand in a file, as names without dashes."""

EXAMPLE = """\
  sockbridge serve
  sockbridge serve --config sockbridge.toml"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``twistd sockbridge``, for the completion and the manual page."""
    from twistedsock.config import OPTIONS

    parser.add_argument("-c", "--config", metavar="FILE", help="read a TOML file with the same names")
    for option in OPTIONS:
        help = option.description.replace("%", "%%")
        if option.unit:
            parser.add_argument(f"--{option.name}", metavar=option.unit, help=help)
        else:
            parser.add_argument(f"--{option.name}", action="store_true", help=help)


def run(options: Sequence[str]) -> int:
    """Replace this process with the server. All arguments are those of ``twistd sockbridge``. Returns only if that is
    impossible."""
    twistd = Path(sys.executable).with_name("twistd")
    os.execv(twistd, [str(twistd), "-n", "--pidfile=", "sockbridge", *options])
    return 1
