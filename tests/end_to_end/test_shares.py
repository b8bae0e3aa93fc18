"""One client tries to use up what all clients share. The other clients are still served. A proxy on this machine
reports the addresses, because a test has no other machine."""

import json
import socket
import urllib.request
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import TCP, ServerProcess, WebClient

pytestmark = pytest.mark.end_to_end

ATTACKER, TENANT = "198.51.100.7", "192.0.2.1"
UNLIMITED = ("--commands-per-second", "0", "--bytes-per-second", "0")

Plain = Callable[..., socket.socket]


@pytest.fixture
def server(start: Callable[..., ServerProcess]) -> ServerProcess:
    """Both ports believe the proxy. Rates are not limited: they would only make the attacks slower."""
    web = f"{TCP}:backlog=100"
    trust = ("--trusted-proxy", "127.0.0.1", "--proxy-protocol", TCP, "--allow-insecure")
    small = ("--max-channels", "1000", "--max-subscriptions", "2000", "--history-total-bytes", str(4 * 1024 * 1024))
    return start(*UNLIMITED, *small, *trust, tcp=(TCP,), web=(web,))


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


def test_eleven_connections_of_one_address_cannot_use_up_the_channel_names(
    server: ServerProcess, open_socket: Plain, web_client: Callable[..., WebClient]
) -> None:
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


def test_channels_read_by_one_address_leave_room_for_other_clients(server: ServerProcess, open_socket: Plain) -> None:
    """They cannot be evicted; a reserve is left for other clients."""
    readers = [send(open_socket, server, ATTACKER, *(f"SUB c{number}-{n}" for n in range(500))) for number in range(5)]
    answers = [words(heard) for _, heard in readers]
    assert answers == [["OK"] * 500] * 2 + [["ERR"] * 500] * 3
    assert words(send(open_socket, server, TENANT, *(f"SUB kitchen{n}" for n in range(8)))[1]) == ["OK"] * 8
    assert all(connection.send(b"PING\n") for connection, _ in readers), "nobody is disconnected"


def test_subscriptions_of_one_address_leave_room_for_other_clients(server: ServerProcess, open_socket: Plain) -> None:
    readers = [send(open_socket, server, ATTACKER, *(f"SUB c{n}" for n in range(500))) for _ in range(5)]
    assert [words(heard) for _, heard in readers] == [["OK"] * 500] * 4 + [["ERR"] * 500]
    assert words(send(open_socket, server, TENANT, *(f"SUB c{n}" for n in range(8)))[1]) == ["OK"] * 8


def test_publications_of_one_tenant_do_not_evict_history_of_another(server: ServerProcess, open_socket: Plain) -> None:
    send(open_socket, server, TENANT, *(f"PUB tenant {number}" for number in range(50)))
    for number in range(6):
        _, heard = send(
            open_socket, server, ATTACKER, *(f"PUB flood{number}-{n % 8} {'x' * 60_000}" for n in range(70))
        )
        assert words(heard) == ["OK"] * 70
    _, heard = send(open_socket, server, "192.0.2.99", "HIST tenant")
    assert heard[-1] == "OK 50"
    assert [line.rpartition(" ")[2] for line in heard[:-1]] == [str(number) for number in range(50)]
