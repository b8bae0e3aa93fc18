"""`sockbridge who`: prints the subscribers of a channel."""

from __future__ import annotations

import argparse
from typing import TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import add_server_options, format_json, printable, run_command

SUMMARY = "print the subscribers of a channel"

DESCRIPTION = "Prints id and nick of each subscriber of a channel."

EXAMPLE = "  sockbridge who kitchen"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--json", action="store_true", help="print each subscriber as a JSON object")
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    async def work(client: Client) -> int:
        for member in await client.members(options.channel):
            content = {"id": member.id, "nick": member.nick}
            print(format_json(content) if options.json else printable(f"{member.id} {member.nick}"), file=stdout)
        return 0

    return run_command(options, stderr, work)
