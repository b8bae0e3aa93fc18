"""`sockbridge channels`: prints the names of channels."""

from __future__ import annotations

import argparse
from typing import TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import add_server_options, complain, format_json, print_table, run_command

SUMMARY = "print the channels of a server"

DESCRIPTION = """\
Prints each channel that begins with a prefix, or all: its name, the number of
its subscribers, and the offset of its newest event."""

EXAMPLE = """\
  sockbridge channels
  sockbridge channels sensors/ --json"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX")
    parser.add_argument("--json", action="store_true", help="print each channel as a JSON object")
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    async def work(client: Client) -> int:
        found = await client.channels(options.prefix)
        if not found:
            complain(options, stderr, "no channels")
        elif options.json:
            for channel in found:
                content = {"channel": channel.name, "readers": channel.readers, "offset": channel.offset}
                print(format_json(content), file=stdout)
        else:
            rows = [(channel.name, channel.readers, channel.offset) for channel in found]
            print_table(("channel", "subscribers", "offset"), rows, stdout)
        return 0

    return run_command(options, stderr, work)
