"""`sockbridge bench`: loads a bridge that runs already, and says what it bears and what that costs."""

import argparse
import os
import re
import resource
import secrets
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from twistedsock.bench.clients import SMALLEST_PAYLOAD, Driver, Refused, Target, Wrong, connect
from twistedsock.bench.measurement import Figures, Usage
from twistedsock.bench.progress import Progress, duration
from twistedsock.bench.trial import OVERHEAD, Row, measured, rows, table
from twistedsock.bench.wires import Json, Lines
from twistedsock.errors import TOO_MANY_CHANNELS, TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS
from twistedsock.limits.principal import is_loopback

LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp: TCP_LISTEN."""

PROC = Path("/proc")


def listening(address: tuple[str, int], proc: Path = PROC) -> tuple[int, ...]:
    """The processes that listen on this literal address, or on all addresses, at this port; as far as we may know."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(address, proc)}
    found = []
    for folder in proc.glob("[0-9]*"):
        # The first process may hold sockets for others, which it starts when somebody connects.
        if folder.name != "1" and sockets and _holds(folder / "fd", sockets):
            found.append(int(folder.name))
    return tuple(sorted(found))


def _inodes(address: tuple[str, int], proc: Path) -> set[str]:
    host, port = address
    inodes = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, _, number = fields[1].partition(":")
            if fields[3] == LISTEN and int(number, 16) == port and _decoded(local) in (host, "0.0.0.0", "::"):
                inodes.add(fields[9])
    return inodes


def _decoded(words: str) -> str:
    """An address as /proc/net/tcp writes it: words of 32 bits in the byte order of this machine."""
    data = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in re.findall(".{8}", words))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def _holds(descriptors: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(each) in sockets for each in descriptors.iterdir())
    except OSError:
        return False  # it has ended, or is somebody else's


NONE = "none"

ANSWERED = 5.0
"""Seconds that a bridge has to answer the first connection."""

SPARE_FILES = 64
"""Files of this process that are no connections of a load."""

PING = b"\x89"
"""How a WebSocket ping begins. A bridge sends the first after 30 seconds, unless it is told otherwise."""

CURES = {
    TOO_MANY_FROM_ADDRESS.message: "--max-connections-per-address",
    TOO_MANY_CONNECTIONS.message: "--max-connections",
    TOO_MANY_CHANNELS.message: "--max-channels",
}
"""Which option of the bridge makes room, for what it says when there is none."""


SUMMARY = "measure the throughput and the latency of a running server"

DESCRIPTION = """\
Loads a running server for about 25 seconds: first one publisher with many
subscribers, and pairs of publisher and subscriber, as fast as possible; then
events at a fixed rate, for latencies. Every delivery is verified. The events
stay on channels whose names begin with bench-, until history drops them."""

EXAMPLE = """\
  sockbridge bench
  sockbridge bench --web none --readers 400 --size 1000"""


class Unusable(Exception):
    """It cannot be measured; the text is a sentence for whoever asked."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The defaults fit into the default limits of a bridge: 500 connections from one address, 16,000 in all."""
    add = parser.add_argument
    for option, protocol, place in (("lines", "lines", "127.0.0.1:8081"), ("web", "WebSocket", "127.0.0.1:8082")):
        add(f"--{option}", default=place, metavar="HOST:PORT", help=f"the port for {protocol}, or none [{place}]")
    add("--readers", type=_whole(1, 10_000), default=100, metavar="N", help="subscribers of one channel [100]")
    add("--pairs", type=_whole(1, 5_000), default=100, metavar="N", help="pairs of publisher and subscriber [100]")
    add("--size", type=_whole(SMALLEST_PAYLOAD, 32_768), default=32, metavar="BYTES", help="size of an event [32]")
    add("--rate", type=_number(1, 10_000), default=200.0, metavar="N", help="events per second, for latencies [200]")
    add("--seconds", type=_number(0.05, 10), default=2.0, metavar="N", help="duration of each measurement [2]")
    add("--pid", type=_whole(1, 1 << 22), help="the process of the server, if the port does not identify it")
    add("--remote", action="store_true", help="load a server on another machine, which disturbs its other clients")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(said: str) -> int:
        return int(_within(int(said), least, most))

    whole.__name__ = "whole number"  # argparse names it where something else was said
    return whole


def _number(least: float, most: float) -> Callable[[str], float]:
    def number(said: str) -> float:
        return _within(float(said), least, most)

    return number


def _within(value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{value:,g} is not from {least:,} to {most:,}")
    return value


def run(given: argparse.Namespace, out: TextIO, progress_out: TextIO) -> int:
    """The exit status: 0, or 1 with a sentence on why not, or 130 when interrupted."""
    try:
        _measure(given, out, progress_out)
    except (Unusable, Wrong, OSError) as error:
        return _say(progress_out, f"sockbridge bench: {_in_words(error)}", 1)
    except KeyboardInterrupt:
        return _say(progress_out, "sockbridge bench: interrupted", 130)
    return 0


def _say(out: TextIO, words: str, status: int) -> int:
    print(words, file=out)
    return status


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the bridge did not answer in time"
    if f"came {PING!r}"[:-1] in str(error):
        return "the bridge pings while it is measured: start it with a --ping-interval of 30 or more"
    if not isinstance(error, Refused):
        return str(error)
    said = error.answer.decode(errors="replace").strip()
    for words, option in CURES.items():
        if words in said:
            return f"a limit of the bridge is hit: {words!r}. Start it with a larger {option}, or ask for less here"
    return f"the bridge refused: {said[:500]!r}"


def _measure(given: argparse.Namespace, out: TextIO, progress_out: TextIO) -> None:
    targets: dict[str, Target] = {}
    kinds: list[tuple[str, str, Driver]] = [("lines", given.lines, Lines()), ("web", given.web, Json())]
    for option, place, driver in kinds:
        if place != NONE:
            targets[driver.name] = _target(option, place, driver, given.remote)
    if not targets:
        raise Unusable("there is nothing to measure: both --lines and --web are none")
    _allow_files(max(given.readers + 1, 2 * given.pairs) + SPARE_FILES)
    usage, process = _usage(given.pid, targets)
    chosen = list(rows(targets, given.readers, given.pairs, given.size, given.rate))
    plan = [given.seconds + OVERHEAD for _ in chosen]
    where = ", ".join(f"{wire} on {target.host}" for wire, target in targets.items())
    print(f"{where}; {process}; events of {given.size:,} B; about {duration(sum(plan))}", file=progress_out)
    progress = Progress(progress_out, time.monotonic, plan)
    found: list[tuple[Row, Figures]] = []
    try:
        for row in measured(chosen, given.seconds, usage, secrets.token_hex(4), progress):
            found.append(row)
    finally:
        progress.end()
        if found:
            print(table(found), file=out)


def _target(option: str, place: str, driver: Driver, remote: bool) -> Target:
    """Where a bridge listens, after a look whether it is one."""
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal():
        raise Unusable(f"--{option} {place}: this is not HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (socket.gaierror, OverflowError):
        raise Unusable(f"--{option} {place}: there is no such host or port") from None
    addresses = sorted({(str(end[0]), int(end[1])) for *_, end in found})
    if not remote and not all(is_loopback(address) for address, _ in addresses):
        raise Unusable(
            f"{place} is not on this machine. A load test takes all that a server and the way to it can give, from all "
            f"others who use them. If you may do that, say --remote"
        )
    for address in addresses:
        try:
            socket.create_connection(address, ANSWERED).close()
        except OSError as error:
            refused = error
            continue
        target = Target(driver, address)
        _look_at(option, target)
        return target
    raise Unusable(
        f"nothing can be reached at {place}: {refused.strerror or refused}. Start a bridge: twistd -n sockbridge; or "
        f"say --{option} {NONE}"
    )


def _look_at(option: str, target: Target) -> None:
    """Whether that is a bridge. One that is full is one."""
    try:
        with ExitStack() as stack:
            connect(target, 1, stack, patience=ANSWERED)
    except (Wrong, TimeoutError, ConnectionError) as error:
        if isinstance(error, Refused) and any(words.encode() in error.answer for words in CURES):
            raise
        said = f", it said {error.answer[:200]!r}" if isinstance(error, Refused) else ""
        raise Unusable(
            f"what listens on {target.host} does not welcome us as --{option} of a bridge would{said}"
        ) from None


def _usage(pid: int | None, targets: dict[str, Target]) -> tuple[Usage | None, str]:
    """The processes whose CPU is read, and how they are called."""
    pids = {pid} if pid else {each for target in targets.values() for each in listening(target.address)}
    usage = Usage(sorted(pids))
    try:
        usage.cpu()
    except OSError:
        if pid:
            raise Unusable(f"--pid {pid}: there is no such process") from None
        pids = set()
    if not pids:
        return None, "its process is not known, so its CPU is not shown (--pid tells)"
    return usage, f"process {', '.join(map(str, usage.pids))}"


def _allow_files(needed: int) -> None:
    """Each connection is a file of ours, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    if hard < needed:
        raise Unusable(f"this takes {needed:,} open files, and the system allows {hard:,} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


# TODO-MERGED-DOC: Which processes of this machine listen at an address, as Linux tells it.
