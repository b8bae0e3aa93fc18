"""HTTP clients without sockets: requests as bytes, parsed responses, and connections to a site or a web port."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.behaviours.protocol_clients import settle
from tests.event_streams import ServerSent, read_events
from tests.fakes import FakeTransport, connect
from tests.server.clients import Connection, request_bytes
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.metrics.connection_journal import ConnectionJournal
from twistedsock.server.engineio import EngineEndpoint
from twistedsock.server.http.connection import HTTPConnection
from twistedsock.server.http.engineio import PollingRequests
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.relay import Relay
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Route, Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER, ListenerConfig
from twistedsock.server.web import WebFactory
from twistedsock.testing import FakeServer, read_frames


class Response:
    """A response. ``is_complete`` is False if its body does not end as its head announces."""

    def __init__(self, head: bytes, body: bytes) -> None:
        status, *self.lines = head.decode().split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in self.lines)}
        self.body = body
        self.is_complete = len(body) == int(self.headers.get("content-length", len(body)))
        if self.headers.get("transfer-encoding") == "chunked":
            self._join_chunks()

    def _join_chunks(self) -> None:
        rest, self.body, self.is_complete = self.body, b"", False
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            self.body, rest = self.body + rest[:count], rest[count + 2 :]
            if not count:
                self.is_complete = not rest

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return self.json

    @property
    def code(self) -> str:
        code: str = self.problem["code"]
        return code

    @property
    def error(self) -> tuple[int, str]:
        """The status and the code of an error."""
        return self.status, self.code


def read_response(data: bytes) -> Response:
    head, _, body = data.partition(b"\r\n\r\n")
    return Response(head, body)


def read_responses(data: bytes, method: str = "GET") -> list[Response]:
    """All responses in ``data``, which must be complete."""
    responses = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        response = Response(head, b"")
        size = 0 if method == "HEAD" else int(response.headers.get("content-length", 0))
        response.body, data = data[:size], data[size:]
        assert len(response.body) == size
        responses.append(response)
    return responses


class SiteClient:
    """A connection to a site."""

    def __init__(self, site: HTTPSite, transport: Any, is_trusted_proxy: bool = False) -> None:
        self.transport = transport
        self.protocol = HTTPConnection(site, transport.getPeer(), is_trusted_proxy)
        self.protocol.makeConnection(transport)

    def send_bytes(self, data: bytes) -> list[Response]:
        self.protocol.dataReceived(data)
        return self.responses()

    def responses(self, method: str = "GET") -> list[Response]:
        """The responses since the last call."""
        return read_responses(self.transport.output(), method)

    def request(self, path: str = "/", method: str = "GET", body: bytes = b"", **headers: str) -> Response:
        """Send a request that is answered at once."""
        self.protocol.dataReceived(request_bytes(path, method, body, **headers))
        (response,) = self.responses(method)
        return response

    @property
    def is_closing(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.half_closed or self.transport.disconnected)

    def disconnect(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class FakeSite:
    """A site with the routes of the server and ``routes``. Calling it opens a connection."""

    def __init__(
        self,
        reactor: Any,
        routes: Iterable[Route] = (),
        origins: AllowedOrigins | None = None,
        listener: ListenerConfig = DEFAULT_LISTENER,
        server: FakeServer | None = None,
        line_ports: Callable[[], list[dict[str, object]]] = list,
        journal: ConnectionJournal | None = None,
    ) -> None:
        self.reactor, self.server = reactor, server or FakeServer()
        context = self.server.context
        table = Routes([*build_routes(context, reactor, line_ports, journal=journal), *routes])
        self.site = HTTPSite(reactor, context, OriginPolicy(origins or AllowedOrigins()), table, listener)

    def __call__(self, here: str = "127.0.0.1", there: str = "127.0.0.1", is_trusted_proxy: bool = False) -> SiteClient:
        return SiteClient(self.site, connect(here, 8082, there), is_trusted_proxy)


class APIClient:
    """Sends one request after another, and returns each response when the server is idle, however late its backplane
    answers: ``api("GET", path)``."""

    def __init__(self, server: FakeServer, reactor: Any) -> None:
        self.server = server
        self._open = FakeSite(reactor, server=server)
        self.site = self._open.site
        self.connect()

    def connect(self, there: str = "127.0.0.1") -> None:
        """Open another connection, from this address."""
        client = self._open(there=there)
        self.transport, self.protocol, self.disconnect = client.transport, client.protocol, client.disconnect

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        if method == "POST":
            headers["Content_Length"] = str(len(body))
        self.protocol.dataReceived(request_bytes(path, method, body, **headers))

    def settle(self) -> None:
        settle(self.server)

    def response(self) -> Response:
        return read_response(self.transport.output())

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        self.send(method, path, body, **headers)
        self.settle()
        return self.response()


MakeAPI = Callable[..., APIClient]
"""The fixture ``make_api``."""


class WebClient(Connection):
    """A connection to the web port."""

    def __init__(self, factory: Any, transport: FakeTransport) -> None:
        super().__init__(factory, transport)
        self.headers: dict[str, str] = {}
        self.text = ""
        """The unfinished end of the stream."""
        self._id = ""

    def request(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> "WebClient":
        """Send a request, which may be answered later."""
        self.send_bytes(request_bytes(target, method, body, **headers))
        return self

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the response."""
        response = read_response(self.transport.output())
        return response.status, response.headers, response.body

    def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.send_bytes(data)
        return self.response()

    def websocket_client(self) -> str:
        """The address of the client in the welcome of a WebSocket."""
        status, _, frames = self.response()
        assert status == 101
        return read_frames(frames)[0].partition('"from":"')[2].partition('"')[0]

    def open_stream(self, target: str, **headers: str) -> "WebClient":
        self.request(target, **{"Accept": "text/event-stream", **headers})
        status, self.headers, body = self.response()
        assert status == 200, (status, body)
        self.text = body.decode()
        return self

    def received(self) -> list[ServerSent]:
        """The complete events since the last call."""
        self.text += self.transport.output().decode()
        complete, _, self.text = self.text.rpartition("\n\n")
        events, self._id = read_events(complete + "\n\n", self._id) if complete else ([], self._id)
        return events


class WebPort:
    """A web port. Calling it opens a connection."""

    def __init__(
        self,
        reactor: Any,
        server: FakeServer,
        origins: AllowedOrigins | None = None,
        listening: ListenerConfig = DEFAULT_LISTENER,
        ping_interval: int = 0,
        engine: EngineEndpoint | None = None,
        relay: Relay | None = None,
    ) -> None:
        self.server = server
        more = [] if engine is None else PollingRequests(engine, relay).routes()
        own = build_routes(server.context, reactor, list, ping_interval=ping_interval, relay=relay)
        routes = Routes([*own, *more])
        policy = OriginPolicy(origins or AllowedOrigins())
        self.factory = WebFactory(server.context, reactor, policy, 0, 0, 3, list, listening, routes, engine)

    def __call__(self, here: str = "127.0.0.1", there: str = "127.0.0.1") -> WebClient:
        return WebClient(self.factory, connect(here, 8082, there))


MakeWebPort = Callable[..., WebPort]
"""The fixture ``make_web``."""
