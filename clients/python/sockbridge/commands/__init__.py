"""The commands for clients: `sockbridge sub`, `pub`, `watch` and so on.

Each module has SUMMARY, DESCRIPTION, EXAMPLE, ``add_options`` and ``run``, which returns the exit status.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sockbridge.commands import channels, history, pipe, pub, sub, watch, who

COMMANDS = {
    "sub": sub,
    "pub": pub,
    "watch": watch,
    "history": history,
    "channels": channels,
    "who": who,
    "pipe": pipe,
}


def parse_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of a program that has these commands. What follows ``--`` of `pipe` is the program to run;
    argparse would give it the options after the channel as well."""
    if words[:1] != ["pipe"] or "--" not in words:
        return parser.parse_args(words)
    end = words.index("--")
    options = parser.parse_args(words[:end])
    options.program = words[end + 1 :]
    return options
