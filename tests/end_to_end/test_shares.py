"""One client tries to use up what all clients share, or floods the server. The other clients are still served. A proxy
on this machine reports the addresses, because a test has no other machine."""

import json
import socket
import urllib.request
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import TCP, ServerProcess

pytestmark = pytest.mark.end_to_end

ATTACKER, TENANT = "198.51.100.7", "192.0.2.1"
UNLIMITED = ("--commands-per-second", "0", "--bytes-per-second", "0")
RATE_EXCEEDED_REPEATEDLY = b"rate limit exceeded repeatedly"

Plain = Callable[..., socket.socket]


@pytest.fixture
def start_trusting(start: Callable[..., ServerProcess]) -> Callable[..., ServerProcess]:
    """Start a server whose ports trust the proxy: the line port its PROXY header, and the web port X-Forwarded-For. A
    second line port is for local clients."""
    ports = {"tcp": (TCP, "tcp:0:interface=127.0.0.2"), "web": (f"{TCP}:backlog=100",)}
    trust = ("--trusted-proxy", "127.0.0.1", "--proxy-protocol", TCP, "--allow-insecure")
    return lambda *options: start(*options, *trust, **ports)


@pytest.fixture
def server(start_trusting: Callable[..., ServerProcess]) -> ServerProcess:
    """Rates are not limited: they would only make the attacks slower."""
    small = ("--max-channels", "1000", "--max-subscriptions", "2000", "--history-total-bytes", str(4 * 1024 * 1024))
    return start_trusting(*UNLIMITED, *small)


def send(open_socket: Plain, server: ServerProcess, address: str, *lines: str) -> tuple[socket.socket, list[str]]:
    """A client at an address says some lines; its connection, and the answers without the welcome."""
    connection = open_socket(server.lines[0])
    connection.sendall(f"PROXY TCP4 {address} 192.0.2.2 5000 8081\r\n".encode())
    connection.sendall("".join(f"{line}\n" for line in [*lines, "PING end"]).encode())
    heard: list[str] = []
    with connection.makefile() as stream:
        while not heard or heard[-1] != "PONG end":
            heard.append(stream.readline().rstrip("\n"))
    return connection, heard[1:-1]


def posts(server: ServerProcess, channel: str, address: str) -> int:
    """The status of an event that is published over HTTP."""
    request = urllib.request.Request(
        f"{server.page}channels/{channel}/events", b"x", {"X-Forwarded-For": address, "Content-Type": "text/plain"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def words(answers: list[str]) -> list[str]:
    return [answer.split()[0] for answer in answers]


def test_eleven_connections_of_one_address_cannot_use_up_the_channel_names(server, open_socket, web_client):
    answers = [
        words(send(open_socket, server, ATTACKER, *(f"PUB c{number}-{n} x" for n in range(100)))[1])
        for number in range(11)
    ]
    assert answers == [["OK"] * 100] * 10 + [["ERR"] * 100]
    assert words(send(open_socket, server, TENANT, "PUB kitchen x", "SUB kitchen", "SUB yard")[1]) == ["OK"] * 3
    page = web_client(server.page, headers=(f"X-Forwarded-For: {TENANT}",))
    assert page.request(type="publish", id=1, channel="cellar", data="x")["type"] == "ok"
    assert posts(server, "attic", TENANT) == 201
    assert posts(server, "more", ATTACKER) == 503
    with urllib.request.urlopen(f"{server.page}channels?prefix=attic") as answer:
        assert [one["channel"] for one in json.load(answer)["channels"]] == ["attic"]


def test_channels_read_by_one_address_leave_room_for_other_clients(server, open_socket):
    """They cannot be evicted; a reserve is left for other clients."""
    readers = [send(open_socket, server, ATTACKER, *(f"SUB c{number}-{n}" for n in range(500))) for number in range(5)]
    answers = [words(heard) for _, heard in readers]
    assert answers == [["OK"] * 500] * 2 + [["ERR"] * 500] * 3
    assert words(send(open_socket, server, TENANT, *(f"SUB kitchen{n}" for n in range(8)))[1]) == ["OK"] * 8
    assert all(connection.send(b"PING\n") for connection, _ in readers), "nobody is disconnected"


def test_subscriptions_of_one_address_leave_room_for_other_clients(server, open_socket):
    readers = [send(open_socket, server, ATTACKER, *(f"SUB c{n}" for n in range(500))) for _ in range(5)]
    assert [words(heard) for _, heard in readers] == [["OK"] * 500] * 4 + [["ERR"] * 500]
    assert words(send(open_socket, server, TENANT, *(f"SUB c{n}" for n in range(8)))[1]) == ["OK"] * 8


def test_publications_of_one_tenant_do_not_evict_history_of_another(server, open_socket):
    send(open_socket, server, TENANT, *(f"PUB tenant {number}" for number in range(50)))
    for number in range(6):
        _, heard = send(
            open_socket, server, ATTACKER, *(f"PUB flood{number}-{n % 8} {'x' * 60_000}" for n in range(70))
        )
        assert words(heard) == ["OK"] * 70
    _, heard = send(open_socket, server, "192.0.2.99", "HIST tenant")
    assert heard[-1] == "OK 50"
    assert [line.rpartition(" ")[2] for line in heard[:-1]] == [str(number) for number in range(50)]


@pytest.fixture
def limited(start_trusting: Callable[..., ServerProcess]) -> ServerProcess:
    return start_trusting("--commands-per-second", "1", "--commands-burst", "50")


def test_a_flood_of_lines_is_refused_and_then_disconnected(limited, open_socket, line_client):
    """The burst is run, as many commands again are refused, each in its place. No other client notices."""
    bystander = line_client(limited.lines[1])
    flood = open_socket(limited.lines[0])
    flood.sendall(f"PROXY TCP4 {ATTACKER} 192.0.2.2 5000 8081\r\n".encode())
    flood.sendall(b"PING\n" * 1_000)
    words = [line.partition(" ")[0] for line in flood.makefile().read().splitlines()]
    ran, refused = words.count("PONG"), words.count("ERR")
    assert words == ["WELCOME"] + ["PONG"] * ran + ["ERR"] * refused + ["NOTICE", "BYE"]
    assert 50 <= ran <= 52 and 50 <= refused <= 52
    bystander.send(*["PING"] * 1_000)
    assert [bystander.receive() for _ in range(1_000)] == ["PONG"] * 1_000


def test_a_flood_on_a_websocket_is_closed_with_the_reason(limited, web_client):
    page = web_client(limited.page, headers=(f"X-Forwarded-For: {ATTACKER}",))
    for number in range(150):
        page.send(type="ping", id=number)
    answers = []
    while (frame := page.receive_frame())[0] == 0x81:
        answers.append(frame[1])
    assert frame == (0x88, (1008).to_bytes(2) + RATE_EXCEEDED_REPEATEDLY)
    assert RATE_EXCEEDED_REPEATEDLY in answers.pop()
    kinds = [b'"pong"' in answer for answer in answers]
    assert kinds.index(False) in range(50, 53) and not any(kinds[kinds.index(False) :])
