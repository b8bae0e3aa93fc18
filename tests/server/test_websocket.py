"""One WebSocket peer: its handshake, its dialect, and what is not taken; with a fake transport and a fake clock."""

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from tests.server.websocket_client import (
    BINARY,
    TEXT,
    Client,
    Port,
    pass_time,
)
from tests.server.websocket_streams import MASK, frame
from twistedsock.codecs.websocket import unmask
from twistedsock.limits.settings import Limits
from twistedsock.server.web_endpoints import JSON_PROTOCOL, LINE_PROTOCOL
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.testing import FakeServer

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
        ([LINE_PROTOCOL, JSON_PROTOCOL], LINE_PROTOCOL, LINE_WELCOME),
        ([JSON_PROTOCOL, LINE_PROTOCOL], JSON_PROTOCOL, JSON_WELCOME),
        (["chat", JSON_PROTOCOL], JSON_PROTOCOL, JSON_WELCOME),
        (["chat", LINE_PROTOCOL, "x"], LINE_PROTOCOL, LINE_WELCOME),
    ],
)
def test_the_first_subprotocol_that_is_ours_is_spoken(
    offered: list[str], chosen: str | None, welcome: object, port: Port
) -> None:
    """The server chooses in the client's order, and the welcome is the first thing it says."""
    client = port.connect()
    head = client.asks(*offered)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    told = [
        line.partition(": ")[2] for line in head.decode().split("\r\n") if line.startswith("Sec-WebSocket-Protocol:")
    ]
    assert told == ([chosen] if chosen else [])
    assert client.received() == [welcome]


def test_only_unknown_subprotocols_are_refused(port: Port, server: FakeServer) -> None:
    """Who offers nothing that is spoken here gets a 400 that names what is."""
    client = port.connect()
    head = client.asks("chat", "sockbridge.v2.json")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert JSON_PROTOCOL.encode() in head and LINE_PROTOCOL.encode() in head
    assert client.transport.ending is not None
    client.goes()
    assert len(server.context.sessions) == 0


def test_compression_stays_refused(port: Port) -> None:
    """Browsers offer it; a compressed connection could not share frames."""
    client = port.connect()
    head = client.asks(extra=("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",))
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Extensions" not in head
    assert client.received() == [JSON_WELCOME]


def test_a_message_right_behind_the_handshake(port: Port) -> None:
    """What came in the same read as the handshake is answered after the welcome."""
    client = port.connect()
    client.asks(behind=frame(TEXT, b'{"type":"ping","id":1}') + frame(TEXT, b'{"type":"ping","id":2}')[:9])
    assert client.received() == [JSON_WELCOME, {"type": "pong", "id": 1}]
    client.send_bytes(frame(TEXT, b'{"type":"ping","id":2}')[9:])
    assert client.received() == [{"type": "pong", "id": 2}]


def test_a_handshake_that_does_not_come_is_not_awaited_for_ever(port: Port, clock: Clock) -> None:
    """Who says nothing, or half of it, is dropped."""
    client = port.connect()
    client.send_bytes(b"GET /ws HTTP/1.1\r\n")
    pass_time(clock, HANDSHAKE_TIMEOUT + 1)
    assert client.transport.ending == "aborted"
    client.goes()
    assert not clock.getDelayedCalls()


def test_the_handshake_leaves_nothing_behind(port: Port) -> None:
    """What only the handshake needed would be two thirds of an idle connection's memory."""
    client = port.open()
    assert not [name for name in vars(client.server) if name.startswith(("http_", "websocket_"))]
    assert len(vars(client.server)) < 20


# Dialects.


def test_json(port: Port, server: FakeServer) -> None:
    """A subscriber hears its own event, after the answer."""
    client = port.open(JSON_PROTOCOL)
    client.send(
        {"type": "subscribe", "id": 1, "channel": "a"}, {"type": "publish", "id": 2, "channel": "a", "data": [1]}
    )
    server.turn()
    assert client.received() == [
        {"type": "ok", "id": 1, "channel": "a", "offset": 0, "epoch": "e1"},
        {"type": "ok", "id": 2, "offset": 1},
        {"type": "event", "channel": "a", "offset": 1, "from": "p1", "name": "message", "data": [1]},
    ]


@pytest.mark.parametrize("protocols", [(), (LINE_PROTOCOL,)])
@pytest.mark.parametrize("first", ["PING 1", "ping 1\n", "  PING 1\r\n", "\nPING 1\n\n"])
def test_lines(protocols: tuple[str, ...], first: str, port: Port, server: FakeServer) -> None:
    """With the subprotocol, or by a first message that is no object: lines, and no second welcome."""
    client = port.open(*protocols)
    client.send(first)
    assert client.received() == ["PONG 1"]
    client.send("SUB a", 'PUB a {"x":1}')
    server.turn()
    assert client.received() == ["OK a offset=0 epoch=e1", "OK 1", 'MSG a 1 p1 {"x":1}']
    client.send('{"type":"ping"}')
    assert client.received()[0].startswith("ERR unknown-command ")


def test_the_first_message_decides_for_good(port: Port) -> None:
    """Once it was an object, a line is bad JSON."""
    client = port.open()
    client.send('{"type":"ping"}')
    client.send("PING")
    assert [message["type"] for message in client.received()] == ["pong", "error"]


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n\t ", "\ufeff"])
def test_a_blank_first_message_decides_nothing(blank: str, port: Port) -> None:
    client = port.open()
    client.send(blank)
    client.send(blank, '  \n{"type":"ping"}', blank)
    assert [message["type"] for message in client.received()] == ["pong", "error"]
    client = port.open()
    client.send(blank, blank, "PING 1", blank)
    assert client.received()[0] == "PONG 1"


def test_blank_first_messages_count_against_the_rate_limit(port: Port) -> None:
    client = port.connect()
    client.transport.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", 50000)  # type: ignore[method-assign]
    client.asks()
    client.received()
    for _ in range(50):
        client.send(*[""] * 1_000)
        if client.transport.written:
            break
    client.is_closed_with(1008, '{"type":"notice","text":"you went on sending faster than you may"}')


@pytest.mark.parametrize("protocols", [(), (LINE_PROTOCOL,)])
def test_a_leading_byte_order_mark_is_no_part_of_the_first_message(protocols: tuple[str, ...], port: Port) -> None:
    client = port.open(*protocols)
    client.send("\ufeffPING 1", "\ufeffPING 2")
    pong, error = client.received()
    assert pong == "PONG 1" and error.startswith("ERR unknown-command ")


def test_with_the_json_subprotocol_nothing_is_decided(port: Port) -> None:
    """Who asked for JSON gets JSON, whatever it says first."""
    client = port.open(JSON_PROTOCOL)
    client.send("PING")
    (error,) = client.received()
    assert (error["type"], error["code"]) == ("error", "bad-json")


def test_a_first_message_by_the_long_way_decides_too(port: Port) -> None:
    """In fragments, it is a first message like any other."""
    client = port.open()
    client.send_bytes(frame(0x01, b"PI") + frame(0x80, b"NG"))
    assert client.received() == ["PONG"]


def test_several_lines_in_one_message(port: Port) -> None:
    """They are several commands, and each server line is a message."""
    client = port.open(LINE_PROTOCOL)
    client.send("PING 1\nPING 2\r\n\nPING 3\n")
    assert client.received() == ["PONG 1", "PONG 2", "PONG 3"]
    client.send("HELP SUB")
    assert len(client.received()) > 2


def test_a_fault_is_answered_and_the_rest_goes_on(
    port: Port, server: FakeServer, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]]
) -> None:
    """A fault of ours is logged once, the peer hears ``internal``, and nothing else is lost."""
    client = port.open(LINE_PROTOCOL)
    monkeypatch.setattr(server.broker, "members", lambda name: 1 / 0)
    client.send("WHO a", "PING")
    fault, pong = client.received()
    assert fault.startswith("ERR internal ") and pong == "PONG"
    assert [event["log_failure"].type for event in logged if "log_failure" in event] == [ZeroDivisionError]
    logged.clear()


# What is not taken.


def test_binary_is_1003(port: Port) -> None:
    """Until there are binary payloads."""
    client = port.open()
    client.send({"type": "ping"})
    client.send_bytes(frame(BINARY, b"\x00"))
    client.is_closed_with(1003, '{"type":"pong"}')


@pytest.mark.parametrize("sent", [frame(TEXT, b"PING \xff"), frame(0x01, b"PING \xe2\x82") + frame(0x80, b"x")])
def test_what_is_not_utf8_is_1007(sent: bytes, port: Port) -> None:
    """In one frame or in fragments, and it is not run."""
    client = port.open(LINE_PROTOCOL)
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
def test_too_big_is_1009(sent: bytes, port: Port) -> None:
    """The announced size is refused at once, before anything of it has come."""
    client = port.open(LINE_PROTOCOL)
    client.send_bytes(sent)
    client.is_closed_with(1009)


def test_the_limit_can_be_moved(clock: Clock) -> None:
    """A smaller bound is kept by the short way too; the bound itself is allowed."""
    client = Client(WebSocketFactory(FakeServer(max_message_bytes=600).context, clock, 0, 0, 0))
    client.asks(LINE_PROTOCOL)
    client.received()
    client.send("PING " + "x" * 595)
    assert client.received() == ["PONG " + "x" * 595]
    client.send_bytes(frame(TEXT, b"PING " + b"x" * 596)[:8])
    client.is_closed_with(1009)


def test_as_large_as_allowed(port: Port, server: FakeServer) -> None:
    """A message of exactly the limit is run."""
    client = port.open(LINE_PROTOCOL)
    message = b"PUB a " + b"x" * (65_536 - 6)
    client.send_bytes(b"\x81\xff" + (65_536).to_bytes(8, "big") + MASK + unmask(message, MASK))
    assert client.received() == ["OK 1"]


@pytest.mark.parametrize("sent", [b"\x81\x01x", frame(0xC1, b"x"), frame(0x83, b"x"), frame(0x80, b"x")])
def test_a_violation_is_1002(sent: bytes, port: Port) -> None:
    """What the protocol forbids ends the connection; what came before is answered."""
    client = port.open(LINE_PROTOCOL)
    client.send_bytes(frame(TEXT, b"PING") + sent)
    client.is_closed_with(1002, "PONG")
