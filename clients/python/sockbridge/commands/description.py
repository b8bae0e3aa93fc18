"""The commands and options of a program, read from its argparse parser: the source of completions and manual pages."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """``flags`` are its names, as ``--last``. ``metavar`` is empty if it has no value."""

    flags: tuple[str, ...]
    help: str
    metavar: str
    choices: tuple[str, ...]

    @property
    def is_file(self) -> bool:
        return self.metavar in ("FILE", "DIR", "DIRECTORY")


@dataclass(frozen=True)
class Command:
    """``arguments`` are the names of its arguments, such as CHANNEL, with their help. ``actions`` are its own commands,
    such as those of `sockbridge state`."""

    name: str
    usage: str
    summary: str
    description: str
    example: str
    options: tuple[Option, ...]
    arguments: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    """Values of its arguments that are known."""
    actions: tuple[Command, ...]

    @property
    def takes_channels(self) -> bool:
        return any(name in ("CHANNEL", "PREFIX") for name, _ in self.arguments)

    @property
    def takes_files(self) -> bool:
        return any(name in ("FILE", "DIR", "DIRECTORY") for name, _ in self.arguments)


def describe(parser: argparse.ArgumentParser) -> list[Command]:
    """The commands of a program. argparse has no public way to read them, but these attributes have not changed since
    Python 2.7; tests compare the result with ``--help``."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            summaries = {each.dest: each.help or "" for each in action._choices_actions}
            return [_command(name, each, summaries.get(name, "")) for name, each in action.choices.items()]
    return []


def _command(name: str, parser: argparse.ArgumentParser, summary: str) -> Command:
    options: list[Option] = []
    arguments: list[tuple[str, str]] = []
    choices: list[str] = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            options.append(_option(action))
            continue
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        arguments.append((metavar, action.help or ""))
        if not isinstance(action, argparse._SubParsersAction):
            choices += map(str, action.choices or ())
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    return Command(
        name,
        usage,
        summary,
        parser.description or "",
        (parser.epilog or "").removeprefix("example:\n"),
        tuple(options),
        tuple(arguments),
        tuple(choices),
        tuple(describe(parser)),
    )


def _option(action: argparse.Action) -> Option:
    metavar = "" if action.nargs == 0 else action.metavar or action.dest.upper()
    choices = tuple(map(str, action.choices or ()))
    text = (action.help or "").replace("%%", "%")
    return Option(tuple(action.option_strings), text, "|".join(choices) or str(metavar), choices)


def options_of(command: Command) -> list[Option]:
    """The options of a command and of its actions, each once."""
    found = {option.flags: option for each in (*command.actions, command) for option in each.options}
    return list(found.values())
