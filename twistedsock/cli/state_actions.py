"""The actions of `sockbridge state`: summary, verify, export, import and compact.

A module of its own, because it loads SQLite, which some builds of Python lack and the other commands do not need.
"""

import argparse
import heapq
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from sockbridge.commands.streams import standard_input
from twistedsock.backplanes.sqlite_damage import DAMAGE_ERRORS
from twistedsock.backplanes.sqlite_database import StoreError
from twistedsock.backplanes.sqlite_reader import ChannelContent, StateReader
from twistedsock.backplanes.sqlite_store import Addition, Store
from twistedsock.cli.event_files import FORMATS, EventFileError, read_batches
from twistedsock.codecs.times import format_time
from twistedsock.pubsub.names import check_channel, is_reserved
from twistedsock.pubsub.values import Batch, Event

LARGEST_CHANNELS = 10
"""How many channels the summary lists."""

PROGRESS_SECONDS = 2.0
"""How often progress is reported."""

LARGE_FILE_BYTES = 256 * 1024 * 1024
"""A file so large takes a second or more to compact, and progress is reported."""


class Progress:
    """Writes a line to stderr at most every ``PROGRESS_SECONDS``, so that short work has none."""

    def __init__(self, errors: TextIO) -> None:
        self._errors = errors
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, text: str, *numbers: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            print(text.format(*numbers), file=self._errors, flush=True)


class ActionError(Exception):
    """An action has failed. The message is one sentence for the operator."""


def run_action(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Run the action and return the exit status. Raises ActionError, or OSError if a file cannot be read."""
    try:
        return ACTIONS[given.action](given, out, errors)
    except (StoreError, EventFileError) as error:
        raise ActionError(str(error)) from None
    except DAMAGE_ERRORS as error:
        raise ActionError(f"{given.directory} cannot be used: {error}") from None


# Summary.


def _show(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    progress = Progress(errors)
    channels = events = size = 0
    oldest = newest = None
    largest: list[tuple[int, int, ChannelContent]] = []
    with StateReader(given.directory) as reader:
        file_bytes = reader.file_bytes()
        for channel in reader.channels():
            channels += 1
            events += channel.events
            size += channel.bytes
            if channel.events:
                oldest = channel.oldest if oldest is None else min(oldest, channel.oldest)
                newest = channel.newest if newest is None else max(newest, channel.newest)
                add = heapq.heappush if len(largest) < LARGEST_CHANNELS else heapq.heappushpop
                add(largest, (channel.bytes, -channels, channel))  # the first ones of equal size
            progress("read {:,} channels, {:,} bytes", channels, size)
        aside = [("set aside", path.name) for path in reader.files_set_aside()]
        use = "used by a server" if reader.is_in_use else "not used by a server"
    for label, value in (
        ("directory", f"{given.directory}, {use}"),
        ("file", f"{file_bytes:,} bytes"),
        ("channels", f"{channels:,}"),
        ("events", f"{events:,} ({size:,} bytes)"),
        ("oldest", _time(oldest)),
        ("newest", _time(newest)),
        *aside,
    ):
        print(f"{label:9}  {value}", file=out)
    if largest:
        print("\nLargest channels", file=out)
        _print_table(
            [("channel", "events", "bytes", "oldest", "newest", "epoch", "offset")]
            + [_row(channel) for _, _, channel in sorted(largest, reverse=True)],
            out,
        )
    return 0


def _row(channel: ChannelContent) -> tuple[str, ...]:
    return (
        channel.name.decode(),
        f"{channel.events:,}",
        f"{channel.bytes:,}",
        _time(channel.oldest),
        _time(channel.newest),
        channel.epoch.decode(),
        str(channel.head),
    )


def _time(milliseconds: int | None) -> str:
    return "none" if milliseconds is None else format_time(milliseconds).decode()


def _print_table(rows: Sequence[Sequence[str]], out: TextIO) -> None:
    """Numbers are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_number = [rows[-1][index].replace(",", "").isdigit() and index > 0 for index in range(len(widths))]
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        print(f"  {'  '.join(cells).rstrip()}", file=out)


# Verify.


def _verify(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    progress = Progress(errors)
    started = time.monotonic()
    faults = 0
    with StateReader(given.directory, exclusive=True) as reader:
        for fault in reader.find_damage(lambda: progress("verifying: {:.0f} s", time.monotonic() - started)):
            faults += 1
            print(fault, file=out)
    print(f"damaged, faults: {faults}" if faults else "no faults found", file=out)
    return 1 if faults else 0


# Export.


def _export(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    progress = Progress(errors)
    with StateReader(given.directory) as reader:
        batches = reader.events(given.channel.encode())
        if batches is None:
            raise StoreError(f"{given.directory} has no channel {given.channel}")
        FORMATS[given.format](_events(batches, progress), out)
    out.flush()
    return 0


def _events(batches: Iterable[Batch], progress: Progress) -> Iterator[Event]:
    count = 0
    for batch in batches:
        count += len(batch)
        yield from batch.events()
        progress("exported {:,} events", count)


# Import.


def _import(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    progress = Progress(errors)
    channel = given.channel.encode()
    if error := check_channel(channel):
        raise StoreError(error.message)
    if is_reserved(channel):
        raise StoreError(f"{given.channel} is a channel of the server itself: choose another name")
    count = 0
    with _open_input(given.file) as file, _open_store(given.directory, errors) as store:
        now = int(time.time() * 1000)
        known = store.read_channel(channel, 0, 0, now)

        def additions() -> Iterator[Addition]:
            nonlocal count
            first = known.position.offset + 1
            for batches in read_batches(file, first, known.time, now):
                yield Addition(channel, known.position.epoch, batches)
                count = batches[-1].end - first
                progress("imported {:,} events", count)

        store.append(additions())
    print(f"imported {count:,} events", file=out)
    return 0


def _open_input(name: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(standard_input()) if name == "-" else open(name, "rb")


@contextmanager
def _open_store(directory: Path, errors: TextIO) -> Iterator[Store]:
    """The store of a directory that no server uses. It must exist, so that a wrong name creates nothing."""
    with StateReader(directory, exclusive=True):
        pass  # it has checked that
    store = Store(directory, lambda: secrets.token_hex(4).encode(), partial(print, file=errors))
    store.open()
    try:
        yield store
    finally:
        store.close()


# Compact.


def _compact(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    with StateReader(given.directory, exclusive=True) as reader:
        before = reader.file_bytes()
    with _open_store(given.directory, errors) as store:
        oldest = 0 if given.state_age is None else int((time.time() - given.state_age) * 1000)
        max_bytes = sys.maxsize if given.state_bytes is None else given.state_bytes
        if oldest or given.state_bytes is not None:
            progress = Progress(errors)
            started = time.monotonic()
            while store.trim(oldest, max_bytes, secrets.token_hex(4).encode()):
                progress("deleting old events: {:.0f} s", time.monotonic() - started)
        if before >= LARGE_FILE_BYTES:
            print(f"writing the file again: {store.used_bytes():,} bytes", file=errors, flush=True)
        store.compact()
    with StateReader(given.directory) as reader:
        after = reader.file_bytes()
    print(f"compacted from {before:,} to {after:,} bytes", file=out)
    return 0


ACTIONS: dict[str | None, Callable[[argparse.Namespace, TextIO, TextIO], int]] = {
    None: _show,
    "verify": _verify,
    "export": _export,
    "import": _import,
    "compact": _compact,
}
