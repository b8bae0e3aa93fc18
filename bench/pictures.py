"""The pictures of the report."""

from collections.abc import Callable, Sequence

from bench.charts import Entry, bars, curves
from bench.results import Results
from bench.svg import Drawing
from bench.workloads import CHANNELS, PAYLOADS, READERS
from twistedsock.bench.measurement import PERCENTILES

INKS = {
    "sockbridge": "#d9480f",
    "nats": "#1c7ed6",
    "nats-debian": "#74c0fc",
    "redis": "#9c36b5",
    "mosquitto": "#2b8a3e",
    "bun": "#d6336c",
    "nchan": "#5c940d",
    "socketio": "#495057",
    "ws": "#0b7285",
    "websockets": "#b08900",
    "crossbar": "#7048e8",
    "floor": "#adb5bd",
    "bare": "#868e96",
}
"""The colour of each server in all pictures."""

DAGGER = "; † bounded by the load generator"

LINES = {"bare": "bare C loop", "floor": "bare Python loop"}
"""Names of servers in pictures, if different from their own."""


def pictures(results: Results) -> dict[str, Drawing]:
    """Pictures by name. Those without measurements are missing."""
    drawn: dict[str, Callable[[Results], Drawing | None]] = {
        "fan-out": _fan_out,
        "websocket": _websocket,
        "packets": _packets,
        "pairs": _pairs,
        "paced": _paced,
        "latency": _latency,
        "memory": _memory,
        "connections": _connections,
        "stalled": _stalled,
        "readers": _readers,
        "channels": _channels,
        "payload": _payload,
    }
    found = {name: draw(results) for name, draw in drawn.items()}
    return {name: drawing for name, drawing in found.items() if drawing}


def entries(results: Results, workload: str, figure: str, label: Callable[[float], str]) -> list[Entry]:
    """One bar for each server that has the figure."""
    found = []
    for server in results.servers():
        if measured := results.range(workload, server, figure):
            value = measured.median
            words = label(value) + _reservation(results, workload, server, figure)
            found.append(Entry(_name(server), _ink(server), [(0, value)], words))
    return found


def _reservation(results: Results, workload: str, server: str, figure: str) -> str:
    """A remark behind a figure that is not the whole truth."""
    if figure == "rate":
        return " †" if results.is_bound(workload, server) else ""
    if figure == "growth":
        cut = results.range(workload, server, "cut")
        return (
            ", stopped"
            if "stopped" in results.words(workload, server, "note")
            else (f", {cut.median:.0f} cut off" if cut and cut.median else "")
        )
    return ""


def _name(server: str) -> str:
    return LINES.get(server, server)


def _ink(server: str) -> str:
    return INKS.get(server, "#495057")


def _chart(
    results: Results,
    title: str,
    subtitle: str,
    workloads: Sequence[tuple[str, str]],
    figure: str,
    label: Callable[[float], str],
    logarithmic: bool = False,
) -> Drawing | None:
    sections = [(heading, entries(results, name, figure, label)) for name, heading in workloads]
    if not any(found for _, found in sections):
        return None
    return bars(title, subtitle, sections, logarithmic)


def _curves(
    results: Results,
    title: str,
    subtitle: str,
    below: str,
    workloads: Sequence[tuple[str, float]],
) -> Drawing | None:
    """CPU time for each delivery against the property in which the workloads differ."""
    found = []
    for server in results.servers():
        points = [(x, measured.median) for name, x in workloads if (measured := results.range(name, server, "cost"))]
        if len(points) > 1 and server != "bare":
            found.append(Entry(_name(server), _ink(server), points))
    return curves(title, subtitle, below, "CPU a delivery, microseconds", found) if found else None


def _rate(value: float) -> str:
    return f"{value / 1e6:.1f} M/s" if value >= 1e6 else f"{value / 1e3:,.3g} k/s"


def _micro(value: float) -> str:
    return f"{value:,.3g} us" if value < 1_000 else f"{value:,.0f} us"


def _fan_out(results: Results) -> Drawing | None:
    return _chart(
        results,
        "Fan-out over lines",
        f"Deliveries a second, one publisher flat out, 32 B{DAGGER}",
        [(f"fan-out-{count}", f"to {count:,} readers" if count > 1 else "to 1 reader") for count in READERS],
        "rate",
        _rate,
        logarithmic=True,
    )


def _websocket(results: Results) -> Drawing | None:
    return _chart(
        results,
        "WebSocket readers",
        f"Deliveries a second, flat out, 32 B{DAGGER}",
        [
            ("tcp-to-websocket-100", "one publisher over TCP, if the server has it, to 100 readers"),
            ("tcp-to-websocket-1000", "the same to 1,000 readers"),
            ("websocket-to-websocket", "one publisher over WebSocket to 100 readers"),
        ],
        "rate",
        _rate,
        logarithmic=True,
    )


def _packets(results: Results) -> Drawing | None:
    return _chart(
        results,
        "One event a packet",
        "Deliveries a second of the server's CPU, 100 pairs, 32 B; each publisher waits for the delivery",
        [
            ("packets-tcp-quiet", "over TCP, without replies"),
            ("packets-tcp", "over TCP, acknowledged"),
            ("packets-websocket-quiet", "over WebSocket, without replies"),
            ("packets-websocket", "over WebSocket, acknowledged"),
        ],
        "per_cpu",
        _rate,
    )


def _pairs(results: Results) -> Drawing | None:
    return _chart(
        results,
        "Nothing to share: one reader for each event",
        "Deliveries a second of the server's CPU, 32 B",
        [
            ("pairs-tcp", "100 pairs over TCP, bursts of 64"),
            ("many-to-one", "100 publishers to 1 reader over TCP"),
            ("fan-out-1", "1 to 1 over TCP"),
            ("pairs-websocket", "100 pairs over WebSocket, bursts of 64"),
        ],
        "per_cpu",
        _rate,
    )


def _paced(results: Results) -> Drawing | None:
    return _chart(
        results,
        "One event at a time",
        "The server's CPU for a delivery, 32 B over TCP; less is better",
        [
            ("paced-500", "100 readers, 500 events a second"),
            ("paced-10-1000", "1,000 readers, a tenth of capacity"),
            ("paced-50-100", "100 readers, half of capacity"),
        ],
        "cost",
        _micro,
    )


def _latency(results: Results) -> Drawing | None:
    found = []
    for server in results.servers():
        points = [
            (float(place), measured.median)
            for place, name in enumerate(PERCENTILES)
            if (measured := results.range("paced-500", server, name))
        ]
        if points:
            found.append(Entry(_name(server), _ink(server), points))
    if not found:
        return None
    ticks = [(float(place), name) for place, name in enumerate(PERCENTILES)]
    subtitle = "100 readers, 500 events a second, 32 B over TCP; less is better"
    return curves("Latency", subtitle, "percentile", "microseconds", found, ticks)


def _memory(results: Results) -> Drawing | None:
    return _chart(
        results,
        "Memory of an idle connection",
        "The server's memory, mean of 5,000 subscribed connections; less is better",
        [("connections-tcp", "over TCP"), ("connections-websocket", "over WebSocket")],
        "memory_each",
        lambda value: f"{value:,.1f} KiB",
    )


def _connections(results: Results) -> Drawing | None:
    return _chart(
        results,
        "Opening a connection",
        "The server's CPU for each, until it has subscribed; less is better",
        [("connections-tcp", "over TCP"), ("connections-websocket", "over WebSocket")],
        "cost",
        _micro,
    )


def _stalled(results: Results) -> Drawing | None:
    return _chart(
        results,
        "400 readers stop reading while 40,000 events of 200 B pass",
        "Growth of the server's memory; stopped by us at 2,048 MiB, or after 25 s",
        [("stalled-tcp", "over TCP"), ("stalled-websocket", "over WebSocket")],
        "growth",
        lambda value: f"{value:,.3g} MiB" if value < 1_000 else f"{value:,.0f} MiB",
        logarithmic=True,
    )


def _readers(results: Results) -> Drawing | None:
    points = [(f"fan-out-{count}", float(count)) for count in READERS]
    return _curves(results, "Number of readers", "One publisher flat out, 32 B over TCP", "readers", points)


def _channels(results: Results) -> Drawing | None:
    points = [(f"channels-{count}", float(count)) for count in CHANNELS]
    return _curves(
        results, "Number of channels", "10 readers of each, one publisher, 32 B over TCP", "channels", points
    )


def _payload(results: Results) -> Drawing | None:
    points = [("fan-out-100" if size == 32 else f"payload-{size}", float(size)) for size in PAYLOADS]
    return _curves(results, "Size of an event", "1 to 100 readers, flat out, over TCP", "bytes", points)
