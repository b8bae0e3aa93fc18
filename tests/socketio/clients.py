"""Clients of Socket.IO, and the applications that the official suites expect."""

import json
from typing import Any

from tests.server.engineio_clients import EnginePort
from twistedsock.socketio import Socket, SocketIO


class SocketClient:
    """A client over WebSocket. Packets are texts, as the protocol writes them, without the ``4`` of Engine.IO."""

    def __init__(self, port: EnginePort) -> None:
        self.socket = port.websocket()
        (opening,) = self.socket.received()
        assert isinstance(opening, str) and opening.startswith("0{")

    def send(self, *packets: str | bytes) -> None:
        self.socket.send(*["4" + packet if isinstance(packet, str) else packet for packet in packets])

    def received(self) -> list[str | bytes]:
        """The packets since the last call."""
        messages = self.socket.received()
        assert all(isinstance(message, bytes) or message.startswith("4") for message in messages), messages
        return [message[1:] if isinstance(message, str) else message for message in messages]

    def join(self, namespace: str = "/", auth: str = "") -> str:
        """Join a namespace. Returns the id of the socket."""
        prefix = "" if namespace == "/" else namespace + ","
        self.send(f"0{prefix}{auth}")
        reply, *self.first = self.received()
        assert isinstance(reply, str) and reply.startswith("0" + prefix + "{"), reply
        return str(json.loads(reply[len(prefix) + 1 :])["sid"])

    @property
    def is_closed(self) -> bool:
        return self.socket.close_code() is not None

    def disconnect(self) -> None:
        """The connection is lost."""
        self.socket.client.disconnect()


def conformance_application(**options: Any) -> SocketIO:
    """The application that the official Socket.IO suite expects."""
    sio = SocketIO(ping_interval=0.3, ping_timeout=0.2, connect_timeout=1.0, **options)

    def connect(socket: Socket, auth: dict[str, Any]) -> None:
        socket.emit("auth", auth)

    def message(socket: Socket, *arguments: Any) -> None:
        socket.emit("message-back", *arguments)

    def message_with_ack(socket: Socket, *arguments: Any) -> Any:
        return arguments

    for namespace in (sio, sio.of("/custom")):
        namespace.on("connect")(connect)
    sio.on("message")(message)
    sio.on("message-with-ack")(message_with_ack)
    return sio
