"""The fallback for a blocked WebSocket: a stream carries replies and events, other requests carry the commands."""

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from twistedsock.codecs.fallback import FallbackOpening, read_messages
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.sse import JSON_SSE_ENCODER, RETRY_FIELD
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.server.connection import close_description, log_exception
from twistedsock.server.http.relay import ClientRequest, Relay
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.sse import (
    STREAM_HEADERS,
    EventStream,
    StreamsEndpoint,
    authenticated,
    check_session_limits,
    reject_document,
)
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.session import Session, SessionState

PATH = "/stream"

UNKNOWN_STREAM = Error(ErrorCode.BAD_ARGUMENT, "unknown stream key: open a stream with GET /stream")

TOO_MANY_REQUESTS = Error(ErrorCode.LIMIT, "too many concurrent requests for this stream: wait for their responses")


class FallbackStream(EventStream):
    """Keeps at most two requests with commands: the one whose commands are being run, and the next."""

    __slots__ = ("_endpoint", "_next", "_pipeline", "_running", "key")

    def __init__(self, endpoint: "FallbackEndpoint", transport: Any, key: bytes) -> None:
        super().__init__(endpoint.streams, transport)
        self.key = key
        self._endpoint = endpoint
        self._pipeline: InputPipeline | None = None
        self._running: ClientRequest | None = None
        self._next: tuple[ClientRequest, list[bytes]] | None = None

    def open_json_session(self, request: HTTPRequest) -> Session:
        self._pipeline = self.open_session(request, FallbackOpening(self.key), False, self._endpoint.timeouts)
        return self._pipeline.session

    def receive(self, request: ClientRequest, messages: list[bytes]) -> None:
        """Run commands, and respond to the request that carried them when they have been run."""
        pipeline = self._pipeline
        if pipeline is None or pipeline.session.state is not SessionState.OPEN:
            request.respond_error(UNKNOWN_STREAM, 404)
        elif not pipeline.is_paused:
            self._run(pipeline, request, messages)
        elif self._next is not None:
            request.respond_error(TOO_MANY_REQUESTS)
        else:
            self._next = (request, messages)
            request.on_disconnect = self._drop_next

    def _run(self, pipeline: InputPipeline, request: ClientRequest, messages: list[bytes]) -> None:
        if self._endpoint.timeouts.has_idle_timeout:
            self._endpoint.timeouts.command_received(pipeline)
        pipeline.submit(messages)
        if pipeline.is_paused:
            self._running = request
        else:
            request.respond(204, b"", b"")

    def resume_input(self) -> None:
        """Called by the pipeline when all commands have been run."""
        running, self._running = self._running, None
        if running is not None:
            running.respond(204, b"", b"")
        if self._next is not None and self._pipeline is not None:
            (request, messages), self._next = self._next, None
            request.on_disconnect = None
            self._run(self._pipeline, request, messages)

    def _drop_next(self) -> None:
        self._next = None

    def close_connection(self, reason: CloseReason) -> None:
        session = self.session
        assert session is not None
        if not session.replies.has_unfinished_reply:
            self._outlet.write(JSON_SSE_ENCODER.close(reason, session.close_message))
        self._reject_requests()
        super().close_connection(reason)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._reject_requests()
        if self._pipeline is not None:
            self._endpoint.timeouts.stop(self._pipeline)
            self._pipeline.connection_lost(close_description(reason))
            self._pipeline = None
        super().connectionLost(reason)

    def _reject_requests(self) -> None:
        self._endpoint.remove(self)
        pending = [self._running, self._next[0] if self._next is not None else None]
        self._running = self._next = None
        for request in pending:
            if request is not None:
                request.on_disconnect = None
                request.respond_error(UNKNOWN_STREAM, 404)


class FallbackEndpoint:
    """``generate_key`` returns a secret that authorizes requests with commands. A ``relay`` passes these to the node
    that has their stream."""

    def __init__(self, streams: StreamsEndpoint, generate_key: Callable[[], str], relay: Relay | None = None) -> None:
        self.streams = streams
        self.context = streams.context
        self.timeouts = ConnectionTimeouts(streams.context.limits, streams.reactor)
        self._generate_key = generate_key
        self._relay = relay
        self._by_key: dict[bytes, FallbackStream] = {}
        if relay is not None:
            relay.handlers[PATH.encode()] = lambda request: self._receive(request, request.id)

    def open(self, request: HTTPRequest) -> None:
        """``GET /stream``"""
        reject_document(request)
        request.parameters.allow_only(())
        error = check_session_limits(self.context, request.identity)
        if error is not None:
            raise ApiError(error)
        if request.method == b"HEAD":
            request.respond_without_body(STREAM_HEADERS)
            return
        transport: Any = request.transport
        secret = self._generate_key()
        key = secret if self._relay is None else self._relay.id_with_owner(secret)
        stream = FallbackStream(self, transport, key.encode())
        head = request.hand_over(stream, STREAM_HEADERS)
        try:
            self._by_key[stream.key] = stream
            session = stream.open_json_session(request)
            session.send_welcome(head + RETRY_FIELD, authenticated(request.identity))
            session.set_encoder(JSON_SSE_ENCODER)
        except Exception:
            log_exception()
            transport.abortConnection()

    def receive(self, request: HTTPRequest) -> None:
        """``POST /stream``. The key identifies the session, so the request needs no token."""
        request.parameters.allow_only(())
        key = request.header(b"sockbridge-stream")
        if self._relay is None or not self._relay.pass_on(key, request):
            self._receive(request, key)

    def _receive(self, request: ClientRequest, key: bytes) -> None:
        stream = self._by_key.get(key)
        if stream is None:
            raise ApiError(UNKNOWN_STREAM, 404)
        content_type = request.header(b"content-type")
        stream.receive(request, read_messages(request.body, content_type, self.context.limits.max_message_bytes))

    def remove(self, stream: FallbackStream) -> None:
        """Called when a stream is closed."""
        self._by_key.pop(stream.key, None)
