"""All connections and requests of one client share one rate limit, over every transport."""

import json
from collections.abc import Callable

import pytest

from tests.fuzz.grammars import frame
from tests.server.clients import TEXT, MakeLinePort, upgrade
from tests.server.http.clients import MakeWebPort
from twistedsock.errors import ErrorCode
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakePolicy, FakeServer

BURST = 50
POLICY = FakePolicy({"a": "r"}, {"A": ("ann", {"a": "rw"}, None), "B": ("bob", {"a": "rw"}, None)})
HERE, NEIGHBOUR, AWAY = "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"


class Server:
    """Each method opens a connection, sends ``count`` commands, closes it, and returns how many were run."""

    def __init__(self, make_web: MakeWebPort, make_lines: MakeLinePort) -> None:
        self.server = FakeServer(policy=POLICY, commands_per_second=1, commands_burst=BURST)
        self.web = make_web(self.server)
        self.line_port = make_lines(self.server)

    def lines(self, address: str, commands: int, token: str = "") -> int:
        client = self.line_port(address)
        authenticate = b"AUTH %b\n" % token.encode() if token else b""
        client.send_bytes(authenticate + b"PING\n" * commands)
        client.disconnect()
        return client.transport.output().count(b"PONG\n")

    def websocket(self, address: str, commands: int, token: str = "") -> int:
        client = self.web(there=address)
        client.send_bytes(upgrade("/ws?token=" + token if token else "/ws"))
        client.send_bytes(frame(TEXT, b'{"type":"ping"}') * commands)
        client.disconnect()
        return client.transport.output().count(b'"pong"')

    def stream(self, address: str, commands: int, token: str = "") -> int:
        client = self.web(there=address)
        client.request("/stream" + ("?token=" + token if token else ""), Accept="text/event-stream")
        status, _, body = client.response()
        if status != 200:
            return 0
        key = json.loads(body.partition(b"data: ")[2].partition(b"\n")[0])["key"]
        messages = b'{"type":"ping"}\n' * commands
        self.web(there=address).request("/stream", "POST", messages, Sockbridge_Stream=key)
        client.disconnect()
        return client.transport.output().count(b'"pong"')

    def http(self, address: str, commands: int, token: str = "") -> int:
        client = self.web(there=address)
        for _ in range(commands):
            client.request("/channels/a/members" + ("?token=" + token if token else ""))
            if client.transport.disconnecting:
                break
        client.disconnect()
        return client.transport.output().count(b"HTTP/1.1 200 ")


@pytest.fixture
def server(make_web: MakeWebPort, make_lines: MakeLinePort) -> Server:
    return Server(make_web, make_lines)


Ask = Callable[..., int]
KINDS: list[Ask] = [Server.lines, Server.websocket, Server.stream, Server.http]
each_kind = pytest.mark.parametrize("ask", KINDS)


@each_kind
@pytest.mark.parametrize("before", KINDS)
def test_new_connection_has_no_new_burst(server: Server, before: Ask, ask: Ask) -> None:
    """Neither over another transport, nor from another address of the same IPv6 network."""
    ran = before(server, HERE, 30)
    assert ran == 30
    for _ in range(5):
        ran += ask(server, NEIGHBOUR, 30)
    assert 40 <= ran <= BURST
    assert ask(server, AWAY, 30) == 30


@each_kind
def test_rate_recovers_with_time(server: Server, ask: Ask) -> None:
    for _ in range(9):
        ask(server, HERE, 30)
    server.server.now += 100
    assert ask(server, HERE, 30) == 30


@each_kind
def test_connections_without_commands_are_charged(server: Server, ask: Ask) -> None:
    for _ in range(BURST + 1):
        ask(server, HERE, 0)
    if ask is not Server.http:
        assert ask(server, HERE, 30) == 0


@each_kind
def test_client_with_token_is_not_charged_for_its_address(server: Server, ask: Ask) -> None:
    assert [ask(server, HERE, 8, token) for token in ("A", "B")] == [8, 8]
    for _ in range(9):
        ask(server, AWAY, 8, "A")
    assert ask(server, HERE, 8, "A") == 0
    assert ask(server, HERE, 8, "B") == 8


@each_kind
def test_token_does_not_reset_the_rate_of_the_address(server: Server, ask: Ask) -> None:
    for _ in range(9):
        ask(server, HERE, 30)
    assert ask(server, HERE, 30, "A") == 0
    assert ask(server, AWAY, 8, "A") == 8


@each_kind
def test_invalid_tokens_are_charged_to_the_address(server: Server, ask: Ask) -> None:
    for _ in range(BURST):
        ask(server, HERE, 1, "wrong")
    assert ask(server, NEIGHBOUR, 30) == 0


@each_kind
def test_tokens_of_a_limited_identity_are_charged_to_the_address(server: Server, ask: Ask) -> None:
    """Otherwise tokens could be verified without limit."""
    for _ in range(2 * BURST):
        ask(server, AWAY, 8, "A")
    for _ in range(BURST):
        assert ask(server, HERE, 1, "A") == 0
    assert ask(server, NEIGHBOUR, 30) == 0


@each_kind
def test_local_clients_have_no_rate_limit(server: Server, ask: Ask) -> None:
    assert [ask(server, "127.0.0.1", 3 * BURST, token) for token in ("", "A")] == [3 * BURST, 3 * BURST]


def test_invalid_body_is_charged_by_its_size(server: Server) -> None:
    body = b'"' + rb"\ud83d" * 3000 + b'"'
    client = server.web(there=HERE).request("/channels/a/events?token=A", "POST", body, Content_Type="application/json")
    assert client.response()[0] == 400
    assert server.http(HERE, 8, "A") == 4


def test_rejects_handshake_over_the_rate_with_retry_after(server: Server) -> None:
    for _ in range(9):
        server.lines(HERE, 30)
    client = server.web(there=HERE)
    status, headers, _ = client.ask(upgrade())
    assert (status, headers["retry-after"]) == (429, "1") and client.transport.half_closed
    assert server.server.context.stats.errors[ErrorCode.RATE]


def test_rejects_line_connection_over_the_rate(server: Server) -> None:
    for _ in range(9):
        server.lines(HERE, 30)
    transport = server.line_port(HERE).transport
    assert transport.output().startswith(b"ERR rate ") and transport.half_closed
    assert server.server.context.connection_limiter.connections == 0


def test_aborts_connection_over_the_rate_before_its_tls_handshake(
    server: Server, make_web: MakeWebPort, make_lines: MakeLinePort
) -> None:
    context, secure = server.server.context, ListenerConfig("ssl:1")
    web, lines = make_web(server.server, listening=secure), make_lines(server.server, secure)
    aborted = []
    for connect in (web, lines) * 5:
        client = connect(there=HERE)
        aborted.append(client.transport.aborted)
        client.disconnect()
    assert aborted == [False] * 5 + [True] * 5
    assert context.connection_limiter.connections == 0
