"""Statistics and metrics of several processes together."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.metrics.processes import (
    METRICS,
    STATISTICS,
    MetricsOfAll,
    StatisticsOfAll,
    WholeStatistics,
    encode_metrics,
    gather,
    hub_statistics,
    read_reports,
)
from twistedsock.metrics.statistics import read_statistics
from twistedsock.pubsub.future import Future
from twistedsock.testing import FakeServer


class Others:
    """The other processes: their answers are ``answer``."""

    node_name = b"1"
    names = ("1", "2", "hub")
    index = 0
    is_one_server = True
    host: str | None = None
    restarts = 0

    def __init__(self) -> None:
        self.reports: dict[bytes, Callable[[bytes], bytes]] = {}
        self.asked: list[bytes] = []
        self.answer: Error | Future[dict[bytes, bytes]] = UNAVAILABLE

    def gather(self, topic: bytes) -> Error | Future[dict[bytes, bytes]]:
        self.asked.append(topic)
        return self.answer

    def will_report(self, **reports: bytes) -> None:
        self.answer = Future()
        self.answer.settle({name.encode(): report for name, report in reports.items()})


@pytest.fixture
def others() -> Others:
    return Others()


def test_statistics_of_all_processes_are_added_up(others: Others) -> None:
    own = replace(read_statistics(FakeServer().context, 100, 1.5), connections=3, channels=7, published=10)
    own = replace(own, peers={"total": 3, "line": 3}, refused={"limit": 1}, turn_longest=0.1, uptime=5.0)
    other = replace(own, connections=2, channels=9, published=1, peers={"total": 2, "json": 2}, turn_longest=0.2)
    hub = hub_statistics(1.0, 9.0, "1", channels=12, log_bytes=50, memory_bytes=30, cpu_seconds=0.5, restarts=1)
    others.restarts = 3
    others.will_report(**{"2": msgspec.json.encode(other), "hub": msgspec.json.encode(hub)})
    of_all = StatisticsOfAll(others)
    of_all.refresh()
    whole = of_all.of_all(of_all.with_process(own))
    assert others.asked == [STATISTICS] and of_all.connections_elsewhere == 2
    assert (whole.connections, whole.published, whole.memory_bytes, whole.cpu_seconds) == (5, 11, 230, 3.5)
    assert (whole.channels, whole.uptime, whole.turn_longest) == (12, 9.0, 0.2), "the largest"
    assert (whole.peers, whole.refused) == ({"total": 5, "line": 3, "json": 2}, {"limit": 2})
    assert isinstance(whole, WholeStatistics)
    assert whole.restarts == 4 and all(each.is_running for each in whole.processes)
    assert [(each.name, each.peers, each.memory_bytes, each.restarts) for each in whole.processes] == [
        ("1", 3, 100, 3),
        ("2", 2, 100, 0),
        ("hub", 0, 30, 1),
    ]


def test_processes_that_do_not_answer_are_not_added_up(others: Others) -> None:
    own, of_all = read_statistics(FakeServer().context, 100, 1.5), StatisticsOfAll(others)
    others.will_report(**{"2": msgspec.json.encode(own)})
    of_all.refresh()
    others.answer = UNAVAILABLE
    of_all.refresh()
    whole = of_all.of_all(own)
    assert isinstance(whole, WholeStatistics)
    assert [(each.name, each.is_running) for each in whole.processes] == [("1", True), ("2", False), ("hub", False)]
    assert whole.memory_bytes == 100
    received: list[Any] = []
    gather(others, b"x", received.append)
    others.answer = failed = Future()
    gather(others, b"x", received.append)
    failed.settle(UNAVAILABLE)
    assert received == [{}, {}]


def test_statistics_of_servers_have_their_hosts_while_they_are_looked_at(others: Others) -> None:
    others.is_one_server, others.host, others.names = False, "tokyo", ("1", "2")
    of_all = StatisticsOfAll(others)
    own = of_all.with_process(read_statistics(FakeServer().context, 100, 1.5))
    assert own.host == "tokyo" and of_all.of_all(own) is own, "the others have not answered yet"

    def processes() -> list[tuple[str, bool, object]]:
        of_all.refresh()
        whole = of_all.of_all(own)
        assert isinstance(whole, WholeStatistics) and b"host" not in msgspec.json.encode(whole).split(b"processes")[0]
        return [(each.name, each.is_running, each.host) for each in whole.processes]

    assert processes() == [("1", True, "tokyo"), ("2", False, "")]
    others.will_report(**{"2": msgspec.json.encode(replace(own, host="lima", connections=7))})
    assert processes() == [("1", True, "tokyo"), ("2", True, "lima")]
    assert of_all.connections_elsewhere == 0, "each server has its own limit"
    others.will_report(**{"2": b"of another version"})
    assert processes() == [("1", True, "tokyo"), ("2", False, "lima")]
    of_all.forget()
    assert of_all.of_all(own) is own


def test_names_those_whose_reports_are_missing_or_cannot_be_read(others: Others) -> None:
    reports = {b"2": b"[1]", b"hub": b""}
    assert read_reports(others, reports, msgspec.json.decode) == ([[1]], [])
    assert read_reports(others, {b"2": b"["}, msgspec.json.decode) == ([], ["2", "hub"])
    assert read_reports(None, {}, msgspec.json.decode) == ([], [])


def metrics(connections: int, is_up: int, version: str) -> list[Metric]:
    requests = CounterMetricFamily("sockbridge_http_requests", "Requests.", labels=["method"])
    requests.add_metric(["GET"], connections)
    return [
        InfoMetricFamily("sockbridge", "Versions.", value={"version": version}),
        GaugeMetricFamily("sockbridge_connections", "Connections.", value=connections),
        GaugeMetricFamily("sockbridge_channels", "Channels.", value=connections),
        GaugeMetricFamily("sockbridge_backplane_up", "Up.", value=is_up),
        GaugeMetricFamily("process_open_fds", "Files.", value=connections),
        requests,
    ]


def test_metrics_of_all_processes_are_combined() -> None:
    reports = {b"2": encode_metrics(metrics(4, 0, "1.0")), b"3": b""}
    combined = MetricsOfAll("1", metrics(3, 1, "1.0"), reports).collect()
    values = {
        (sample.name, tuple(sample.labels.items())): sample.value for metric in combined for sample in metric.samples
    }
    assert values == {
        ("sockbridge_info", (("version", "1.0"),)): 1,
        ("sockbridge_connections", ()): 7,
        ("sockbridge_channels", ()): 4,
        ("sockbridge_backplane_up", ()): 0,
        ("process_open_fds", (("process", "1"),)): 3,
        ("process_open_fds", (("process", "2"),)): 4,
        ("sockbridge_http_requests_total", (("method", "GET"),)): 7,
    }
    assert METRICS == b"metrics" and [metric.type for metric in combined[:2]] == ["info", "gauge"]
