"""`sockbridge who`: prints the subscribers of a channel."""

from __future__ import annotations

import argparse
from typing import TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import add_server_options, complain, format_json, print_table, run_command

SUMMARY = "print the subscribers of a channel"

DESCRIPTION = "Prints id and nick of each subscriber of a channel."

EXAMPLE = "  sockbridge who kitchen"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--json", action="store_true", help="print each subscriber as a JSON object")
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    async def work(client: Client) -> int:
        members = await client.members(options.channel)
        if not members:
            complain(options, stderr, f"no subscribers of {options.channel}")
        elif options.json:
            for member in members:
                print(format_json({"id": member.id, "nick": member.nick}), file=stdout)
        else:
            print_table(("id", "nick"), [(member.id, member.nick) for member in members], stdout)
        return 0

    return run_command(options, stderr, work)
