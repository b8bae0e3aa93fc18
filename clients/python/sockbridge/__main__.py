"""The commands of the client alone: ``python -m sockbridge sub kitchen``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sockbridge.commands import COMMANDS, add_commands, parse_arguments
from sockbridge.commands.streams import open_closed_streams, run_with_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    open_closed_streams()
    parser = argparse.ArgumentParser("sockbridge", description="Publish to channels of sockbridge, and follow them.")
    add_commands(parser, COMMANDS)
    options = parse_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    if options.command is None:
        parser.error("give a command: sockbridge --help lists them")
    return run_with_streams(COMMANDS, options)


if __name__ == "__main__":
    sys.exit(main())
