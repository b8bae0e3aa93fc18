"""The commands of the client alone: ``python -m sockbridge sub kitchen``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sockbridge.commands import COMMANDS, add_commands, parse_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    parser = argparse.ArgumentParser("sockbridge", description="Publish to channels of sockbridge, and follow them.")
    add_commands(parser, COMMANDS)
    options = parse_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    if options.command is None:
        parser.error("give a command: sockbridge --help lists them")
    status: int = COMMANDS[options.command].run(options, sys.stdout, sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
