"""`sockbridge sub`: prints the events of channels."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import Printer, add_output_options, add_server_options, run_command
from sockbridge.commands.history import in_order, parse_bound
from sockbridge.values import Event, Report

SUMMARY = "print the events of channels"

DESCRIPTION = """\
Follows channels and prints their events until Ctrl-C. After a lost connection
it continues at its position, and reports events that the server no longer has."""

EXAMPLE = """\
  sockbridge sub kitchen --last 10
  sockbridge sub kitchen --after -1h --time
  sockbridge sub kitchen garden --json | jq .data
  sockbridge sub alarms --count 1 --raw"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="+", metavar="CHANNEL")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="begin with the newest N events")
    parser.add_argument("--after", type=parse_bound, metavar="BOUND", help="begin after an offset, or a time: -1h")
    parser.add_argument("--count", type=int, metavar="N", help="end after N events")
    add_output_options(parser)
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    printer = Printer(options, stdout, stderr)
    remaining = options.count

    async def follow(client: Client, channel: str, done: asyncio.Event) -> None:
        nonlocal remaining
        async for report in _reports(client, channel, options):
            if done.is_set():
                return
            printer.print(report)
            if remaining is not None and isinstance(report, Event):
                remaining -= 1
                if remaining <= 0:
                    done.set()

    async def work(client: Client) -> int:
        done = asyncio.Event()
        following = [asyncio.create_task(follow(client, channel, done)) for channel in dict.fromkeys(options.channels)]
        ending = asyncio.create_task(done.wait())
        try:
            finished, _ = await asyncio.wait([*following, ending], return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        finally:
            for task in (*following, ending):
                task.cancel()
            await asyncio.gather(*following, ending, return_exceptions=True)
        return 0

    return run_command(options, stderr, work)


async def _reports(client: Client, channel: str, options: argparse.Namespace) -> AsyncIterator[Report]:
    """The past events that the options ask for, and the new ones without a gap."""
    since = None
    if options.after is not None:
        history = await client.history(channel, last=options.last or None, after=options.after)
        for report in in_order(history):
            yield report
        since = history.events[-1].position if history.events else history.position
    async for following in client.subscribe(channel, last=options.last, since=since).reports():
        yield following
