"""The bridge's figures for Prometheus. They are plain numbers of ours, and become metrics when somebody asks: while
events pass, nothing of prometheus-client is touched.

Names follow https://prometheus.io/docs/practices/naming/. No label has a value that peers choose, so the number of
series has a bound.
"""

import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Protocol

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
from twistedsock.session.registry import ServerContext
from twistedsock.stats import Histogram

Families = Iterable[Metric]

_PAGE = os.sysconf("SC_PAGE_SIZE")

_TICKS = os.sysconf("SC_CLK_TCK")

TITLES = ("line", "json", "events")
"""The dialects that are told even where nobody has spoken them yet."""


class BridgeCollector(Collector):
    """What a bridge has counted, and how it stands."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        # The others are looked up on the disk.
        self._versions = {
            "version": context.version.decode(),
            "python": platform.python_version(),
            "twisted": version("twisted"),
        }

    def describe(self) -> Families:
        """Nothing: what is not described is taken at its word, and not asked before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._states()
        yield from self._totals()
        yield from self._times()

    def _states(self) -> Iterator[Metric]:
        context, broker, limits = self._context, self._context.broker, self._context.limits
        yield InfoMetricFamily("sockbridge", "Which versions run.", value=self._versions)
        opened, closed = context.stats.opened, context.stats.closed
        peers = {title: opened.get(title, 0) - closed.get(title, 0) for title in self._known(opened)}
        yield _labelled(GaugeMetricFamily, "peers", "Peers that are connected.", "dialect", peers)
        yield _gauge("connections", "Connections that are open, of every kind.", context.connection_limiter.connections)
        channels = len(broker.channels) - broker.own_channels
        yield _gauge("channels", "Channels that somebody reads, or that have a log.", channels)
        yield _gauge("subscriptions", "Subscriptions of all peers together.", broker.subscriptions)
        yield _gauge("readers_behind", "Peers that have not read all yet on some channel.", context.stats.behind)
        yield _gauge("log_bytes", "Bytes that the logs of all channels keep.", broker.history_bytes)
        held = broker.memory_budget.held
        yield _gauge("held_bytes", "Bytes of unfinished input and unread output that connections hold.", held)
        yield _gauge("backplane_up", "Whether the backplane answers: 1 or 0.", broker.is_ready)
        for name, words, bound in (
            ("max_connections", "Connections that there may be.", limits.max_connections),
            ("max_channels", "Channels that there may be.", limits.max_channels),
            ("max_subscriptions", "Subscriptions that there may be.", limits.max_subscriptions),
            ("max_log_bytes", "Bytes that the logs of all channels may keep.", limits.history_total_bytes),
            ("max_held_bytes", "Bytes that connections may hold.", limits.max_buffered_bytes),
        ):
            yield _gauge(name, words, bound)

    def _totals(self) -> Iterator[Metric]:
        stats = self._context.stats
        for name, words, count in (
            ("events_published", "Events that got their place in a channel.", stats.published),
            ("events_delivered", "Events given to a reader, each for each reader.", stats.delivered),
            ("events_lost", "Events that a reader was told it had missed, each for each reader.", stats.lost),
            ("received_bytes", "Bytes that peers have sent, without TLS.", stats.received),
            ("sent_bytes", "Bytes that were sent to peers, without TLS.", stats.sent),
        ):
            yield CounterMetricFamily(f"sockbridge_{name}", words, value=count)
        refused = {code.decode(): stats.errors.get(code, 0) for code in ErrorCode}
        yield _labelled(
            CounterMetricFamily, "refusals", "What was refused, by the code of the answer.", "code", refused
        )
        requests = CounterMetricFamily(
            "sockbridge_http_requests", "Requests of HTTP that were answered.", labels=["method", "status"]
        )
        for (method, status), count in {(b"GET", 200): 0, **stats.requests}.items():
            requests.add_metric([method.decode(), str(status)], count)
        yield requests
        for name, words, counts in (
            ("connections_opened", "Peers that came, or went on in another dialect.", stats.opened),
            ("connections_closed", "Peers that went, or went on in another dialect.", stats.closed),
        ):
            by_title = {title: counts.get(title, 0) for title in self._known(stats.opened)}
            yield _labelled(CounterMetricFamily, name, words, "dialect", by_title)

    def _times(self) -> Iterator[Metric]:
        stats = self._context.stats
        yield _histogram("turn_seconds", "How long each turn of the broker took, flush included.", stats.turns)
        yield _histogram("flush_seconds", "How long it took to give what was published to its readers.", stats.flushes)

    def _known(self, counts: Mapping[str, int]) -> Iterable[str]:
        return dict.fromkeys((*TITLES, *counts))


class ProcessCollector(Collector):
    """The usual figures of a process, under their usual names. That of prometheus-client lists each open file to count
    them, which takes 8 ms where there are ten thousand, and fails where there may be any number of them."""

    def __init__(self, process: str = "/proc/self") -> None:
        self._process = process
        # What begins now has begun a moment ago: the boot time that it is counted from is known in whole seconds only.
        self._started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + self._ticks(19)

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "process_cpu_seconds", "Seconds of CPU, the kernel's part included.", value=time.process_time()
        )
        yield GaugeMetricFamily(
            "process_start_time_seconds", "When the process began, in seconds since 1970.", value=self._started
        )
        fields = self._fields()
        for name, words, value in (
            ("virtual_memory_bytes", "Bytes of address space.", int(fields[20])),
            ("resident_memory_bytes", "Bytes of memory in use.", int(fields[21]) * _PAGE),
            ("open_fds", "Files and sockets that are open.", self._open_files()),
            ("max_fds", "Files and sockets that may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ):
            yield GaugeMetricFamily(f"process_{name}", words, value=value)

    def _fields(self) -> list[bytes]:
        """What stands behind the name, which may have blanks and brackets (proc(5))."""
        with open(f"{self._process}/stat", "rb", buffering=0) as told:
            return told.read().rpartition(b")")[2].split()

    def _ticks(self, field: int) -> float:
        return int(self._fields()[field]) / _TICKS

    def _open_files(self) -> int:
        """Since Linux 6.2 the folder's size is the number of its entries; before, it is 0."""
        folder = f"{self._process}/fd"
        return os.stat(folder).st_size or len(os.listdir(folder))


class WebhookFigures(Protocol):
    """What is known of one webhook: events that wait, and since the start, events that were delivered and dropped, and
    attempts that failed."""

    queued: int
    queued_bytes: int
    delivered: int
    dropped: int
    failed: int


class WebhookCollector(Collector):
    """Webhooks by the names that they have in the configuration; nothing where there are none."""

    def __init__(self, figures: Callable[[], Mapping[str, WebhookFigures]]) -> None:
        self._figures = figures

    def describe(self) -> Families:
        return ()

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        if not figures:
            return
        for kind, name, field, words in (
            (GaugeMetricFamily, "queued_events", "queued", "Events that wait, those under way included."),
            (GaugeMetricFamily, "queued_bytes", "queued_bytes", "Bytes of the events that wait."),
            (CounterMetricFamily, "events_delivered", "delivered", "Events that were taken."),
            (CounterMetricFamily, "events_dropped", "dropped", "Events that gave way to newer ones."),
            (CounterMetricFamily, "attempts_failed", "failed", "Deliveries that were tried in vain."),
        ):
            values = {webhook: getattr(counted, field) for webhook, counted in figures.items()}
            yield _labelled(kind, f"webhook_{name}", words, "webhook", values)


class Metrics:
    """All of it, for whoever asks. ``webhooks`` gives their figures by name."""

    def __init__(self, context: ServerContext, webhooks: Callable[[], Mapping[str, WebhookFigures]] = dict) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(BridgeCollector(context))
        self._registry.register(WebhookCollector(webhooks))
        self._registry.register(ProcessCollector())
        GCCollector(self._registry)

    def render(self, accept: str) -> tuple[str, bytes]:
        """The Content-Type and the text, in the format that the header ``Accept`` asks for."""
        try:
            encode, kind = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is none
            encode, kind = choose_encoder("")
        return kind, encode(self._registry)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sockbridge_{name}", words, value=value)


def _labelled(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    words: str,
    label: str,
    values: Mapping[str, int],
) -> Metric:
    family = kind(f"sockbridge_{name}", words, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, words: str, spread: Histogram) -> Metric:
    """Prometheus counts in each bucket what is in those below it as well."""
    family = HistogramMetricFamily(f"sockbridge_{name}", words, labels=())
    count, buckets = 0, []
    for bound, here in zip((*spread.bounds, float("inf")), spread.counts, strict=True):
        count += here
        buckets.append((floatToGoString(bound), count))
    family.add_metric([], buckets, spread.total)
    return family
