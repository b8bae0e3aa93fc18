"""`sockbridge bench`: loads a running server, and shows its throughput, latencies and CPU time.

Like every client, it knows the server from outside only: its protocols, and its process in /proc.
"""

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
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

from twistedsock.bench.clients import SMALLEST_PAYLOAD, DeliveryError, Driver, Target, UnexpectedReply, connect
from twistedsock.bench.measurement import Measurement, ProcessUsage, Progress, duration
from twistedsock.bench.trial import OVERHEAD_SECONDS, Benchmark, benchmarks, measure_all, table
from twistedsock.bench.wires import Json, Lines

NONE = "none"

FIRST_REPLY_SECONDS = 5.0
"""Time for the reply to the first connection."""

SPARE_FILES = 64
"""Files of this process other than the connections of a load."""

WEBSOCKET_PING = b"\x89"
"""The first byte of a ping, which the server sends after 30 seconds by default."""

LIMIT_REACHED = re.compile(rb'^ERR limit |"code":"limit"|^HTTP/1\.1 503 ')
"""The replies of a server that has reached one of its limits."""

LIMIT_OPTIONS = "--max-connections-per-address, --max-connections, --max-channels"

SUMMARY = "measure the throughput and the latency of a running server"

DESCRIPTION = """\
Loads a running server for about 25 seconds: first one publisher with many
subscribers, and pairs of publisher and subscriber, as fast as possible; then
events at a fixed rate, for latencies. Every delivery is verified. The events
stay on channels whose names begin with bench-, until history drops them."""

EXAMPLE = """\
  sockbridge bench
  sockbridge bench --web none --readers 400 --size 1000"""


class BenchError(Exception):
    """The server cannot be measured. The message is one sentence."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The defaults fit into the default limits of the server: 500 connections from one address, 16,000 in total."""
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
    def whole(text: str) -> int:
        return int(_within(int(text), least, most))

    whole.__name__ = "whole number"  # for the error messages of argparse
    return whole


def _number(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        return _within(float(text), least, most)

    return number


def _within(value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{value:,g} is not between {least:,} and {most:,}")
    return value


def run(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Measure, print the table, and return the exit status, which is 130 after Ctrl-C."""
    try:
        _measure(given, out, errors)
    except (BenchError, DeliveryError, OSError) as error:
        print(f"sockbridge bench: {_explain(error)}", file=errors)
        return 1
    except KeyboardInterrupt:
        print("sockbridge bench: interrupted", file=errors)
        return 130
    return 0


def _explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server did not reply in time"
    if isinstance(error, UnexpectedReply):
        reply = error.reply.decode(errors="replace").strip()
        if LIMIT_REACHED.search(error.reply):
            return f"a limit of the server is reached: increase it ({LIMIT_OPTIONS}), or ask for less: {reply[:500]!r}"
        return f"unexpected reply of the server: {reply[:500]!r}"
    if isinstance(error, DeliveryError) and error.received.startswith(WEBSOCKET_PING):
        return "the server sent a ping during the measurement: start it with a --ping-interval of at least 30"
    return str(error)


def _measure(given: argparse.Namespace, out: TextIO, errors: TextIO) -> None:
    targets: dict[str, Target] = {}
    ports_given: list[tuple[str, str, Driver]] = [("lines", given.lines, Lines()), ("web", given.web, Json())]
    for option, place, driver in ports_given:
        if place != NONE:
            targets[driver.name] = _find_target(option, place, driver, given.remote)
    if not targets:
        raise BenchError("nothing to measure: --lines and --web are both none")
    _raise_file_limit(max(given.readers + 1, 2 * given.pairs) + SPARE_FILES)
    usage, process = _usage(given.pid, targets)
    chosen = list(benchmarks(targets, given.readers, given.pairs, given.size, given.rate))
    plan = [given.seconds + OVERHEAD_SECONDS for _ in chosen]
    ports = ", ".join(f"{protocol} on {target.host}" for protocol, target in targets.items())
    print(f"{ports}; {process}; events of {given.size:,} B; about {duration(sum(plan))}", file=errors)
    progress = Progress(errors, time.monotonic, plan)
    found: list[tuple[Benchmark, Measurement]] = []
    try:
        for row in measure_all(chosen, given.seconds, usage, secrets.token_hex(4), progress):
            found.append(row)
    finally:
        progress.end()
        if found:
            print(table(found), file=out)


def _find_target(option: str, place: str, driver: Driver, remote: bool) -> Target:
    """Return the target at an address, after a test connection."""
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal():
        raise BenchError(f"--{option} {place}: expected HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (socket.gaierror, OverflowError):
        raise BenchError(f"--{option} {place}: unknown host or port") from None
    addresses = sorted({(str(end[0]), int(end[1])) for *_, end in found})
    if not remote and not all(ip_address(host.partition("%")[0]).is_loopback for host, _ in addresses):
        raise BenchError(
            f"{place} is not on this machine. A load test disturbs all other users of the server and the network. If "
            "you are allowed to do that, add --remote"
        )
    for address in addresses:
        try:
            socket.create_connection(address, FIRST_REPLY_SECONDS).close()
        except OSError as error:
            connection_error = error
            continue
        target = Target(driver, address)
        _check_target(option, target)
        return target
    raise BenchError(
        f"cannot connect to {place}: {connection_error.strerror or connection_error}. Start the server with twistd -n "
        f"sockbridge, or add --{option} {NONE}"
    )


def _check_target(option: str, target: Target) -> None:
    """Raise an error if the target is not a sockbridge server. One that has reached its limits is."""
    try:
        with ExitStack() as stack:
            connect(target, 1, stack, timeout=FIRST_REPLY_SECONDS)
    except (DeliveryError, TimeoutError, ConnectionError) as error:
        if isinstance(error, UnexpectedReply) and LIMIT_REACHED.search(error.reply):
            raise
        reply = f": it sent {error.reply[:200]!r}" if isinstance(error, UnexpectedReply) else ""
        raise BenchError(f"{target.host} is not the {option} port of a sockbridge server{reply}") from None


def _usage(pid: int | None, targets: dict[str, Target]) -> tuple[ProcessUsage | None, str]:
    """Return the processes of the server, and a description of them."""
    pids = {pid} if pid else {each for target in targets.values() for each in find_listening_processes(target.address)}
    usage = ProcessUsage(sorted(pids))
    try:
        usage.cpu()
    except OSError:
        if pid:
            raise BenchError(f"--pid {pid}: no such process") from None
        pids = set()
    if not pids:
        return None, "unknown process, so without its CPU time (see --pid)"
    return usage, f"process {', '.join(map(str, usage.pids))}"


def _raise_file_limit(needed: int) -> None:
    """Raise the soft limit of open files, because each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or soft >= needed:
        return
    if hard < needed:
        raise BenchError(f"the load needs {needed:,} open files, but the system allows {hard:,} only (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


# The processes of the server.


LISTEN = "0A"
"""The state TCP_LISTEN in /proc/net/tcp."""

PROC = Path("/proc")


def find_listening_processes(address: tuple[str, int], proc: Path = PROC) -> tuple[int, ...]:
    """Return the processes of this machine that listen on an address, or on its port at all addresses. Processes of
    other users may be missing."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(address, proc)}
    found = []
    for folder in proc.glob("[0-9]*"):
        # The first process (systemd) has sockets of services that it starts on demand.
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
    """Decode an address of /proc/net/tcp: words of 32 bits in the byte order of this machine."""
    data = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in re.findall(".{8}", words))
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def _holds(descriptors: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(each) in sockets for each in descriptors.iterdir())
    except OSError:
        return False  # the process has ended, or belongs to another user
