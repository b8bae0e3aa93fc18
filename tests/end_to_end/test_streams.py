"""Server-sent events and long polling with real clients: curl, and a browser that loses its connection."""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.documents import DOCS, fenced
from tests.end_to_end.conftest import receive_until
from tests.event_streams import read_events

pytestmark = pytest.mark.end_to_end


PAGE = DOCS / "reference" / "streams.md"


class Curl:
    """``curl -N`` and its output."""

    def __init__(self, *arguments: str) -> None:
        self._text, self._id = "", ""
        command = ["curl", "--silent", "--show-error", "--no-buffer", "--max-time", "60", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def received(self, count: int) -> list[Any]:
        """The next ``count`` events."""
        assert self.process.stdout is not None
        events: list[Any] = []
        while len(events) < count:
            data = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
            assert data, self._text
            self._text += data.decode()
            whole, end, self._text = self._text.rpartition("\n\n")
            new, self._id = read_events(whole + end, self._id)
            events += new
        assert len(events) == count, events
        return events


@pytest.fixture
def curl(server: Any) -> Iterator[Callable[..., Curl]]:
    curls: list[Curl] = []

    def starting(path: str, *options: str) -> Curl:
        curls.append(Curl(*options, server.page.rstrip("/") + path))
        return curls[-1]

    yield starting
    for each in curls:
        each.close()


STREAM = ("-H", "Accept: text/event-stream")


def test_curl_shows_published_events(server, curl, line_client, channel):
    stream = curl(f"/channels/{channel}/events", *STREAM)
    assert [event.kind for event in stream.received(2)] == ["welcome", "ok"]
    line_client(server.lines[0]).request(f"PUB {channel} 21.5")
    (event,) = stream.received(1)
    assert event.message["data"] == "21.5"
    again = curl(f"/channels/{channel}/events", *STREAM, "-H", f"Last-Event-ID: {event.id[:-1]}0")
    assert again.received(3)[2] == event


def test_curl_shows_several_channels(server, curl, line_client, channel):
    stream = curl(f"/events?channel={channel}&channel={channel}/2&presence=on")
    stream.received(3)
    peer = line_client(server.lines[0])
    assert peer.request(f"SUB {channel}/2").startswith("OK")
    assert stream.received(1)[0].kind == "join"
    peer.send(f"PUB {channel} a", f"PUB {channel}/2 b")
    events = stream.received(2)
    assert {event.message["data"] for event in events} == {"a", "b"}
    assert [place.partition(":")[2] for place in events[-1].id.split(",")] == ["1", "1"]


def test_curl_waits_for_an_event(server, curl, line_client, channel, eventually):
    first = curl(f"/channels/{channel}/events?wait=50")
    peer = line_client(server.lines[0])
    # The channel exists when a request waits for it.
    eventually(lambda: channel in listed(server), "a waiting client")
    peer.request(f"PUB {channel} 1")
    told = json.loads(first.process.communicate()[0])
    assert [event["data"] for event in told["events"]] == ["1"]
    second = curl(f"/events?channel={channel}&wait=50&last-event-id={told['next']}")
    peer.request(f"PUB {channel} 2")
    several = json.loads(second.process.communicate()[0])
    assert [event["data"] for event in several["channels"][0]["events"]] == ["2"]


def listed(server: Any) -> str:
    command = ["curl", "--silent", server.page.rstrip("/") + "/channels?limit=1000"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()


def test_slow_client_does_not_disturb_others_and_is_told_of_losses(start, line_client, open_socket):
    server = start("--history-events", "200", "--history-bytes", "400000", "--send-buffer-bytes", "16384")
    slow = open_socket(server.authority)
    slow.sendall(f"GET /events?channel=k HTTP/1.1\r\nHost: {server.authority}\r\n\r\n".encode())
    data = receive_until(slow, b"event: ok")
    peer = line_client(server.lines[0])
    for number in range(1, 3_001):
        peer.send(f"PUB k {number} {'x' * 3_000}")
        if not number % 50:
            peer.receive_until(f"OK {number}")
    while b'"3000 x' not in data[-200_000:]:
        more = slow.recv(65536)
        assert more
        data += more
    text = data.partition(b"\r\n\r\n")[2].decode()
    place, lost = 0, 0
    for event in read_events(text[: text.rindex("\n\n") + 2])[0]:
        if event.kind == "message":
            place += 1
            assert event.message["offset"] == place and event.id.endswith(f":{place}")
        elif event.kind == "lost":
            assert event.message["first"] == place + 1
            place = event.message["last"]
            lost += 1
    assert lost and place >= 2_999


LISTEN = """url => {
  const source = new EventSource(url);
  window.received = [];
  window.oks = [];
  source.onmessage = ({ data, lastEventId }) => received.push([JSON.parse(data), lastEventId]);
  source.addEventListener('ok', ({ data }) => oks.push(JSON.parse(data)));
  source.addEventListener('lost', ({ data }) => received.push([JSON.parse(data), '']));
}"""


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Any]:
    """A page in which the tests can run scripts."""
    context = chromium.new_context(bypass_csp=True)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("channels", [("kitchen",), ("kitchen", "cellar")])
def test_browser_recovers_all_events_after_a_cut(start, line_client, new_page, cutting_proxy, channels):
    """No event is received twice."""
    server, page = start(), new_page
    proxy = cutting_proxy(server.web_port)
    page.goto(proxy.origin + "/bridge.json")
    page.evaluate(LISTEN, "/events?" + "&".join(f"channel={name}" for name in channels))
    page.wait_for_function(f"oks.length === {len(channels)}")
    peer = line_client(server.lines[0])
    for number in range(1, 61):
        for name in channels:
            assert peer.request(f"PUB {name} {number}") == f"OK {number}"
        if number in (20, 40):
            proxy.cut()
            page.wait_for_function(f"oks.length === {len(channels) * (1 + number // 20)}", timeout=20_000)
    page.wait_for_function(f"received.length >= {60 * len(channels)}")
    received = page.evaluate("received")
    for name in channels:
        assert [event["offset"] for event, _ in received if event["channel"] == name] == list(range(1, 61))
    assert all(ok["recovered"] for ok in page.evaluate("oks")[len(channels) :])


def test_browser_reconnects_after_a_restart_of_the_server(start, line_client, new_page, cutting_proxy):
    """After the kill, the browser reconnects and learns that events may be missing."""
    first, page = start(), new_page
    proxy = cutting_proxy(first.web_port)
    page.goto(proxy.origin + "/bridge.json")
    page.evaluate(LISTEN, "/channels/kitchen/events")
    page.wait_for_function("oks.length === 1")
    line_client(first.lines[0]).request("PUB kitchen before")
    page.wait_for_function("received.length === 1")
    first.kill()
    second = start()
    proxy.port = second.web_port
    page.wait_for_function("oks.length === 2", timeout=20_000)
    assert page.evaluate("oks[1].recovered") is False
    line_client(second.lines[0]).request("PUB kitchen after")
    page.wait_for_function("received.length === 2")
    assert [event["data"] for event, _ in page.evaluate("received")] == ["before", "after"]


def test_stream_ends_with_the_server(start):
    server = start()
    stream = Curl(server.page.rstrip("/") + "/events?channel=k")
    stream.received(2)
    server.stop()
    (notice,) = stream.received(1)
    assert notice.kind == "notice"
    assert stream.process.wait(20) == 0
    stream.close()


def test_documented_commands(start, line_client):
    server = start()
    peer = line_client(server.lines[0])
    stream, waiting = (
        Curl(*shlex.split(command.replace("localhost:8082", server.authority))[1:]) for command in fenced(PAGE, "sh")
    )
    stream.received(2)
    peer.request("PUB kitchen 21.5")
    assert stream.received(1)[0].message["data"] == "21.5"
    while waiting.process.poll() is None:
        peer.request("PUB kitchen again")
    assert waiting.process.stdout is not None
    assert json.loads(waiting.process.stdout.read())["channel"] == "kitchen"
    stream.close()
    waiting.close()


def test_documented_page(start, line_client, new_page):
    server, page = start(), new_page
    page.goto(server.page + "bridge.json")
    example = fenced(PAGE, "js")[0]  # tests/js/documentation.test.mjs runs the other one
    told: list[str] = []
    # The browser reports a missing icon there.
    page.on("console", lambda message: told.append(message.text) if message.type == "log" else None)
    page.evaluate(f"() => {{ {example}\nwindow.source = source; }}")
    page.wait_for_function("source.readyState === 1")
    peer = line_client(server.lines[0])
    with page.expect_console_message(lambda message: message.type == "log"):
        peer.send("NICK ann", "PUB cellar 12")
    assert told == ["cellar 1 ann 12"]
