"""`sockbridge completion`: prints the completion of a shell.

Made here, and not by shtab: the client alone has no dependencies, and shtab completes no channels of a server.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import TextIO

from sockbridge.commands.description import Command, Option, describe, options_of

SUMMARY = "print the completion for a shell"

DESCRIPTION = """\
Prints a script that completes commands, options and channels when you press
Tab. Channels are those of $SOCKBRIDGE_SERVER, or of this machine."""

EXAMPLE = """\
  sockbridge completion bash > ~/.sockbridge.bash  # and: . ~/.sockbridge.bash
  sockbridge completion zsh > ~/.zfunc/_sockbridge
  sockbridge completion fish > ~/.config/fish/completions/sockbridge.fish"""

CHANNELS = """command timeout 2 sockbridge channels -- "$%s" 2>/dev/null |
        command cut -d ' ' -f 1 | command grep -E '^[A-Za-z0-9_/][A-Za-z0-9_./-]*$' | command head -n 200"""
"""Clients choose the names of channels, and what is completed becomes part of a command: only names are used that no
shell interprets. It takes at most two seconds."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(_SHELLS), help="the shell")


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    print(_SHELLS[options.shell](describe(options.program_parser)), end="", file=stdout)
    return 0


def quote(text: str) -> str:
    """A word in a shell, between single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _flags(options: Iterable[Option]) -> list[str]:
    return [flag for option in options for flag in option.flags]


def bash(commands: list[Command]) -> str:
    cases = []
    for command in commands:
        options = options_of(command)
        values = [
            f"            {'|'.join(option.flags)}) {_bash_value(option)} ;;" for option in options if option.metavar
        ]
        words = " ".join([*command.choices, *(each.name for each in command.actions)])
        if command.takes_channels and not words:
            argument = "_sockbridge_channels"
        elif command.takes_files:
            argument = f'COMPREPLY=($(compgen -W "{words}" -- "$cur")); compopt -o default'
        else:
            argument = f'COMPREPLY=($(compgen -W "{words}" -- "$cur"))'
        cases.append(
            f"""    {command.name})
        case $prev in
{_lines(values)}            *) if [[ $cur == -* ]]; then
                COMPREPLY=($(compgen -W "{" ".join(_flags(options))}" -- "$cur"))
            else
                {argument}
            fi ;;
        esac ;;"""
        )
    names = " ".join(command.name for command in commands)
    return f"""# Completion of sockbridge for bash.
_sockbridge_channels() {{
    # With --server, the channels would be those of another server.
    [[ " ${{COMP_WORDS[*]}} " == *" --server"* ]] && return
    COMPREPLY=($({CHANNELS % "cur"}))
}}

_sockbridge() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$cur"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
{_lines(cases)}    esac
}}

complete -F _sockbridge sockbridge
"""


def _bash_value(option: Option) -> str:
    if option.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur"))'
    return "compopt -o default" if option.is_file else ":"


def _lines(lines: Iterable[str]) -> str:
    return "".join([line + "\n" for line in lines])


def zsh(commands: list[Command]) -> str:
    cases = []
    for command in commands:
        specs = [spec for option in options_of(command) for spec in _zsh_option(option)]
        words = " ".join([*command.choices, *(each.name for each in command.actions)])
        if words:
            specs.append(
                f"*: :({words})" if not command.takes_files else f"*: :_alternative 'a:a:({words})' 'f:f:_files'"
            )
        elif command.takes_channels:
            specs.append("*: :_sockbridge_channels")
        else:
            specs.append("*: :_files")
        cases.append(f"    {command.name}) _arguments {' '.join(map(quote, specs))} ;;")
    names = " ".join(quote(f"{command.name}:{command.summary}") for command in commands)
    return f"""#compdef sockbridge
# Completion of sockbridge for zsh.
_sockbridge_channels() {{
    local word=$words[CURRENT]
    (( ${{words[(I)--server*]}} )) && return 1
    local -a channels
    channels=(${{(f)"$({CHANNELS % "word"})"}})
    compadd -a channels
}}

_sockbridge() {{
    if (( CURRENT == 2 )); then
        local -a commands
        commands=({names})
        _describe command commands
        return
    fi
    shift words
    (( CURRENT-- ))
    case $words[1] in
{_lines(cases)}    esac
}}

if [[ $funcstack[1] == _sockbridge ]]; then _sockbridge "$@"; else compdef _sockbridge sockbridge; fi
"""


def _zsh_option(option: Option) -> list[str]:
    text = re.sub(r"([\[\]:\\])", r"\\\1", option.help)
    value = ""
    if option.metavar:
        what = f"({' '.join(option.choices)})" if option.choices else "_files" if option.is_file else ""
        value = f": :{what}"
    return [f"{flag}[{text}]{value}" for flag in option.flags]


def fish(commands: list[Command]) -> str:
    lines = []
    for command in commands:
        lines.append(
            f"complete -c sockbridge -n __fish_use_subcommand -f -a {command.name} -d {quote(command.summary)}"
        )
        condition = f"complete -c sockbridge -n '__fish_seen_subcommand_from {command.name}'"
        words = " ".join([*command.choices, *(each.name for each in command.actions)])
        if words:
            lines.append(f"{condition} -a {quote(words)}{'' if command.takes_files else ' -f'}")
        elif command.takes_channels:
            lines.append(f"{condition} -f -a '(__sockbridge_channels)'")
        for option in options_of(command):
            flags = " ".join([f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in option.flags])
            value = ""
            if option.metavar:
                value = (
                    f" -x -a {quote(' '.join(option.choices))}"
                    if option.choices
                    else " -r"
                    if option.is_file
                    else " -x"
                )
            lines.append(f"{condition} {flags}{value} -d {quote(option.help)}")
    return f"""# Completion of sockbridge for fish.
function __sockbridge_channels
    string match -q -- '--server*' (commandline -opc); and return
    set -l word (commandline -ct)
    {CHANNELS % "word"}
end

{_lines(lines)}"""


_SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
