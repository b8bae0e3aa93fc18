"""`sockbridge history`: prints past events of a channel."""

from __future__ import annotations

import argparse
from typing import TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import Printer, add_output_options, add_server_options, run_command
from sockbridge.values import Event, History, Lost

SUMMARY = "print past events of a channel"

DESCRIPTION = """\
Prints the events that the server keeps of a channel, and reports those that it
no longer has. A bound is an offset, or a time: 2026-11-29T05:00:00Z, or -1h for
an hour ago."""

EXAMPLE = """\
  sockbridge history kitchen --last 20
  sockbridge history kitchen --after -1h --time
  sockbridge history kitchen --after 100 --before 200 --json"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--last", type=int, metavar="N", help="only the newest N")
    parser.add_argument("--after", type=parse_bound, metavar="BOUND", help="only later events")
    parser.add_argument("--before", type=parse_bound, metavar="BOUND", help="only earlier events")
    add_output_options(parser)
    add_server_options(parser)


def parse_bound(text: str) -> int | str:
    """An offset, or a time as text."""
    return int(text) if text.isascii() and text.isdigit() else text


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    printer = Printer(options, stdout, stderr)

    async def work(client: Client) -> int:
        history = await client.history(options.channel, last=options.last, after=options.after, before=options.before)
        for report in in_order(history):
            printer.print(report)
        return 0

    return run_command(options, stderr, work)


def in_order(history: History) -> list[Event | Lost]:
    """Events and reports of lost ones in the order of their offsets."""
    reports: list[Event | Lost] = [*history.events, *history.lost]
    return sorted(reports, key=lambda each: each.offset if isinstance(each, Event) else each.first)
