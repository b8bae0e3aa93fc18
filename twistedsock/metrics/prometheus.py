"""Metrics for Prometheus. They are computed when they are requested: nothing here runs while events are delivered.

Names follow https://prometheus.io/docs/practices/naming/. No label has values that clients choose, so that the number
of time series is limited.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, GCCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from twistedsock.errors import ErrorCode
from twistedsock.metrics.processes import MetricsOfAll, encode_metrics
from twistedsock.metrics.statistics import ProcessStatistics, ServerStatistics, known_titles, read_statistics
from twistedsock.session.context import ServerContext
from twistedsock.speedups import IMPLEMENTATION
from twistedsock.stats import Histogram

MetricFamilies = Iterable[Metric]


class ServerCollector(Collector):
    """Counters and states of the server."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        # Looking up versions reads files.
        self._versions = {
            "version": context.version.decode(),
            "python": platform.python_version(),
            "twisted": version("twisted"),
            "implementation": IMPLEMENTATION,
        }

    def describe(self) -> MetricFamilies:
        """Empty, so that registering the collector does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        statistics = read_statistics(self._context, 0, 0.0)
        yield from self._states(statistics)
        yield from self._totals(statistics)
        yield from self._durations()

    def _states(self, statistics: ServerStatistics) -> Iterator[Metric]:
        context, limits = self._context, self._context.limits
        yield InfoMetricFamily("sockbridge", "Versions of sockbridge, Python and Twisted.", value=self._versions)
        clients = {title: count for title, count in statistics.peers.items() if title != "total"}
        yield _labelled(GaugeMetricFamily, "peers", "Connected clients.", "dialect", clients)
        for name, help_text, value in (
            ("connections", "Open connections of every kind.", statistics.connections),
            ("channels", "Channels with subscribers or history.", statistics.channels),
            ("subscriptions", "Subscriptions of all clients.", statistics.subscriptions),
            ("readers_behind", "Clients with unread events.", statistics.behind),
            ("log_bytes", "Bytes in the history of all channels.", statistics.log_bytes),
            ("held_bytes", "Bytes of unfinished input and unread output.", statistics.held_bytes),
            ("backplane_up", "1 if the backplane is available, otherwise 0.", context.broker.is_ready),
            ("max_connections", "Limit of open connections.", limits.max_connections),
            ("max_channels", "Limit of channels.", limits.max_channels),
            ("max_subscriptions", "Limit of subscriptions.", limits.max_subscriptions),
            ("max_log_bytes", "Limit of bytes in the history of all channels.", limits.history_total_bytes),
            ("max_held_bytes", "Limit of bytes of unfinished input and unread output.", limits.max_buffered_bytes),
        ):
            yield GaugeMetricFamily(f"sockbridge_{name}", help_text, value=value)

    def _totals(self, statistics: ServerStatistics) -> Iterator[Metric]:
        stats, titles = self._context.stats, known_titles(self._context)
        for name, help_text, count in (
            ("events_published", "Events published on channels.", statistics.published),
            ("events_delivered", "Events sent to subscribers, counted for each subscriber.", statistics.delivered),
            ("events_lost", "Events reported to subscribers as lost, counted for each subscriber.", statistics.lost),
            ("received_bytes", "Bytes received from clients, without TLS.", statistics.received_bytes),
            ("sent_bytes", "Bytes sent to clients, without TLS.", statistics.sent_bytes),
        ):
            yield CounterMetricFamily(f"sockbridge_{name}", help_text, value=count)
        errors = {code.decode(): statistics.refused.get(code.decode(), 0) for code in ErrorCode}
        yield _labelled(CounterMetricFamily, "refusals", "Errors sent to clients, by code.", "code", errors)
        requests = CounterMetricFamily(
            "sockbridge_http_requests", "HTTP requests that were answered.", labels=["method", "status"]
        )
        for (method, status), count in {(b"GET", 200): 0, **stats.requests}.items():
            requests.add_metric([method.decode(), str(status)], count)
        yield requests
        for name, help_text, counts in (
            ("connections_opened", "Sessions opened, including those that switched the protocol.", stats.opened),
            ("connections_closed", "Sessions closed, including those that switched the protocol.", stats.closed),
        ):
            by_title = {title: counts.get(title, 0) for title in titles}
            yield _labelled(CounterMetricFamily, name, help_text, "dialect", by_title)

    def _durations(self) -> Iterator[Metric]:
        stats = self._context.stats
        yield _histogram("turn_seconds", "Duration of the turns of the broker, with the flush.", stats.turns)
        yield _histogram("flush_seconds", "Duration of flushes, which send events to subscribers.", stats.flushes)


class ProcessCollector(Collector):
    """The usual metrics of a process, under their usual names. The collector of prometheus-client lists all open files
    to count them, which takes 8 ms for ten thousand, and fails without a limit of open files."""

    def __init__(self, process: ProcessStatistics) -> None:
        self._process = process
        self._start_time = process.start_time()

    def collect(self) -> Iterator[Metric]:
        process = self._process
        yield CounterMetricFamily("process_cpu_seconds", "CPU time, user and system.", value=process.cpu_seconds())
        for name, help_text, value in (
            ("start_time_seconds", "Start of the process, in seconds since 1970.", self._start_time),
            ("virtual_memory_bytes", "Size of the address space.", process.virtual_bytes()),
            ("resident_memory_bytes", "Resident memory.", process.memory_bytes()),
            ("open_fds", "Open files and sockets.", process.open_files()),
            ("max_fds", "Limit of open files and sockets.", process.max_files()),
        ):
            yield GaugeMetricFamily(f"process_{name}", help_text, value=value)


class WebhookStatistics(Protocol):
    """Events of one webhook that wait, and since the start: events delivered and dropped, and failed attempts."""

    queued: int
    queued_bytes: int
    delivered: int
    dropped: int
    failed: int


class WebhookCollector(Collector):
    """Webhooks by their configured names. ``read`` returns an empty mapping if no webhook is configured."""

    def __init__(self, read: Callable[[], Mapping[str, WebhookStatistics]]) -> None:
        self._read = read

    def describe(self) -> MetricFamilies:
        return ()

    def collect(self) -> Iterator[Metric]:
        webhooks = self._read()
        if not webhooks:
            return
        for kind, name, field, help_text in (
            (GaugeMetricFamily, "queued_events", "queued", "Events that wait or are being delivered."),
            (GaugeMetricFamily, "queued_bytes", "queued_bytes", "Bytes of the events that wait."),
            (CounterMetricFamily, "events_delivered", "delivered", "Events accepted by the receiver."),
            (CounterMetricFamily, "events_dropped", "dropped", "Events dropped because the queue was full or late."),
            (CounterMetricFamily, "attempts_failed", "failed", "Attempts of a delivery that failed."),
        ):
            values = {webhook: getattr(statistics, field) for webhook, statistics in webhooks.items()}
            yield _labelled(kind, f"webhook_{name}", help_text, "webhook", values)


class StateStatistics(Protocol):
    """The store of ``--state``. ``commits`` are durations in seconds. Publications wait until they are committed."""

    is_ready: bool
    commits: Histogram
    waiting_publications: int
    waiting_bytes: int
    file_bytes: int
    used_bytes: int
    oldest_seconds: float


class StateCollector(Collector):
    """The store of ``--state``."""

    def __init__(self, read: Callable[[], StateStatistics]) -> None:
        self._read = read

    def describe(self) -> MetricFamilies:
        return ()

    def collect(self) -> Iterator[Metric]:
        state = self._read()
        for name, help_text, value in (
            ("up", "1 if the directory works, otherwise 0.", float(state.is_ready)),
            ("waiting_publications", "Publications that wait for the disk.", state.waiting_publications),
            ("waiting_bytes", "Bytes of the publications that wait for the disk.", state.waiting_bytes),
            ("file_bytes", "Size of the database and its log.", state.file_bytes),
            ("used_bytes", "Size of the database without free space.", state.used_bytes),
            ("oldest_event_seconds", "Age of the oldest event.", state.oldest_seconds),
        ):
            yield GaugeMetricFamily(f"sockbridge_state_{name}", help_text, value=value)
        yield _histogram("state_commit_seconds", "Duration of commits, with fsync.", state.commits)


class Metrics:
    """All metrics. ``webhooks`` returns the statistics of webhooks by name, ``state`` those of the store of
    ``--state``, if there is one."""

    def __init__(
        self,
        context: ServerContext,
        webhooks: Callable[[], Mapping[str, WebhookStatistics]] = dict,
        state: Callable[[], StateStatistics] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(ServerCollector(context))
        self._registry.register(WebhookCollector(webhooks))
        if state is not None:
            self._registry.register(StateCollector(state))
        self._registry.register(ProcessCollector(ProcessStatistics()))
        GCCollector(self._registry)

    def report(self) -> bytes:
        """The metrics, for another process of this server."""
        return encode_metrics(self._registry.collect())

    def render(self, accept: str, others: Mapping[bytes, bytes] | None = None, name: str = "") -> tuple[str, bytes]:
        """The Content-Type and the text, in the format that the header ``Accept`` asks for. ``others`` are the reports
        of other processes by their names; ``name`` is the one of this process."""
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a malformed version
            encode, content_type = choose_encoder("")
        collected: Any = self._registry
        if others is not None:
            collected = MetricsOfAll(name, self._registry.collect(), others)
        return content_type, encode(collected)


class HubMetrics:
    """The metrics of the hub, which joins the other processes of a server. ``channels`` counts the channels that they
    have open, ``history_bytes`` what the hub keeps in memory, of ``max_history_bytes``."""

    def __init__(
        self,
        channels: Callable[[], int],
        history_bytes: Callable[[], int],
        max_history_bytes: int,
        state: Callable[[], StateStatistics] | None,
    ) -> None:
        self._channels = channels
        self._history_bytes = history_bytes
        self._max_history_bytes = max_history_bytes
        self._registry = CollectorRegistry()
        self._registry.register(self)
        if state is not None:
            self._registry.register(StateCollector(state))
        self._registry.register(ProcessCollector(ProcessStatistics()))
        GCCollector(self._registry)

    def describe(self) -> MetricFamilies:
        return ()

    def collect(self) -> Iterator[Metric]:
        for name, help_text, value in (
            ("channels", "Channels with subscribers or history.", self._channels()),
            ("log_bytes", "Bytes in the history of all channels.", self._history_bytes()),
            ("max_log_bytes", "Limit of bytes in the history of all channels.", self._max_history_bytes),
        ):
            yield GaugeMetricFamily(f"sockbridge_{name}", help_text, value=value)

    def report(self) -> bytes:
        return encode_metrics(self._registry.collect())


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    help_text: str,
    label: str,
    values: Mapping[str, int],
) -> Metric:
    family = kind(f"sockbridge_{name}", help_text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, help_text: str, histogram: Histogram) -> Metric:
    """The buckets of Prometheus are cumulative."""
    family = HistogramMetricFamily(f"sockbridge_{name}", help_text, labels=())
    total, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append((floatToGoString(bound), total))
    family.add_metric([], buckets, histogram.total)
    return family
