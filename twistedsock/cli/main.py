"""`sockbridge`: the commands for clients and for operators."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from sockbridge.commands import COMMANDS as CLIENT_COMMANDS
from sockbridge.commands import add_commands, parse_arguments
from sockbridge.commands.streams import open_closed_streams, run_with_streams
from twistedsock.bench import command as bench
from twistedsock.cli import check, keygen, serve, state, token
from twistedsock.speedups import IMPLEMENTATION

OPERATOR_COMMANDS = {
    "check": check,
    "keygen": keygen,
    "token": token,
    "state": state,
    "bench": bench,
}

COMMANDS = {**CLIENT_COMMANDS, **OPERATOR_COMMANDS}
"""Each module has SUMMARY, DESCRIPTION, EXAMPLE, ``add_options`` and ``run``."""


def _summaries(commands: Mapping[str, Any]) -> str:
    return "\n".join(f"  {name:10} {module.SUMMARY}" for name, module in commands.items())


HELP = f"""\
usage: sockbridge COMMAND [options]

Commands for clients, which need a running server:
{_summaries(CLIENT_COMMANDS)}

Commands for operators:
  serve      {serve.SUMMARY}
{_summaries(OPERATOR_COMMANDS)}

Options:
  -h, --help  show this help, or with a command, the help of the command
  --version   show the version

Example:
  sockbridge serve
  sockbridge sub kitchen
  sockbridge pub kitchen 21.5
  sockbridge keygen >> sockbridge.toml
  sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw'
  sockbridge check sockbridge.toml
  sockbridge serve --config sockbridge.toml
"""


class _Parser(argparse.ArgumentParser):
    """The parser of the program itself. argparse would list the commands under an empty heading."""

    def format_help(self) -> str:
        return HELP


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["serve"]:
        return serve.run(words[1:])
    parser = _Parser("sockbridge")
    parser.add_argument("--version", action="version", version=f"sockbridge/{version('sockbridge')} {IMPLEMENTATION}")
    describes_itself = words[:1] in (["completion"], ["man"])
    add_commands(parser, {"serve": serve, **COMMANDS} if describes_itself else COMMANDS)
    given = parse_arguments(parser, words, ["serve", *COMMANDS])
    if given.command is None:
        parser.print_help()
        return 0
    return run_with_streams(COMMANDS, given)
