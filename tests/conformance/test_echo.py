"""The server under test is the product's own WebSocket connection, and echoes on both code paths."""

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from tests.conformance.echo import OTHER_HANDSHAKES, OTHER_MESSAGES, SHORT_HANDSHAKES, SHORT_MESSAGES, let_echo
from tests.fakes import autobahn_loop
from tests.fuzz.grammars import frame
from tests.server.clients import BINARY, CLOSE, TEXT, WebSocketClient, WebSocketPort
from twistedsock.server.web_endpoints import JSON_PROTOCOL
from twistedsock.server.websocket import WebSocketConnection
from twistedsock.testing import FakeServer

FIRST_FRAGMENT, LAST_FRAGMENT = 0x01, 0x80


@pytest.fixture
def port() -> Iterator[WebSocketPort]:
    clock = Clock()
    with autobahn_loop(clock):
        yield WebSocketPort(FakeServer(), clock)


@pytest.fixture
def counts(port: WebSocketPort) -> dict[str, int]:
    return let_echo(port.factory)


@pytest.fixture
def client(port: WebSocketPort, counts: dict[str, int]) -> WebSocketClient:
    """A client after its handshake. The echo server sends no welcome."""
    client = port.connect()
    assert client.shake_hands(JSON_PROTOCOL).startswith(b"HTTP/1.1 101 ")
    assert client.frames() == []
    return client


def test_keeps_the_options_of_the_server(port: WebSocketPort) -> None:
    configured = port.factory.protocol
    let_echo(port.factory)
    assert issubclass(port.factory.protocol, configured)
    assert issubclass(port.factory.protocol, WebSocketConnection)
    assert port.factory.protocol.maxMessagePayloadSize == configured.maxMessagePayloadSize


def test_echoes_text(client: WebSocketClient, counts: dict[str, int]) -> None:
    client.send_bytes(frame(TEXT, b"hello\nyou") + frame(TEXT, b"") + frame(TEXT, "é".encode()))
    assert client.frames() == [(TEXT, b"hello\nyou"), (TEXT, b""), (TEXT, "é".encode())]
    assert counts == {SHORT_HANDSHAKES: 0, OTHER_HANDSHAKES: 1, SHORT_MESSAGES: 3, OTHER_MESSAGES: 0}


def test_echoes_fragments_as_one_message(client: WebSocketClient, counts: dict[str, int]) -> None:
    client.send_bytes(frame(FIRST_FRAGMENT, b"a") + frame(LAST_FRAGMENT, b"b"))
    assert client.frames() == [(TEXT, b"ab")]
    assert (counts[SHORT_MESSAGES], counts[OTHER_MESSAGES]) == (0, 1)


def test_echoes_binary(client: WebSocketClient) -> None:
    client.send_bytes(frame(BINARY, b"\x00\xff"))
    assert client.frames() == [(BINARY, b"\x00\xff")]


def test_echoes_nothing_after_a_close_frame(client: WebSocketClient) -> None:
    client.send_bytes(frame(CLOSE, b"\x03\xe8") + frame(BINARY, b"x") + frame(TEXT, b"x"))
    client.is_closed_with(1000)


def test_session_without_welcome_is_counted(client: WebSocketClient, port: WebSocketPort) -> None:
    assert len(port.factory.context.sessions) == 1
    client.disconnect()
    assert len(port.factory.context.sessions) == 0
