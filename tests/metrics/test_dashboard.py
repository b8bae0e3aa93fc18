"""The documentation of metrics and the Grafana dashboard agree with the metrics of the server."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser

from twistedsock.backplanes.sqlite import StateStatistics
from twistedsock.metrics.prometheus import Metrics
from twistedsock.stats import Histogram
from twistedsock.testing import FakeServer
from twistedsock.webhooks.delivery import DeliveryStatistics

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/reference/metrics.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((CHECKOUT / "examples/grafana/sockbridge.json").read_text(encoding="utf-8"))
ROWS = [
    *("Clients", "Events", "Slow subscribers", "Errors", "Reactor turns", "Memory and CPU"),
    *("Backplane and webhooks", "Directory of --state"),
]
PROMETHEUS_METRICS = {"up"}
"""Metrics that Prometheus adds for each target."""
LABELS = {"job", "instance", "le", "dialect", "code", "method", "status", "version", "python", "twisted", "webhook"}
LABELS |= {"implementation"}
FUNCTIONS = {"sum", "max", "min", "by", "rate", "increase", "time", "histogram_quantile", "or"}


@pytest.fixture(scope="module")
def families() -> dict[str, Any]:
    state = StateStatistics(True, Histogram(), 0, 0, 0, 0, 0.0)
    metrics = Metrics(FakeServer().context, lambda: {"example.org": DeliveryStatistics()}, lambda: state)
    _, body = metrics.render("")
    found = parser.text_string_to_metric_families(body.decode())
    return {family.name + "_total" * (family.type == "counter"): family for family in found}


@pytest.fixture(scope="module")
def samples(families: dict[str, Any]) -> set[str]:
    return {sample.name for family in families.values() for sample in family.samples}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


QUERIES = [target["expr"] for panel in panels() for target in panel["targets"]]
ALERTS = re.findall(r"^ +expr: (.*)$", PAGE, re.MULTILINE)


def test_documentation_lists_exactly_the_metrics_of_the_server(families: dict[str, Any]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?)\| (.+?) \|$", PAGE, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels, _ in rows}
    reported = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in families.items()
    }
    assert documented == reported
    assert len(rows) == len(documented)


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_queries_are_balanced_and_name_existing_metrics(query: str, samples: set[str]) -> None:
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", query)
    assert '"' not in bare
    open_ones = []
    for sign in bare:
        if sign in "([{":
            open_ones.append(sign)
        elif sign in ")]}":
            assert open_ones and open_ones.pop() + sign in ("()", "[]", "{}"), query
    assert not open_ones, query
    words = set(re.findall(r"[a-z_]\w*", re.sub(r"\[[^\]]*\]", "", bare)))
    assert words <= samples | PROMETHEUS_METRICS | LABELS | FUNCTIONS, query
    assert words & (samples | PROMETHEUS_METRICS) or query.startswith("time()"), query
    counters = re.findall(r"(\w+(?:_total|_bucket|_sum|_count))\{?", bare)
    for counter in counters:  # the value of a counter alone depends on the start of the process
        assert re.search(rf"(?:rate|increase)\({counter}\b", bare), query


def test_dashboard_is_for_grafana_10_and_has_a_variable_data_source() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    sources = [
        *(variable["datasource"] for variable in variables.values() if variable["type"] == "query"),
        *(panel["datasource"] for panel in panels()),
        *(target["datasource"] for panel in panels() for target in panel["targets"]),
    ]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    assert "id" not in DASHBOARD, "assigned by the Grafana that imports it"


def test_dashboard_has_all_rows_and_a_description_for_each_panel() -> None:
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == ROWS
    for panel in panels():
        assert panel["description"] and panel["targets"], panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {"heatmap", "stat", "timeseries"} <= {panel["type"] for panel in panels()}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_dashboard_shows_nearly_all_metrics_of_the_server(samples: set[str]) -> None:
    shown = set(re.findall(r"sockbridge_\w+", " ".join(QUERIES)))
    ours = {name for name in samples if name.startswith("sockbridge_") and not name.endswith(("_sum", "_count"))}
    assert ours - shown == {
        "sockbridge_max_channels",
        "sockbridge_max_subscriptions",
        "sockbridge_webhook_events_delivered_total",
        "sockbridge_webhook_queued_bytes",
    }


def test_documentation_has_five_alerts() -> None:
    assert len(ALERTS) == 5
