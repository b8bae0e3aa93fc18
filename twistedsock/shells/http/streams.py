"""Server-sent events: an answer without an end, whose connection a session takes over from HTTP.

It is closed by the end of the connection and has no chunks, so that all readers of a channel share the very same bytes.
"""

from typing import Any

from twisted.python.failure import Failure

from twistedsock.core import errors
from twistedsock.core.access import Identity, Right
from twistedsock.core.bridge import Bridge
from twistedsock.core.channel import Channel
from twistedsock.core.commands import Command, Nick
from twistedsock.core.dialect import Dialect, Ending
from twistedsock.core.errors import Code, Refusal
from twistedsock.core.follower import Follower
from twistedsock.core.names import check_nick
from twistedsock.core.session import Session
from twistedsock.shells.closing import close_kindly, how_it_ended
from twistedsock.shells.faults import report_fault
from twistedsock.shells.http.headers import DATA
from twistedsock.shells.http.keep_alive import KeepAlive
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.shells.outlets import let_go, only_write, outlet_of
from twistedsock.shells.sockets import arrival_of
from twistedsock.wire.dialects import EVENTS
from twistedsock.wire.event_stream import KEEP_ALIVE, RETRY
from twistedsock.wire.events_dialect import SeveralEvents
from twistedsock.wire.following import follow
from twistedsock.wire.problems import Refused
from twistedsock.wire.stream_arguments import LAST_EVENT_ID, Asked, read_asked, read_channels

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

MOST_IGNORED = 64 * 1024
"""Bytes that a client may send behind its request, which nobody looks at; it is closed if it goes on."""
NOT_FOR_DOCUMENTS = Refusal(
    Code.FORBIDDEN, "a browser cannot open a stream as a page: read it with EventSource or fetch"
)

NOBODY_LISTENS = b"nobody listens to what you send here"

ARGUMENTS = ("last", "since", "epoch", "presence", "nick", *LAST_EVENT_ID)


def wants_stream(request: BridgeRequest) -> bool:
    """Whether that is what it accepts, as EventSource says."""
    return MEDIA_TYPE in request.header(b"accept").lower()


class Stream:
    """What a connection belongs to once it is a stream; ``transport`` is that of the connection."""

    __slots__ = ("_closing", "_ignored", "_input_ended", "_outlet", "_streams", "_transport", "session")

    def __init__(self, streams: "Streams", transport: Any) -> None:
        self._streams = streams
        self._transport = transport
        self._closing: Any = None
        self._ignored = 0
        self._input_ended = False
        self._outlet: Any = None
        self.session: Session | None = None

    def begin(self, request: BridgeRequest, dialect: Dialect, kind: type[Session]) -> Session:
        """Its session, to which nothing has been said. To be called when the connection has been taken over."""
        streams = self._streams
        self._outlet = outlet_of(self._transport, streams.reactor)
        endpoint = request.listening.endpoint
        arrival = arrival_of(self._transport, streams.bridge.broker.clock(), "events")
        session = kind(streams.bridge, dialect, self._outlet, request.ends, self.hang_up, endpoint, arrival)
        self._outlet.on_drained = session.drained
        self.session = session
        streams.keep_alive.add(self)
        return session

    def keep_alive(self) -> None:
        self._outlet.offer(KEEP_ALIVE)

    def dataReceived(self, data: bytes) -> None:
        if self._closing is None and self.session is not None:
            self._ignored += len(data)
            if (meter := self.session.meter) is not None:
                meter.read(len(data), self.session.now())
            if self._ignored > MOST_IGNORED:
                self.session.dismiss(Ending.POLICY, NOBODY_LISTENS)

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

    def hang_up(self, ending: Ending) -> None:
        self._streams.keep_alive.remove(self)
        let_go(self._outlet, self._transport)
        self._closing = close_kindly(self._transport, self._streams.reactor.callLater)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._streams.keep_alive.remove(self)
        if self._outlet is not None:
            self._outlet.on_drained = None
        self._outlet = self._transport = None
        session, self.session = self.session, None
        if session is not None:
            session.lost(how_it_ended(reason))


class Streams:
    """One for a server. ``interval`` is how many seconds may pass in silence before a comment is sent; 0: for ever."""

    def __init__(self, bridge: Bridge, reactor: Any, interval: int) -> None:
        self.bridge = bridge
        self.reactor = reactor
        self.keep_alive = KeepAlive(reactor, interval)

    def of_one(self, request: BridgeRequest) -> None:
        """``GET /channels/{channel}/events``, where a stream is asked for."""
        request.arguments.only(ARGUMENTS)
        self._open(request, [request.channel_name])

    def of_several(self, request: BridgeRequest) -> None:
        """``GET /events?channel=…``, likewise."""
        request.arguments.only(ARGUMENTS, repeated=("channel",))
        self._open(request, read_channels(request.arguments))

    def _open(self, request: BridgeRequest, channels: list[bytes]) -> None:
        refuse_document(request)
        asked = read_asked(request.arguments, channels, request.header(b"last-event-id").decode("latin-1"))
        nick = request.arguments.text("nick")
        request.charge(len(asked.known) - 1)
        refusal = self._forbids(request, asked) or self._judge_nick(nick) or self._has_no_room(request, asked)
        if refusal is not None:
            raise Refused(refusal)
        if request.method == b"HEAD":
            request.answer_head(HEADERS)
            return
        dialect: Dialect = EVENTS if len(asked.known) == 1 else SeveralEvents(asked.known)
        commands: list[Command] = [*asked.commands()]
        if nick is not None:
            commands.insert(0, Nick(nick.encode()))
        transport: Any = request.transport
        stream = Stream(self, transport)
        head = request.give_away(stream, HEADERS)
        try:
            session = stream.begin(request, dialect, Follower)
            assert isinstance(session, Follower)
            session.welcome(head + RETRY, proven(request.identity))
            follow(session, commands, report_fault)
        except Exception:
            report_fault()
            transport.abortConnection()

    def _forbids(self, request: BridgeRequest, asked: Asked) -> Refusal | None:
        visitor = request.visitor
        refusals = [visitor.forbids(channel, Right.READ) for channel in asked.known]
        return next((refusal for refusal in refusals if refusal is not None), None)

    def _judge_nick(self, nick: str | None) -> Refusal | None:
        if nick is None:
            return None
        refusal = check_nick(nick.encode())
        if refusal is not None:
            return refusal
        return errors.NICK_IS_AN_ID if nick.encode() in self.bridge.roster else None

    def _has_no_room(self, request: BridgeRequest, asked: Asked) -> Refusal | None:
        """What would be refused to the session, as far as it can be known now."""
        broker, limits = self.bridge.broker, self.bridge.limits
        refusal = no_room_for(self.bridge, request.identity)
        if refusal is None and len(asked.known) > limits.max_channels_per_peer:
            refusal = errors.TOO_MANY_SUBSCRIPTIONS
        if refusal is None and not broker.subscription_shares.admits(request.visitor.principal, len(asked.known)):
            refusal = errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL
        opened: list[Channel] = []
        for name in asked.known if refusal is None else ():
            answer = broker.open(name, request.visitor.principal)
            if isinstance(answer, Refusal):
                refusal = answer
                break
            if isinstance(answer, Channel):
                opened.append(answer)
        if refusal is not None or request.method == b"HEAD":
            for channel in opened:
                broker.forget_unused(channel)
        return refusal


def refuse_document(request: BridgeRequest) -> None:
    """Raise ``Refused`` if a browser shows the answer as a page. A link in a mail or a page leads there, with the
    user's cookie, and would join channels in the user's name."""
    if request.is_document:
        raise Refused(NOT_FOR_DOCUMENTS)


def proven(identity: Identity | None) -> Identity | None:
    """Who has shown something, as a session wants to be told it."""
    return identity if identity is not None and (identity.subject or identity.proof) else None


def no_room_for(bridge: Bridge, identity: Identity | None) -> Refusal | None:
    """Why a session of somebody could not begin; None where it can."""
    subject = b"" if identity is None else identity.subject
    if subject in bridge.roster:
        return errors.NICK_IS_AN_ID
    refusal = bridge.admission.identify(subject)
    if refusal is None:
        bridge.admission.forget(subject)
    return refusal
