"""The statistics of the server and of its process, from which Prometheus metrics and ``$sys/figures`` are made.

They are read from counters that are kept anyway: reading them costs the same for one client as for many.
"""

import os
import resource
import sys
import time

import msgspec

from twistedsock.session.context import ServerContext

ENCODER_TITLES = ("line", "json", "events")
"""Protocols that are listed even if no client has used them yet."""


class ServerStatistics(msgspec.Struct, frozen=True):
    """The payload of ``$sys/figures``. Numbers are totals since the start, except for those of a present state: peers,
    connections, channels, subscriptions, behind and the bytes of memory."""

    time: float
    """Seconds since 1970."""
    uptime: float
    version: str
    peers: dict[str, int]
    """Connected clients by protocol, and their total."""
    connections: int
    channels: int
    """Without those under ``$sys/``."""
    subscriptions: int
    behind: int
    """Clients with unread events on at least one channel."""
    published: int
    delivered: int
    lost: int
    received_bytes: int
    sent_bytes: int
    refused: dict[str, int]
    """Errors by code."""
    log_bytes: int
    held_bytes: int
    memory_bytes: int
    cpu_seconds: float
    turns: int
    turn_seconds: float
    turn_longest: float
    """The longest turn since the previous statistics."""
    restarts: int = 0
    """How often a process has been started again by its supervisor."""
    host: str | msgspec.UnsetType = msgspec.UNSET
    """The machine. Only for one of several servers."""


def read_statistics(context: ServerContext, memory_bytes: int, cpu_seconds: float) -> ServerStatistics:
    broker, stats = context.broker, context.stats
    return ServerStatistics(
        time=round(context.wall_clock(), 3),
        uptime=round(broker.clock() - context.started, 1),
        version=context.version.decode(),
        peers=count_clients(context),
        connections=context.connection_limiter.connections,
        channels=len(broker.channels) - broker.channels.own,
        subscriptions=broker.subscription_shares.total,
        behind=stats.behind,
        published=stats.published,
        delivered=stats.delivered,
        lost=stats.lost,
        received_bytes=stats.received,
        sent_bytes=stats.sent,
        refused={code.value.decode(): times for code, times in stats.errors.items()},
        log_bytes=broker.histories.size,
        held_bytes=broker.memory_budget.used,
        memory_bytes=memory_bytes,
        cpu_seconds=round(cpu_seconds, 3),
        turns=sum(stats.turns.counts),
        turn_seconds=round(stats.turns.total, 6),
        turn_longest=round(stats.longest_turn, 6),
    )


def count_clients(context: ServerContext) -> dict[str, int]:
    """Connected clients by protocol, and their total."""
    stats = context.stats
    clients = {title: stats.opened.get(title, 0) - stats.closed.get(title, 0) for title in known_titles(context)}
    return {"total": sum(clients.values()), **clients}


def known_titles(context: ServerContext) -> list[str]:
    return list(dict.fromkeys((*ENCODER_TITLES, *context.stats.opened)))


_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_START_TIME_FIELD = 19
"""Index of ``starttime`` among the fields of ``stat`` behind the name (proc(5))."""

_RUSAGE_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss`` (getrusage(2))."""


class ProcessStatistics:
    """Statistics of this process, from the operating system. ``folder`` is its folder in ``/proc``."""

    def __init__(self, folder: str = "/proc/self") -> None:
        self._folder = folder

    def cpu_seconds(self) -> float:
        """CPU time since the start, user and system."""
        return time.process_time()

    def memory_bytes(self) -> int:
        """Resident memory. Without ``/proc``: the maximum so far."""
        try:
            return self._statm()[1] * _PAGE_BYTES
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT_BYTES

    def virtual_bytes(self) -> int:
        return self._statm()[0] * _PAGE_BYTES

    def start_time(self) -> float:
        """Seconds since 1970. The boot time that the kernel counts from is known in whole seconds only, so read
        this once, soon after the start."""
        with open(f"{self._folder}/stat", "rb", buffering=0) as stat:
            # The name of the process can contain spaces and parentheses.
            fields = stat.read().rpartition(b")")[2].split()
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + int(fields[_START_TIME_FIELD]) / _TICKS_PER_SECOND

    def open_files(self) -> int:
        """Open file descriptors. Since Linux 6.2, the size of the folder is the number of its entries."""
        folder = f"{self._folder}/fd"
        return os.stat(folder).st_size or len(os.listdir(folder))

    def max_files(self) -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def _statm(self) -> list[int]:
        with open(f"{self._folder}/statm", "rb", buffering=0) as statm:
            return [int(pages) for pages in statm.read().split()]
