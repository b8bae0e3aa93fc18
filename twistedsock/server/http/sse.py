"""Server-sent events: a response without an end, on a connection that a session takes over from HTTP.

The response ends with the connection and is not chunked, so that all subscribers of a channel share the same bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.python.failure import Failure

from twistedsock import errors
from twistedsock.auth.identity import Identity, Right
from twistedsock.codecs import json_decoder
from twistedsock.codecs.http_api import (
    BOUND_PARAMETERS,
    EVENT_ID_PARAMETERS,
    StreamRequest,
    read_channels,
    read_stream_request,
)
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.sse import KEEP_ALIVE_COMMENT, RETRY_FIELD, SSE_ENCODER, MultiChannelSSEEncoder
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.names import check_nick
from twistedsock.server.connection import close_description, graceful_close, log_exception, open_session
from twistedsock.server.http.headers import DATA_HEADERS
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.sockets import handshake_info
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.server.transport import detach_outlet, mark_input_ended, outlet_of
from twistedsock.session.commands import Command, Nick, Subscribe
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.replies import NO_INPUT
from twistedsock.session.session import Session, SessionState

CONTENT_TYPE = b"text/event-stream"

STREAM_HEADERS = {
    **DATA_HEADERS,
    b"Content-Type": CONTENT_TYPE + b"; charset=utf-8",
    # Proxies must not store, compress or buffer the response.
    b"Cache-Control": b"no-cache, no-transform",
    b"X-Accel-Buffering": b"no",
}

PARAMETERS = ("last", "since", "epoch", "presence", "nick", *EVENT_ID_PARAMETERS, *BOUND_PARAMETERS)

MAX_KEEP_ALIVE_GROUPS = 30
"""An interval is divided into so many turns. In each turn a group of streams is written to, however many streams were
opened at the same moment."""

FIRST_PROBE_SECONDS = 1.0
"""Longer than a reset takes from anywhere on earth."""

PROBE_INTERVAL_SECONDS = 30.0

MAX_IGNORED_BYTES = 64 * 1024
"""Bytes that a client can send after its request, which are dropped, before the stream is closed."""

NOT_A_DOCUMENT = Error(
    ErrorCode.FORBIDDEN, "a browser cannot open a stream as a page: read it with EventSource or fetch"
)

INPUT_IGNORED = b"a stream accepts no input after the request"

INCOMPLETE = b"some channels could not be opened: connect again later"
"""The reason of the close after errors for some of the channels."""


class KeepAliveStream(Protocol):
    def send_keep_alive(self) -> None: ...


class KeepAliveTimer:
    """Sends each stream a comment every ``interval`` seconds, so that proxies do not close it. 0: never."""

    def __init__(self, reactor: Any, interval: int) -> None:
        self._reactor = reactor
        self._groups: list[dict[KeepAliveStream, None]] = [{} for _ in range(min(MAX_KEEP_ALIVE_GROUPS, interval))]
        self._period = interval / max(1, len(self._groups))
        self._added = self._turn = self._count = 0
        self._timer: Any = None

    def add(self, stream: KeepAliveStream) -> None:
        if not self._groups:
            return
        self._groups[self._added % len(self._groups)][stream] = None
        self._added += 1
        self._count += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(self._period, self._tick)

    def remove(self, stream: KeepAliveStream) -> None:
        """Does nothing if the stream was removed before."""
        for group in self._groups:
            if stream in group:
                del group[stream]
                self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(self._period, self._tick)
        self._turn = (self._turn + 1) % len(self._groups)
        for stream in list(self._groups[self._turn]):
            stream.send_keep_alive()


def subscribe_stream(pipeline: InputPipeline, commands: Sequence[Command], subscribed: Callable[[], object]) -> None:
    """Run the commands a stream was opened for. ``subscribed`` is called at the end if that is now; if the backplane
    answers later, the pipeline resumes then."""
    pipeline.submit(commands)
    if not pipeline.is_paused:
        subscribed()


def close_unless_subscribed(session: Session, wanted: int) -> None:
    """All commands of a stream have been run: close it if it has fewer subscriptions than were asked for."""
    session.replies.input = NO_INPUT
    if session.state is SessionState.OPEN and len(session.subscriptions) < wanted:
        session.close(CloseReason.TRY_AGAIN, INCOMPLETE)


def wants_stream(request: HTTPRequest) -> bool:
    """True if the request accepts server-sent events, as EventSource does."""
    return CONTENT_TYPE in request.header(b"accept").lower()


class EventStream:
    """The protocol of a connection after its stream has been opened."""

    __slots__ = (
        "_ignored_bytes",
        "_input_has_ended",
        "_linger_timer",
        "_outlet",
        "_streams",
        "_transport",
        "_wanted",
        "session",
    )

    def __init__(self, streams: "StreamsEndpoint", transport: Any) -> None:
        self._streams = streams
        self._transport = transport
        self._linger_timer: Any = None
        self._ignored_bytes = 0
        self._input_has_ended = False
        self._outlet: Any = None
        self._wanted = 0
        self.session: Session | None = None

    def open_session(
        self,
        request: HTTPRequest,
        encoder: Encoder,
        read_only: bool,
        timeouts: ConnectionTimeouts | None = None,
    ) -> InputPipeline:
        """Open the session, after the connection has been handed over. Nothing is sent yet."""
        streams = self._streams
        self._outlet = outlet_of(self._transport, streams.reactor)
        pipeline = open_session(
            streams.context,
            encoder,
            json_decoder,
            self._outlet,
            request.endpoints,
            self,
            listener=request.listener.endpoint,
            handshake=handshake_info(self._transport, streams.context.broker.clock(), "events"),
            timeouts=timeouts,
            read_only=read_only,
        )
        self.session = pipeline.session
        streams.keep_alive.add(self)
        return pipeline

    def subscribe(self, pipeline: InputPipeline, commands: Sequence[Command]) -> None:
        """Run the commands that the stream was opened for."""
        self._wanted = sum(isinstance(command, Subscribe) for command in commands)
        subscribe_stream(pipeline, commands, self.subscribed)

    def pause_input(self) -> None:
        """The input of a stream is ignored."""

    def resume_input(self) -> None:
        self.subscribed()

    def subscribed(self) -> None:
        """Called when all commands have been run."""
        if self.session is not None:
            close_unless_subscribed(self.session, self._wanted)

    def send_keep_alive(self) -> None:
        self._outlet.try_write(KEEP_ALIVE_COMMENT)

    def dataReceived(self, data: bytes) -> None:
        if self._linger_timer is None and self.session is not None:
            self._ignored_bytes += len(data)
            if (limiter := self.session.rate_limiter) is not None:
                limiter.count_bytes(len(data), self.session.broker.clock())
            if self._ignored_bytes > MAX_IGNORED_BYTES:
                self.session.close(CloseReason.POLICY, INPUT_IGNORED)

    def readConnectionLost(self) -> None:
        """The client has ended its half of the connection. If it still reads, the stream continues (RFC 9112 section
        9.6). If it is gone, its kernel answers a comment with a reset, and the next comment fails. These comments are
        sent without a ping interval too, because nothing else detects the end of the client any more. Called twice if
        the connection was half-closed before the stream was opened."""
        if self._linger_timer is not None:
            self._transport.loseConnection()
        elif self.session is not None and not self._input_has_ended:
            self._input_has_ended = True
            mark_input_ended(self._transport)
            self._probe(FIRST_PROBE_SECONDS)

    def _probe(self, seconds: float) -> None:
        if self._outlet is not None and self._linger_timer is None:
            self.send_keep_alive()
            self._streams.reactor.callLater(seconds, self._probe, PROBE_INTERVAL_SECONDS)

    def close_connection(self, reason: CloseReason) -> None:
        """Called by the session after its last bytes."""
        self._streams.keep_alive.remove(self)
        detach_outlet(self._outlet, self._transport)
        self._linger_timer = graceful_close(self._transport, self._streams.reactor.callLater)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._linger_timer is not None and self._linger_timer.active():
            self._linger_timer.cancel()
        self._streams.keep_alive.remove(self)
        if self._outlet is not None:
            self._outlet.drain_listener = None
        self._outlet = self._transport = None
        session, self.session = self.session, None
        if session is not None:
            session.connection_lost(close_description(reason))


class StreamsEndpoint:
    """``interval``: seconds of silence before a stream sends a comment, 0 for no comments."""

    def __init__(self, context: ServerContext, reactor: Any, interval: int) -> None:
        self.context = context
        self.reactor = reactor
        self.keep_alive = KeepAliveTimer(reactor, interval)

    def open_for_channel(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events`` that accepts a stream."""
        request.parameters.allow_only(PARAMETERS)
        self._open(request, [request.channel_name])

    def open_for_channels(self, request: HTTPRequest) -> None:
        """``GET /events?channel=…`` that accepts a stream."""
        request.parameters.allow_only(PARAMETERS, repeated=("channel",))
        self._open(request, read_channels(request.parameters))

    def _open(self, request: HTTPRequest, channels: list[bytes]) -> None:
        reject_document(request)
        asked = read_stream_request(request.parameters, channels, request.header(b"last-event-id").decode("latin-1"))
        nick = request.parameters.text("nick")
        request.charge(len(asked.known) - 1)
        error = self._check_access(request, asked) or self._check_nick(nick) or self._check_limits(request, asked)
        if error is not None:
            raise ApiError(error)
        if request.method == b"HEAD":
            request.respond_without_body(STREAM_HEADERS)
            return
        encoder: Encoder = SSE_ENCODER if len(asked.known) == 1 else MultiChannelSSEEncoder(asked.known)
        commands: list[Command] = [*asked.commands()]
        if nick is not None:
            commands.insert(0, Nick(nick.encode()))
        transport: Any = request.transport
        stream = EventStream(self, transport)
        head = request.hand_over(stream, STREAM_HEADERS)
        try:
            pipeline = stream.open_session(request, encoder, True)
            pipeline.session.send_welcome(head + RETRY_FIELD, authenticated(request.identity))
            stream.subscribe(pipeline, commands)
        except Exception:
            log_exception()
            transport.abortConnection()

    def _check_access(self, request: HTTPRequest, asked: StreamRequest) -> Error | None:
        client = request.broker_client
        outcomes = [client.check_access(channel, Right.READ) for channel in asked.known]
        return next((error for error in outcomes if error is not None), None)

    def _check_nick(self, nick: str | None) -> Error | None:
        if nick is None:
            return None
        error = check_nick(nick.encode())
        if error is not None:
            return error
        return errors.NICK_IS_AN_ID if self.context.sessions.is_id(nick.encode()) else None

    def _check_limits(self, request: HTTPRequest, asked: StreamRequest) -> Error | None:
        """The error that the session would receive, as far as it can be predicted."""
        broker, limits = self.context.broker, self.context.limits
        error = check_session_limits(self.context, request.identity)
        if error is None and len(asked.known) > limits.max_subscriptions_per_client:
            error = errors.TOO_MANY_SUBSCRIPTIONS
        if error is None and not broker.subscription_shares.admits(request.broker_client.principal, len(asked.known)):
            error = errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL
        opened: list[Channel] = []
        for name in asked.known if error is None else ():
            outcome = broker.channels.open(name, request.broker_client.principal)
            if isinstance(outcome, Error):
                error = outcome
                break
            if isinstance(outcome, Channel):
                opened.append(outcome)
        if error is not None or request.method == b"HEAD":
            for channel in opened:
                broker.channels.close_if_unused(channel)
        return error


def reject_document(request: HTTPRequest) -> None:
    """Raise ``ApiError`` if a browser shows the response as a page. A link in a mail or a page leads there, with the
    user's cookie, and would join channels in the user's name."""
    if request.is_document:
        raise ApiError(NOT_A_DOCUMENT)


def authenticated(identity: Identity | None) -> Identity | None:
    """The identity if the client has proved it, None for an anonymous client."""
    return identity if identity is not None and (identity.subject or identity.proof) else None


def check_session_limits(context: ServerContext, identity: Identity | None) -> Error | None:
    """The error if a session of this identity could not be opened."""
    subject = b"" if identity is None else identity.subject
    if context.sessions.is_id(subject):
        return errors.NICK_IS_AN_ID
    error = context.connection_limiter.acquire_identity(subject)
    if error is None:
        context.connection_limiter.release_identity(subject)
    return error
