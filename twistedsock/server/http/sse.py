"""Server-sent events: an answer without an end, whose connection a session takes over from HTTP.

It is closed by the end of the connection and has no chunks, so that all readers of a channel share the very same bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.python.failure import Failure

from twistedsock import errors
from twistedsock.auth.identity import Identity, Right
from twistedsock.codecs import json_decoder
from twistedsock.codecs.encoders import EVENTS
from twistedsock.codecs.http_api import LAST_EVENT_ID, Asked, read_asked, read_channels
from twistedsock.codecs.query import ApiError
from twistedsock.codecs.sse import KEEP_ALIVE, RETRY, MultiChannelSSEEncoder
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.names import check_nick
from twistedsock.server.connection import close_description, graceful_close, log_exception, open_session
from twistedsock.server.http.request import DATA, HTTPRequest
from twistedsock.server.sockets import handshake_info
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.server.transport import detach_outlet, only_write, outlet_of
from twistedsock.session.commands import Command, Nick, Subscribe
from twistedsock.session.encoder import Encoder
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.registry import ServerContext
from twistedsock.session.replies import SessionState, nothing
from twistedsock.session.session import Session, StreamSession

PARTS = 30
"""An interval has at most so many: in each of them, its share of the streams is written to, however many began at
once."""


class Living(Protocol):
    def keep_alive(self) -> None:
        """Say that it is still there, if nothing waits to be said."""


class KeepAlive:
    """Each of its streams is written to once in ``interval`` seconds; 0: never."""

    def __init__(self, reactor: Any, interval: int) -> None:
        self._reactor = reactor
        self._parts: list[dict[Living, None]] = [{} for _ in range(min(PARTS, interval))]
        self._period = interval / max(1, len(self._parts))
        self._added = self._turn = self._count = 0
        self._timer: Any = None

    def add(self, stream: Living) -> None:
        if not self._parts:
            return
        self._parts[self._added % len(self._parts)][stream] = None
        self._added += 1
        self._count += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(self._period, self._tick)

    def remove(self, stream: Living) -> None:
        """Also what has been removed before."""
        for part in self._parts:
            if stream in part:
                del part[stream]
                self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(self._period, self._tick)
        self._turn = (self._turn + 1) % len(self._parts)
        for stream in list(self._parts[self._turn]):
            stream.keep_alive()


NOT_ALL = b"not all channels could be opened for you; come again later"
"""The last words to who did not get what it asked for, and has been told why."""


def subscribe_stream(pipeline: InputPipeline, asked: Sequence[Command], subscribed: Callable[[], object]) -> None:
    """Run the commands a stream was opened for. ``subscribed`` is called at the end if that is now; if the backplane
    answers later, the pipeline resumes then."""
    pipeline.receive(asked)
    if not pipeline.waits:
        subscribed()


def close_unless_subscribed(session: Session, wanted: int) -> None:
    """All commands of a stream have been run: close it if it has fewer subscriptions than were asked for."""
    session.on_ready = nothing
    if session.state is SessionState.OPEN and len(session.subscriptions) < wanted:
        session.dismiss(CloseReason.TRY_AGAIN, NOT_ALL)


MEDIA_TYPE = b"text/event-stream"

HEADERS = {
    **DATA,
    b"Content-Type": MEDIA_TYPE + b"; charset=utf-8",
    # No proxy is to keep it, to compress it, or to gather it before it passes it on.
    b"Cache-Control": b"no-cache, no-transform",
    b"X-Accel-Buffering": b"no",
}

PROBE_AFTER = 1.0
"""Seconds: longer than a reset takes from anywhere on earth."""

PROBE_EVERY = 30.0
"""Seconds between two comments to a client that has ended its own stream."""

MAX_IGNORED = 64 * 1024
"""Bytes that a client may send behind its request, which nobody looks at; it is closed if it goes on."""

NOT_FOR_DOCUMENTS = Error(
    ErrorCode.FORBIDDEN, "a browser cannot open a stream as a page: read it with EventSource or fetch"
)

NOBODY_LISTENS = b"nobody listens to what you send here"

ARGUMENTS = ("last", "since", "epoch", "presence", "nick", *LAST_EVENT_ID)


def wants_stream(request: HTTPRequest) -> bool:
    """Whether that is what it accepts, as EventSource says."""
    return MEDIA_TYPE in request.header(b"accept").lower()


class EventStream:
    """What a connection belongs to once it is a stream; ``transport`` is that of the connection."""

    __slots__ = ("_closing", "_ignored", "_input_ended", "_outlet", "_streams", "_transport", "_wanted", "session")

    def __init__(self, streams: "StreamsEndpoint", transport: Any) -> None:
        self._streams = streams
        self._transport = transport
        self._closing: Any = None
        self._ignored = 0
        self._input_ended = False
        self._outlet: Any = None
        self._wanted = 0
        self.session: Session | None = None

    def open_session(
        self,
        request: HTTPRequest,
        dialect: Encoder,
        session_class: type[Session],
        resume: Callable[[], None],
        timeouts: ConnectionTimeouts | None = None,
    ) -> InputPipeline:
        """Open its session, to be called when the stream owns the connection. Nothing is sent yet."""
        streams = self._streams
        self._outlet = outlet_of(self._transport, streams.reactor)
        pipeline = open_session(
            streams.context,
            dialect,
            json_decoder,
            self._outlet,
            request.ends,
            close=self.hang_up,
            pause=nothing,
            resume=resume,
            listener=request.listening.endpoint,
            handshake=handshake_info(self._transport, streams.context.broker.clock(), "events"),
            timeouts=timeouts,
            session_class=session_class,
        )
        self.session = pipeline.session
        streams.keep_alive.add(self)
        return pipeline

    def subscribe(self, pipeline: InputPipeline, commands: Sequence[Command]) -> None:
        """Run the commands that the stream was opened for."""
        self._wanted = sum(isinstance(command, Subscribe) for command in commands)
        subscribe_stream(pipeline, commands, self.subscribed)

    def subscribed(self) -> None:
        """All of them have been run."""
        if self.session is not None:
            close_unless_subscribed(self.session, self._wanted)

    def keep_alive(self) -> None:
        self._outlet.try_write(KEEP_ALIVE)

    def dataReceived(self, data: bytes) -> None:
        if self._closing is None and self.session is not None:
            self._ignored += len(data)
            if (meter := self.session.meter) is not None:
                meter.read(len(data), self.session.now())
            if self._ignored > MAX_IGNORED:
                self.session.dismiss(CloseReason.POLICY, NOBODY_LISTENS)

    def readConnectionLost(self) -> None:
        """The client sends nothing more. If it still reads, the stream goes on (RFC 9112 section 9.6); if it is gone,
        its machine answers a comment with a reset, and the next comment finds the connection broken. Comments are sent
        also without a ping interval, because nothing else tells of the end of a client any more. It is called twice
        if the connection was half-closed before the stream began."""
        if self._closing is not None:
            self._transport.loseConnection()
        elif self.session is not None and not self._input_ended:
            self._input_ended = True
            only_write(self._transport)
            self._probe(PROBE_AFTER)

    def _probe(self, seconds: float) -> None:
        if self._outlet is not None and self._closing is None:
            self.keep_alive()
            self._streams.reactor.callLater(seconds, self._probe, PROBE_EVERY)

    def hang_up(self, ending: CloseReason) -> None:
        self._streams.keep_alive.remove(self)
        detach_outlet(self._outlet, self._transport)
        self._closing = graceful_close(self._transport, self._streams.reactor.callLater)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._streams.keep_alive.remove(self)
        if self._outlet is not None:
            self._outlet.on_drained = None
        self._outlet = self._transport = None
        session, self.session = self.session, None
        if session is not None:
            session.lost(close_description(reason))


class StreamsEndpoint:
    """One for a server. ``interval`` is how many seconds may pass in silence before a comment is sent; 0: for ever."""

    def __init__(self, context: ServerContext, reactor: Any, interval: int) -> None:
        self.context = context
        self.reactor = reactor
        self.keep_alive = KeepAlive(reactor, interval)

    def of_one(self, request: HTTPRequest) -> None:
        """``GET /channels/{channel}/events``, where a stream is asked for."""
        request.arguments.only(ARGUMENTS)
        self._open(request, [request.channel_name])

    def of_several(self, request: HTTPRequest) -> None:
        """``GET /events?channel=…``, likewise."""
        request.arguments.only(ARGUMENTS, repeated=("channel",))
        self._open(request, read_channels(request.arguments))

    def _open(self, request: HTTPRequest, channels: list[bytes]) -> None:
        refuse_document(request)
        asked = read_asked(request.arguments, channels, request.header(b"last-event-id").decode("latin-1"))
        nick = request.arguments.text("nick")
        request.charge(len(asked.known) - 1)
        error = self._forbids(request, asked) or self._judge_nick(nick) or self._has_no_room(request, asked)
        if error is not None:
            raise ApiError(error)
        if request.method == b"HEAD":
            request.answer_head(HEADERS)
            return
        dialect: Encoder = EVENTS if len(asked.known) == 1 else MultiChannelSSEEncoder(asked.known)
        commands: list[Command] = [*asked.commands()]
        if nick is not None:
            commands.insert(0, Nick(nick.encode()))
        transport: Any = request.transport
        stream = EventStream(self, transport)
        head = request.give_away(stream, HEADERS)
        try:
            pipeline = stream.open_session(request, dialect, StreamSession, stream.subscribed)
            pipeline.session.welcome(head + RETRY, proven(request.identity))
            stream.subscribe(pipeline, commands)
        except Exception:
            log_exception()
            transport.abortConnection()

    def _forbids(self, request: HTTPRequest, asked: Asked) -> Error | None:
        visitor = request.visitor
        refusals = [visitor.check_access(channel, Right.READ) for channel in asked.known]
        return next((error for error in refusals if error is not None), None)

    def _judge_nick(self, nick: str | None) -> Error | None:
        if nick is None:
            return None
        error = check_nick(nick.encode())
        if error is not None:
            return error
        return errors.NICK_IS_AN_ID if nick.encode() in self.context.roster else None

    def _has_no_room(self, request: HTTPRequest, asked: Asked) -> Error | None:
        """What would be refused to the session, as far as it can be known now."""
        broker, limits = self.context.broker, self.context.limits
        error = no_room_for(self.context, request.identity)
        if error is None and len(asked.known) > limits.max_subscriptions_per_client:
            error = errors.TOO_MANY_SUBSCRIPTIONS
        if error is None and not broker.subscription_shares.admits(request.visitor.principal, len(asked.known)):
            error = errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL
        opened: list[Channel] = []
        for name in asked.known if error is None else ():
            answer = broker.open(name, request.visitor.principal)
            if isinstance(answer, Error):
                error = answer
                break
            if isinstance(answer, Channel):
                opened.append(answer)
        if error is not None or request.method == b"HEAD":
            for channel in opened:
                broker.close_if_unused(channel)
        return error


def refuse_document(request: HTTPRequest) -> None:
    """Raise ``ApiError`` if a browser shows the answer as a page. A link in a mail or a page leads there, with the
    user's cookie, and would join channels in the user's name."""
    if request.is_document:
        raise ApiError(NOT_FOR_DOCUMENTS)


def proven(identity: Identity | None) -> Identity | None:
    """Who has shown something, as a session wants to be told it."""
    return identity if identity is not None and (identity.subject or identity.proof) else None


def no_room_for(context: ServerContext, identity: Identity | None) -> Error | None:
    """Why a session of somebody could not begin; None where it can."""
    subject = b"" if identity is None else identity.subject
    if subject in context.roster:
        return errors.NICK_IS_AN_ID
    error = context.admission.identify(subject)
    if error is None:
        context.admission.forget(subject)
    return error


# TODO-MERGED-DOC: Comments that keep silent streams from being taken for dead ones, by proxies above all.

# TODO-MERGED-DOC: How a stream of server-sent events gets its channels: all that it was opened for, or it ends.
