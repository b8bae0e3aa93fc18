"""`sockbridge`, the command beside `twistd sockbridge`: what is done to a bridge that runs already."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from twistedsock.bench import command as bench

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
    given = parser.parse_args(arguments)
    if given.command == "bench":
        return bench.run(given, sys.stdout, sys.stderr)
    parser.print_help()
    return 0
