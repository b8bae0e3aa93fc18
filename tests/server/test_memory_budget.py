"""Connections are charged for buffered bytes, and give them back at the end."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.fakes import FakeReactor, FakeSocket
from tests.fuzz.grammars import frame
from tests.server.clients import CLOSE, TEXT, upgrade
from twistedsock.limits.principal import LOCAL
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.server.tcp import LineFactory
from twistedsock.server.transport import (
    NOT_READING,
    BufferedOutlet,
    DirectTCPTransport,
    charge_to,
    install_direct_writes,
)
from twistedsock.server.web_endpoints import JSON_PROTOCOL, LINE_PROTOCOL
from twistedsock.testing import FakeServer

KB = 1_000
WORDS = "server memory limit reached: try again later"
GONE = Failure(ConnectionDone())


class SocketPort:
    """A line port on fake sockets."""

    def __init__(self, server):
        self.server, self.reactor = server, FakeReactor()
        here = IPv4Address("TCP", "127.0.0.1", 8081)
        self._server = SimpleNamespace(_realPortNumber=8081, getHost=lambda: here)
        self._factory = LineFactory(server.context, self.reactor, 0)
        port = SimpleNamespace(transport=tcp.Server)
        install_direct_writes(port, server.context.memory_budget)
        self._make = port.transport

    def connect(self, address="127.0.0.1", proxied=None):
        socket, protocol = FakeSocket(), self._factory.buildProtocol(None)
        if proxied is not None:
            protocol.proxied_address = IPv4Address("TCP", proxied, 50000)
        transport = self._make(socket, protocol, (address, 50000), self._server, 1, self.reactor)
        protocol.makeConnection(transport)
        return transport, socket

    def turn(self):
        self.server.turn()
        self.reactor.turn()
        self.server.turn()


@pytest.fixture
def sockets(server):
    return SocketPort(server)


@pytest.fixture
def memory_budget(server):
    return server.context.memory_budget


# Unsent bytes.


def test_counts_unsent_bytes_until_they_are_sent(sockets, memory_budget):
    transport, socket = sockets.connect()
    socket.room = 10
    transport.write(b"x" * 10 * KB)
    assert memory_budget.used == 10 * KB - 10
    transport.write(b"y" * KB)
    assert memory_budget.used == 11 * KB - 10
    socket.room = None
    transport.doWrite()
    assert memory_budget.used == 0
    assert socket.sent.endswith(b"x" * 10 * KB + b"y" * KB) or len(socket.sent) > 11 * KB


def test_lost_connection_gives_back_unsent_bytes(sockets, memory_budget):
    transport, socket = sockets.connect()
    socket.room = 0
    transport.write(b"x" * 10 * KB)
    transport.connectionLost(GONE)
    assert memory_budget.used == 0
    transport.write(b"x" * 10 * KB)
    assert memory_budget.used == 0


def test_resets_slow_client_over_the_budget(sockets, memory_budget):
    first, second, little = (sockets.connect() for _ in range(3))
    for _, socket in (first, second, little):
        socket.room = 0
    first[0].write(b"x" * 10 * KB)
    memory_budget.limit = 10 * KB
    little[0].write(b"x" * KB)
    assert second[0].try_write(b"x" * 10 * KB)
    assert memory_budget.used == 10 * KB
    assert not second[0].try_write(b"more") and second[0].blocked & NOT_READING
    second[0].write(b"x" * 10 * KB)
    assert memory_budget.used == 10 * KB and second[0].dataBuffer == b"" and second[0]._tempDataBuffer == []
    sockets.turn()
    assert (first[1].closed, second[1].closed, little[1].closed) == (False, True, False)
    little[1].room = None
    little[0].doWrite()
    assert little[1].sent.endswith(b"x" * KB)
    assert len(sockets.server.context.sessions) == 2


def test_keeps_client_with_few_unsent_bytes_while_the_budget_is_exceeded(sockets, memory_budget):
    greedy, little = sockets.connect(), sockets.connect()
    for _, socket in (greedy, little):
        socket.room = 0
    greedy[0].write(b"x" * 10 * KB)
    memory_budget.limit = 5 * KB
    assert memory_budget.is_exceeded_by(LOCAL)
    little[0].write(b"x" * KB)
    sockets.turn()
    assert (greedy[1].closed, little[1].closed) == (False, False)
    little[1].room = None
    little[0].doWrite()
    assert little[1].sent.endswith(b"x" * KB)


@pytest.mark.parametrize("proxied", [False, True])
def test_keeps_client_below_its_share_while_another_exceeds_it(sockets, memory_budget, proxied):
    def connect(address):
        connected = sockets.connect("127.0.0.1", address) if proxied else sockets.connect(address)
        connected[1].room = 0
        return connected

    greedy, again, modest = connect("198.51.100.7"), connect("198.51.100.7"), connect("192.0.2.1")
    memory_budget.limit = 100 * KB
    greedy[0].write(b"x" * 100 * KB)
    modest[0].write(b"x" * 5 * KB)
    assert memory_budget.used == 105 * KB and not modest[0].blocked & NOT_READING
    again[0].write(b"x" * 3 * KB)
    assert again[0].blocked & NOT_READING and memory_budget.used == 105 * KB
    for transport, _ in (greedy, modest):
        transport.connectionLost(GONE)
    assert memory_budget.used == 0


def test_charges_bytes_below_tls_to_the_client_of_a_proxy(sockets, memory_budget):
    transport, socket = sockets.connect()
    tls = SimpleNamespace(transport=transport, registerProducer=lambda producer, streaming: None)
    outlet = BufferedOutlet(tls, sockets.reactor)
    outlet.principal = b"@192.0.2.1"
    assert transport.principal == outlet.principal == b"@192.0.2.1"
    charge_to(SimpleNamespace(), b"@192.0.2.2")


def test_transport_without_budget_counts_nothing():
    transport = DirectTCPTransport(FakeSocket(), None, ("127.0.0.1", 50000), None, 1, FakeReactor())
    transport.socket.room = 0
    transport.write(b"x" * 10 * KB)
    assert transport.blocked == SOCKET_FULL


# Unfinished input.


def test_counts_unfinished_line(call, memory_budget):
    call.send_bytes(b"PING " + b"x" * KB)
    assert memory_budget.used == 0
    call.send_bytes(b"x" * 4 * KB)
    assert memory_budget.used == 5 * KB + 5
    call.send_bytes(b"\n")
    assert memory_budget.used == 0
    assert call.received() == ["PONG " + "x" * 5 * KB]
    call.send_bytes(b"x" * 5 * KB)
    assert memory_budget.used == 5 * KB
    call.disconnect()
    assert memory_budget.used == 0


def test_skips_line_over_the_budget(call, memory_budget):
    memory_budget.limit = 10
    call.send_bytes(b"PING 1\nPING " + b"x" * 4 * KB)
    assert call.received() == ["PONG 1", f"ERR limit {WORDS}"]
    call.send_bytes(b"x" * 100 * KB)
    assert call.received() == [] and memory_budget.used == 0
    call.send_bytes(b"still it\nPING 2\n")
    assert call.received() == ["PONG 2"]


PIECES = {
    "a plain frame": [frame(TEXT, b"x" * 9 * KB)[: 5 * KB], b"x" * KB],
    "a frame for Autobahn": [frame(0x01, b"x" * 9 * KB)[: 5 * KB], b"x" * KB],
    "fragments": [frame(0x01, b"x" * 5 * KB), frame(0x00, b"x" * KB)],
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_counts_unfinished_message(port, memory_budget, pieces):
    client = port.open(LINE_PROTOCOL)
    client.send_bytes(pieces[0])
    counted = memory_budget.used
    assert 4 * KB < counted < 6 * KB
    client.send_bytes(pieces[1])
    assert KB - 20 < memory_budget.used - counted < KB + 20
    client.disconnect()
    assert memory_budget.used == 0


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_closes_connection_whose_message_exceeds_the_budget(port, memory_budget, pieces):
    client, other = port.open(JSON_PROTOCOL), port.open(LINE_PROTOCOL)
    memory_budget.limit = 10
    client.send_bytes(pieces[0])
    assert memory_budget.used == 0
    (kind, message), close = client.frames()
    assert kind == TEXT and b'"code":"limit"' in message and WORDS.encode() in message
    assert close[0] == CLOSE and int.from_bytes(close[1], "big") == 1013
    for _ in range(50):
        client.send_bytes(pieces[1])
    assert client.frames() == [] and memory_budget.used == 0
    assert not any(isinstance(value, bytes | bytearray) and value for value in vars(client.server).values())
    other.send("PING still")
    assert other.received() == ["PONG still"]
    client.disconnect()


def test_complete_message_is_not_counted(port, memory_budget):
    client = port.open(LINE_PROTOCOL)
    whole = frame(TEXT, b"PING " + b"x" * 5 * KB)
    for data in (whole, frame(0x01, b"PING ") + frame(0x80, b"x" * 5 * KB)):
        client.send_bytes(data[: 4 * KB])
        assert memory_budget.used > 3 * KB
        client.send_bytes(data[4 * KB :])
        assert memory_budget.used == 0
        assert client.received() == ["PONG " + "x" * 5 * KB]


def test_counts_frames_that_wait_for_the_next_time_slice(port, server, memory_budget):
    client = port.open(LINE_PROTOCOL)
    now = server.clock

    def clock():
        server.now += 0.01
        return now()

    server.clock = clock
    client.send_bytes(frame(0x8A, b"") * KB)
    waits = memory_budget.used
    assert waits > 5 * KB
    client.server.dataReceived(frame(0x8A, b"") * KB)  # already received by the kernel
    assert memory_budget.used == waits + 6 * KB
    server.turn()
    assert memory_budget.used == 0


def test_counts_unfinished_request_head(web, memory_budget):
    head = upgrade(X_Long="x" * 5 * KB)
    client, other = web(), web()
    client.send_bytes(head[: 4 * KB])
    other.send_bytes(head[: 3 * KB])
    assert memory_budget.used == 7 * KB
    other.disconnect()
    assert memory_budget.used == 4 * KB
    client.send_bytes(head[4 * KB :])
    assert memory_budget.used == 0
    assert client.response()[0] == 101
    client.disconnect()


def test_rejects_request_head_over_the_budget(web, memory_budget):
    memory_budget.limit = 10
    client = web()
    client.send_bytes(upgrade(X_Long="x" * 5 * KB)[: 4 * KB])
    status, headers, body = client.response()
    assert (status, headers["retry-after"]) == (503, "5") and WORDS in body.decode()
    assert memory_budget.used == 0 and client.transport.half_closed
    client.disconnect()


STEPS = st.one_of(
    st.tuples(st.just("sends"), st.integers(0, 3), st.sampled_from([100, 3 * KB, 30 * KB])),
    st.tuples(st.just("ends"), st.integers(0, 3), st.just(0)),
    st.tuples(st.sampled_from(["pings", "asks", "watches"]), st.integers(0, 3), st.integers(1, 30)),
    st.tuples(st.just("reads"), st.integers(0, 3), st.sampled_from([0, 0, KB, 100 * KB, None])),
    st.tuples(st.sampled_from(["goes", "turn"]), st.integers(0, 3), st.just(0)),
)


@given(st.lists(STEPS, max_size=40), st.sampled_from([5 * KB, 50 * KB, 10_000 * KB]))
def test_any_history_keeps_the_budget_and_ends_at_zero(steps, limit):
    """The limit is exceeded at most by the error for the last client."""
    server = FakeServer()
    sockets, memory_budget = SocketPort(server), server.context.memory_budget
    memory_budget.limit = limit
    publisher = server.line_client()
    publisher.send(*["PUB big " + "x" * KB] * 20)
    server.turn()
    peers = [sockets.connect() for _ in range(4)]
    for step, which, much in steps:
        transport, socket = peers[which]
        if transport.disconnected:
            continue
        if step == "goes":
            transport.connectionLost(GONE)
        elif step == "reads":
            socket.room = much
            if transport in sockets.reactor.writers and transport.doWrite():
                transport.connectionLost(GONE)
        elif step == "turn":
            sockets.turn()
        elif transport in sockets.reactor.readers:
            data = {
                "sends": b"x" * much,
                "ends": b"\n",
                "pings": b"\n" + b"PING xyz\n" * 10 * much,
                "asks": b"\n" + b"HIST big\n" * much,
                "watches": b"\n" + b"SUB big presence=on\nUNSUB big\n" * much,
            }[step]
            transport.protocol.dataReceived(data)
        assert 0 <= memory_budget.used <= limit
    for transport, socket in peers:
        socket.room = None
        if not transport.disconnected:
            transport.connectionLost(GONE)
    sockets.turn()
    assert memory_budget.used == 0 and len(server.context.sessions) == 1
