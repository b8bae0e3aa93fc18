"""The stream that stands in for a WebSocket: answers and events go out on it, commands come in by other requests."""

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from twistedsock.codecs.encoders import JSON_IN_EVENTS
from twistedsock.codecs.fallback import FallbackOpening, closing, read_messages
from twistedsock.codecs.query import ApiError
from twistedsock.codecs.sse import RETRY
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.server.connection import close_description, log_exception
from twistedsock.server.http.request import HTTPRequest
from twistedsock.server.http.sse import HEADERS, EventStream, StreamsEndpoint, no_room_for, proven, refuse_document
from twistedsock.server.timeouts import ConnectionTimeouts
from twistedsock.session.input_pipeline import InputPipeline
from twistedsock.session.replies import SessionState
from twistedsock.session.session import Session

NO_SUCH_STREAM = Error(ErrorCode.BAD_ARGUMENT, "there is no such stream; GET /stream opens one, and tells its key")

ONE_WAITS = Error(ErrorCode.LIMIT, "another request with commands for this stream waits already, try again later")


class FallbackStream(EventStream):
    """Of the requests with commands, two are held at most: one whose commands are being run, and the next."""

    __slots__ = ("_conversation", "_next", "_running", "_stand_ins", "key")

    def __init__(self, streams: "FallbackEndpoint", transport: Any, key: bytes) -> None:
        super().__init__(streams.streams, transport)
        self.key = key
        self._stand_ins = streams
        self._conversation: InputPipeline | None = None
        self._running: HTTPRequest | None = None
        self._next: tuple[HTTPRequest, list[bytes]] | None = None

    def begin(self, request: HTTPRequest) -> Session:
        """Open the session of a stream that receives commands."""
        self._conversation = self.open_session(
            request, FallbackOpening(self.key), Session, self._resume, self._stand_ins.timeouts
        )
        return self._conversation.session

    def take(self, request: HTTPRequest, messages: list[bytes]) -> None:
        """Run commands, and answer the request that brought them when that has been done."""
        conversation = self._conversation
        if conversation is None or conversation.session.state is not SessionState.OPEN:
            request.refuse(NO_SUCH_STREAM, 404)
        elif not conversation.waits:
            self._run(conversation, request, messages)
        elif self._next is not None:
            request.refuse(ONE_WAITS)
        else:
            self._next = (request, messages)
            request.on_gone = self._forget_next

    def _run(self, conversation: InputPipeline, request: HTTPRequest, messages: list[bytes]) -> None:
        if self._stand_ins.timeouts.has_idle_timeout:
            self._stand_ins.timeouts.command_received(conversation)
        conversation.receive(messages)
        if conversation.waits:
            self._running = request
        else:
            request.answer(204, b"", b"")

    def _resume(self) -> None:
        """All that has come has been run."""
        running, self._running = self._running, None
        if running is not None:
            running.answer(204, b"", b"")
        if self._next is not None and self._conversation is not None:
            (request, messages), self._next = self._next, None
            request.on_gone = None
            self._run(self._conversation, request, messages)

    def _forget_next(self) -> None:
        self._next = None

    def hang_up(self, ending: CloseReason) -> None:
        session = self.session
        assert session is not None
        if not session.is_amid:
            self._outlet.write(closing(ending, session.parting))
        self._end()
        super().hang_up(ending)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._end()
        if self._conversation is not None:
            self._stand_ins.timeouts.stop(self._conversation)
            self._conversation.lost(close_description(reason))
            self._conversation = None
        super().connectionLost(reason)

    def _end(self) -> None:
        self._stand_ins.forget(self)
        waiting = [self._running, self._next[0] if self._next is not None else None]
        self._running = self._next = None
        for request in waiting:
            if request is not None:
                request.on_gone = None
                request.refuse(NO_SUCH_STREAM, 404)


class FallbackEndpoint:
    """One for a server. ``draw_key`` gives a secret that nobody can guess."""

    def __init__(self, streams: StreamsEndpoint, draw_key: Callable[[], bytes]) -> None:
        self.streams = streams
        self.context = streams.context
        self.timeouts = ConnectionTimeouts(streams.context.limits, streams.reactor)
        self._draw_key = draw_key
        self._by_key: dict[bytes, FallbackStream] = {}

    def open(self, request: HTTPRequest) -> None:
        """``GET /stream``."""
        refuse_document(request)
        request.arguments.only(())
        error = no_room_for(self.context, request.identity)
        if error is not None:
            raise ApiError(error)
        if request.method == b"HEAD":
            request.answer_head(HEADERS)
            return
        transport: Any = request.transport
        stream = FallbackStream(self, transport, self._draw_key())
        head = request.give_away(stream, HEADERS)
        try:
            self._by_key[stream.key] = stream
            session = stream.begin(request)
            session.welcome(head + RETRY, proven(request.identity))
            session.speak(JSON_IN_EVENTS)
        except Exception:
            log_exception()
            transport.abortConnection()

    def take(self, request: HTTPRequest) -> None:
        """``POST /stream``. The key tells whose commands they are, so nobody asks for a token."""
        request.arguments.only(())
        stream = self._by_key.get(request.header(b"sockbridge-stream"))
        if stream is None:
            raise ApiError(NO_SUCH_STREAM, 404)
        kind = request.header(b"content-type")
        stream.take(request, read_messages(request.body, kind, self.context.limits.max_message_bytes))

    def forget(self, stream: FallbackStream) -> None:
        """It is over."""
        self._by_key.pop(stream.key, None)
