"""Servers that keep their events in a directory: nothing that was answered is lost when the process is killed."""

import json
import random
import subprocess
import threading
import time
from datetime import UTC, datetime
from itertools import islice
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.end_to_end.conftest import TIMEOUT_SECONDS, TWISTD

pytestmark = pytest.mark.end_to_end

KEEPS_ALL = "--state state --history-age 3600 --history-events 1000000 --history-bytes 1000000000".split()


class Publisher(threading.Thread):
    """Publishes numbers on a channel, and waits for each answer, until the server ends."""

    def __init__(self, line_client, address, name, channel, first):
        super().__init__(daemon=True)
        self.client = line_client(address)
        self.name = name
        self.channel = channel
        self.number = first
        self.answered = {}

    def run(self):
        try:
            while True:
                self.client.send(f"PUB {self.channel} {self.name}-{self.number}")
                self.number += 1
                answer = self.client.receive()
                assert answer.startswith("OK "), answer
                self.answered[int(answer.split()[1])] = f"{self.name}-{self.number - 1}"
        except (EOFError, OSError):
            pass


def read_all(client, channel, epoch):
    """The payloads of a channel by offset, from the first event on."""
    reply = client.request(f"SUB {channel} since=0 epoch={epoch}")
    newest = int(reply.split("offset=")[1].split()[0])
    assert reply.endswith("recovered=yes"), reply
    events = {}
    while len(events) < newest:
        kind, where, offset, _, payload = client.receive().split(" ", 4)
        assert (kind, where, int(offset)) == ("MSG", channel, len(events) + 1)
        events[int(offset)] = payload
    return events


@pytest.mark.parametrize(("sync", "times"), [("full", 8), ("1s", 3)])
def test_every_answered_event_survives_kill_9(start, line_client, tmp_path, sync, times):
    """Under several publishers, again and again: each answered event is there once, in order, and no other one."""
    options = [*KEEPS_ALL, "--state-sync", sync]
    server = start(*options)
    epochs, answered, sent = {}, {"a": {}, "b": {}}, {"a": set(), "b": set()}
    chance = random.Random(5)
    numbers = [0, 0, 0]
    for _ in range(times):
        watcher = line_client(server.lines[0])
        for channel in ("a", "b"):
            epoch = watcher.request(f"SUB {channel}").split("epoch=")[1].split()[0]
            assert epochs.setdefault(channel, epoch) == epoch
        publishers = [
            Publisher(line_client, server.lines[0], f"p{index}", channel, numbers[index])
            for index, channel in enumerate(("a", "a", "b"))
        ]
        for publisher in publishers:
            publisher.start()
        time.sleep(chance.uniform(0.05, 0.6))
        server.kill()
        for publisher in publishers:
            publisher.join(10)
            answered[publisher.channel].update(publisher.answered)
        numbers = [publisher.number for publisher in publishers]
        for index, channel in enumerate(("a", "a", "b")):
            sent[channel] |= {f"p{index}-{number}" for number in range(numbers[index])}
        server = start.again(server, *options)
        for channel in ("a", "b"):
            events = read_all(line_client(server.lines[0]), channel, epochs[channel])
            assert answered[channel].items() <= events.items()
            assert len(set(events.values())) == len(events) and set(events.values()) <= sent[channel]
    assert len(answered["a"]) > 8 and len(answered["b"]) > 8


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_clients_of_all_kinds_recover_over_a_restart(start, line_client, web_client, end):
    server = start("--state", "state")
    client, page = line_client(server.lines[0]), web_client(server.page)
    epoch = client.request("SUB kitchen").split("epoch=")[1]
    assert client.request("PUB kitchen one") == "OK 1" and client.receive() == f"MSG kitchen 1 {client.id} one"
    assert page.request(type="subscribe", id=1, channel="kitchen", last=1)["offset"] == 1
    assert page.receive()["data"] == "one"
    assert client.request("PUB kitchen two") == "OK 2"
    getattr(server, end)()
    server = start.again(server, "--state", "state")
    client, page = line_client(server.lines[0]), web_client(server.page)
    assert client.request(f"SUB kitchen since=1 epoch={epoch}") == f"OK kitchen offset=2 epoch={epoch} recovered=yes"
    assert client.receive().endswith(" two")
    reply = page.request(type="subscribe", id=1, channel="kitchen", since=1, epoch=epoch)
    assert reply["recovered"] is True and page.receive()["data"] == "two"
    events = f"{server.page}channels/kitchen/events"
    with urlopen(f"{events}?last-event-id={epoch}:1", timeout=TIMEOUT_SECONDS) as answer:
        polled = json.load(answer)
    assert polled["recovered"] is True and [event["data"] for event in polled["events"]] == ["two"]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": f"{epoch}:1"}
    with urlopen(Request(events, headers=headers), timeout=TIMEOUT_SECONDS) as stream:
        data = (json.loads(line[6:]) for line in stream if line.startswith(b"data: "))
        _welcome, reply, event = islice(data, 3)
    assert reply["recovered"] is True and event["data"] == "two"
    assert client.request("PUB kitchen three") == "OK 3"


def offsets_on_lines(client, bounds):
    """The offsets of all events of a history."""
    client.send(f"HIST kitchen {bounds}")
    offsets = []
    while (line := client.receive()).startswith("MSG "):
        offsets.append(int(line.split(" ")[2]))
    assert line == f"OK {len(offsets)}"
    return offsets


def test_histories_reach_back_to_what_only_the_directory_has(start, line_client, web_client):
    """On lines, in JSON and over HTTP, by offset and by time, after kill -9, also of a channel that is not open."""
    options = "--state state --history-events 50".split()
    server = start(*options)
    client, all_offsets = line_client(server.lines[0]), [*range(1, 5_001)]
    for first in range(1, 5_001, 1_000):
        client.send("\n".join(f"PUB kitchen {number}" for number in range(first, first + 1_000)))
        assert [client.receive() for _ in range(1_000)] == [f"OK {offset}" for offset in range(first, first + 1_000)]
    server.kill()
    server = start.again(server, *options)
    client, page, events = (
        line_client(server.lines[0]),
        web_client(server.page),
        f"{server.page}channels/kitchen/events",
    )

    def read_json(**bounds):
        return page.request(type="history", id=1, channel="kitchen", **bounds)["events"]

    def read_http(bounds):
        with urlopen(f"{events}?{bounds}", timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)["events"]

    assert offsets_on_lines(client, "after=-1h") == all_offsets  # before anything else has opened it
    assert offsets_on_lines(client, "after=0") == all_offsets
    assert offsets_on_lines(client, "") == all_offsets[-50:]
    assert offsets_on_lines(client, "after=1000 before=1100") == [*range(1_001, 1_100)]
    for found in (read_json(after=0), read_json(after="-1h"), read_http("after=0"), read_http("after=-1h")):
        assert [(event["offset"], event["data"]) for event in found] == [(one, str(one)) for one in all_offsets]
    time = found[2_500]["time"]
    moment = datetime.fromtimestamp(time / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    later = [event["offset"] for event in found if event["time"] > time]
    earlier = [event["offset"] for event in found if event["time"] < time]
    assert [event["offset"] for event in read_json(after=moment)] == later
    assert offsets_on_lines(client, f"after={moment}") == later
    assert [event["offset"] for event in read_http(f"before={moment}&last=9")] == earlier[-9:]
    assert offsets_on_lines(client, f"before={moment}") == earlier


def test_request_with_a_key_that_is_repeated_after_kill_9_publishes_once(start, line_client):
    def publish(server, key, body=b"21.5"):
        request = Request(f"{server.page}channels/kitchen/events", body, {"Idempotency-Key": key}, method="POST")
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, json.load(answer), answer.headers["Idempotency-Replayed"]

    server = start("--state", "state")
    status, body, replayed = publish(server, "reading-1")
    assert replayed is None
    server.kill()
    server = start.again(server, "--state", "state")
    assert publish(server, "reading-1") == (status, body, "true")
    with pytest.raises(HTTPError, match="422"):
        publish(server, "reading-1", b"99.9")
    assert publish(server, "reading-2")[1]["offset"] == 2
    assert line_client(server.lines[0]).request("SUB kitchen").split()[2] == "offset=2"


def test_second_server_cannot_use_the_directory(start, tmp_path):
    start("--state", str(tmp_path / "state"))
    command = [str(TWISTD), "-n", "--pidfile=", "sockbridge", "--state", str(tmp_path / "state"), "--web", "none"]
    second = subprocess.run(
        [*command, "--tcp", "tcp:0:interface=127.0.0.1"], capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1 and "is used by another process" in second.stdout + second.stderr
