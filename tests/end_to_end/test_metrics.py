"""The metrics of a real server, requested as Prometheus does."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.conftest import TCP, TIMEOUT_SECONDS

pytestmark = pytest.mark.end_to_end

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "metrics.md"
GRAFANA = Path(__file__).parent.parent.parent / "examples" / "grafana"
AS_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
}
"""The header Accept of Prometheus 2.53."""


TOOL = [sys.executable, "-c", "import sys; from twistedsock.cli.main import main; sys.exit(main())"]


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


def test_metrics_require_an_administrator_with_a_policy(start, tmp_path):
    file = tmp_path / "bridge.toml"
    file.write_text('[access]\nanonymous = { ">" = "rw" }\n')
    key = subprocess.run([*TOOL, "keygen"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    file.write_text(file.read_text() + key)
    server = start("--config", str(file))

    def token(*options):
        command = [*TOOL, "token", "--config", str(file), "--sub", "prometheus", *options]
        made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return {"Authorization": f"Bearer {made}"}

    for headers, status in [({}, 401), (token("--allow", ">=rw"), 403), ({"Authorization": "Bearer x"}, 401)]:
        with pytest.raises(HTTPError) as caught:
            scrape(server, **headers)
        assert caught.value.code == status
        assert json.loads(caught.value.read())["status"] == status
    assert b"\nsockbridge_channels 0.0\n" in scrape(server, **token("--admin")).read()


def test_documented_commands_show_metrics(start, environment, tmp_path):
    commands = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    # The user of the documentation does not exist here.
    commands = [command.replace("chown prometheus:", f"chown {os.getuid()}:{os.getgid()}") for command in commands]
    look, look_with_token = (command.replace("/etc/prometheus", str(tmp_path)) for command in commands)
    program = f"#!{sys.executable}\nimport sys\nfrom twistedsock.cli.main import main\nsys.exit(main())\n"
    (tmp_path / "sockbridge").write_text(program)
    (tmp_path / "sockbridge").chmod(0o755)
    path = f"{tmp_path}:{environment['PATH']}"

    def shown(command, server):
        command = command.replace("127.0.0.1:8082", server.page.partition("://")[2].rstrip("/"))
        run = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, env=environment | {"PATH": path}, check=True, capture_output=True
        )
        return run.stdout

    assert b"\nsockbridge_channels 0.0\n" in shown(look, start())
    key = subprocess.run([*TOOL, "keygen"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    (tmp_path / "sockbridge.toml").write_text("[access]\n" + key)
    guarded = start("--config", str(tmp_path / "sockbridge.toml"))
    assert b"sockbridge_" not in shown(look, guarded)
    assert b"\nsockbridge_channels 0.0\n" in shown(look_with_token, guarded)


def test_grafana_dashboard_queries_existing_metrics(start, tmp_path):
    file = tmp_path / "bridge.toml"
    secret = "of sixteen bytes and more"
    file.write_text(
        f'[[webhook]]\nname = "till"\nurl = "http://127.0.0.1:9/"\nsecret = "{secret}"\nevents = ["member-joined"]\n'
    )
    server = start("--config", str(file), tcp=(TCP,))
    names = {name for name, *_ in samples(server)}
    asked = set(re.findall(r"(?:sockbridge|process)_\w+", (GRAFANA / "sockbridge.json").read_text()))
    assert len(asked) > 25
    assert asked <= names
