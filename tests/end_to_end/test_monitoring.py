"""The channels under $sys/ of a real server: statistics, timelines of connections, and traffic of sockets."""

import json
import socket
import subprocess
from types import SimpleNamespace

import pytest

from twistedsock.server.sockets import tcp_stats_of

pytestmark = pytest.mark.end_to_end

BLOCK = "x" * 60_000


def page(line):
    """The data of a named event in a line."""
    kind, _, _, sender, _, data = line.split(" ", 5)
    assert (kind, sender) == ("EVENT", "$sys"), line
    return json.loads(data)


def steps(told):
    return [step["step"] for step in told["steps"]]


@pytest.fixture
def timeline(line_client, server):
    """Read the timeline of a client: ``timeline(id, server)`` returns a function that waits for a condition on it."""

    def read(identifier, of=server):
        reader = line_client(of.lines[0])
        assert reader.request(f"SUB $sys/peer/{identifier}").startswith("OK ")

        def until(condition):
            while not condition(told := page(reader.receive())):
                pass
            return told

        return until

    return read


def test_terminal_shows_statistics_each_second(server):
    host, _, port = server.lines[0].rpartition(":")
    with subprocess.Popen(
        ["nc", "-N", host, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as terminal:
        terminal.stdout.readline()
        terminal.stdin.write("SUB $sys/figures\n")
        assert terminal.stdout.readline().startswith("OK $sys/figures ")
        first, second = page(terminal.stdout.readline()), page(terminal.stdout.readline())
        terminal.stdin.close()
        assert terminal.wait(20) == 0
    assert 0.5 < second["time"] - first["time"] < 3
    assert second["peers"]["line"] >= 1 and second["connections"] >= 1
    assert second["memory_bytes"] > 10_000_000 and second["cpu_seconds"] > 0


def test_timeline_of_a_slow_client(server, line_client, timeline, channel):
    """The client stalls, reads on and quits. Its socket reports its traffic."""
    slow, publisher = line_client(server.lines[0]), line_client(server.lines[0])
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    slow.request(f"SUB {channel}")
    until = timeline(slow.id)
    until(lambda told: steps(told) == ["accepted", "open"])
    for _ in range(60):  # less than the history keeps
        publisher.request(f"PUB {channel} {BLOCK}")
    behind = until(lambda told: steps(told)[-1] == "behind")
    assert behind["peer"]["behind"] == 1 and behind["peer"]["lag"] > 0 and behind["peer"]["unsent"] > 0
    assert behind["steps"][-1]["detail"].startswith(f"{channel} from ")
    for number in range(60):
        assert slow.receive().startswith(f"MSG {channel} {number + 1} ")
    caught_up = until(lambda told: steps(told)[-1] == "caught-up" and told["peer"]["unsent"] == 0)
    assert caught_up["peer"]["lag"] == 0 and caught_up["peer"]["sent"] > 60 * len(BLOCK)
    assert caught_up["peer"]["rtt_ms"] > 0
    slow.send("QUIT")
    slow.receive_rest()
    slow.close()
    last = until(lambda told: steps(told)[-1] == "closed")
    assert steps(last) == ["accepted", "open", "behind", "caught-up", "closing", "closed"]
    assert (last["steps"][-2]["by"], last["steps"][-2]["detail"]) == ("peer", "QUIT")
    assert last["steps"][-1]["detail"] == "cleanly" and last["peer"]["state"] == "closed"
    assert last["peer"]["received"] >= len(f"SUB {channel}\nQUIT\n")
    assert all(step["words"].endswith(".") for step in last["steps"])


def test_timeline_of_a_websocket(server, web_client, timeline):
    browser = web_client(server.page)
    until = timeline(json.loads(browser.welcome)["id"])
    first = until(lambda told: True)
    assert steps(first) == ["accepted", "handshake", "open"] and first["peer"]["dialect"] == "json"
    assert first["steps"][1]["detail"] == "WebSocket"
    assert first["steps"][0]["at"] <= first["steps"][1]["at"]
    browser.socket.sendall(b"\x88\x82" + bytes(4) + (1001).to_bytes(2))
    last = until(lambda told: steps(told)[-1] == "closed")
    assert (last["steps"][-2]["by"], last["steps"][-2]["detail"]) == ("peer", "a close frame with code 1001")


def test_timeline_contains_the_tls_handshake(start, line_client, web_client, certificate, timeline):
    tls = f"ssl:0:interface=127.0.0.1:{certificate}"
    server = start(tcp=("tcp:0:interface=127.0.0.1", tls), web=(tls,))
    line, browser = line_client(server.lines[1], True), web_client(server.page)
    of_line = timeline(line.id, server)(lambda told: True)
    assert [(step["step"], step.get("detail", "")) for step in of_line["steps"]] == [
        ("accepted", ""),
        ("handshake", "TLS"),
        ("open", ""),
    ]
    assert of_line["steps"][0]["at"] < of_line["steps"][1]["at"]
    of_browser = timeline(json.loads(browser.welcome)["id"], server)(lambda told: True)
    assert [step.get("detail", "") for step in of_browser["steps"]] == ["", "TLS", "WebSocket", ""]
    assert of_browser["peer"]["sent"] > 500  # the certificate at least


def test_timeline_of_a_reset_connection(server, line_client, open_socket):
    """A process that is killed with unread input leaves a reset."""
    reader, rude = line_client(server.lines[0]), line_client(server.lines[0])
    assert reader.request("SUB $sys/closed").startswith("OK ")
    rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + bytes(4))
    rude.close()
    while (end := page(reader.receive()))["id"] != rude.id:
        pass
    assert (end["by"], end["why"], end["dialect"]) == ("peer", "broken", "line")


def test_reads_tcp_statistics_of_the_kernel():
    """On a connection whose traffic is known."""
    with socket.create_server(("127.0.0.1", 0)) as port, socket.create_connection(port.getsockname()) as client:
        accepted, _ = port.accept()
        with accepted:
            accepted.sendall(b"x" * 1000)
            client.sendall(b"y" * 77)
            assert len(client.recv(1000, socket.MSG_WAITALL)) == 1000
            assert len(accepted.recv(77, socket.MSG_WAITALL)) == 77
            traffic = tcp_stats_of(SimpleNamespace(socket=accepted, dataBuffer=b"", offset=0, _tempDataLen=0))
    assert (traffic.sent, traffic.received, traffic.unsent) == (1000, 77, 0)
    assert 0 < traffic.rtt < 1


def test_timeline_of_an_event_stream(server, timeline):
    address = server.page.rstrip("/") + "/channels/$sys/figures/events"
    command = ["curl", "-sN", "-H", "Accept: text/event-stream", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        told = []
        while not told or told[-1]["type"] != "event":
            line = curl.stdout.readline()
            assert line, told
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
        first = next(message for message in told if message["type"] == "welcome")
        assert told[-1]["name"] == "figures" and told[-1]["data"]["peers"]["events"] >= 1
        until = timeline(first["id"])
        assert [step.get("detail", "") for step in until(lambda told: True)["steps"]] == ["", "events", ""]
        curl.terminate()
        last = until(lambda told: steps(told)[-1] == "closed")
        assert last["peer"]["dialect"] == "events" and last["peer"]["sent"] > 500


def test_timeline_contains_the_proxy_header(start, open_socket, timeline):
    endpoint = "tcp:0:interface=127.0.0.2"
    server = start(
        *("--proxy-protocol", endpoint, "--trusted-proxy", "127.0.0.1", "--allow-insecure"),
        tcp=("tcp:0:interface=127.0.0.1", endpoint),
        web=("none",),
    )
    proxied = open_socket(server.lines[1])
    proxied.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 8081\r\n")
    welcome = proxied.recv(1000).decode().split()
    told = timeline(welcome[2].removeprefix("id="), server)(lambda told: True)
    assert steps(told) == ["accepted", "proxied", "open"]
    assert told["steps"][0]["at"] < told["steps"][1]["at"] and told["peer"]["from"] == "192.0.2.7:5000"


def test_timeline_of_a_client_disconnected_by_an_administrator(server, line_client, timeline):
    peer = line_client(server.lines[0])
    until = timeline(peer.id)
    address = f"{server.page.rstrip('/')}/peers/{peer.id}?reason=enough"
    subprocess.run(["curl", "-sSf", "-X", "DELETE", address], check=True)
    assert "enough" in peer.receive_rest()[0]
    peer.close()
    last = until(lambda told: steps(told)[-1] == "closed")
    assert last["steps"][-2]["by"] == "server" and "enough" in last["steps"][-2]["detail"]
