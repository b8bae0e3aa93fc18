"""Metrics for Prometheus: their names, their values, and both formats."""

import os
import re
import resource
import subprocess
import time
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from twistedsock.backplanes.sqlite import StateStatistics
from twistedsock.metrics.prometheus import Metrics
from twistedsock.pubsub.channels import Channels
from twistedsock.stats import Histogram
from twistedsock.testing import FakeServer
from twistedsock.webhooks.delivery import DeliveryStatistics

UNITS = ("_seconds", "_bytes")
COUNTED = ("_peers", "_connections", "_channels", "_subscriptions", "_behind", "_up", "_fds", "_info")
LABELS = {"dialect", "code", "method", "status", "version", "python", "twisted", "implementation", "generation", "le"}
"""Their values are not chosen by clients, and their number does not grow with clients or channels."""


def read(metrics: Metrics) -> dict[str, Any]:
    """All families by name."""
    kind, body = metrics.render("")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in parser.text_string_to_metric_families(body.decode())}


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """The values of all samples, by name and sorted labels."""
    samples = [sample for family in read(metrics).values() for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def metrics(server: FakeServer) -> Metrics:
    return Metrics(server.context)


def test_every_family_has_documentation_a_type_and_samples(metrics: Metrics):
    families = read(metrics)
    assert len(families) > 30
    for family in families.values():
        assert family.documentation, family.name
        assert family.type in ("gauge", "counter", "histogram"), family.name
        assert family.samples, family.name


def test_names_follow_the_rules_of_promtool(metrics: Metrics) -> None:
    """`promtool check metrics`: names end with base units, and only counters with `_total`."""
    for name, family in read(metrics).items():
        assert re.fullmatch(r"(sockbridge|process|python_gc)_[a-z_]+", name)
        assert not re.search(r"_(count|sum|bucket|total)$", name)  # the parser removes it from counters
        assert not re.search(r"milli|micro|nano|kilo|mega|minutes|hours|gauge|counter|histogram", name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{name}_total"}
        elif family.type == "histogram":
            assert name.endswith(UNITS)
        else:
            assert name.endswith((*UNITS, *COUNTED)), name


def test_labels_contain_no_values_that_clients_choose(server: FakeServer, metrics: Metrics) -> None:
    client = server.line_client()
    client.send("NICK a-nick-of-mine", "SUB secret-channel", "PUB secret-channel payload", "SECRET x")
    server.context.stats.count_response(b"BREW", 405)
    _, body = metrics.render("")
    assert not re.search(rb"of-mine|secret|payload|BREW|SECRET", body)
    for family in read(metrics).values():
        for sample in family.samples:
            assert set(sample.labels) <= LABELS
    assert len([sample for family in read(metrics).values() for sample in family.samples]) < 120


def test_reports_sessions_events_and_errors(server: FakeServer, metrics: Metrics) -> None:
    line, page = server.line_client(), server.json_client()
    server.context.connection_limiter.acquire("")
    line.send("SUB kitchen", "FLY")
    page.send(
        {"type": "publish", "channel": "kitchen", "data": "x"}, {"type": "publish", "channel": "cellar", "data": 1}
    )
    server.turn()
    samples = values(metrics)
    assert samples[("sockbridge_peers", "line")] == samples[("sockbridge_peers", "json")] == 1
    assert samples[("sockbridge_peers", "events")] == 0
    assert samples[("sockbridge_connections",)] == 1
    assert samples[("sockbridge_channels",)] == 2
    assert samples[("sockbridge_subscriptions",)] == 1
    assert samples[("sockbridge_readers_behind",)] == 0
    assert samples[("sockbridge_events_published_total",)] == 2
    assert samples[("sockbridge_events_delivered_total",)] == 1
    assert samples[("sockbridge_events_lost_total",)] == 0
    assert samples[("sockbridge_sent_bytes_total",)] == len(line.outlet.sent) + len(page.outlet.sent)
    assert samples[("sockbridge_refusals_total", "unknown-command")] == 1
    assert samples[("sockbridge_refusals_total", "rate")] == 0
    assert samples[("sockbridge_connections_opened_total", "line")] == 1
    assert samples[("sockbridge_log_bytes",)] == server.broker.histories.size > 0
    assert samples[("sockbridge_max_connections",)] == server.context.limits.max_connections
    line.session.connection_lost()
    samples = values(metrics)
    assert samples[("sockbridge_peers", "line")] == 0
    assert samples[("sockbridge_connections_closed_total", "line")] == 1


def test_does_not_count_sys_channels(server: FakeServer, metrics: Metrics) -> None:
    server.line_client().send("SUB $sys/figures", "SUB kitchen")
    assert values(metrics)[("sockbridge_channels",)] == 1


def test_reports_clients_that_are_behind(server: FakeServer, metrics: Metrics) -> None:
    slow, publisher = server.line_client(), server.line_client()
    slow.send("SUB kitchen")
    server.turn()
    slow.outlet.room = 0
    for _ in range(3):
        publisher.send("PUB kitchen x")
        server.turn()
    assert values(metrics)[("sockbridge_readers_behind",)] == 1


def test_buckets_of_a_histogram_are_cumulative(server: FakeServer, metrics: Metrics) -> None:
    stats = server.context.stats
    for seconds in (0.00005, 0.0001, 0.004, 7.0):
        stats.count_turn(seconds)
    samples = values(metrics)
    assert samples["sockbridge_turn_seconds_bucket", "0.0001"] == 2
    assert samples["sockbridge_turn_seconds_bucket", "0.0025"] == 2
    assert samples["sockbridge_turn_seconds_bucket", "0.005"] == 3
    assert samples["sockbridge_turn_seconds_bucket", "1.0"] == 3
    assert samples["sockbridge_turn_seconds_bucket", "+Inf"] == samples[("sockbridge_turn_seconds_count",)] == 4
    assert samples[("sockbridge_turn_seconds_sum",)] == pytest.approx(7.00415)


def test_counts_http_requests_by_method_and_status(server: FakeServer, metrics: Metrics) -> None:
    for method, status in ((b"GET", 200), (b"GET", 200), (b"BREW", 405), (b"MELT", 405)):
        server.context.stats.count_response(method, status)
    samples = values(metrics)
    assert samples["sockbridge_http_requests_total", "200", "GET"] == 2
    assert samples["sockbridge_http_requests_total", "405", "other"] == 2


def test_reports_an_unavailable_backplane(server: FakeServer, metrics: Metrics) -> None:
    assert values(metrics)[("sockbridge_backplane_up",)] == 1
    server.backplane.is_ready = False
    assert values(metrics)[("sockbridge_backplane_up",)] == 0


def test_both_formats_have_the_same_families(metrics: Metrics) -> None:
    kind, body = metrics.render("application/openmetrics-text; version=1.0.0; charset=utf-8,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in openmetrics_parser.text_string_to_metric_families(body.decode())}
    samples = {name.removesuffix("_info") for name in read(metrics)}
    assert {family.removesuffix("_info") for family in families} == samples


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "nonsense",
        "application/openmetrics-text; version=one",
        "text/plain; version=x; escaping=y",
        "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8",
        "text/plain" + ", text/plain" * 5000,
    ],
)
def test_renders_a_format_for_every_accept_header(metrics: Metrics, accept: str) -> None:
    kind, body = metrics.render(accept)
    assert kind.startswith(("text/plain", "application/openmetrics-text"))
    assert b"sockbridge_channels 0.0\n" in body


def test_reports_webhooks_by_name_if_any_are_configured(server: FakeServer) -> None:
    statistics: dict[str, DeliveryStatistics] = {}
    metrics = Metrics(server.context, lambda: statistics)
    assert not any("webhook" in name for name in read(metrics))
    statistics["example.org"] = DeliveryStatistics(queued=3, queued_bytes=700, delivered=20, dropped=2, failed=5)
    samples = values(metrics)
    assert samples["sockbridge_webhook_queued_events", "example.org"] == 3
    assert samples["sockbridge_webhook_queued_bytes", "example.org"] == 700
    assert samples["sockbridge_webhook_events_delivered_total", "example.org"] == 20
    assert samples["sockbridge_webhook_events_dropped_total", "example.org"] == 2
    assert samples["sockbridge_webhook_attempts_failed_total", "example.org"] == 5


def test_reports_the_directory_of_state_if_there_is_one(server: FakeServer, metrics: Metrics) -> None:
    assert not any("state" in name for name in read(metrics))
    state = StateStatistics(
        is_ready=True,
        commits=Histogram((0.01,)),
        waiting_publications=3,
        waiting_bytes=700,
        file_bytes=9_000,
        used_bytes=8_000,
        oldest_seconds=60.5,
    )
    state.commits.observe(0.5)
    samples = values(Metrics(server.context, state=lambda: state))
    assert {name: value for (name, *_), value in samples.items() if "_state_" in name and "bucket" not in name} == {
        "sockbridge_state_up": 1,
        "sockbridge_state_waiting_publications": 3,
        "sockbridge_state_waiting_bytes": 700,
        "sockbridge_state_file_bytes": 9_000,
        "sockbridge_state_used_bytes": 8_000,
        "sockbridge_state_oldest_event_seconds": 60.5,
        "sockbridge_state_commit_seconds_count": 1,
        "sockbridge_state_commit_seconds_sum": 0.5,
    }
    assert samples["sockbridge_state_commit_seconds_bucket", "0.01"] == 0


def test_reports_the_process(metrics: Metrics) -> None:
    samples = values(metrics)
    assert samples[("process_open_fds",)] == pytest.approx(len(os.listdir("/proc/self/fd")), abs=2)
    assert samples[("process_max_fds",)] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert samples[("process_cpu_seconds_total",)] == pytest.approx(time.process_time(), abs=1)
    assert samples[("process_resident_memory_bytes",)] > 10_000_000
    assert samples[("process_virtual_memory_bytes",)] > samples[("process_resident_memory_bytes",)]


def test_reports_the_start_time_of_the_process(metrics: Metrics) -> None:
    age = float(subprocess.run(["ps", "-o", "etimes=", str(os.getpid())], check=True, capture_output=True).stdout)
    assert time.time() - values(metrics)[("process_start_time_seconds",)] == pytest.approx(age, abs=2)


def test_cost_does_not_depend_on_the_number_of_clients_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 ms were measured with 10,000 of each, because only sizes are read."""
    server = FakeServer()
    clients = [server.line_client() for _ in range(50)]
    for number, client in enumerate(clients):
        client.send(f"SUB channel-{number}")
    server.turn()

    def iterated(channels: object) -> Any:
        raise AssertionError("iterated")

    for method in ("__iter__", "values", "items", "keys"):
        monkeypatch.setattr(Channels, method, iterated)
    samples = values(Metrics(server.context))
    assert samples[("sockbridge_channels",)] == samples[("sockbridge_peers", "line")] == 50
