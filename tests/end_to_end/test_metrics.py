"""The metrics of a real server, requested as Prometheus does."""

import gzip
import json
import os
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.documents import CHECKOUT, DOCS, fenced
from tests.end_to_end.conftest import TCP, TIMEOUT_SECONDS

pytestmark = pytest.mark.end_to_end

AS_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
}
"""The header Accept of Prometheus 2.53."""


def scrape(server, **headers):
    return urlopen(Request(f"{server.page}metrics", headers=headers), timeout=TIMEOUT_SECONDS)


def samples(server):
    """The samples by name and labels."""
    families = text_string_to_metric_families(scrape(server).read().decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_counts_clients_and_events(start, line_client, web_client):
    server = start()
    before = samples(server)
    reader, page = line_client(server.lines[0]), web_client(server.page)
    reader.request("SUB kitchen")
    for _ in range(3):
        page.request(type="publish", id=1, channel="kitchen", data="x")
        reader.receive()
    reader.request("FLY")
    after = samples(server)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["sockbridge_events_published_total",] == grown["sockbridge_events_delivered_total",] == 3
    assert grown["sockbridge_refusals_total", "unknown-command"] == 1
    assert after["sockbridge_peers", "line"] == after["sockbridge_peers", "json"] == 1
    assert grown["sockbridge_received_bytes_total",] > 150
    assert grown["sockbridge_sent_bytes_total",] > 300
    assert grown["sockbridge_flush_seconds_count",] >= 3
    assert after["sockbridge_connections",] == 3
    assert after["sockbridge_http_requests_total", "GET", "200"] == 1
    assert after["sockbridge_backplane_up",] == 1


def test_renders_openmetrics_for_prometheus(server):
    with scrape(server, **AS_PROMETHEUS) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
        text = gzip.decompress(answer.read()).decode()
    assert len(list(openmetrics.text_string_to_metric_families(text))) > 30


def test_metrics_show_the_directory_of_state(start, line_client):
    server = start("--state", "state")
    line_client(server.lines[0]).request("PUB kitchen x")
    after = samples(server)
    assert after["sockbridge_state_up",] == after["sockbridge_state_commit_seconds_count",] == 1
    assert after["sockbridge_state_file_bytes",] > 0


def test_metrics_require_an_administrator_with_a_policy(start, shell):
    shell("""(echo '[access]'; echo 'anonymous = { ">" = "rw" }'; sockbridge keygen) > bridge.toml""", check=True)
    server = start("--config", "bridge.toml")

    def token(options):
        made = shell(f"sockbridge token --config bridge.toml --sub prometheus {options}", check=True).stdout.strip()
        return {"Authorization": f"Bearer {made}"}

    for headers, status in [({}, 401), (token("--allow '>=rw'"), 403), ({"Authorization": "Bearer x"}, 401)]:
        with pytest.raises(HTTPError) as caught:
            scrape(server, **headers)
        assert caught.value.code == status
        assert json.loads(caught.value.read())["status"] == status
    assert b"\nsockbridge_channels 0.0\n" in scrape(server, **token("--admin")).read()


def test_documented_commands_show_metrics(start, shell, tmp_path):
    # The user and the folder of the documentation do not exist here.
    look, look_with_token = (
        command.replace("chown prometheus:", f"chown {os.getuid()}:{os.getgid()}")
        .replace("/etc/prometheus", str(tmp_path))
        .replace("127.0.0.1:8082", "{}")
        for command in fenced(DOCS / "reference" / "metrics.md", "sh")
    )

    def shown(command, server):
        return shell(command.format(server.authority), check=True).stdout

    assert "\nsockbridge_channels 0.0\n" in shown(look, start())
    shell("(echo '[access]'; sockbridge keygen) > sockbridge.toml", check=True)
    guarded = start("--config", "sockbridge.toml")
    assert "sockbridge_" not in shown(look, guarded)
    assert "\nsockbridge_channels 0.0\n" in shown(look_with_token, guarded)


def test_grafana_dashboard_queries_existing_metrics(start, tmp_path):
    webhook = 'name = "till"\nurl = "http://127.0.0.1:9/"\nsecret = "of sixteen bytes and more"\n'
    (tmp_path / "bridge.toml").write_text(f'state = "state"\n[[webhook]]\n{webhook}events = ["member-joined"]\n')
    server = start("--config", "bridge.toml", tcp=(TCP,))
    names = {name for name, *_ in samples(server)}
    dashboard = CHECKOUT / "examples" / "grafana" / "sockbridge.json"
    asked = set(re.findall(r"(?:sockbridge|process)_\w+", dashboard.read_text()))
    assert len(asked) > 25
    assert asked <= names
