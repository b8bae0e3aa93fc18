"""The targets that this project has set itself."""

from dataclasses import dataclass

from bench.results import Range, Results
from bench.servers import OURS


@dataclass(frozen=True)
class Bar:
    """The ratio of our ``figure`` to the figure of ``other`` (or our figure itself) must be at least ``least`` or at
    most ``most``. ``beside`` is another figure whose ratio is shown as well."""

    title: str
    workload: str
    figure: str
    other: str = ""
    least: float | None = None
    most: float | None = None
    unit: str = "x"
    beside: str = ""

    @property
    def threshold(self) -> str:
        words, bound = ("at least", self.least) if self.least is not None else ("at most", self.most)
        return f"{words} {bound:g}{'x ' + self.other if self.other else ' ' + self.unit}"

    def measured(self, results: Results) -> Range | None:
        return self._of(results, self.figure)

    def measured_beside(self, results: Results) -> Range | None:
        return self._of(results, self.beside) if self.beside else None

    def is_met(self, results: Results) -> bool | None:
        """Compares medians, if no event was lost. Returns None without a measurement."""
        found = self.measured(results)
        if found is None:
            return None
        lost = results.range(self.workload, OURS, "lost")
        if lost and lost.most:
            return False
        return found.median >= self.least if self.least is not None else found.median <= (self.most or 0.0)

    def _of(self, results: Results, figure: str) -> Range | None:
        if self.other:
            return results.ratio(self.workload, OURS, self.other, figure)
        return results.range(self.workload, OURS, figure)


RATE, PER_CPU = "rate", "per_cpu"
PACED = "paced, 100 readers at 500 events a second"

BARS = [
    Bar("fan-out 1 to 100 over lines, deliveries a second", "fan-out-100", RATE, "nats", 4, beside=PER_CPU),
    Bar("fan-out 1 to 1,000 over lines, deliveries a second", "fan-out-1000", RATE, "nats", 5, beside=PER_CPU),
    Bar("1 to 1 over lines, deliveries a CPU second", "fan-out-1", PER_CPU, "nats", 0.5, beside=RATE),
    *(
        Bar(
            f"line publisher to {count:,} WebSocket readers, deliveries a second",
            f"tcp-to-websocket-{count}",
            RATE,
            other,
            least,
            beside=PER_CPU,
        )
        for count in (100, 1_000)
        for other, least in (("nats", 2), ("socketio", 100), ("ws", 100))
    ),
    Bar(
        "line publisher to 100 WebSocket readers, deliveries a CPU second", "tcp-to-websocket-100", PER_CPU, "bun", 3.9
    ),
    Bar("Socket.IO, 1 to 100, deliveries a CPU second", "socketio-100", PER_CPU, "socketio", 20, beside=RATE),
    Bar("Socket.IO, 100 pairs, bursts, deliveries a CPU second", "socketio-pairs", PER_CPU, "socketio", 5, beside=RATE),
    Bar("lines, one event a packet, quiet, deliveries a CPU second", "packets-tcp-quiet", PER_CPU, "nats", 1),
    Bar("lines, one event a packet, acknowledged, deliveries a CPU second", "packets-tcp", PER_CPU, "nats", 1),
    *(
        Bar("WebSocket, one event a packet, deliveries a CPU second", "packets-websocket-quiet", PER_CPU, other, least)
        for other, least in (("nats", 0.8), ("bun", 0.33))
    ),
    Bar("100 pairs over lines, bursts, deliveries a CPU second", "pairs-tcp", PER_CPU, "nats", 1.3, beside=RATE),
    *(
        Bar(
            "100 pairs over WebSocket, bursts, deliveries a CPU second",
            "pairs-websocket",
            PER_CPU,
            other,
            least,
            beside=RATE,
        )
        for other, least in (("nats", 1), ("bun", 0.6), ("ws", 4), ("socketio", 5), ("websockets", 6))
    ),
    Bar(f"{PACED}, CPU a delivery", "paced-500", "cost", "nats", most=1),
    Bar(f"{PACED}, CPU a delivery", "paced-500", "cost", "redis", most=1.1),
    Bar(f"{PACED}, p50 latency", "paced-500", "p50", "nats", most=1),
    # On a shared machine the tail is mostly that of the machine, which the loop has as well.
    Bar(f"{PACED}, p99 latency", "paced-500", "p99", "floor", most=1.5),
    Bar("memory of an idle subscribed line connection", "connections-tcp", "memory_each", most=2.3, unit="KiB"),
    Bar(
        "memory of an idle subscribed WebSocket connection",
        "connections-websocket",
        "memory_each",
        most=3.6,
        unit="KiB",
    ),
    Bar("WebSocket connections with a subscription", "connections-websocket", PER_CPU, "", 7_500, unit="a CPU second"),
    *(
        Bar("WebSocket connections with a subscription a CPU second", "connections-websocket", PER_CPU, other, least)
        for other, least in (("websockets", 1.5), ("ws", 1))
    ),
    Bar(
        "400 stalled line readers, the live one loses nothing, memory grows by",
        "stalled-tcp",
        "growth",
        most=48,
        unit="MiB",
    ),
    Bar(
        "400 stalled WebSocket readers, the live one loses nothing, memory grows by",
        "stalled-websocket",
        "growth",
        most=48,
        unit="MiB",
    ),
]
