"""The figures for Prometheus: named as its users expect, true, and the same in both formats."""

import os
import re
import resource
import subprocess
import sys
import time

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from twistedsock.metrics.prometheus import Metrics, ProcessCollector
from twistedsock.testing import FakeServer
from twistedsock.webhooks.collector import Figures

UNITS = ("_seconds", "_bytes")
COUNTED = ("_peers", "_connections", "_channels", "_subscriptions", "_behind", "_up", "_fds", "_info")
LABELS = {"dialect", "code", "method", "status", "version", "python", "twisted", "generation", "le"}
"""None of them has values that peers choose, or as many as there are peers or channels."""


def read(metrics):
    """All families by name, and the text."""
    kind, body = metrics.render("")
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in parser.text_string_to_metric_families(body.decode())}


def values(metrics):
    """Each sample: its value by name, with its labels in the order of their names."""
    samples = [sample for family in read(metrics).values() for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


@pytest.fixture
def metrics(server):
    return Metrics(server.context)


def test_each_family_says_what_it_is(metrics):
    families = read(metrics)
    assert len(families) > 30
    for family in families.values():
        assert family.documentation, family.name
        assert family.type in ("gauge", "counter", "histogram"), family.name
        assert family.samples, family.name


def test_names_are_those_that_promtool_expects(metrics):
    """`promtool check metrics`: units are base units and stand at the end, totals end so, and nothing else does."""
    for name, family in read(metrics).items():
        assert re.fullmatch(r"(sockbridge|process|python_gc)_[a-z_]+", name)
        assert not re.search(r"_(count|sum|bucket|total)$", name)  # the parser has taken it from a counter's
        assert not re.search(r"milli|micro|nano|kilo|mega|minutes|hours|gauge|counter|histogram", name)
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{name}_total"}
        elif family.type == "histogram":
            assert name.endswith(UNITS)
        else:
            assert name.endswith((*UNITS, *COUNTED)), name


def test_no_label_has_values_that_peers_choose(metrics, server):
    peer = server.line_client()
    peer.send("NICK a-nick-of-mine", "SUB secret-channel", "PUB secret-channel payload", "SECRET x")
    server.context.stats.count_response(b"BREW", 405)
    _, body = metrics.render("")
    assert not re.search(rb"of-mine|secret|payload|BREW|SECRET", body)
    for family in read(metrics).values():
        for sample in family.samples:
            assert set(sample.labels) <= LABELS
    assert len([sample for family in read(metrics).values() for sample in family.samples]) < 120


def test_what_happens_is_told(server, metrics):
    line, page = server.line_client(), server.json_client()
    server.context.connection_limiter.enter("")
    line.send("SUB kitchen", "FLY")
    page.send(
        {"type": "publish", "channel": "kitchen", "data": "x"}, {"type": "publish", "channel": "cellar", "data": 1}
    )
    server.turn()
    told = values(metrics)
    assert told[("sockbridge_peers", "line")] == told[("sockbridge_peers", "json")] == 1
    assert told[("sockbridge_peers", "events")] == 0
    assert told[("sockbridge_connections",)] == 1
    assert told[("sockbridge_channels",)] == 2
    assert told[("sockbridge_subscriptions",)] == 1
    assert told[("sockbridge_readers_behind",)] == 0
    assert told[("sockbridge_events_published_total",)] == 2
    assert told[("sockbridge_events_delivered_total",)] == 1
    assert told[("sockbridge_events_lost_total",)] == 0
    assert told[("sockbridge_sent_bytes_total",)] == len(line.outlet.sent) + len(page.outlet.sent)
    assert told[("sockbridge_refusals_total", "unknown-command")] == 1
    assert told[("sockbridge_refusals_total", "rate")] == 0
    assert told[("sockbridge_connections_opened_total", "line")] == 1
    assert told[("sockbridge_log_bytes",)] == server.broker.history_bytes > 0
    assert told[("sockbridge_max_connections",)] == server.context.limits.max_connections
    line.session.connection_lost()
    told = values(metrics)
    assert told[("sockbridge_peers", "line")] == 0
    assert told[("sockbridge_connections_closed_total", "line")] == 1


def test_the_bridge_s_own_channels_are_not_counted(server, metrics):
    server.line_client().send("SUB $sys/figures", "SUB kitchen")
    assert values(metrics)[("sockbridge_channels",)] == 1


def test_who_is_behind_and_what_it_lost(metrics, server):
    slow, publisher = server.line_client(), server.line_client()
    slow.send("SUB kitchen")
    server.turn()
    slow.outlet.room = 0
    for _ in range(3):
        publisher.send("PUB kitchen x")
        server.turn()
    assert values(metrics)[("sockbridge_readers_behind",)] == 1


def test_a_histogram_counts_what_is_below_each_bound(server, metrics):
    stats = server.context.stats
    for seconds in (0.00005, 0.0001, 0.004, 7.0):
        stats.count_turn(seconds)
    told = values(metrics)
    assert told["sockbridge_turn_seconds_bucket", "0.0001"] == 2
    assert told["sockbridge_turn_seconds_bucket", "0.0025"] == 2
    assert told["sockbridge_turn_seconds_bucket", "0.005"] == 3
    assert told["sockbridge_turn_seconds_bucket", "1.0"] == 3
    assert told["sockbridge_turn_seconds_bucket", "+Inf"] == told[("sockbridge_turn_seconds_count",)] == 4
    assert told[("sockbridge_turn_seconds_sum",)] == pytest.approx(7.00415)


def test_requests_of_http_are_told_by_method_and_status(server, metrics):
    for method, status in ((b"GET", 200), (b"GET", 200), (b"BREW", 405), (b"MELT", 405)):
        server.context.stats.count_response(method, status)
    told = values(metrics)
    assert told["sockbridge_http_requests_total", "200", "GET"] == 2
    assert told["sockbridge_http_requests_total", "405", "other"] == 2


def test_a_backplane_that_is_away_is_told(server, metrics):
    assert values(metrics)[("sockbridge_backplane_up",)] == 1
    server.backplane.is_ready = False
    assert values(metrics)[("sockbridge_backplane_up",)] == 0


def test_both_formats_tell_the_same(metrics):
    kind, body = metrics.render("application/openmetrics-text; version=1.0.0; charset=utf-8,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in openmetrics_parser.text_string_to_metric_families(body.decode())}
    told = {name.removesuffix("_info") for name in read(metrics)}
    assert {family.removesuffix("_info") for family in families} == told


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
def test_whatever_is_asked_for_there_is_an_answer(metrics, accept):
    kind, body = metrics.render(accept)
    assert kind.startswith(("text/plain", "application/openmetrics-text"))
    assert b"sockbridge_channels 0.0\n" in body


def test_webhooks_are_told_by_their_names_while_there_are_any(server):
    figures = {}
    metrics = Metrics(server.context, lambda: figures)
    assert not any("webhook" in name for name in read(metrics))
    figures["example.org"] = Figures(queued=3, queued_bytes=700, delivered=20, dropped=2, failed=5)
    told = values(metrics)
    assert told["sockbridge_webhook_queued_events", "example.org"] == 3
    assert told["sockbridge_webhook_queued_bytes", "example.org"] == 700
    assert told["sockbridge_webhook_events_delivered_total", "example.org"] == 20
    assert told["sockbridge_webhook_events_dropped_total", "example.org"] == 2
    assert told["sockbridge_webhook_attempts_failed_total", "example.org"] == 5


def test_the_process_tells_of_itself(metrics):
    told = values(metrics)
    assert told[("process_open_fds",)] == pytest.approx(len(os.listdir("/proc/self/fd")), abs=2)
    assert told[("process_max_fds",)] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert told[("process_cpu_seconds_total",)] == pytest.approx(time.process_time(), abs=1)
    assert told[("process_resident_memory_bytes",)] > 10_000_000
    assert told[("process_virtual_memory_bytes",)] > told[("process_resident_memory_bytes",)]


def test_a_process_has_begun_when_it_began(metrics):
    show = "import os; print(os.sysconf('SC_CLK_TCK'))"
    assert subprocess.run([sys.executable, "-c", show], check=True, capture_output=True).stdout
    age = float(subprocess.run(["ps", "-o", "etimes=", str(os.getpid())], check=True, capture_output=True).stdout)
    assert time.time() - values(metrics)[("process_start_time_seconds",)] == pytest.approx(age, abs=2)


def test_without_the_size_of_the_folder_its_entries_are_counted(tmp_path, monkeypatch):
    """As before Linux 6.2. And a name is what a process likes."""
    (tmp_path / "fd").mkdir()
    for number in range(3):
        (tmp_path / "fd" / str(number)).touch()
    fields = " ".join(str(number) for number in range(4, 30))
    (tmp_path / "stat").write_text(f"1 (a ) b) S {fields}")
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path: stat("/proc/self/stat") if str(path).endswith("/fd") else stat(path))
    told = {family.name: family.samples[0].value for family in ProcessCollector(str(tmp_path)).collect()}
    assert told["process_open_fds"] == 3
    assert told["process_virtual_memory_bytes"] == 23


def test_a_scrape_with_many_peers_and_channels_looks_at_none_of_them():
    """10,000 of each were measured: 2 ms. Here nothing but the tables' sizes is asked for."""
    server = FakeServer()
    peers = [server.line_client() for _ in range(50)]
    for number, peer in enumerate(peers):
        peer.send(f"SUB channel-{number}")
    server.turn()

    class Untouchable(dict):
        def __iter__(self):
            raise AssertionError("looked at one by one")

        values = items = keys = __iter__

    metrics = Metrics(server.context)
    server.broker.channels = Untouchable(server.broker.channels)
    server.context.sessions._guests = Untouchable(server.context.sessions._guests)
    told = values(metrics)
    assert told[("sockbridge_channels",)] == told[("sockbridge_peers", "line")] == 50
