"""The handshake of WebSocket connections, the dialects, rejected input, and fragments."""

import tracemalloc
from json import loads
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from tests.fuzz.grammars import frame
from tests.server.clients import (
    BINARY,
    PING,
    TEXT,
    WebSocketClient,
    WebSocketPort,
    pass_time,
)
from twistedsock.codecs.websocket import unmask
from twistedsock.limits.settings import Limits
from twistedsock.server.web_endpoints import BINARY_PROTOCOL, JSON_PROTOCOL, LINE_PROTOCOL
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.testing import FakeServer

MASK = b"\x12\x34\x56\x78"
HANDSHAKE_TIMEOUT = Limits().handshake_timeout

JSON_WELCOME = {"type": "welcome", "protocol": 1, "id": "p1", "from": "127.0.0.1:50000", "to": "127.0.0.1:8082"}
LINE_WELCOME = "WELCOME sockbridge/1 id=p1 from=127.0.0.1:50000 to=127.0.0.1:8082"


# The handshake.


@pytest.mark.parametrize(
    ("offered", "chosen", "welcome"),
    [
        ([], None, JSON_WELCOME),
        ([JSON_PROTOCOL], JSON_PROTOCOL, JSON_WELCOME),
        ([LINE_PROTOCOL], LINE_PROTOCOL, LINE_WELCOME),
        ([BINARY_PROTOCOL, JSON_PROTOCOL], BINARY_PROTOCOL, JSON_WELCOME),
        ([LINE_PROTOCOL, JSON_PROTOCOL], LINE_PROTOCOL, LINE_WELCOME),
        ([JSON_PROTOCOL, LINE_PROTOCOL], JSON_PROTOCOL, JSON_WELCOME),
        (["chat", JSON_PROTOCOL], JSON_PROTOCOL, JSON_WELCOME),
        (["chat", LINE_PROTOCOL, "x"], LINE_PROTOCOL, LINE_WELCOME),
    ],
)
def test_selects_the_first_supported_subprotocol(
    offered: list[str], chosen: str | None, welcome: object, port: WebSocketPort
) -> None:
    client = port.connect()
    head = client.shake_hands(*offered)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    headers = [
        line.partition(": ")[2] for line in head.decode().split("\r\n") if line.startswith("Sec-WebSocket-Protocol:")
    ]
    assert headers == ([chosen] if chosen else [])
    assert client.received() == [welcome]


def test_rejects_unknown_subprotocols_with_400(port: WebSocketPort, server: FakeServer) -> None:
    client = port.connect()
    head = client.shake_hands("chat", "sockbridge.v2.json")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert JSON_PROTOCOL.encode() in head and LINE_PROTOCOL.encode() in head
    assert client.transport.is_closed
    client.disconnect()
    assert len(server.context.sessions) == 0


def test_declines_compression(port: WebSocketPort) -> None:
    """A compressed connection could not share frames."""
    client = port.connect()
    head = client.shake_hands(extra=("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",))
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Extensions" not in head
    assert client.received() == [JSON_WELCOME]


def test_answers_message_sent_with_the_handshake(port: WebSocketPort) -> None:
    client = port.connect()
    client.shake_hands(behind=frame(TEXT, b'{"type":"ping","id":1}') + frame(TEXT, b'{"type":"ping","id":2}')[:9])
    assert client.received() == [JSON_WELCOME, {"type": "pong", "id": 1}]
    client.send_bytes(frame(TEXT, b'{"type":"ping","id":2}')[9:])
    assert client.received() == [{"type": "pong", "id": 2}]


def test_drops_connection_without_a_handshake(port: WebSocketPort, clock: Clock) -> None:
    client = port.connect()
    client.send_bytes(b"GET /ws HTTP/1.1\r\n")
    pass_time(clock, HANDSHAKE_TIMEOUT + 1)
    assert client.transport.aborted
    client.disconnect()
    assert not clock.getDelayedCalls()


def test_frees_the_handshake_state(port: WebSocketPort) -> None:
    """It would be two thirds of the memory of an idle connection."""
    client = port.open()
    assert not [name for name in vars(client.server) if name.startswith(("http_", "websocket_"))]
    assert len(vars(client.server)) < 20


# Dialects.


def test_speaks_json(port: WebSocketPort, server: FakeServer) -> None:
    client = port.open(JSON_PROTOCOL)
    client.send(
        {"type": "subscribe", "id": 1, "channel": "a"}, {"type": "publish", "id": 2, "channel": "a", "data": [1]}
    )
    server.turn()
    assert client.received() == [
        {"type": "ok", "id": 1, "channel": "a", "offset": 0, "epoch": "e1"},
        {"type": "ok", "id": 2, "offset": 1},
        {
            "type": "event",
            "channel": "a",
            "offset": 1,
            "time": 1_800_000_000_000,
            "from": "p1",
            "name": "message",
            "data": [1],
        },
    ]


@pytest.mark.parametrize("protocols", [(), (LINE_PROTOCOL,)])
@pytest.mark.parametrize("first", ["PING 1", "ping 1\n", "  PING 1\r\n", "\nPING 1\n\n"])
def test_speaks_lines(protocols: tuple[str, ...], first: str, port: WebSocketPort, server: FakeServer) -> None:
    """With the subprotocol, or if the first message is not an object."""
    client = port.open(*protocols)
    client.send(first)
    assert client.received() == ["PONG 1"]
    client.send("SUB a", 'PUB a {"x":1}')
    server.turn()
    assert client.received() == ["OK a offset=0 epoch=e1", "OK 1", 'MSG a 1 p1 {"x":1}']
    client.send('{"type":"ping"}')
    assert client.received()[0].startswith("ERR unknown-command ")


def test_only_the_first_message_selects_the_dialect(port: WebSocketPort) -> None:
    client = port.open()
    client.send('{"type":"ping"}')
    client.send("PING")
    assert [message["type"] for message in client.received()] == ["pong", "error"]


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n\t ", "\ufeff"])
def test_blank_messages_do_not_select_the_dialect(blank: str, port: WebSocketPort) -> None:
    client = port.open()
    client.send(blank)
    client.send(blank, '  \n{"type":"ping"}', blank)
    assert [message["type"] for message in client.received()] == ["pong", "error"]
    client = port.open()
    client.send(blank, blank, "PING 1", blank)
    assert client.received()[0] == "PONG 1"


def test_blank_first_messages_count_against_the_rate_limit(port: WebSocketPort) -> None:
    client = port.connect()
    client.transport.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", 50000)  # type: ignore[method-assign]
    client.shake_hands()
    client.received()
    for _ in range(50):
        client.send(*[""] * 1_000)
        if client.transport.value():
            break
    client.is_closed_with(1008, '{"type":"notice","text":"rate limit exceeded repeatedly"}')


@pytest.mark.parametrize("protocols", [(), (LINE_PROTOCOL,)])
def test_ignores_byte_order_mark_before_the_first_message(protocols: tuple[str, ...], port: WebSocketPort) -> None:
    client = port.open(*protocols)
    client.send("\ufeffPING 1", "\ufeffPING 2")
    pong, error = client.received()
    assert pong == "PONG 1" and error.startswith("ERR unknown-command ")


def test_json_subprotocol_fixes_the_dialect(port: WebSocketPort) -> None:
    client = port.open(JSON_PROTOCOL)
    client.send("PING")
    (error,) = client.received()
    assert (error["type"], error["code"]) == ("error", "bad-json")


def test_first_message_in_fragments_selects_the_dialect(port: WebSocketPort) -> None:
    client = port.open()
    client.send_bytes(frame(0x01, b"PI") + frame(0x80, b"NG"))
    assert client.received() == ["PONG"]


def test_message_can_have_several_lines(client: WebSocketClient) -> None:
    """Each is a command, and each reply is a message."""
    client.send("PING 1\nPING 2\r\n\nPING 3\n")
    assert client.received() == ["PONG 1", "PONG 2", "PONG 3"]
    client.send("HELP SUB")
    assert len(client.received()) > 2


def test_exception_is_answered_with_internal_and_logged_once(
    client: WebSocketClient, server: FakeServer, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(server.broker, "members", lambda name: 1 / 0)
    client.send("WHO a", "PING")
    fault, pong = client.received()
    assert fault.startswith("ERR internal ") and pong == "PONG"
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [ZeroDivisionError]
    logged.clear()


# Rejected input.


def test_closes_with_1003_for_binary_messages(port: WebSocketPort) -> None:
    client = port.open()
    client.send({"type": "ping"})
    client.send_bytes(frame(BINARY, b"\x00"))
    client.is_closed_with(1003, '{"type":"pong"}')


@pytest.mark.parametrize("sent", [frame(TEXT, b"PING \xff"), frame(0x01, b"PING \xe2\x82") + frame(0x80, b"x")])
def test_closes_with_1007_for_invalid_utf8(sent: bytes, client: WebSocketClient) -> None:
    """In one frame or in fragments. The message is not run."""
    client.send_bytes(frame(TEXT, b"PING 1") + sent)
    client.is_closed_with(1007, "PONG 1")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81\xff" + (65_537).to_bytes(8, "big") + MASK,
        b"\x01\xff" + (65_537).to_bytes(8, "big") + MASK,
        b"\x81\xff" + (2**62).to_bytes(8, "big") + MASK,
        frame(0x01, b"x" * 40_000) + b"\x80\xfe" + (40_000).to_bytes(2, "big") + MASK,
    ],
)
def test_closes_with_1009_for_an_announced_size_over_the_limit(sent: bytes, client: WebSocketClient) -> None:
    client.send_bytes(sent)
    client.is_closed_with(1009)


def test_message_limit_is_configurable(clock: Clock) -> None:
    client = WebSocketClient(WebSocketFactory(FakeServer(max_message_bytes=600).context, clock, 0, 0, 0))
    client.shake_hands(LINE_PROTOCOL)
    client.received()
    client.send("PING " + "x" * 595)
    assert client.received() == ["PONG " + "x" * 595]
    client.send_bytes(frame(TEXT, b"PING " + b"x" * 596)[:8])
    client.is_closed_with(1009)


def test_accepts_message_of_exactly_the_limit(client: WebSocketClient, server: FakeServer) -> None:
    message = b"PUB a " + b"x" * (65_536 - 6)
    client.send_bytes(b"\x81\xff" + (65_536).to_bytes(8, "big") + MASK + unmask(message, MASK))
    assert client.received() == ["OK 1"]


@pytest.mark.parametrize("sent", [b"\x81\x01x", frame(0xC1, b"x"), frame(0x83, b"x"), frame(0x80, b"x")])
def test_closes_with_1002_for_protocol_errors(sent: bytes, client: WebSocketClient) -> None:
    """Messages before the error are answered."""
    client.send_bytes(frame(TEXT, b"PING") + sent)
    client.is_closed_with(1002, "PONG")


BEGINNING, CONTINUATION, END = 0x01, 0x00, 0x80
MAX_MESSAGE_BYTES = 65_536


@pytest.fixture
def memory():
    """``memory()``: bytes allocated since the test began."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()


def test_joins_fragments_to_one_message(port):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b'{"type":"pi') + frame(CONTINUATION, b"") + frame(CONTINUATION, b'ng",'))
    client.send_bytes(frame(PING, b"between") + frame(END, b'"id":1}'))
    pong, answer = client.frames()
    assert pong[1] == b"between"
    assert answer == (TEXT, b'{"type":"pong","id":1}')
    client.send({"type": "ping", "id": 2})
    assert client.received() == [{"type": "pong", "id": 2}]
    assert not {"_joined", "_fragments"} & client.server.__dict__.keys()


def test_empty_fragments_take_no_memory(port, memory):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b""))
    before = memory()
    for _ in range(10):
        client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    assert memory() - before < 5_000
    client.send_bytes(frame(END, b'{"type":"ping","id":1}'))
    assert client.received() == [{"type": "pong", "id": 1}]


def test_closes_with_1009_after_too_many_fragments(port):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b""))
    for _ in range(65):
        client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    assert client.frames() == []
    client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    client.is_closed_with(1009)
    client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    assert client.frames() == []


@pytest.mark.parametrize("head", [frame(BEGINNING, b""), b"\x82\xff" + (65_536).to_bytes(8) + bytes(4)])
def test_message_in_tiny_pieces_takes_the_memory_of_its_length(port, memory, head):
    """In fragments, or as one frame in small segments."""
    client = port.open()
    client.send_bytes(head)
    before = memory()
    for _ in range(10_000):
        client.send_bytes(frame(CONTINUATION, b"ab") if head[0] == BEGINNING else b"ab")
    assert memory() - before < 30_000


def test_closes_with_1009_if_fragments_exceed_the_message_limit(port):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b"x" * MAX_MESSAGE_BYTES))
    assert client.frames() == []
    client.send_bytes(frame(CONTINUATION, b"x"))
    client.is_closed_with(1009)


def test_drops_client_that_does_not_answer_the_close_frame(port, clock):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b"x" * MAX_MESSAGE_BYTES) + frame(CONTINUATION, b"x"))
    client.is_closed_with(1009)
    pass_time(clock, 20)
    assert client.transport.is_closed


# Binary messages.


HEADER = b'{"type":"publish","id":1,"channel":"kitchen"}\n'
EVENT = {"type": "event", "channel": "kitchen", "offset": 1, "time": 1_800_000_000_000, "from": "p1", "name": "message"}


@pytest.mark.parametrize("fragmented", [False, True])
def test_binary_clients_publish_and_receive_bytes_as_they_are(
    port: WebSocketPort, server: FakeServer, fragmented: bool
) -> None:
    """Other clients receive them as base64."""
    binary, json, lines = (port.open(protocol) for protocol in (BINARY_PROTOCOL, JSON_PROTOCOL, LINE_PROTOCOL))
    for client in (binary, json):
        client.send({"type": "subscribe", "channel": "kitchen"})
    lines.send("SUB kitchen")
    server.turn()
    lines.received()
    message = HEADER + b"\xff\n\x00"
    binary.send_bytes(frame(0x02, message[:9]) + frame(0x80, message[9:]) if fragmented else frame(BINARY, message))
    binary.send({"type": "ping"})
    server.turn()
    *replies, (first, event) = binary.frames()
    assert replies == [(TEXT, b'{"type":"ok","id":1,"offset":1}'), (TEXT, b'{"type":"pong"}')]
    header, _, payload = event.partition(b"\n")
    assert (first, payload, loads(header)) == (BINARY, b"\xff\n\x00", EVENT)
    assert json.received() == [EVENT | {"base64": "/woA"}]
    assert lines.received() == ["BIN kitchen 1 p1 message /woA"]


def test_invalid_binary_message_is_an_error(port: WebSocketPort) -> None:
    client = port.open(BINARY_PROTOCOL)
    client.send_bytes(frame(BINARY, b"\xff"))
    client.send({"type": "ping"})
    error, pong = client.received()
    assert error["code"] == "bad-json" and pong == {"type": "pong"}
