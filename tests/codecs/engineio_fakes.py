"""A client of an Engine.IO session: its requests, its WebSockets, and what the listener of the session receives."""

from collections.abc import Sequence
from typing import Any

from twistedsock.codecs.engineio import InvalidPacket, Packet, decode_payload, encode_text
from twistedsock.codecs.engineio_session import CloseCause, EngineSession, EngineSettings
from twistedsock.codecs.websocket import split_frames


class FakePoll:
    """A GET request. ``body`` is None until it is answered."""

    def __init__(self) -> None:
        self.body: bytes | None = None

    def respond(self, body: bytes) -> None:
        assert self.body is None
        self.body = body


class FakeSocket:
    """A WebSocket. ``sent`` has texts as ``str`` and binary messages as ``bytes``."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.is_blocked = False
        self.is_closed = self.is_paused = False

    def send(self, packet: Packet) -> None:
        assert not self.is_closed
        self.sent.append(packet.data if packet.is_binary else encode_text(packet).decode())

    def send_frames(self, frames: bytes) -> None:
        for data, is_binary in split_frames(frames):
            self.sent.append(data if is_binary else data.decode())

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True


class FakeListener:
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.cause: CloseCause | None = None
        self.is_finished = False
        self.on_message: Any = None
        self.is_in_message = False

    def complete_message(self) -> bool:
        return not self.is_in_message

    def received(self, data: bytes, is_binary: bool) -> None:
        self.messages.append(data if is_binary else data.decode())
        if self.on_message is not None:
            self.on_message(data, is_binary)

    def received_texts(self, texts: Sequence[bytes]) -> None:
        self.messages += [f"together: {text.decode()}" for text in texts]

    def closed(self, cause: CloseCause) -> None:
        assert self.cause is None
        self.cause = cause

    def finished(self) -> None:
        assert self.cause is not None and not self.is_finished
        self.is_finished = True


class FakeClient:
    """A session with the time ``now``, in seconds, and the actions of its client."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self.now = 1000.0
        self.listener = FakeListener()
        self.session = EngineSession("sid", settings or EngineSettings(), self.listener, self.now)

    def open_with_poll(self) -> bytes | None:
        poll = FakePoll()
        self.session.open_with_poll(poll)
        self.session.flush()
        return poll.body

    def open_with_socket(self) -> FakeSocket:
        socket = FakeSocket()
        self.session.open_with_socket(socket)
        self.session.flush()
        return socket

    def poll(self) -> FakePoll:
        poll = FakePoll()
        assert self.session.poll(poll) is None
        return poll

    def post(self, body: bytes) -> None:
        """Send a payload, as the endpoint handles it."""
        assert self.session.begin_post() is None
        try:
            for packet in decode_payload(body):
                self.session.receive(packet, self.now)
        except InvalidPacket:
            self.session.fail(CloseCause.INVALID)
        self.session.end_post()

    def send(self, socket: FakeSocket, *messages: str | bytes) -> None:
        """Send messages over a WebSocket."""
        for message in messages:
            data = message if isinstance(message, bytes) else message.encode()
            try:
                self.session.socket_received(socket, data, isinstance(message, bytes), self.now)
            except InvalidPacket:
                self.session.fail(CloseCause.INVALID)

    def upgrade(self) -> FakeSocket:
        socket = FakeSocket()
        assert self.session.upgrade(socket, "4", self.now)
        return socket

    def wait(self, seconds: float) -> None:
        """Let time pass. The session is called at its deadlines only."""
        end = self.now + seconds
        while self.session.deadline <= end:
            self.now = max(self.now, self.session.deadline)
            self.session.time_passed(self.now)
        self.now = end

    @property
    def cause(self) -> CloseCause | None:
        return self.listener.cause
