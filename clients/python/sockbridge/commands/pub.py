"""`sockbridge pub`: publishes events, from an argument or from standard input."""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import FAILED, WRONG_USAGE, add_server_options, complain, parse_payload, run_command
from sockbridge.commands.streams import standard_input
from sockbridge.errors import SockbridgeError

SUMMARY = "publish events"

DESCRIPTION = """\
Publishes an event and prints its offset. Without a payload, or with -, each
line of standard input is an event. A payload is text, or JSON if it begins with
{, [ or " and is valid; with --json it is always JSON, so 21.5 is a number.

With --key, the same command can be repeated, for example if there was no
answer: within ten minutes the server publishes the event once, and answers with
its offset. A line of standard input has the key KEY-1, KEY-2 and so on, so the
repeated input must have the same lines in the same order."""

EXAMPLE = """\
  sockbridge pub kitchen '{"celsius": 21.5}'
  sockbridge pub kitchen smoke --name alarm
  tail -F app.log | sockbridge pub logs -
  sockbridge pub photos --file kitchen.jpg
  sockbridge pub orders --key order-17 '{"id": 17}'"""

MAX_UNANSWERED = 500
"""Events of standard input that are on their way. The next line is read when one of them is answered, so a pipe is
slowed down to the speed of the server."""

READ_BYTES = 65_536
"""Of standard input at once: as much as a pipe holds on Linux."""

PROGRESS_SECONDS = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", metavar="CHANNEL")
    parser.add_argument("payload", nargs="?", metavar="PAYLOAD", help="the event, or - for lines of standard input")
    parser.add_argument("--name", help="the name of the event [message]")
    parser.add_argument("--json", action="store_true", help="the payload is JSON")
    parser.add_argument("--file", metavar="FILE", help="publish the bytes of a file; - is standard input")
    parser.add_argument("--key", help="publish once, even if the command is repeated; unique for this event")
    parser.add_argument("--quiet", action="store_true", help="print no offset and no progress")
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    if options.file is not None and options.payload is not None:
        complain(options, stderr, "give either a payload or --file")
        return WRONG_USAGE
    if options.file is None and options.payload in (None, "-"):
        return _publish_lines(options, stderr, standard_input())
    try:
        data = _read_file(options.file) if options.file is not None else parse_payload(options.payload, options.json)
    except ValueError as error:
        complain(options, stderr, f"the payload is not JSON: {error}")
        return WRONG_USAGE

    async def work(client: Client) -> int:
        offset = await client.publish(options.channel, data, name=options.name, key=options.key)
        if not options.quiet:
            print(offset, file=stdout)
        return 0

    return run_command(options, stderr, work)


def _read_file(name: str) -> bytes:
    if name == "-":
        return standard_input().read()
    with open(name, "rb") as file:
        return file.read()


class Count:
    """Events that were published, and those that failed. Shows progress on a terminal."""

    def __init__(
        self, options: argparse.Namespace, stderr: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.published = self.failed = 0
        self._stderr = stderr
        self._is_quiet = options.quiet
        self._shows_progress = not options.quiet and stderr.isatty()
        self._complain = partial(complain, options, stderr)
        self._clock = clock
        self._began = self._shown = clock()

    def add(self, line: int, error: SockbridgeError | None) -> None:
        if error is None:
            self.published += 1
        else:
            self.failed += 1
            self._complain(f"line {line}: {error.message}")
        if self._shows_progress and self._clock() >= self._shown + PROGRESS_SECONDS:
            self._shown = self._clock()
            print(f"\r{self._summary()}", end="", file=self._stderr, flush=True)

    def finish(self) -> None:
        if not self._is_quiet:
            print(("\r" if self._shows_progress else "") + self._summary(), file=self._stderr)

    def _summary(self) -> str:
        rate = self.published / max(self._clock() - self._began, 0.001)
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.published} published{failed}, {rate:.0f} a second"


def _publish_lines(options: argparse.Namespace, stderr: TextIO, stdin: BinaryIO) -> int:
    count = Count(options, stderr)

    async def work(client: Client) -> int:
        room = asyncio.Semaphore(MAX_UNANSWERED)
        underway: set[asyncio.Task[None]] = set()

        async def publish(line: int, data: Any) -> None:
            try:
                key = f"{options.key}-{line}" if options.key is not None else None
                await client.publish(options.channel, data, name=options.name, key=key)
                count.add(line, None)
            except SockbridgeError as error:
                count.add(line, error)
            finally:
                room.release()

        number = 0
        async for text in _lines(stdin):
            number += 1
            try:
                data = parse_payload(text, options.json)
            except ValueError as error:
                count.add(number, SockbridgeError("bad-json", f"not JSON: {error}"))
                continue
            await room.acquire()
            task = asyncio.create_task(publish(number, data))
            underway.add(task)
            task.add_done_callback(underway.discard)
        await asyncio.gather(*underway)
        count.finish()
        return FAILED if count.failed else 0

    return run_command(options, stderr, work)


async def _lines(stdin: BinaryIO) -> AsyncIterator[str]:
    """The lines of standard input. A thread reads them, because a file cannot be read without blocking."""
    batches = split_lines(partial(os.read, stdin.fileno(), READ_BYTES))
    while batch := await _run_in_daemon_thread(lambda: next(batches, [])):
        for line in batch:
            yield line


async def _run_in_daemon_thread(work: Callable[[], list[str]]) -> list[str]:
    """As ``asyncio.to_thread``, but the program does not wait for the thread at its end: Ctrl-C ends it while there is
    nothing to read."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def settle(result: list[str] | OSError) -> None:
        if future.cancelled():
            return
        if isinstance(result, OSError):
            future.set_exception(result)
        else:
            future.set_result(result)

    def run() -> None:
        result: list[str] | OSError
        try:
            result = work()
        except OSError as error:
            result = error
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, daemon=True).start()
    return await future


def split_lines(read: Callable[[], bytes]) -> Iterator[list[str]]:
    """The lines of a stream, as soon as they are complete: those that arrived together are one list. The last line can
    end without a newline. ``read`` waits for data, and returns what has arrived, or nothing at the end."""
    begun: list[bytes] = []
    while data := read():
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            yield _decode(b"".join([*begun, complete]))
            begun.clear()
        begun.append(rest)
    if last := b"".join(begun):
        yield _decode(last)


def _decode(lines: bytes) -> list[str]:
    return [line.rstrip("\r") for line in lines.decode(errors="replace").split("\n")]
