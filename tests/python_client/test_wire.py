"""JSON lines and WebSocket messages of the Python client."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from sockbridge.address import parse_address
from sockbridge.errors import SockbridgeError
from sockbridge.wire import JsonLines, Wire, open_wire


def test_lines_can_be_cut_anywhere() -> None:
    data = b'{"a":1}\n\n{"b":2}\n{"c"'
    for cut in range(len(data) + 1):
        wire = JsonLines()
        first, _ = wire.receive(data[:cut])
        second, _ = wire.receive(data[cut:])
        assert [message for message in first + second if message] == [b'{"a":1}', b'{"b":2}']


def test_line_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sockbridge.wire.MAX_MESSAGE_BYTES", 10)
    wire = JsonLines()
    wire.receive(b"x" * 10)
    with pytest.raises(SockbridgeError, match="too long"):
        wire.receive(b"x")


class WebSocketServer:
    """The other side of a wire."""

    def __init__(self) -> None:
        self.wire: Wire = open_wire(parse_address("ws://127.0.0.1:8082"))
        self.protocol = ServerProtocol(subprotocols=["sockbridge.v1.json"])  # type: ignore[list-item]
        self.protocol.receive_data(self.wire.opening())
        (request,) = self.protocol.events_received()
        assert isinstance(request, Request)
        self.request = request

    def accept(self) -> None:
        self.protocol.send_response(self.protocol.accept(self.request))
        assert self.send() == ([], b"")

    def send(self) -> tuple[list[bytes], bytes]:
        return self.wire.receive(b"".join(self.protocol.data_to_send()))

    def received(self, data: bytes) -> list[Frame]:
        self.protocol.receive_data(data)
        return [event for event in self.protocol.events_received() if isinstance(event, Frame)]


def test_handshake_offers_the_json_protocol() -> None:
    request = WebSocketServer().request
    assert request.path == "/ws" and request.headers["Sec-WebSocket-Protocol"] == "sockbridge.v1.json"


def test_messages_are_text_frames() -> None:
    server = WebSocketServer()
    server.accept()
    frames = server.received(server.wire.encode([b'{"a":1}', b"{}"]))
    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [(Opcode.TEXT, b'{"a":1}'), (Opcode.TEXT, b"{}")]


def test_fragments_are_one_message() -> None:
    server = WebSocketServer()
    server.accept()
    server.protocol.send_text(b'{"a"', fin=False)
    assert server.send() == ([], b"")
    server.protocol.send_continuation(b":1}", fin=True)
    assert server.send() == ([b'{"a":1}'], b"")


def test_ping_is_answered() -> None:
    server = WebSocketServer()
    server.accept()
    server.protocol.send_ping(b"x")
    messages, answer = server.send()
    (pong,) = server.received(answer)
    assert messages == [] and pong.opcode is Opcode.PONG


def test_refused_handshake_is_an_error() -> None:
    server = WebSocketServer()
    server.protocol.send_response(server.protocol.reject(403, "origin not allowed"))
    with pytest.raises(SockbridgeError, match="403") as raised:
        server.send()
    assert raised.value.code == "unreachable"


def test_other_answer_to_the_handshake_is_an_error() -> None:
    with pytest.raises(SockbridgeError, match="a line port needs tcp://"):
        WebSocketServer().wire.receive(b"WELCOME sockbridge/1 id=a from=b to=c\n" * 2)


def test_fragments_that_are_too_long_together_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sockbridge.wire.MAX_MESSAGE_BYTES", 10)
    server = WebSocketServer()
    server.accept()
    server.protocol.send_text(b"x" * 6, fin=False)
    server.send()
    server.protocol.send_continuation(b"x" * 6, fin=False)
    with pytest.raises(SockbridgeError, match="WebSocket protocol"):
        server.send()


def test_close_code_of_the_server_is_known() -> None:
    server = WebSocketServer()
    server.accept()
    assert server.wire.ending() == (1006, "")
    server.protocol.send_close(1008, "no")
    server.send()
    assert server.wire.ending() == (1008, "no")


def test_client_closes_with_a_close_frame() -> None:
    server = WebSocketServer()
    assert server.wire.closing() == b"", "nothing can be sent before the handshake"
    server.accept()
    (close,) = server.received(server.wire.closing())
    assert close.opcode is Opcode.CLOSE
