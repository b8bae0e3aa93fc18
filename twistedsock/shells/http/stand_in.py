"""The stream that stands in for a WebSocket: answers and events go out on it, commands come in by other requests."""

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from twistedsock.core.dialect import Ending
from twistedsock.core.errors import Code, Refusal
from twistedsock.core.session import Session
from twistedsock.core.speaker import State
from twistedsock.shells.closing import how_it_ended
from twistedsock.shells.faults import report_fault
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.shells.http.streams import HEADERS, Stream, Streams, no_room_for, proven, refuse_document
from twistedsock.shells.patience import Patience
from twistedsock.wire import json_commands
from twistedsock.wire.conversation import Conversation
from twistedsock.wire.dialects import JSON_IN_EVENTS
from twistedsock.wire.event_stream import RETRY
from twistedsock.wire.problems import Refused
from twistedsock.wire.stand_in import Introduction, closing, read_messages

NO_SUCH_STREAM = Refusal(Code.BAD_ARGUMENT, "there is no such stream; GET /stream opens one, and tells its key")
ONE_WAITS = Refusal(Code.LIMIT, "another request with commands for this stream waits already, try again later")


class StandIn(Stream):
    """Of the requests with commands, two are held at most: one whose commands are being run, and the next."""

    __slots__ = ("_conversation", "_next", "_running", "_stand_ins", "key")

    def __init__(self, streams: "StandIns", transport: Any, key: bytes) -> None:
        super().__init__(streams.streams, transport)
        self.key = key
        self._stand_ins = streams
        self._conversation: Conversation | None = None
        self._running: BridgeRequest | None = None
        self._next: tuple[BridgeRequest, list[bytes]] | None = None

    def converse(self, session: Session) -> None:
        """From here on it takes commands."""
        self._conversation = Conversation(session, json_commands, _nothing, self._resume, report_fault)
        self._stand_ins.patience.begin(self._conversation, spoken=True)

    def take(self, request: BridgeRequest, messages: list[bytes]) -> None:
        """Run commands, and answer the request that brought them when that has been done."""
        conversation = self._conversation
        if conversation is None or conversation.session.state is not State.OPEN:
            request.refuse(NO_SUCH_STREAM, 404)
        elif not conversation.waits:
            self._run(conversation, request, messages)
        elif self._next is not None:
            request.refuse(ONE_WAITS)
        else:
            self._next = (request, messages)
            request.on_gone = self._forget_next

    def _run(self, conversation: Conversation, request: BridgeRequest, messages: list[bytes]) -> None:
        if self._stand_ins.patience.minds_idling:
            self._stand_ins.patience.speaks(conversation)
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

    def hang_up(self, ending: Ending) -> None:
        session = self.session
        assert session is not None
        if not session.is_amid:
            self._outlet.write(closing(ending, session.parting))
        self._end()
        super().hang_up(ending)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._end()
        if self._conversation is not None:
            self._stand_ins.patience.end(self._conversation)
            self._conversation.lost(how_it_ended(reason))
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


def _nothing() -> None:
    """Who sends more than is taken waits for the answer to what it has sent."""


class StandIns:
    """One for a server. ``draw_key`` gives a secret that nobody can guess."""

    def __init__(self, streams: Streams, draw_key: Callable[[], bytes]) -> None:
        self.streams = streams
        self.bridge = streams.bridge
        self.patience = Patience(streams.bridge.limits, streams.reactor)
        self._draw_key = draw_key
        self._by_key: dict[bytes, StandIn] = {}

    def open(self, request: BridgeRequest) -> None:
        """``GET /stream``."""
        refuse_document(request)
        request.arguments.only(())
        refusal = no_room_for(self.bridge, request.identity)
        if refusal is not None:
            raise Refused(refusal)
        if request.method == b"HEAD":
            request.answer_head(HEADERS)
            return
        transport: Any = request.transport
        stream = StandIn(self, transport, self._draw_key())
        head = request.give_away(stream, HEADERS)
        try:
            self._by_key[stream.key] = stream
            session = stream.begin(request, Introduction(stream.key), Session)
            stream.converse(session)
            session.welcome(head + RETRY, proven(request.identity))
            session.speak(JSON_IN_EVENTS)
        except Exception:
            report_fault()
            transport.abortConnection()

    def take(self, request: BridgeRequest) -> None:
        """``POST /stream``. The key tells whose commands they are, so nobody asks for a token."""
        request.arguments.only(())
        stream = self._by_key.get(request.header(b"sockbridge-stream"))
        if stream is None:
            raise Refused(NO_SUCH_STREAM, 404)
        kind = request.header(b"content-type")
        stream.take(request, read_messages(request.body, kind, self.bridge.limits.max_message))

    def forget(self, stream: StandIn) -> None:
        """It is over."""
        self._by_key.pop(stream.key, None)
