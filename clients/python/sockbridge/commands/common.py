"""Shared by the commands: the connection to the server, exit statuses, and the printing of events."""

from __future__ import annotations

import argparse
import asyncio
import errno
import io
import json
import math
import os
import re
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from sockbridge.address import DEFAULT_SERVER
from sockbridge.aio import Client, connect
from sockbridge.core import State
from sockbridge.errors import AddressError, SockbridgeError
from sockbridge.messages import publication
from sockbridge.values import Event, Lost, Report, Reset

SERVER_VARIABLE = "SOCKBRIDGE_SERVER"

FAILED, WRONG_USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130
"""Exit statuses: the server refused something, the arguments are wrong (as argparse exits) or a file cannot be used,
there is no connection, and Ctrl-C (as shells report SIGINT)."""

EXIT_STATUSES = {
    0: "success; also if the program that reads the output has ended",
    FAILED: "the server has refused something",
    WRONG_USAGE: "the arguments are wrong, or a file cannot be used",
    UNREACHABLE: "no connection",
    INTERRUPTED: "Ctrl-C",
}

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

_JSON_START = tuple('{["')


def add_connection_options(parser: argparse.ArgumentParser, default_server: str = DEFAULT_SERVER) -> None:
    """The options of all commands."""
    add = parser.add_argument
    add(
        "--server",
        default=os.environ.get(SERVER_VARIABLE, default_server),
        metavar="ADDRESS",
        help=f"tcp://, tls://, unix://, ws:// or wss:// [${SERVER_VARIABLE}, or {default_server}]",
    )
    add("--token-file", type=Path, metavar="FILE", help="a file with a token, read for each connection")
    add("--authorities", metavar="FILE", help="certificates to trust, instead of those of the system")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that use the Python client."""
    add_connection_options(parser)
    parser.add_argument("--nick", help="the nick of this client")
    parser.add_argument("--wait", action="store_true", help="wait for a server that is not there yet")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that print events."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print each event as a JSON object")
    form.add_argument("--raw", action="store_true", help="print the data alone")
    parser.add_argument("--time", action="store_true", help="print the time of each event, in local time")


def run_command(options: argparse.Namespace, stderr: TextIO, work: Callable[[Client], Awaitable[int]]) -> int:
    """Run ``work`` with a client, and return its exit status. Errors and lost connections are printed. Raises OSError
    if a file cannot be used, and BrokenPipeError if the program that reads standard output has ended."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that does not use UTF-8 cannot show everything

    client: Client

    def report_state(state: State) -> None:
        if state is State.WAITING and client.error is not None:
            complain(options, stderr, f"{client.error.message}: trying again")

    if options.token_file is not None:
        read_token(options.token_file)  # an error now is one of the arguments

    async def main() -> int:
        nonlocal client
        client = connect(
            options.server,
            token=partial(read_token, options.token_file) if options.token_file is not None else None,
            nick=options.nick,
            authorities=options.authorities,
            must_connect=not options.wait,
            on_state=report_state,
            on_notice=lambda text, code: complain(options, stderr, text),
        )
        async with client:
            working = asyncio.ensure_future(work(client))
            leaving = asyncio.ensure_future(_reader_has_ended())
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                leaving.cancel()
                return working.result()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            raise BrokenPipeError

    try:
        return asyncio.run(main())
    except SockbridgeError as error:
        complain(options, stderr, error.message)
        return UNREACHABLE if error.code in ("unreachable", "timeout", "disconnected") else FAILED
    except AddressError as error:
        complain(options, stderr, str(error))
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def read_token(file: Path) -> str:
    """The token in a file. Raises OSError if there is none, without the contents of the file."""
    token = file.read_bytes().strip()
    if not token.isascii() or b"\n" in token:
        raise OSError(errno.EINVAL, "contains no token", str(file))
    return token.decode()


NEEDS_ADMINISTRATOR = "only administrators can do this: give the token of one, as in --token-file admin.token"


def complain(options: argparse.Namespace, stderr: TextIO, text: str) -> None:
    """Print a message of a command for people."""
    print(f"sockbridge {options.command}: {printable(text)}", file=stderr)


async def _reader_has_ended() -> None:
    """Wait until the program that reads standard output has ended, as in ``sockbridge sub kitchen | head -1``. Without
    a pipe, that never happens."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    output = sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(output).st_mode):
        # The writing end of a pipe becomes readable when the reading end is closed.
        asyncio.get_running_loop().add_reader(output, _settle, ended)
    await ended


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def parse_payload(text: str, is_json: bool) -> Any:
    """The value that a text on the command line stands for: as in the line protocol, it is JSON if it begins with
    ``{``, ``[`` or a quote, and is valid. With ``is_json`` it must be JSON: then it can be a number too. Raises
    ValueError."""
    if is_json:
        return json.loads(text)
    if text.startswith(_JSON_START):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def printable(text: str) -> str:
    """A text on one line, that cannot control a terminal."""
    return _CONTROL.sub("?", text)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], stdout: TextIO) -> None:
    """Print rows of fields: on a terminal with a heading, and aligned; elsewhere, for scripts, with a space between
    fields. An empty field is ``-``."""
    cells = [[printable(str(field)) or "-" for field in row] for row in rows]
    if stdout.isatty():
        cells.insert(0, list(columns))
        widths = [max(map(len, column)) + 1 for column in zip(*cells, strict=True)]
        cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    for row in cells:
        print(" ".join(row).rstrip(), file=stdout)


def format_data(data: Any) -> str:
    """The data of an event on one line."""
    if isinstance(data, bytes):
        return f"<{len(data)} bytes>"
    if isinstance(data, str) and not data.startswith(_JSON_START) and not _CONTROL.search(data):
        return data
    return format_json(data)


def format_json(data: Any) -> str:
    """A value as JSON on one line that cannot control a terminal. Infinity, which stands for numbers that are too large
    for Python, is null, as in JavaScript."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_infinity(data), ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_infinity(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _without_infinity(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_without_infinity(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def format_time(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="milliseconds")


def event_object(event: Event) -> dict[str, Any]:
    """An event in the form of the JSON protocol, with its epoch."""
    fields = publication(event.channel, event.data, event.name)
    content: dict[str, Any] = {name: fields[name] for name in ("data", "base64") if name in fields}
    return {
        "channel": event.channel,
        "offset": event.offset,
        "epoch": event.epoch,
        "time": event.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "from": event.sender,
        "name": event.name,
        **content,
    }


class Printer:
    """Prints events as the options say, and reports of lost events on ``stderr``."""

    def __init__(self, options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> None:
        self._options = options
        self._stdout = stdout
        self._stderr = stderr

    def print(self, report: Report) -> None:
        if isinstance(report, Event):
            self._print_event(report)
        elif isinstance(report, Lost):
            count = "events" if report.last is None else f"events {report.first} to {report.last}"
            complain(self._options, self._stderr, f"{report.channel}: {count} are lost")
        elif isinstance(report, Reset):
            complain(self._options, self._stderr, f"{report.channel}: events after {report.good} are void")

    def _print_event(self, event: Event) -> None:
        options = self._options
        if options.raw and isinstance(event.data, bytes) and not self._stdout.isatty():
            self._stdout.flush()
            self._stdout.buffer.write(event.data)
            self._stdout.flush()
            return
        if options.json:
            line = format_json(event_object(event))
        elif options.raw:
            line = event.data if isinstance(event.data, str) else format_data(event.data)
            line = line if not self._stdout.isatty() else printable(line)
        else:
            name = "" if event.name == "message" else f" ({event.name})"
            line = f"{printable(f'{event.channel} {event.offset} {event.sender}{name}')}: {format_data(event.data)}"
        if options.time and not options.json:
            line = f"{format_time(event.time)} {line}"
        print(line, file=self._stdout, flush=True)
