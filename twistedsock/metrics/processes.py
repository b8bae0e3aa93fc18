"""The statistics and metrics of several processes together. Each process answers for all: it asks the others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import asdict
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from twistedsock.errors import Error
from twistedsock.metrics.statistics import ServerStatistics
from twistedsock.pubsub.future import Future

T = TypeVar("T")

STATISTICS = b"figures"

METRICS = b"metrics"

PEERS = b"peers"

PAGES = b"pages"

LOG = b"log"
"""Topics of reports. After those of ``PEERS``, ``PAGES`` and ``LOG``, there is what is asked for."""


class OtherProcesses(Protocol):
    """The other processes with the same channels. When another one asks for a topic, the function in ``reports`` under
    its first word is called with the rest."""

    node_name: bytes
    is_one_server: bool
    """Whether they are workers with the same ports and limits of connections. Otherwise, each is a server."""
    host: str | None
    """The name of the machine. None for workers, which are on the same one."""
    restarts: int
    """How often this process has been started again."""
    reports: dict[bytes, Callable[[bytes], bytes | Future[bytes]]]

    @property
    def names(self) -> Sequence[str]:
        """The names of all processes, also of those that do not answer. This one is among them."""
        ...

    @property
    def index(self) -> int:
        """A number of this process: for workers its place among all, for servers a random one."""
        ...

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


def read_reports(
    others: OtherProcesses | None, reports: Reports, read: Callable[[bytes], T]
) -> tuple[list[T], list[str]]:
    """The contents of reports, and the names of the processes that have not answered, or that have another version."""
    contents, answered = [], {b"" if others is None else others.node_name}
    for name, report in reports.items():
        with suppress(msgspec.MsgspecError):
            if report:
                contents.append(read(report))
            answered.add(name)
    return contents, [name for name in (others.names if others else ()) if name.encode() not in answered]


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
    host: str | msgspec.UnsetType = msgspec.UNSET
    """The machine of one of several servers, empty if it has never answered."""


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

_OWN = ("time", "version", "host")

_read_statistics = msgspec.json.Decoder(ServerStatistics).decode


class StatisticsOfAll:
    """Adds up the statistics of this process and the last ones of the others. Call ``refresh`` every second, or
    ``forget`` if they are not needed: this process asks several servers only while a client looks."""

    def __init__(self, others: OtherProcesses) -> None:
        self._others = others
        self.is_one_server = others.is_one_server
        self.index = others.index
        self._last: dict[str, ServerStatistics] = {}
        # The machines of servers, because those that do not answer are shown with theirs.
        self._hosts: dict[str, str] = {}
        self.is_known = others.is_one_server
        """Whether the other processes have been asked. Until then, the statistics are those of this one."""

    @property
    def connections_elsewhere(self) -> int:
        """The connections that count for the limit of this process, beside its own."""
        if not self.is_one_server:
            return 0
        return sum([statistics.connections for statistics in self._last.values()])

    def gather_pages(self, channel: bytes, received: Callable[[Sequence[bytes]], None]) -> None:
        """Ask the others for their parts of the page of a channel under ``$sys/``."""
        gather(self._others, PAGES + b" " + channel, lambda reports: received(list(filter(None, reports.values()))))

    def with_process(self, own: ServerStatistics) -> ServerStatistics:
        """The statistics of this process, with what it does not count itself."""
        host = msgspec.UNSET if self._others.host is None else self._others.host
        return msgspec.structs.replace(own, restarts=self._others.restarts, host=host)

    def refresh(self) -> None:
        """Ask the other processes. Those that do not answer, or are of another version, are left out."""

        def received(reports: Reports) -> None:
            self._last = {}
            for name, report in reports.items():
                with suppress(msgspec.MsgspecError):
                    if report:
                        self._last[name.decode()] = _read_statistics(report)
            self.is_known = True

        gather(self._others, STATISTICS, received)

    def forget(self) -> None:
        """What is known of the other processes is out of date."""
        self._last, self.is_known = {}, self.is_one_server

    def of_all(self, own: ServerStatistics) -> ServerStatistics:
        """``WholeStatistics`` if the others are known. ``own`` are those of this process."""
        if not self.is_known:
            return own
        by_name = {self._others.node_name.decode(): own, **self._last}
        names = sorted({*self._others.names, *by_name})
        every = list(by_name.values())
        hosts = {name: one.host for name, one in by_name.items() if isinstance(one.host, str)}
        self._hosts = {name: host for name, host in {**self._hosts, **hosts}.items() if name in names}
        fields = asdict(msgspec.structs.replace(own, host=msgspec.UNSET))
        for field, value in fields.items():
            values = [getattr(statistics, field) for statistics in every]
            if field in _LARGEST:
                fields[field] = max(values)
            elif isinstance(value, dict):
                fields[field] = _add(values)
            elif field not in _OWN:
                fields[field] = round(sum(values), 6)
        processes = [self._figures(name, by_name.get(name)) for name in names]
        return WholeStatistics(**fields, processes=processes)

    def _figures(self, name: str, statistics: ServerStatistics | None) -> ProcessFigures:
        host = msgspec.UNSET if self.is_one_server else self._hosts.get(name, "")
        if statistics is None:
            return ProcessFigures(name, False, 0.0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0, host)
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
            host,
        )


def _add(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


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
