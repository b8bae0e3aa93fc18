"""`sockbridge`: the commands around the server, which itself is started by ``twistd sockbridge``."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from twistedsock.bench import command as bench
from twistedsock.cli import check, keygen, state, token

COMMANDS = {"check": check, "keygen": keygen, "token": token, "state": state, "bench": bench}
"""Each module has SUMMARY, DESCRIPTION, EXAMPLE, ``add_options`` and ``run``."""

_SUMMARIES = "\n".join(f"  {name:8} {module.SUMMARY}" for name, module in COMMANDS.items())

HELP = f"""\
usage: sockbridge COMMAND [options]

Commands for operators of sockbridge. twistd starts the server itself:
twistd -n sockbridge

Commands:
{_SUMMARIES}

Options:
  -h, --help  show this help, or with a command, the help of the command
  --version   show the version

Example:
  sockbridge keygen >> sockbridge.toml
  sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw'
  sockbridge check sockbridge.toml
  twistd -n sockbridge --config sockbridge.toml
"""


class _Parser(argparse.ArgumentParser):
    """The parser of the program itself. argparse would list the commands under an empty heading."""

    def format_help(self) -> str:
        return HELP


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    parser = _Parser("sockbridge")
    parser.add_argument("--version", action="version", version=f"sockbridge/{version('sockbridge')}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", parser_class=argparse.ArgumentParser)
    for name, module in COMMANDS.items():
        module.add_options(
            commands.add_parser(
                name,
                description=module.DESCRIPTION,
                epilog=f"example:\n{module.EXAMPLE}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    status: int = COMMANDS[given.command].run(given, sys.stdout, sys.stderr)
    return status
