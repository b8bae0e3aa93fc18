"""`sockbridge watch`: a dashboard of channels in a terminal."""

from __future__ import annotations

import argparse
import asyncio
import io
import locale
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import WRONG_USAGE, add_server_options, complain, run_command
from sockbridge.commands.dashboard import ASCII_BLOCKS, BLOCKS, MAX_POINTS, Dashboard, Style
from sockbridge.core import State
from sockbridge.errors import SockbridgeError

SUMMARY = "show the last values of channels in the terminal"

DESCRIPTION = """\
Shows the last value of each channel, its age, the rate of events, and a chart
of the newest values. Each number in a JSON object has a chart of its own.
Without channels it shows those of the server, and new ones as they appear.
Keys: q ends, s changes the order, / filters by name, arrows scroll."""

EXAMPLE = """\
  sockbridge watch
  sockbridge watch kitchen garden
  sockbridge watch --prefix sensors/"""

MAX_CHANNELS = 200
"""Channels that are followed without naming them. The server allows each client at least 250 subscriptions."""

LIST_SECONDS = 5.0
"""Interval of requests for the channels of the server. It waits also ten times as long as the answer took, because a
request costs the server time for each channel."""

DRAW_SECONDS = 0.25
"""Interval between two drawings without a key: ages change, and events come together."""

DEFAULT_COLUMNS, DEFAULT_LINES = 80, 24
"""Size of a terminal that reports 0: its size is not known, as on a serial line."""

OWN_CHANNELS = "$sys/"
"""The server's own channels are shown only if they are named."""

TERMINATED = 128 + signal.SIGTERM


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="default: the channels of the server")
    parser.add_argument("--prefix", default="", help="without channels, those that begin with this")
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    problem = _problem_of_terminal()
    if problem:
        complain(options, stderr, problem)
        return WRONG_USAGE
    locale.setlocale(locale.LC_ALL, "")
    dashboard = Dashboard(options.server, BLOCKS if _encoding() == "UTF-8" else ASCII_BLOCKS)
    messages = _Messages(dashboard, stderr)

    async def work(client: Client) -> int:
        with _screen() as screen:
            messages.is_on_screen = True
            try:
                return await _watch(client, options, dashboard, screen)
            finally:
                messages.is_on_screen = False

    return run_command(options, messages, work)


def _problem_of_terminal() -> str:
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "watch needs a terminal: use sockbridge sub in scripts"
    try:
        import curses
    except ImportError:
        return "this Python has no curses: use sockbridge sub"
    try:
        curses.setupterm()
        can_move = curses.tigetstr("cup")
    except curses.error:
        can_move = None
    return "" if can_move else f"terminal type {os.environ.get('TERM', '')!r} is not supported: set TERM"


class _Messages(io.StringIO):
    """Standard error of the command: a line on the screen while that is there."""

    def __init__(self, dashboard: Dashboard, stderr: TextIO) -> None:
        super().__init__()
        self.is_on_screen = False
        self._dashboard = dashboard
        self._stderr = stderr

    def write(self, text: str) -> int:
        if not self.is_on_screen:
            return self._stderr.write(text)
        if text.strip():
            self._dashboard.notify(text.strip(), time.time())
        return len(text)


@contextmanager
def _screen() -> Iterator[Any]:
    """The whole terminal, until the end, whatever that is."""
    import curses

    os.environ.setdefault("ESCDELAY", "25")  # milliseconds that curses waits for the rest of a key after an escape
    screen = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        screen.keypad(True)
        screen.nodelay(True)
        _set_cursor(0)
        if _has_colors():
            curses.start_color()
            curses.use_default_colors()
            curses.init_pair(1, curses.COLOR_RED, -1)
        yield screen
    finally:
        _set_cursor(1)
        screen.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()


def _has_colors() -> bool:
    """Whether the terminal has colours, and its user wants them (https://no-color.org)."""
    import curses

    return curses.has_colors() and not os.environ.get("NO_COLOR")


def _set_cursor(visibility: int) -> None:
    import curses

    with suppress(curses.error):  # this terminal cannot hide it
        curses.curs_set(visibility)


async def _watch(client: Client, options: argparse.Namespace, dashboard: Dashboard, screen: Any) -> int:
    loop = asyncio.get_running_loop()
    is_over: asyncio.Future[int] = loop.create_future()
    changed = asyncio.Event()

    def end(status: int) -> None:
        if not is_over.done():
            is_over.set_result(status)
        changed.set()

    def read_keys() -> None:
        while (key := _read_key(screen)) is not None:
            if not dashboard.press(key):
                end(0)
        changed.set()

    loop.add_reader(sys.stdin.fileno(), read_keys)
    loop.add_signal_handler(signal.SIGTERM, end, TERMINATED)
    loop.add_signal_handler(signal.SIGHUP, end, 128 + signal.SIGHUP)
    tasks: list[asyncio.Task[None]] = []

    def follow(channel: str) -> None:
        dashboard.add_channel(channel)
        tasks.append(asyncio.create_task(_follow(client, channel, dashboard)))

    for channel in dict.fromkeys(options.channels):
        follow(channel)
    if not options.channels:
        tasks.append(asyncio.create_task(_discover(client, options.prefix, dashboard, follow)))
    try:
        while not is_over.done():
            dashboard.problem = client.error.message if client.error and client.state is not State.OPEN else ""
            _draw(screen, dashboard)
            changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), DRAW_SECONDS)
            for task in tasks:
                if task.done():
                    task.result()
        return is_over.result()
    finally:
        loop.remove_reader(sys.stdin.fileno())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(client: Client, channel: str, dashboard: Dashboard) -> None:
    try:
        async for report in client.subscribe(channel, last=MAX_POINTS).reports():
            dashboard.add(report, time.time())
    except SockbridgeError as error:
        if error.code == "closed":
            raise
        dashboard.fail(channel, error.message)


async def _discover(client: Client, prefix: str, dashboard: Dashboard, follow: Callable[[str], None]) -> None:
    """Follow the channels of the server, and those that appear: first those that have received events since the last
    list."""
    offsets: dict[str, int] = {}
    while True:
        began = time.monotonic()
        try:
            found = [each for each in await client.channels(prefix) if not each.name.startswith(OWN_CHANNELS)]
        except SockbridgeError as error:
            if error.code == "closed":
                raise
            dashboard.notify(error.message, time.time())
        else:
            active = [each for each in found if each.offset != offsets.get(each.name, each.offset)]
            offsets = {each.name: each.offset for each in found}
            for channel in [*active, *found]:
                if channel.name not in dashboard and len(dashboard) < MAX_CHANNELS:
                    follow(channel.name)
            dashboard.total = len(found) if len(found) > len(dashboard) else None
        await asyncio.sleep(max(LIST_SECONDS, 10 * (time.monotonic() - began)))


def _read_key(screen: Any) -> str | None:
    """A character, or the name of a key. None if none was pressed."""
    import curses

    try:
        key = screen.get_wch()
    except curses.error:
        return None
    return key if isinstance(key, str) else curses.keyname(key).decode()


def _draw(screen: Any, dashboard: Dashboard) -> None:
    """Draw the dashboard: curses sends only what has changed."""
    import curses

    size = os.get_terminal_size(sys.stdout.fileno())
    width, height = size.columns or DEFAULT_COLUMNS, size.lines or DEFAULT_LINES
    if screen.getmaxyx() != (height, width):
        curses.resizeterm(height, width)
        screen.clear()
    styles = {Style.NORMAL: 0, Style.HEADING: curses.A_REVERSE, Style.FAINT: curses.A_DIM, Style.ALARM: curses.A_BOLD}
    if _has_colors():
        styles[Style.ALARM] |= curses.color_pair(1)
    screen.erase()
    for row, (text, style) in enumerate(dashboard.render(width, height, time.time())):
        with suppress(curses.error):  # the cursor cannot move behind the last cell of the screen, which was drawn
            screen.addstr(row, 0, text.encode(_encoding(), "replace"), styles[style])
    screen.refresh()


def _encoding() -> str:
    """Of the terminal, as curses knows it."""
    return locale.nl_langinfo(locale.CODESET)
