"""Plain HTTP with real clients: curl, a browser, and raw sockets."""

import gzip
import json
import re
import subprocess
import threading
import time
from datetime import UTC, datetime

import pytest

from tests.end_to_end.conftest import receive_all, wait_until

pytestmark = pytest.mark.end_to_end

PUBLISH = "POST /channels/{channel}/events HTTP/1.1\r\nHost: {host}\r\n"


@pytest.fixture
def curl(server):
    """``curl(path, *options)``: returns its output, errors included."""

    def asking(path, *options, data=None):
        command = ["curl", "--silent", "--show-error", "--max-time", "20", *options, server.page.rstrip("/") + path]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    return asking


def statuses(answers):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def test_curl_publishes(server, curl, line_client, channel):
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    answer = json.loads(curl(f"/channels/{channel}/events", "-d", "hello"))
    assert answer["offset"] == 1
    assert reader.receive().endswith(" hello")


def test_curl_publishes_with_100_continue_and_in_chunks(server, curl, line_client, channel):
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    for number, options in enumerate((("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked"))):
        data = str(number).encode() * 60_000
        told = curl(f"/channels/{channel}/events", "-X", "POST", "--data-binary", "@-", "-v", "-i", *options, data=data)
        assert statuses(told) == [100, 201] if number == 0 else [201]
        assert reader.receive().endswith(" " + data.decode())


def test_curl_and_lines_read_events_by_their_time(server, curl, line_client, channel):
    """The clock is the real one: the middle of three events is found by its time, in the form of each protocol."""
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel} time=on")
    for number in (1, 2, 3):
        curl(f"/channels/{channel}/events", "-d", str(number))
        time.sleep(0.01)
    first, second, third = (reader.receive().split(" ")[3] for _ in range(3))
    assert first < second < third
    line = reader.request(f"HIST {channel} after={first} before={third} time=on")
    assert line.split(" ")[2:4] == ["2", second] and reader.receive() == "OK 1"
    assert reader.request(f"HIST {channel} after=-0s") == "OK 0"
    history = json.loads(curl(f"/channels/{channel}/events?after={first}&before={third}"))
    [event] = history["events"]
    assert (event["data"], history["next"]) == ("2", f"{history['epoch']}:2")
    assert datetime.fromtimestamp(event["time"] / 1000, UTC) == datetime.fromisoformat(second)
    following = json.loads(curl(f"/channels/{channel}/events?wait=1&last-event-id={history['next']}"))
    assert [event["data"] for event in following["events"]] == ["3"]


def test_rejects_a_long_body_before_it_is_sent(curl, channel):
    told = curl(
        f"/channels/{channel}/events", "--data-binary", "@-", "-i", "-H", "Expect: 100-continue", data=b"x" * 10**7
    )
    assert statuses(told) == [413]
    assert json.loads(told.partition(b"\r\n\r\n")[2])["code"] == "too-long"


def test_curl_keeps_its_connection(server):
    write = ["--write-out", "%{num_connects} %{response_code}\n", "-o", "/dev/null"]
    command = ["curl", "--silent", "--show-error", *write, f"{server.page}healthz?token=[1-200]"]
    told = subprocess.run(command, capture_output=True, check=True, text=True)
    assert told.stdout.splitlines() == ["1 200"] + ["0 200"] * 199


def test_serves_head_gzip_and_conditional_requests(curl):
    packed = curl("/page.js", "-i", "-H", "Accept-Encoding: gzip")
    head, _, body = packed.partition(b"\r\n\r\n")
    open_socket = curl("/page.js")
    assert gzip.decompress(body) == open_socket == curl("/page.js", "--compressed")
    told = curl("/page.js", "--head", "-H", "Accept-Encoding: gzip")
    assert b"Content-Length: %d\r\n" % len(body) in told
    tag = re.search(rb"ETag: (\S+)", head)[1].decode()
    assert statuses(curl("/page.js", "-i", "-H", "Accept-Encoding: gzip", "-H", f"If-None-Match: {tag}")) == [304]


def test_answers_pipelined_requests_in_order(server, open_socket, bystander, channel):
    """Nine thousand requests at once on one connection. The bystander is served meanwhile."""
    host, count = server.authority, 9_000
    one = PUBLISH.format(channel=channel, host=host) + "Content-Length: 5\r\n\r\nhello"
    with bystander(server) as other, open_socket(host) as connection:
        sender = threading.Thread(target=connection.sendall, args=(one.encode() * count,))
        sender.start()
        answers = b""
        while answers.count(b'"offset":') < count:
            data = connection.recv(1024 * 1024)
            assert data, answers[-500:]
            answers += data
        sender.join()
        other.wait_for_rounds()
    offsets = [int(offset) for offset in re.findall(rb'"offset":(\d+)', answers)]
    assert offsets == list(range(1, count + 1))


def test_chunks_of_one_byte_do_not_delay_other_clients(server, open_socket, bystander, channel):
    host = server.authority
    head = PUBLISH.format(channel=channel, host=host) + "Transfer-Encoding: chunked\r\n\r\n"
    with bystander(server) as other:
        for _ in range(20):
            with open_socket(host) as connection:
                connection.sendall(head.encode() + b"1\r\na\r\n" * 900)
                connection.sendall(b"1\r\na\r\n" * 50_000)
                assert statuses(connection.recv(65536)) == [400]
        other.wait_for_rounds()


def test_client_that_does_not_read_costs_no_memory(server, open_socket, bystander):
    """Requests for a thousand files of tens of KiB at once."""
    one = f"GET /page.js HTTP/1.1\r\nHost: {server.authority}\r\n\r\n".encode()
    with bystander(server) as other, open_socket(server.authority) as greedy:
        greedy.settimeout(1)
        with pytest.raises(TimeoutError):
            greedy.sendall(one * 200_000)
        other.wait_for_rounds()
        assert other.growth() < 4 * 1024 * 1024
        assert statuses(greedy.recv(65536))[0] == 200


def test_body_is_not_parsed_as_a_request(server, open_socket, bystander, channel):
    host = server.authority
    inner = f"POST /channels/{channel}/events HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nboo"
    with bystander(server), open_socket(host) as connection:
        for path in (f"/channels/{channel}/events", "/nothing"):
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(inner)}\r\n\r\n{inner}".encode()
            )
        connection.sendall(
            f"GET /channels/{channel}/events HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
        answers = receive_all(connection)
    assert statuses(answers) == [201, 404, 200]
    assert [event["data"] for event in json.loads(answers.rpartition(b"\r\n\r\n")[2])["events"]] == [inner]


def test_shutdown_answers_long_polls(start, open_socket):
    """A long poll is answered before its wait is over, and idle connections are closed."""
    server = start("--shutdown-timeout=20")
    host = server.authority
    with open_socket(host) as waiting, open_socket(host) as idle:
        idle.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert statuses(idle.recv(65536)) == [200]
        waiting.sendall(f"GET /channels/kitchen/events?wait=60 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())

        def has_asked():
            idle.sendall(f"GET /channels HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return b"kitchen" in idle.recv(65536)

        wait_until(has_asked, "the channel to be waited on")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 15
        assert idle.recv(65536) == b""
        assert statuses(waiting.recv(65536)) == [200]


# Over TLS.


@pytest.fixture
def secure(start, certificate):
    """A server with TLS."""
    return start(web=(f"ssl:0:interface=127.0.0.1:{certificate}",))


def test_curl_over_tls(secure, channel):
    """curl offers protocols (ALPN) and expects one of them. A response is received even while curl still sends."""
    address = f"{secure.page}channels/{channel}/events"
    command = ["curl", "-sSk", "--max-time", "20", "--write-out", "%{num_connects}"]
    short = [*command, "-d", "hello", address, "-d", "hello", address]
    told = subprocess.run(short, capture_output=True, check=True, text=True).stdout
    assert re.findall(r'"offset":(\d)', told) == ["1", "2"] and told[-1] == "0"
    long = [*command, "--data-binary", "@-", "-H", "Expect:", address]
    told = subprocess.run(long, capture_output=True, check=True, input=b"x" * 10_000_000).stdout
    assert b'"code":"too-long"' in told


def test_a_browser_over_tls(secure, open_page, channel):
    page = open_page(ignore_https_errors=True).page
    assert page.goto(secure.page).status == 200
    page.wait_for_function("async () => (await fetch('/readyz')).ok")


# A page of another site, in a browser.

ATTACKS = """
<!doctype html><title>elsewhere</title><iframe name="nowhere"></iframe>
<form id="form" method="post" target="nowhere" enctype="text/plain" action="{page}channels/{channel}/events">
<input name="hello" value="from a form"></form>
"""

TRY = """async ([page, channel]) => {
  const address = `${page}channels/${channel}/events`;
  const tries = [
    () => fetch(address, {method: "POST", body: "boo"}),
    () => fetch(address, {method: "POST", body: "boo", mode: "no-cors"}),
    () => fetch(address, {method: "POST", body: new URLSearchParams({boo: "boo"}), mode: "no-cors"}),
    () => fetch(address, {method: "POST", body: '"boo"', headers: {"Content-Type": "application/json"}}),
    () => fetch(address, {method: "POST", body: "boo", headers: {"Idempotency-Key": "1"}}),
    async () => { if (!navigator.sendBeacon(address, "boo")) throw new Error("not sent"); return {type: "beacon"}; },
    () => fetch(address),
    () => fetch(`${page}bridge.json`),
  ];
  const outcomes = [];
  for (const attempt of tries) {
    try { outcomes.push((await attempt()).type); } catch (error) { outcomes.push("failed"); }
  }
  document.getElementById("form").submit();
  return outcomes;
}"""


@pytest.fixture
def page_elsewhere(chromium, serve_folder, tmp_path):
    """``page_elsewhere(html)``: a page of another site with this content."""
    page = chromium.new_page()

    def opening(html):
        (tmp_path / "index.html").write_text(html)
        page.goto(serve_folder(tmp_path))
        return page

    yield opening
    page.close()


def test_page_of_another_site_cannot_publish_or_read(start, line_client, page_elsewhere, channel):
    server = start()
    reader = line_client(server.lines[0])
    reader.request(f"SUB {channel}")
    page = page_elsewhere(ATTACKS.format(page=server.page, channel=channel))
    with page.expect_response(lambda response: response.request.is_navigation_request()) as submitted:
        outcomes = page.evaluate(TRY, [server.page, channel])
    assert submitted.value.status == 403
    assert outcomes == ["failed", "opaque", "opaque", "failed", "failed", "beacon", "failed", "failed"]
    assert reader.request("PING") == "PONG", "nothing was published"
    assert server.log().count("--allow-origin would allow it") == 1


def test_page_of_an_allowed_site_publishes_and_reads(start, page_elsewhere, channel):
    page = page_elsewhere("<!doctype html><title>elsewhere</title>")
    server = start("--allow-origin", page.url.rstrip("/"))
    outcome = page.evaluate(
        """async ([page, channel]) => {
            const address = `${page}channels/${channel}/events`;
            const headers = {"Content-Type": "application/json", "Idempotency-Key": "once"};
            const posted = await fetch(address, {method: "POST", body: '{"a":1}', headers});
            return [posted.status, (await (await fetch(address)).json()).events[0].data];
        }""",
        [server.page, channel],
    )
    assert outcome == [201, {"a": 1}]
