"""Clients of the broker that use Socket.IO, on fake sockets."""

import json
from typing import Any

from twistedsock.codecs.socketio_decoder import SocketIODecoder, to_message
from twistedsock.codecs.socketio_encoder import SocketIOEncoder
from twistedsock.codecs.websocket import split_frames
from twistedsock.testing import FakeClient, FakeServer

PLACEHOLDER = {"_placeholder": True, "num": 0}


class SocketIOClient(FakeClient):
    """Packets are texts, as the protocol writes them, without the ``4`` of Engine.IO; attachments are bytes."""

    def __init__(self, server: FakeServer, main_channel: str = "") -> None:
        encoder = SocketIOEncoder(server.broker.time_of)
        limits = server.context.limits
        self.decoder = SocketIODecoder(
            encoder,
            limits.max_message_bytes,
            2 * limits.max_message_bytes,
            lambda: server.context.policy is not None,
            main_channel.encode(),
        )
        super().__init__(server, encoder, self.decoder)

    def send(self, *packets: str | bytes) -> None:
        self.send_messages(
            *[to_message(one, True) if isinstance(one, bytes) else to_message(one.encode(), False) for one in packets]
        )

    def received(self) -> list[str | bytes]:
        """The packets since the last call."""
        packets: list[str | bytes] = []
        for data, is_binary in split_frames(self.received_bytes()):
            assert is_binary or data.startswith(b"4"), data
            packets.append(data if is_binary else data[1:].decode())
        return packets

    def ask(self, *packets: str | bytes) -> list[str | bytes]:
        """Send packets, and return what the client receives until the server is idle."""
        self.send(*packets)
        self.server.turn()
        return self.received()

    def join(self, namespace: str = "/", **auth: Any) -> Any:
        """Join a namespace. Returns the value of CONNECT, of CONNECT_ERROR, or None. ``received`` returns the other
        packets."""
        prefix = "" if namespace == "/" else namespace + ","
        self.send(f"0{prefix}{json.dumps(auth) if auth else ''}")
        self.server.turn()
        self.first = self.received()
        reply = self.first.pop(0) if self.first else ""
        assert isinstance(reply, str) and (not reply or reply[1:].startswith(prefix)), reply
        return json.loads(reply[1 + len(prefix) :]) if reply else None
