"""The statistics and metrics of several processes together. Each process answers for all: it asks the others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import asdict
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from twistedsock.errors import Error
from twistedsock.metrics.statistics import ServerStatistics
from twistedsock.pubsub.future import Future

STATISTICS = b"figures"

METRICS = b"metrics"

PEERS = b"peers"

PAGES = b"pages"

LOG = b"log"
"""Topics of reports. After those of ``PEERS``, ``PAGES`` and ``LOG``, there is what is asked for."""


class OtherProcesses(Protocol):
    """The other processes of this server. When another one asks for a topic, the function in ``reports`` under its
    first word is called with the rest."""

    node_name: bytes
    names: Sequence[str]
    """The names of all processes, also of those that do not run now. This one is among them."""
    restarts: int
    """How often this process has been started again."""
    reports: dict[bytes, Callable[[bytes], bytes | Future[bytes]]]

    def gather(self, topic: bytes) -> Error | Future[dict[bytes, bytes]]:
        """The reports of all others, by their names. A process that does not answer is missing, and the report is empty
        if it knows nothing about the topic."""


Reports = Mapping[bytes, bytes]


def gather(others: OtherProcesses, topic: bytes, received: Callable[[Reports], None]) -> None:
    """Call ``received`` with the reports of other processes: none if they cannot be reached."""
    answer = others.gather(topic)
    if isinstance(answer, Error):
        received({})
    else:
        answer.then(lambda outcome: received({} if isinstance(outcome, Error) else outcome))


class ProcessFigures(msgspec.Struct, frozen=True):
    """One process in ``$sys/figures``."""

    name: str
    is_running: bool
    """Whether it has answered within the last second. If not, all numbers are 0."""
    uptime: float
    peers: int
    subscriptions: int
    behind: int
    published: int
    delivered: int
    memory_bytes: int
    cpu_seconds: float
    turn_longest: float
    restarts: int


class WholeStatistics(ServerStatistics, frozen=True, kw_only=True):
    """The payload of ``$sys/figures`` of a server with several processes: all of them together, and each."""

    processes: list[ProcessFigures]


def hub_statistics(
    time: float,
    uptime: float,
    version: str,
    channels: int,
    log_bytes: int,
    memory_bytes: int,
    cpu_seconds: float,
    restarts: int,
) -> ServerStatistics:
    """The statistics of the hub, which has no clients."""
    return ServerStatistics(
        time=time,
        uptime=uptime,
        version=version,
        peers={"total": 0},
        connections=0,
        channels=channels,
        subscriptions=0,
        behind=0,
        published=0,
        delivered=0,
        lost=0,
        received_bytes=0,
        sent_bytes=0,
        refused={},
        log_bytes=log_bytes,
        held_bytes=0,
        memory_bytes=memory_bytes,
        cpu_seconds=cpu_seconds,
        turns=0,
        turn_seconds=0.0,
        turn_longest=0.0,
        restarts=restarts,
    )


_LARGEST = ("channels", "uptime", "turn_longest")
"""Fields that are not added up: a channel can be in use in several processes."""

_OWN = ("time", "version")

_read_statistics = msgspec.json.Decoder(ServerStatistics).decode


class StatisticsOfAll:
    """Adds up the statistics of this process and the last ones of the others. Call ``refresh`` every second."""

    def __init__(self, others: OtherProcesses) -> None:
        self._others = others
        self._last: dict[str, ServerStatistics] = {}

    @property
    def connections_elsewhere(self) -> int:
        return sum([statistics.connections for statistics in self._last.values()])

    @property
    def index(self) -> int:
        """The place of this process among all."""
        return self._others.names.index(self._others.node_name.decode())

    def gather_pages(self, channel: bytes, received: Callable[[Sequence[bytes]], None]) -> None:
        """Ask the others for their parts of the page of a channel under ``$sys/``."""
        gather(self._others, PAGES + b" " + channel, lambda reports: received(list(filter(None, reports.values()))))

    def with_restarts(self, own: ServerStatistics) -> ServerStatistics:
        """The statistics of this process, which does not count its restarts itself."""
        return msgspec.structs.replace(own, restarts=self._others.restarts)

    def refresh(self) -> None:
        """Ask the other processes. Those that do not answer are left out."""

        def received(reports: Reports) -> None:
            self._last = {name.decode(): _read_statistics(report) for name, report in reports.items() if report}

        gather(self._others, STATISTICS, received)

    def of_all(self, own: ServerStatistics) -> WholeStatistics:
        by_name = {self._others.node_name.decode(): own, **self._last}
        names = sorted({*self._others.names, *by_name})
        every = list(by_name.values())
        fields = asdict(own)
        for field, value in fields.items():
            values = [getattr(statistics, field) for statistics in every]
            if field in _LARGEST:
                fields[field] = max(values)
            elif isinstance(value, dict):
                fields[field] = _add(values)
            elif field not in _OWN:
                fields[field] = round(sum(values), 6)
        return WholeStatistics(**fields, processes=[_figures(name, by_name.get(name)) for name in names])


def _add(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _figures(name: str, statistics: ServerStatistics | None) -> ProcessFigures:
    if statistics is None:
        return ProcessFigures(name, False, 0.0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0)
    return ProcessFigures(
        name,
        True,
        statistics.uptime,
        statistics.peers.get("total", 0),
        statistics.subscriptions,
        statistics.behind,
        statistics.published,
        statistics.delivered,
        statistics.memory_bytes,
        statistics.cpu_seconds,
        statistics.turn_longest,
        statistics.restarts,
    )


# Metrics.


class Family(msgspec.Struct, array_like=True):
    """A metric of one process. A sample is a name, labels, and a value."""

    name: str
    help: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


_LARGEST_METRICS = ("sockbridge_channels", "sockbridge_max_channels", "sockbridge_max_connections")
"""All processes together have these: they are the same in each, or the hub counts them."""

_SMALLEST_METRICS = ("sockbridge_backplane_up",)

_PER_PROCESS = ("process_", "python_")
"""Metrics that begin with these get a label ``process``."""

_read_families = msgspec.msgpack.Decoder(list[Family]).decode


def encode_metrics(metrics: Iterable[Metric]) -> bytes:
    """The metrics of this process as a report."""
    return msgspec.msgpack.encode([_family(metric) for metric in metrics])


def _family(metric: Metric) -> Family:
    samples = [(sample.name, dict(sample.labels), float(sample.value)) for sample in metric.samples]
    return Family(metric.name, metric.documentation, metric.type, samples)


class MetricsOfAll:
    """The metrics of several processes, as a collector. ``own`` are those of this one."""

    def __init__(self, own_name: str, own: Iterable[Metric], reports: Reports) -> None:
        families = [(own_name, [_family(metric) for metric in own])]
        families += [(name.decode(), _read_families(report)) for name, report in reports.items() if report]
        self._families = sorted(families)

    def collect(self) -> Sequence[Metric]:
        combined: dict[str, tuple[Metric, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
        for process, families in self._families:
            for family in families:
                metric, values = combined.setdefault(family.name, (Metric(family.name, family.help, family.kind), {}))
                for name, labels, value in family.samples:
                    if family.name.startswith(_PER_PROCESS):
                        labels = {"process": process, **labels}
                    key = name, tuple(labels.items())
                    values[key] = _combine(family, values.get(key), value)
        for metric, values in combined.values():
            metric.samples = [Sample(name, dict(labels), value) for (name, labels), value in values.items()]
        return [metric for metric, _ in combined.values()]


def _combine(family: Family, known: float | None, value: float) -> float:
    if known is None:
        return value
    if family.kind == "info" or family.name in _LARGEST_METRICS:
        return max(known, value)
    return min(known, value) if family.name in _SMALLEST_METRICS else known + value
