"""`sockbridge`, the command beside `twistd sockbridge`: what is done around a bridge."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version

from twistedsock.bench import command as bench
from twistedsock.cli import check, keygen, token

DESCRIPTION = """sockbridge lets anything that can open a socket talk to anything that runs in a browser.

A bridge is started by twistd, Twisted's program for servers:

  twistd -n sockbridge           in the foreground; Ctrl-C ends it
  twistd sockbridge --help       its options
"""

BENCH = """Loads a bridge that runs already, for about 25 seconds: one publisher to many readers and pairs of publisher
and reader, flat out; then events at a pace, for latencies. Every delivery is compared. It takes channels of its own,
and leaves nothing behind but their names in the bridge's logs, until they are too old."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The program: its exit status."""
    parser = argparse.ArgumentParser(
        "sockbridge", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"sockbridge/{version('sockbridge')}")
    commands = parser.add_subparsers(title="commands", metavar="", dest="command")
    bench.add_options(
        commands.add_parser(
            "bench",
            help="measure a bridge that runs already",
            description=BENCH,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
    )
    for name, about, part in (
        ("check", "say what a file of options allows whom", check),
        ("keygen", "make a key to sign tokens with", keygen),
        ("token", "make a token", token),
    ):
        part.add_options(
            commands.add_parser(
                name,
                help=about,
                description=part.DESCRIPTION,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    given = parser.parse_args(arguments)
    match given.command:
        case "bench":
            return bench.run(given, sys.stdout, sys.stderr)
        case "check":
            return check.run(given, sys.stdout, sys.stderr, time.time())
        case "keygen":
            return keygen.run(given, sys.stdout, sys.stderr, date.today())
        case "token":
            return token.run(given, sys.stdout, sys.stderr, time.time())
    parser.print_help()
    return 0
