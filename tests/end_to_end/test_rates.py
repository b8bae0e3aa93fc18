"""Remote clients have a rate limit. A proxy on this machine reports their addresses, because a test has no other
machine."""

import socket
from collections.abc import Callable

import pytest

from tests.end_to_end.conftest import TCP, LineClient, ServerProcess, WebClient

pytestmark = pytest.mark.end_to_end

STRANGER = "192.0.2.1"
RATE_EXCEEDED_REPEATEDLY = "rate limit exceeded repeatedly"


@pytest.fixture
def server(start: Callable[..., ServerProcess]) -> ServerProcess:
    """Both ports trust the proxy, the line port its PROXY header and the web port X-Forwarded-For. Clients that do not
    use it are local."""
    more = ("--trusted-proxy", "127.0.0.1", "--proxy-protocol", TCP, "--allow-insecure")
    local, web = "tcp:0:interface=127.0.0.2", f"{TCP}:backlog=100"
    return start("--commands-per-second", "1", "--commands-burst", "50", *more, tcp=(TCP, local), web=(web,))


def test_a_flood_of_lines_is_refused_and_then_disconnected(
    server: ServerProcess, open_socket: Callable[..., socket.socket], line_client: Callable[..., LineClient]
) -> None:
    """The burst is run, as many commands again are refused, each in its place. No other client notices."""
    bystander = line_client(server.lines[1])
    flood = open_socket(server.lines[0])
    flood.sendall(f"PROXY TCP4 {STRANGER} 192.0.2.2 5000 8081\r\n".encode())
    flood.sendall(b"PING\n" * 1_000)
    words = [line.partition(" ")[0] for line in flood.makefile().read().splitlines()]
    ran, refused = words.count("PONG"), words.count("ERR")
    assert words == ["WELCOME"] + ["PONG"] * ran + ["ERR"] * refused + ["NOTICE", "BYE"]
    assert 50 <= ran <= 52 and 50 <= refused <= 52
    bystander.send(*["PING"] * 1_000)
    assert [bystander.receive() for _ in range(1_000)] == ["PONG"] * 1_000


def test_a_flood_on_a_websocket_is_closed_with_the_reason(
    server: ServerProcess, web_client: Callable[..., WebClient]
) -> None:
    page = web_client(server.page, headers=(f"X-Forwarded-For: {STRANGER}",))
    for number in range(150):
        page.send(type="ping", id=number)
    answers = []
    while (frame := page.receive_frame())[0] == 0x81:
        answers.append(frame[1])
    assert frame == (0x88, (1008).to_bytes(2) + RATE_EXCEEDED_REPEATEDLY.encode())
    assert RATE_EXCEEDED_REPEATEDLY.encode() in answers.pop()
    kinds = [b'"pong"' in answer for answer in answers]
    assert kinds.index(False) in range(50, 53) and not any(kinds[kinds.index(False) :])
