"""The workloads, in one table."""

from dataclasses import dataclass, replace
from enum import Enum

from bench.contestant import (
    ACKNOWLEDGED_TCP,
    ACKNOWLEDGED_WEBSOCKET,
    QUIET_TCP,
    QUIET_WEBSOCKET,
    SOCKETIO,
    TCP,
    WEBSOCKET,
    Contestant,
)


class Kind(Enum):
    """How a workload is measured."""

    LOAD = "load"
    """Publishers and readers, each with its own connection."""
    SPREAD = "spread"
    """One publisher to many channels, whose readers share connections."""
    PACKETS = "packets"
    """Pairs whose events come alone or in bursts, each burst in a packet of its own."""
    CONNECTIONS = "connections"
    """Connections that are opened, subscribe and stay idle."""
    RESTART = "restart"
    """Subscribers that all come back when the server has been restarted."""
    STALLED = "stalled"
    """Readers that have stopped reading, and one that has not."""


@dataclass(frozen=True)
class Workload:
    """``publishing`` and ``reading`` are protocols. The rate is ``rate`` events per second, or ``share`` of the
    deliveries that sockbridge can make one at a time. ``burst`` is the number of events in a packet. ``count`` is the
    number of other things: connections, stalled readers."""

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
    burst: int = 0
    count: int = 0
    rate: float | None = None
    share: float | None = None

    def has(self, server: Contestant) -> bool:
        """Whether the server supports its protocols. A server without lines publishes over the protocol that it has."""
        if server.name == BARE and self.kind in (Kind.SPREAD, Kind.STALLED, Kind.RESTART):
            return False  # it has one channel for a connection, waits for slow readers, and cannot reply to a ping
        if server.name == FLOOR and self.kind is Kind.STALLED:
            return False  # it keeps all that a reader has not read
        if server.name in ONLY and self.group not in ONLY[server.name]:
            return False
        if self.kind is Kind.RESTART:
            return QUIET_WEBSOCKET in server.wires
        if self.kind is Kind.PACKETS or SOCKETIO in (self.publishing, self.reading):
            return {self.publishing, self.reading} <= server.wires
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


BARE, FLOOR = "bare", "floor"

ONLY = {
    "nats-debian": ("packets", "pairs"),
    "sockbridge-state": ("restart",),
    "sockbridge-workers": ("workers",),
}
"""Variants that take part in some groups only."""

GROUPS = {
    "fan-out": "One publisher to many readers, over lines or the server's own TCP wire, 32 B, flat out",
    "packets": "One event a packet: 100 pairs, 32 B, each publisher waits for the delivery, or for its reply as well",
    "pairs": "Pairs with bursts of 64 events in a packet, and many publishers to one reader, 32 B",
    "workers": "Two processors: 200 pairs, 32 B, one event a packet, which need them at once. Compare by the clock",
    "socket.io": "Socket.IO over WebSocket, 32 B, without acknowledgements",
    "crossing": "Between wires: one publisher to many readers, 32 B, flat out",
    "payloads": "Payloads: one publisher to 100 readers over TCP, flat out",
    "paced": "One event at a time, 32 B, over TCP",
    "channels": "One publisher to many channels with 10 readers each, on up to 1,000 connections, over TCP, 32 B",
    "connections": "Connections: opening and subscribing 5,000, and the memory of an idle one",
    "restart": "A restart: 10,000 WebSocket subscribers come back at once",
    "stalled": "400 readers that have stopped reading, 40,000 events of 200 B in one channel",
}
"""The groups of workloads: names on the command line, headings in the report."""

BURST = 64
"""Events of a publisher that sends many: it sends the next burst when all of the last have arrived."""

READERS = (1, 10, 100, 1_000, 5_000)
PAYLOADS = (16, 32, 256, 1_024, 4_096, 16_384)
CHANNELS = (1, 10, 100, 1_000, 10_000)


def _fan_outs() -> list[Workload]:
    return [Workload(f"fan-out-{count}", "fan-out", f"1 to {count:,}", readers=count) for count in READERS]


def _packets() -> list[Workload]:
    return [
        Workload(f"packets-{name}", "packets", title, Kind.PACKETS, publishing, reading, channels=100, burst=1)
        for name, title, publishing, reading in (
            ("tcp-quiet", "TCP, without replies", QUIET_TCP, TCP),
            ("tcp", "TCP, acknowledged", ACKNOWLEDGED_TCP, TCP),
            ("websocket-quiet", "WebSocket, without replies", QUIET_WEBSOCKET, WEBSOCKET),
            ("websocket", "WebSocket, acknowledged", ACKNOWLEDGED_WEBSOCKET, WEBSOCKET),
        )
    ]


def _pairs() -> list[Workload]:
    return [
        *(
            Workload(f"pairs-{wire}", "pairs", title, Kind.PACKETS, publishing, wire, channels=100, burst=BURST)
            for wire, title, publishing in (
                (TCP, "100 pairs over TCP", QUIET_TCP),
                (WEBSOCKET, "100 pairs over WebSocket", QUIET_WEBSOCKET),
            )
        ),
        Workload("many-to-one", "pairs", "100 publishers to 1 reader over TCP", publishers=100),
    ]


def _workers() -> list[Workload]:
    return [
        Workload(f"workers-{wire}", "workers", words, Kind.PACKETS, publishing, wire, channels=200, burst=1)
        for wire, words, publishing in (
            (TCP, "200 pairs over TCP", QUIET_TCP),
            (WEBSOCKET, "200 pairs over WebSocket", QUIET_WEBSOCKET),
        )
    ]


def _socketio() -> list[Workload]:
    fan_out = Workload("socketio-100", "socket.io", "Socket.IO, 1 to 100", Kind.LOAD, SOCKETIO, SOCKETIO, readers=100)
    pairs = [
        Workload(name, "socket.io", title, Kind.PACKETS, SOCKETIO, SOCKETIO, channels=100, burst=burst)
        for name, title, burst in (
            ("socketio-pairs", "Socket.IO, 100 pairs, bursts of 64", BURST),
            ("socketio-packets", "Socket.IO, 100 pairs, one event a packet", 1),
        )
    ]
    return [fan_out, *pairs]


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
    paced = [Workload("paced-500", "paced", "100 readers, 500 events a second", readers=100, rate=500.0)]
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
        Workload(f"connections-{name}", "connections", f"over {words}", Kind.CONNECTIONS, wire, wire, count=5_000)
        for name, wire, words in (
            (TCP, TCP, "TCP"),
            (WEBSOCKET, WEBSOCKET, "WebSocket"),
            ("socketio", SOCKETIO, "Socket.IO"),
        )
    ]


def _restarts() -> list[Workload]:
    return [Workload("restart", "restart", "all come back", Kind.RESTART, WEBSOCKET, WEBSOCKET, count=10_000)]


def _stalled() -> list[Workload]:
    return [
        Workload(
            f"stalled-{wire}", "stalled", f"over {words}", Kind.STALLED, TCP, wire, size=200, events=40_000, count=400
        )
        for wire, words in ((TCP, "TCP"), (WEBSOCKET, "WebSocket"))
    ]


WORKLOADS = [
    *_fan_outs(),
    *_packets(),
    *_pairs(),
    *_workers(),
    *_socketio(),
    *_crossings(),
    *_payloads(),
    *_paced(),
    *_channels(),
    *_connections(),
    *_restarts(),
    *_stalled(),
]
