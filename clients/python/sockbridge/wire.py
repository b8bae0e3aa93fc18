"""Messages to bytes and back, without I/O: JSON lines, or WebSocket messages."""

from __future__ import annotations

from typing import Any, Protocol

from sockbridge.address import Address
from sockbridge.errors import SockbridgeError

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The answer to ``history`` is one message with all events; by default, a channel keeps 4 MiB."""

ABNORMAL = 1006
"""RFC 6455 section 7.1.5: the connection ended without a close frame."""

SUBPROTOCOL = "sockbridge.v1.json"


class Wire(Protocol):
    """The framing of one connection."""

    hint: str
    """What may be wrong with the address if a server sends no welcome."""

    def opening(self) -> bytes:
        """The first bytes of the client."""

    def encode(self, messages: list[bytes]) -> bytes:
        """The bytes of messages."""

    def receive(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The messages that are complete with this input, and bytes to send at once. Empty input is the end of the
        stream. Raises SockbridgeError for input that the protocol does not allow."""

    def closing(self) -> bytes:
        """The last bytes of the client."""

    def ending(self) -> tuple[int, str]:
        """The close code and the reason of the server, once the connection has ended."""


class JsonLines:
    """One message a line, on the line port, a Unix socket or TLS."""

    hint = "a web port needs ws://, and a port with TLS tls:// or wss://"

    def __init__(self) -> None:
        self._partial = bytearray()

    def opening(self) -> bytes:
        return b""

    def encode(self, messages: list[bytes]) -> bytes:
        return b"".join([message + b"\n" for message in messages])

    def receive(self, data: bytes) -> tuple[list[bytes], bytes]:
        end = data.rfind(b"\n")
        if end < 0:
            self._partial += data
            if len(self._partial) > MAX_MESSAGE_BYTES:
                raise SockbridgeError("bad-answer", "the server sent a line that is too long")
            return [], b""
        complete = bytes(self._partial) + data[:end]
        self._partial = bytearray(data[end + 1 :])
        return complete.split(b"\n"), b""

    def closing(self) -> bytes:
        return b""

    def ending(self) -> tuple[int, str]:
        return ABNORMAL, ""


class WebSocket:
    """WebSocket messages, by the sans-I/O part of the package ``websockets``."""

    hint = "a line port needs tcp://, and a port with TLS tls:// or wss://"

    def __init__(self, address: Address) -> None:
        try:
            from websockets.client import ClientProtocol
            from websockets.uri import parse_uri
        except ImportError:
            hint = f"{address.scheme}:// needs the package websockets: pip install websockets"
            raise SockbridgeError("unreachable", hint) from None
        subprotocols: Any = [SUBPROTOCOL]
        self._protocol: Any = ClientProtocol(
            parse_uri(str(address)), subprotocols=subprotocols, max_size=MAX_MESSAGE_BYTES
        )
        self._gathered = bytearray()

    def opening(self) -> bytes:
        self._protocol.send_request(self._protocol.connect())
        return self._output()

    def encode(self, messages: list[bytes]) -> bytes:
        for message in messages:
            self._protocol.send_text(message)
        return self._output()

    def receive(self, data: bytes) -> tuple[list[bytes], bytes]:
        from websockets.exceptions import InvalidStatus
        from websockets.frames import Frame, Opcode

        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        messages = []
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._gathered += event.data
                if event.fin:
                    messages.append(bytes(self._gathered))
                    self._gathered.clear()
        if (failed := self._protocol.handshake_exc) is not None:
            if isinstance(failed, InvalidStatus):
                status = failed.response.status_code
                raise SockbridgeError("unreachable", f"no WebSocket there: the server answered with status {status}")
            raise SockbridgeError("unreachable", f"no WebSocket there: {self.hint}")
        if (failed := self._protocol.parser_exc) is not None and data:
            raise SockbridgeError("bad-answer", f"the server does not follow the WebSocket protocol: {failed}")
        return messages, self._output()

    def closing(self) -> bytes:
        from websockets.protocol import State

        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
        return self._output()

    def ending(self) -> tuple[int, str]:
        frame = self._protocol.close_rcvd
        return (ABNORMAL, "") if frame is None else (frame.code, frame.reason)

    def _output(self) -> bytes:
        return b"".join(self._protocol.data_to_send())


def open_wire(address: Address) -> Wire:
    """The framing of a new connection to a server."""
    return WebSocket(address) if address.is_websocket else JsonLines()
