"""The requests of Engine.IO clients that poll: GET waits for packets, POST carries them."""

from collections.abc import Iterator

from twistedsock.codecs.engineio import (
    PATH,
    POLL_TYPE,
    POLLING,
    HandshakeError,
    InvalidPacket,
    Packet,
    Query,
    decode_payload,
    read_query,
)
from twistedsock.codecs.engineio_session import CloseCause
from twistedsock.errors import TOO_FAST, Error
from twistedsock.limits.rate import answer_price
from twistedsock.server.engineio import EngineConnection, EngineEndpoint, Handshake
from twistedsock.server.http.headers import JSON
from twistedsock.server.http.relay import ClientRequest, Relay, RelayedRequest
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.routing import Route
from twistedsock.server.sockets import handshake_info

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The methods whose error is in the form of the protocol."""


class WaitingPoll:
    """A GET request that waits for packets."""

    def __init__(self, request: ClientRequest, connection: EngineConnection) -> None:
        self._request = request
        self._connection = connection
        connection.polls += 1
        self._number = connection.polls
        request.on_disconnect, request.on_shutdown = self._disconnected, connection.close
        if isinstance(request, RelayedRequest):
            # The session does not end with the node that relays its requests.
            request.on_shutdown, request.on_undelivered = self._release, self._undelivered

    def respond(self, body: bytes) -> None:
        self._request.charge_afterwards(int(answer_price(len(body))))
        self._request.respond(200, POLL_TYPE, body)

    def _disconnected(self) -> None:
        self._connection.session.poll_lost(self)
        self._connection.update()

    def _release(self) -> None:
        self._connection.session.release_poll(self)
        self._connection.update()

    def _undelivered(self) -> None:
        """The packets of the answer are lost, unless the client has sent another request: then it has received them."""
        if self._connection.polls == self._number:
            self._connection.fail(CloseCause.TRANSPORT)


class PollingRequests:
    """Handles the requests of one path. A ``relay`` passes them to the node that has their session."""

    def __init__(self, endpoint: EngineEndpoint, relay: Relay | None = None) -> None:
        self._endpoint = endpoint
        self._relay = relay
        if relay is not None:
            relay.handlers[PATH.encode()] = self._handle_relayed
            relay.rejected_handlers[PATH.encode()] = self._fail

    def routes(self) -> list[Route]:
        maximum = self._endpoint.settings.max_payload
        return [
            Route(
                method,
                PATH,
                self.handle,
                max_body=maximum,
                answers_head=False,
                takes_body=method != "GET",
                allows_credentials=True,
                on_rejected=self.rejected,
            )
            for method in METHODS
        ]

    def handle(self, request: HTTPRequest) -> None:
        _respond_error(request, self._handle(request))

    def _handle_relayed(self, request: RelayedRequest) -> None:
        _respond_error(request, self._continue(request, request.id.decode()))

    def _handle(self, request: HTTPRequest) -> HandshakeError | None:
        query = read_query(request.query)
        if isinstance(query, HandshakeError):
            return query
        if query.transport != POLLING:
            return self._open_websocket(request)
        if not query.sid:
            if request.method != b"GET":
                return HandshakeError.BAD_METHOD
            self._open(request, query)
            return None
        if self._relay is not None and self._relay.pass_on(query.sid.encode(), request):
            return None
        return self._continue(request, query.sid)

    def _continue(self, request: ClientRequest, sid: str) -> HandshakeError | None:
        """A request of a session."""
        connection = self._endpoint.find(sid)
        if connection is None:
            return HandshakeError.UNKNOWN_SESSION
        if request.method == b"GET":
            error = connection.session.poll(WaitingPoll(request, connection))
        elif request.method == b"POST":
            error = self._receive(request, connection)
        else:
            error = HandshakeError.BAD_REQUEST
        connection.update()
        return error

    def _open_websocket(self, request: HTTPRequest) -> HandshakeError | None:
        """A WebSocket handshake on a connection that has carried requests before. Programs do that, browsers do not."""
        if request.method != b"GET" or request.header(b"upgrade").lower() != b"websocket":
            return HandshakeError.BAD_REQUEST
        websockets, address = request.connection.site.engine_websockets, request.connection.client_address
        request.switch_protocols(websockets.build(address, request.principal, request.query, request.identity))
        return None

    def _open(self, request: HTTPRequest, query: Query) -> None:
        handshake = Handshake(
            request.connection.client_address,
            request.endpoints,
            request.principal,
            query,
            {
                name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
                for name, values in request.requestHeaders.getAllRawHeaders()
            },
            request.listener.secure,
            request.identity,
            request.listener.endpoint,
            handshake_info(request.transport, self._endpoint.context.broker.clock(), "Socket.IO over HTTP"),
        )
        connection = self._endpoint.open(handshake)
        if isinstance(connection, Error):
            request.respond_error(connection)
            return
        connection.session.open_with_poll(WaitingPoll(request, connection))
        connection.start()

    def _receive(self, request: ClientRequest, connection: EngineConnection) -> HandshakeError | None:
        """The packets in a body, in fair time slices. The response follows them, so that the client waits with more."""
        session, body = connection.session, request.body
        if request.header(b"content-type").startswith(b"application/octet-stream"):
            session.fail(CloseCause.INVALID)
            return HandshakeError.BAD_REQUEST
        error = session.begin_post()
        if error is not None:
            return error
        if not connection.charge_payload(body):
            session.fail(CloseCause.TRANSPORT)
            request.respond_error(TOO_FAST)
            return None
        request.on_disconnect = lambda: connection.fail(CloseCause.TRANSPORT)
        failed: list[InvalidPacket] = []

        def done() -> None:
            connection.input_parsed()
            if failed:
                session.fail(CloseCause.INVALID)
                request.respond(400, JSON, HandshakeError.BAD_REQUEST.body)
            else:
                request.respond(200, POLL_TYPE, b"ok")
            session.end_post()
            connection.update()

        steps = self._receive_packets(connection, decode_payload(body), failed)
        self._endpoint.context.broker.scheduler.run_steps(steps, done)
        return None

    def _receive_packets(
        self, connection: EngineConnection, packets: Iterator[Packet], failed: list[InvalidPacket]
    ) -> Iterator[None]:
        try:
            for packet in packets:
                connection.session.receive(packet, self._endpoint.reactor.seconds())
                if not connection.session.is_open:
                    return
                yield
        except InvalidPacket as invalid:
            failed.append(invalid)

    def rejected(self, request: HTTPRequest) -> None:
        """The body of a request was too long, or not complete in time: the packets in it are lost, so the session is
        over."""
        query = read_query(request.query)
        if isinstance(query, HandshakeError):
            return
        if self._relay is not None:
            self._relay.report_rejected(query.sid.encode(), request.path)
        self._fail(query.sid.encode())

    def _fail(self, sid: bytes) -> None:
        connection = self._endpoint.find(sid.decode())
        if connection is not None:
            connection.fail(CloseCause.TRANSPORT)


def _respond_error(request: ClientRequest, error: HandshakeError | None) -> None:
    if error is not None:
        request.respond(error.status, JSON, error.body)
