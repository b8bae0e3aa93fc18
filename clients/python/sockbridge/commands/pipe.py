"""`sockbridge pipe`: connects a program to a channel."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TextIO

from sockbridge.aio import Client, Subscription
from sockbridge.commands.common import WRONG_USAGE, add_server_options, complain, parse_payload, run_command
from sockbridge.errors import SockbridgeError

SUMMARY = "connect a program to a channel"

DESCRIPTION = """\
Runs a program: each line that it prints is published, and each event of other
clients is a line of its input. It ends when the program ends, with its exit
status."""

EXAMPLE = """\
  sockbridge pipe kitchen -- ./thermometer
  sockbridge pipe questions --to answers -- python3 -u bot.py"""

MAX_LINE_BYTES = 65_536
"""As the server's limit of a line."""

STOP_SECONDS = 5.0
"""For the program to end after SIGTERM, before it is killed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("--to", metavar="CHANNEL", help="publish to another channel")
    parser.add_argument("--json", action="store_true", help="each line of the program is JSON")
    add_server_options(parser)
    parser.add_argument("program", nargs="*", metavar="-- PROGRAM", help="the program and its arguments")


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    command = options.program
    if not command:
        complain(options, stderr, "no program: give it after --, as in sockbridge pipe kitchen -- ./thermometer")
        return WRONG_USAGE
    to = options.to or options.channel

    async def work(client: Client) -> int:
        subscription = client.subscribe(options.channel, echo=False)
        await subscription.ready()
        program = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=MAX_LINE_BYTES
        )
        assert program.stdin is not None and program.stdout is not None
        reading = asyncio.create_task(
            _publish_output(client, to, program.stdout, options.json, partial(complain, options, stderr))
        )
        writing = asyncio.create_task(_write_events(subscription, program.stdin))
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, writing):
                if task.done():
                    task.result()
            if reading.done():
                return await program.wait()
            await reading  # the program has closed its input, and can still print
            return await program.wait()
        finally:
            writing.cancel()
            reading.cancel()
            if program.returncode is None:
                await _stop(program)

    return run_command(options, stderr, work)


async def _publish_output(
    client: Client, channel: str, output: asyncio.StreamReader, is_json: bool, report: Callable[[str], None]
) -> None:
    while True:
        try:
            line = await output.readline()
        except ValueError:
            report(f"a line of the program is longer than {MAX_LINE_BYTES} bytes, skipped")
            continue
        if not line:
            return
        try:
            data = parse_payload(line.decode(errors="replace").rstrip("\r\n"), is_json)
            await client.publish(channel, data)
        except ValueError as error:
            report(f"a line of the program is not JSON: {error}")
        except SockbridgeError as error:
            if error.code == "closed":
                raise
            report(f"not published: {error.message}")


async def _write_events(events: Subscription, input: asyncio.StreamWriter) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # the program has closed its input
        async for event in events:
            data = event.data
            line = data if isinstance(data, str) and "\n" not in data and "\r" not in data else json.dumps(data)
            input.write(line.encode() + b"\n")
            await input.drain()


async def _stop(program: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        program.terminate()
        try:
            await asyncio.wait_for(program.wait(), STOP_SECONDS)
        except TimeoutError:
            program.kill()
            await program.wait()
