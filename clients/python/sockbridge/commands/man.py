"""`sockbridge man`: prints manual pages.

Made here, and not by argparse-manpage: the client alone has no dependencies.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TextIO

from sockbridge.commands.common import EXIT_STATUSES, SERVER_VARIABLE, WRONG_USAGE, complain
from sockbridge.commands.description import Command, Option, describe

SUMMARY = "print a manual page"

DESCRIPTION = """\
Prints the manual page of a command in the format of man(1), or that of all
commands. With --directory it writes all pages, for man to find them."""

EXAMPLE = """\
  sockbridge man sub | man -l -
  sockbridge man --directory ~/.local/share/man/man1"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="COMMAND")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="write all pages into this directory")


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    found = pages(options.program_parser, _date())
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
        for name, text in found.items():
            (options.directory / f"{name}.1").write_text(text, encoding="utf-8")
        print(f"{len(found)} pages in {options.directory}", file=stdout)
        return 0
    name = "sockbridge" if options.name is None else f"sockbridge-{options.name}"
    if name not in found:
        complain(options, stderr, f"unknown command {options.name}")
        return WRONG_USAGE
    print(found[name], end="", file=stdout)
    return 0


def _date() -> date:
    """Today, or for builds that can be repeated, the time in SOURCE_DATE_EPOCH
    (https://reproducible-builds.org/specs/source-date-epoch/)."""
    moment = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(moment), UTC).date() if moment.isdecimal() else datetime.now(UTC).date()


def pages(parser: argparse.ArgumentParser, made: date) -> Mapping[str, str]:
    """All manual pages by their names."""
    commands = describe(parser)
    return {"sockbridge": _program(commands, made)} | {
        f"sockbridge-{each.name}": _page(each, made) for each in commands
    }


def _program(commands: list[Command], made: date) -> str:
    lines = [
        *_head("sockbridge", "publish to channels of sockbridge, and follow them", made),
        ".SH SYNOPSIS",
        ".B sockbridge",
        r"\fICOMMAND\fR [\fIoptions\fR]",
        ".SH COMMANDS",
    ]
    for command in commands:
        lines += [".TP", rf"\fBsockbridge\-{_escape(command.name)}\fR(1)", _escape(command.summary)]
    return _join([*lines, *_tail()])


def _page(command: Command, made: date) -> str:
    lines = [
        *_head(f"sockbridge-{command.name}", command.summary, made),
        ".SH SYNOPSIS",
        _escape(command.usage),
        ".SH DESCRIPTION",
        *_paragraph(command.description),
    ]
    arguments = [(name, text) for name, text in command.arguments if text]
    if arguments:
        lines.append(".SH ARGUMENTS")
        for name, text in arguments:
            lines += [".TP", rf"\fI{_escape(name)}\fR", _escape(text)]
    lines += [".SH OPTIONS", *_options(command.options)]
    for action in command.actions:
        lines += [f".SS {_escape(action.name)}", _escape(action.summary), ".P", _escape(action.usage)]
        lines += _options([option for option in action.options if "--help" not in option.flags])
    lines += [".SH EXAMPLES", ".nf", *map(_escape, command.example.splitlines()), ".fi"] if command.example else []
    is_of_client = any("--server" in option.flags for option in command.options)
    return _join([*lines, *(_tail() if is_of_client else [])])


def _options(options: Iterable[Option]) -> list[str]:
    lines = []
    for option in options:
        flags = ", ".join([rf"\fB{_escape(flag)}\fR" for flag in option.flags])
        value = rf" \fI{_escape(option.metavar)}\fR" if option.metavar else ""
        lines += [".TP", flags + value, _escape(option.help)]
    return lines


def _head(name: str, summary: str, made: date) -> list[str]:
    return [f".TH {name.upper()} 1 {made} sockbridge", ".SH NAME", rf"{_escape(name)} \- {_escape(summary)}"]


def _tail() -> list[str]:
    lines = [".SH EXIT STATUS"]
    for status, meaning in EXIT_STATUSES.items():
        lines += [".TP", str(status), _escape(meaning)]
    return [
        *lines,
        ".SH ENVIRONMENT",
        ".TP",
        SERVER_VARIABLE,
        r"the address of the server, unless \fB\-\-server\fR is given",
    ]


def _paragraph(text: str) -> list[str]:
    return [_escape(line) or ".P" for line in text.splitlines()]


def _escape(text: str) -> str:
    """A text in roff, where a backslash, a hyphen, and a point at the beginning of a line have meanings."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


def _join(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
