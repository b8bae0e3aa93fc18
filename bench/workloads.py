"""The workloads, in one table."""

from dataclasses import dataclass, replace
from enum import Enum

from bench.contestant import TCP, WEBSOCKET, Contestant


class Kind(Enum):
    """How a workload is measured."""

    LOAD = "load"
    """Publishers and readers, each with its own connection."""
    SPREAD = "spread"
    """One publisher to many channels, whose readers share connections."""
    CONNECTIONS = "connections"
    """Connections that are opened and stay idle."""
    STALLED = "stalled"
    """Readers that have stopped reading, and one that has not."""


@dataclass(frozen=True)
class Workload:
    """``publishing`` and ``reading`` are protocols. The rate is ``rate`` events per second, or ``share`` of the
    deliveries that sockbridge can make one at a time. ``count`` is the number of other things: connections, stalled
    readers. ``bare`` means that the loop of bench/send_loop.c takes part."""

    name: str
    group: str
    title: str
    kind: Kind = Kind.LOAD
    publishing: str = TCP
    reading: str = TCP
    channels: int = 1
    publishers: int = 1
    readers: int = 1
    size: int = 32
    events: int = 0
    count: int = 0
    rate: float | None = None
    share: float | None = None
    bare: bool = False

    def has(self, server: Contestant) -> bool:
        """Whether the server supports its protocols. A server without lines publishes over the protocol that it has."""
        if server.name == BARE:
            return self.bare
        return self.reading in server.wires and (
            self.publishing in server.wires or (self.publishing, self.reading) == (TCP, WEBSOCKET)
        )

    def small(self) -> "Workload":
        """For a quick check that everything works."""
        return replace(
            self,
            readers=min(self.readers, 50),
            channels=min(self.channels, 20),
            publishers=min(self.publishers, 10),
            events=min(self.events, 2_000),
            count=min(self.count, 40),
            rate=self.rate and min(self.rate, 100.0),
        )


BARE = "bare"

GROUPS = {
    "fan-out": "One publisher to many readers, over lines or the server's own TCP wire, 32 B, flat out",
    "pairs": "Pairs, and many publishers to one reader, 32 B, flat out",
    "crossing": "Between wires: one publisher to many readers, 32 B, flat out",
    "payloads": "Payloads: one publisher to 100 readers over TCP, flat out",
    "paced": "One event at a time, 32 B, over TCP",
    "channels": "One publisher to many channels with 10 readers each, on up to 1,000 connections, over TCP, 32 B",
    "connections": "Connections: opening 5,000, and what an idle one keeps",
    "stalled": "400 readers that have stopped reading, 40,000 events of 200 B in one channel",
}
"""The groups of workloads: names on the command line, headings in the report."""

READERS = (1, 10, 100, 1_000, 5_000)
PAYLOADS = (16, 32, 256, 1_024, 4_096, 16_384)
CHANNELS = (1, 10, 100, 1_000, 10_000)


def _fan_outs() -> list[Workload]:
    return [
        Workload(f"fan-out-{count}", "fan-out", f"1 to {count:,}", readers=count, bare=count in (100, 1_000))
        for count in READERS
    ]


def _pairs() -> list[Workload]:
    return [
        Workload("pairs-tcp", "pairs", "100 pairs over TCP", channels=100),
        Workload(
            "pairs-websocket",
            "pairs",
            "100 pairs over WebSocket",
            publishing=WEBSOCKET,
            reading=WEBSOCKET,
            channels=100,
        ),
        Workload("many-to-one", "pairs", "100 publishers to 1 reader over TCP", publishers=100),
    ]


def _crossings() -> list[Workload]:
    return [
        *(
            Workload(
                f"tcp-to-websocket-{count}",
                "crossing",
                f"TCP to WebSocket, 1 to {count:,}",
                reading=WEBSOCKET,
                readers=count,
            )
            for count in (100, 1_000)
        ),
        Workload("websocket-to-tcp", "crossing", "WebSocket to TCP, 1 to 100", publishing=WEBSOCKET, readers=100),
        Workload(
            "websocket-to-websocket",
            "crossing",
            "WebSocket to WebSocket, 1 to 100",
            publishing=WEBSOCKET,
            reading=WEBSOCKET,
            readers=100,
        ),
    ]


def _payloads() -> list[Workload]:
    return [
        Workload(f"payload-{size}", "payloads", f"{size:,} B", readers=100, size=size)
        for size in PAYLOADS
        if size != 32
    ]


def _paced() -> list[Workload]:
    paced = [Workload("paced-500", "paced", "100 readers, 500 events a second", readers=100, rate=500.0, bare=True)]
    for share, words in ((0.1, "a tenth"), (0.5, "half")):
        paced += [
            Workload(
                f"paced-{share:.0%}-{count}".replace("%", ""),
                "paced",
                f"{count:,} readers, {words} of capacity",
                readers=count,
                share=share,
            )
            for count in (10, 100, 1_000)
        ]
    return paced


def _channels() -> list[Workload]:
    return [
        Workload(f"channels-{count}", "channels", f"{count:,} channels", Kind.SPREAD, channels=count, readers=10)
        for count in CHANNELS
    ]


def _connections() -> list[Workload]:
    return [
        Workload(f"connections-{wire}", "connections", f"over {words}", Kind.CONNECTIONS, wire, wire, count=5_000)
        for wire, words in ((TCP, "TCP"), (WEBSOCKET, "WebSocket"))
    ]


def _stalled() -> list[Workload]:
    return [
        Workload(
            f"stalled-{wire}", "stalled", f"over {words}", Kind.STALLED, TCP, wire, size=200, events=40_000, count=400
        )
        for wire, words in ((TCP, "TCP"), (WEBSOCKET, "WebSocket"))
    ]


WORKLOADS = [
    *_fan_outs(),
    *_pairs(),
    *_crossings(),
    *_payloads(),
    *_paced(),
    *_channels(),
    *_connections(),
    *_stalled(),
]
