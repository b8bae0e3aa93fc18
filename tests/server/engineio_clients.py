"""Clients of Engine.IO on a web port without sockets, and an application that returns every message."""

import json
from itertools import count
from typing import Any

from tests.fakes import FakeReactor
from tests.fuzz.grammars import frame
from tests.server.clients import BINARY, CLOSE, TEXT, split_frames, upgrade
from tests.server.http.clients import Response, WebClient, WebPort, read_response
from twistedsock.codecs.engineio import PATH, Packet, PacketType
from twistedsock.codecs.engineio_session import CloseCause, EngineSettings
from twistedsock.server.engineio import EngineApplication, EngineConnection, EngineEndpoint, MessageHandler
from twistedsock.testing import FakeServer

NEW_POLLING = "?EIO=4&transport=polling"

NEW_WEBSOCKET = "?EIO=4&transport=websocket"


class Echo:
    """Returns each message. ``causes`` are those of the sessions that have ended."""

    def __init__(self) -> None:
        self.connections: list[EngineConnection] = []
        self.causes: list[CloseCause] = []
        self.buffered_bytes = 0

    def open(self, connection: EngineConnection) -> "EchoHandler":
        self.connections.append(connection)
        return EchoHandler(self, connection)


class EchoHandler(MessageHandler):
    def __init__(self, application: Echo, connection: EngineConnection) -> None:
        self._application = application
        self._connection = connection

    @property
    def buffered_bytes(self) -> int:
        return self._application.buffered_bytes

    def received(self, data: bytes, is_binary: bool) -> None:
        if data == b"fail":
            raise ZeroDivisionError
        self._connection.send(Packet(PacketType.MESSAGE, data, is_binary))

    def closed(self, cause: CloseCause) -> None:
        self._application.causes.append(cause)


class PendingPoll:
    """A GET request. ``response`` is None until it is answered."""

    def __init__(self, client: WebClient) -> None:
        self.client = client
        self._data = b""

    @property
    def response(self) -> Response | None:
        self._data += self.client.transport.output()
        return read_response(self._data) if self._data else None

    @property
    def body(self) -> bytes | None:
        response = self.response
        return None if response is None else response.body


class EngineSocket:
    """A WebSocket after its handshake."""

    def __init__(self, client: WebClient, query: str, **headers: str) -> None:
        self.client = client
        self.status, _, frames = client.ask(upgrade(PATH + query, **headers))
        self.client.transport.write(frames)

    def send(self, *messages: str | bytes) -> None:
        for message in messages:
            text = isinstance(message, str)
            data = message.encode() if isinstance(message, str) else message
            self.client.send_bytes(frame(TEXT if text else BINARY, data))

    def frames(self) -> list[tuple[int, bytes]]:
        """The frames since the last call."""
        return split_frames(self.client.transport.output())

    def received(self) -> list[str | bytes]:
        """The messages since the last call. Other frames are an error."""
        frames = self.frames()
        assert {first for first, _ in frames} <= {TEXT, BINARY}, frames
        return [payload.decode() if first == TEXT else payload for first, payload in frames]

    def close_code(self) -> int | None:
        """The code of the close frame after all messages, None if the WebSocket is open."""
        frames = self.frames()
        first, payload = frames[-1] if frames else (0, b"")
        return int.from_bytes(payload[:2], "big") if first == CLOSE else None


class EnginePort:
    """A web port with an Engine.IO application, and the time of its reactor."""

    def __init__(
        self,
        reactor: FakeReactor,
        application: EngineApplication,
        settings: EngineSettings | None = None,
        server: FakeServer | None = None,
        prefix: str = "",
        **options: Any,
    ) -> None:
        self.reactor = reactor
        self.server = server or FakeServer()
        numbers = count(1)
        self.endpoint = EngineEndpoint(
            self.server.context, reactor, application, lambda: f"{prefix}s{next(numbers)}", settings or EngineSettings()
        )
        self.web = WebPort(reactor, self.server, engine=self.endpoint, **options)

    def request(
        self, query: str, method: str = "GET", body: bytes = b"", there: str = "127.0.0.1", **headers: str
    ) -> Response:
        """A request that is answered at once, on a connection of its own."""
        started = self.start(query, method, body, there, **headers)
        response = started.response
        assert response is not None
        started.client.disconnect()
        return response

    def start(
        self, query: str, method: str = "GET", body: bytes = b"", there: str = "127.0.0.1", **headers: str
    ) -> PendingPoll:
        """A request that may be answered later."""
        return PendingPoll(self.web(there=there).request(PATH + query, method, body, **headers))

    def open(self, **headers: str) -> str:
        """Open a session that polls. Returns the query of its requests."""
        response = self.request(NEW_POLLING, **headers)
        assert response.status == 200 and response.body[:1] == b"0", response.body
        sid = json.loads(response.body[1:].partition(b"\x1e")[0])["sid"]
        return f"{NEW_POLLING}&sid={sid}"

    def poll(self, session: str) -> PendingPoll:
        return self.start(session)

    def post(self, session: str, body: bytes, **headers: str) -> int:
        """Send a payload. Returns the status of the response."""
        return self.request(session, "POST", body, **headers).status

    def websocket(self, query: str = NEW_WEBSOCKET, there: str = "127.0.0.1", **headers: str) -> EngineSocket:
        return EngineSocket(self.web(there=there), query, **headers)

    def upgrade(self, session: str) -> EngineSocket:
        """A WebSocket to which the session has moved."""
        socket = self.websocket(session.replace("polling", "websocket"))
        socket.send("2probe")
        assert socket.received() == ["3probe"]
        socket.send("5")
        return socket

    def wait(self, seconds: float) -> None:
        """Let time pass in small steps, and a little more, because sums of fractions are not exact."""
        for step in (*[0.1] * round(seconds * 10), 0.001):
            self.reactor.advance(step)
            self.server.turn()
