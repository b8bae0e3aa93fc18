"""The commands of the client alone: ``python -m sockbridge sub kitchen``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sockbridge.commands import COMMANDS, parse_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    parser = argparse.ArgumentParser("sockbridge", description="Publish to channels of sockbridge, and follow them.")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_options(
            commands.add_parser(
                name,
                help=module.SUMMARY,
                description=module.DESCRIPTION,
                epilog=f"example:\n{module.EXAMPLE}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    options = parse_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    status: int = COMMANDS[options.command].run(options, sys.stdout, sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
