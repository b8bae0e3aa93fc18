"""The HTTP API with real clients: events of all protocols, tokens, lost responses, and administrators."""

import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests.documents import CHECKOUT
from tests.end_to_end.conftest import guarded_server, receive_all

pytestmark = pytest.mark.end_to_end

EXAMPLES = CHECKOUT / "examples"
REPORTERS = {"shell": ["sh", str(EXAMPLES / "report.sh")], "python": [sys.executable, str(EXAMPLES / "report.py")]}


@pytest.fixture
def curl():
    """Run curl: ``curl(url, *options)`` returns its output."""

    def asking(url, *options):
        command = ["curl", "--silent", "--show-error", "--max-time", "20", *options, url]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    return asking


def status(printed):
    """The status in the output of ``curl --include``, and the code of an error."""
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    return int(head.split()[1]), json.loads(body).get("code") if body else None


def test_events_reach_clients_of_all_protocols(server, line_client, web_client, curl, channel):
    line, page = line_client(server.lines[0]), web_client(server.page)
    line.request(f"SUB {channel}")
    page.request(type="subscribe", id=1, channel=channel)
    events = f"{server.page}channels/{channel}/events"
    texts = ["hello", 'a "quoted" é \\ tab\t', "two\nlines", "{not json", ""]
    for number, text in enumerate(texts, 1):
        placed = curl(events, "--header", "Content-Type: text/plain", "--data-raw", text)
        assert placed.endswith("}\n") and json.loads(placed)["offset"] == number
        payload = line.receive().split(" ", 4)[4]
        assert payload == text or json.loads(payload) == text
        assert page.receive()["data"] == text
    curl(f"{events}?name=weather&nick=bob", "--data", '{"celsius":  21.50}')
    assert line.receive() == f'EVENT {channel} 6 bob weather {{"celsius":  21.50}}'
    assert '"data":{"celsius":  21.50}' in page.receive_text()
    line.send(f"PUB {channel} from a line", f'PUB {channel} {{"a": 1}}')
    page.send(type="publish", channel=channel, data="from\na page")
    page.receive(), page.receive(), page.receive()
    told = json.loads(curl(events))
    assert [event["data"] for event in told["events"]][6:] == ["from a line", {"a": 1}, "from\na page"]
    assert [event["data"] for event in told["events"]][:5] == texts
    assert told["events"] == page.request(type="history", id=2, channel=channel)["events"]


def test_slow_client_receives_a_complete_long_history(server, curl, channel, bystander, tmp_path):
    events = f"{server.page}channels/{channel}/events"
    (tmp_path / "body").write_text(json.dumps({"events": [{"channel": channel, "data": "x" * 900}] * 1000}))
    for _ in range(2):
        told = json.loads(curl(f"{server.page}events", "--data", f"@{tmp_path}/body"))
        assert [result["channel"] for result in told["results"]] == [channel] * 1000
    with bystander(server):
        told = json.loads(curl(events, "--limit-rate", "1M"))
    assert [event["offset"] for event in told["events"]] == list(range(1, 2001))


@pytest.fixture
def lossy(server):
    """The address of the server behind a proxy that drops the first response, but not its request."""
    address = urlsplit(server.page)
    lost = []

    class Relay(socketserver.StreamRequestHandler):
        timeout = 20

        def handle(self):
            with socket.create_connection((address.hostname, address.port), 20) as inner:
                length = 0
                while (header := self.rfile.readline()) not in (b"\r\n", b""):
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                    if header.lower().startswith(b"host:"):
                        header = b"Host: %s\r\nConnection: close\r\n" % address.netloc.encode()
                    elif header.lower().startswith(b"connection:"):
                        continue
                    inner.sendall(header)
                inner.sendall(b"\r\n" + self.rfile.read(length))
                answer = receive_all(inner)
            if lost:
                self.wfile.write(answer)
            else:
                lost.append(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as web_server:
        web_server.daemon_threads = True
        threading.Thread(target=web_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web_server.server_address[1]}"
        web_server.shutdown()
    assert lost and b" 201 Created\r\n" in lost[0]


@pytest.mark.parametrize("kind", REPORTERS)
def test_retry_after_a_lost_response_does_not_publish_twice(server, curl, lossy, channel, kind):
    ran = subprocess.run([*REPORTERS[kind], channel, lossy], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    [event] = json.loads(curl(f"{server.page}channels/{channel}/events"))["events"]
    assert event["name"] == "report" and 0 <= event["data"]["full"] <= 100
    assert '"offset":1' in ran.stdout or "at offset 1\n" in ran.stdout


def test_both_report_examples_publish_the_same(server, curl, channel, eventually):

    def agree():
        for command in REPORTERS.values():
            subprocess.run([*command, channel, server.page.rstrip("/")], capture_output=True, check=True, timeout=60)
        events = json.loads(curl(f"{server.page}channels/{channel}/events?last=2"))["events"]
        return events[0]["data"] == events[1]["data"]

    eventually(agree, "the same report twice, unless the disk changes just then")


@pytest.mark.parametrize("kind", REPORTERS)
def test_report_example_retries_until_the_server_is_available(start, curl, kind):
    server = start()
    server.stop()
    page = server.page.rstrip("/")
    with subprocess.Popen([*REPORTERS[kind], "disks", page], stdout=subprocess.PIPE, text=True) as reporter:
        time.sleep(1)
        assert reporter.poll() is None
        start.again(server)
        output, _ = reporter.communicate(timeout=60)
    assert reporter.returncode == 0, output
    assert len(json.loads(curl(f"{page}/channels/disks/events"))["events"]) == 1


@pytest.mark.parametrize("kind", REPORTERS)
def test_report_example_does_not_retry_permanent_errors(server, kind):
    ran = subprocess.run(
        [*REPORTERS[kind], "no*good", server.page.rstrip("/")], capture_output=True, text=True, timeout=90
    )
    assert ran.returncode != 0 and "bad-channel" in ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A server with an access policy."""
    policy = issuer.access('anonymous = { "lobby" = "rw" }', 'cookie = "session"')
    with guarded_server(tmp_path_factory.mktemp("guarded"), issuer, policy) as server:
        yield server


@pytest.mark.parametrize("way", ["header", "query", "cookie"])
def test_accepts_a_token_in_header_query_or_cookie(guarded, issuer, curl, way):
    token = issuer.token(sub=way, channels={"kitchen": "rw", "news": "r"})
    options = {"header": ["--header", f"Authorization: Bearer {token}"], "cookie": ["--cookie", f"session={token}"]}
    query = f"?token={token}" if way == "query" else ""

    def asks(path, *more):
        return curl(f"{guarded.page}{path}{query}", "--include", *more, *options.get(way, ()))

    assert status(asks("channels/kitchen/events", "--data", "x")) == (201, None)
    assert status(asks("channels/news/events", "--data", "x")) == (403, "forbidden")
    assert status(asks("channels/other/events")) == (403, "forbidden")
    assert status(asks("peers")) == (403, "forbidden")
    assert f'"from":"{way}"' in asks("channels/kitchen/events")
    assert '"channel":"kitchen"' in asks("channels") and '"channel":"lobby"' not in asks("channels")


def test_requires_a_valid_token(guarded, issuer, curl):
    url = f"{guarded.page}channels/kitchen/events"
    assert status(curl(url, "--include", "--data", "x")) == (401, "unauthorized")
    expired = issuer.token(seconds=-100)
    assert status(curl(url, "--include", "--header", f"Authorization: Bearer {expired}")) == (401, "unauthorized")
    assert status(curl(f"{guarded.page}peers", "--include")) == (401, "unauthorized")
    assert status(curl(f"{guarded.page}channels/lobby/events?nick=bob", "--include", "--data", "x")) == (201, None)
    assert '"from":"~bob"' in curl(f"{guarded.page}channels/lobby/events")


def test_administrator_disconnects_a_client(guarded, issuer, line_client, web_client, curl):
    header = ("--header", f"Authorization: Bearer {issuer.token(sub='root', admin=True)}")
    line, page = line_client(guarded.lines[0]), web_client(guarded.page)
    id = json.loads(page.welcome)["id"]
    peers = json.loads(curl(f"{guarded.page}peers", *header))["peers"]
    assert {line.id, id} <= {peer["id"] for peer in peers}
    assert json.loads(curl(f"{guarded.page}peers/{line.id}", *header))["dialect"] == "line"
    for peer in (line.id, id):
        told = curl(f"{guarded.page}peers/{peer}?reason=too%20loud", "--request", "DELETE", "--include", *header)
        assert status(told) == (204, None)
    assert line.receive_rest() == ["NOTICE disconnected by an administrator: too loud", "BYE"]
    messages, code = page.receive_rest()
    told = {"type": "notice", "text": "disconnected by an administrator: too loud", "code": "disconnected"}
    assert (messages, code) == ([told], 1008)
