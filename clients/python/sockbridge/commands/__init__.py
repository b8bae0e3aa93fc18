"""The commands for clients: `sockbridge sub`, `pub`, `watch` and so on.

Each module has SUMMARY, DESCRIPTION, EXAMPLE, ``add_options`` and ``run``, which returns the exit status.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from sockbridge.commands import (
    channels,
    completion,
    disconnect,
    history,
    man,
    peers,
    pipe,
    pub,
    sub,
    watch,
    who,
)

COMMANDS: Mapping[str, Any] = {
    "sub": sub,
    "pub": pub,
    "watch": watch,
    "history": history,
    "channels": channels,
    "who": who,
    "pipe": pipe,
    "peers": peers,
    "disconnect": disconnect,
    "completion": completion,
    "man": man,
}


def add_commands(parser: argparse.ArgumentParser, commands: Mapping[str, Any]) -> None:
    """Add commands to the parser of a program. `completion` and `man` read it."""
    parser.set_defaults(program_parser=parser)
    added = parser.add_subparsers(metavar="COMMAND", dest="command", parser_class=argparse.ArgumentParser)
    for name, module in commands.items():
        module.add_options(
            added.add_parser(
                name,
                help=module.SUMMARY,
                description=module.DESCRIPTION,
                epilog=f"example:\n{module.EXAMPLE}",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )


def parse_arguments(
    parser: argparse.ArgumentParser, words: Sequence[str], commands: Collection[str] = COMMANDS
) -> argparse.Namespace:
    """Parse the arguments of a program that has these commands. What follows ``--`` of `pipe` is the program to run;
    argparse would give it the options after the channel as well."""
    if words and not words[0].startswith("-") and words[0] not in commands:
        similar = get_close_matches(words[0], commands, 1)
        hint = f"did you mean {similar[0]}?" if similar else f"{parser.prog} --help lists the commands"
        parser.error(f"unknown command {words[0]}: {hint}")
    if words[:1] in (["history"], ["sub"]):
        words = _join_ages(words)
    if words[:1] != ["pipe"] or "--" not in words:
        return parser.parse_args(words)
    end = words.index("--")
    options = parser.parse_args(words[:end])
    options.program = words[end + 1 :]
    return options


def _join_ages(words: Sequence[str]) -> list[str]:
    """``--after -1h`` as ``--after=-1h``: argparse would take the age for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--after", "--before") and word[:1] == "-" and word[1:2].isdigit():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined
