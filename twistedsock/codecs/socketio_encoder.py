"""Socket.IO, outwards: events and replies as packets (docs/reference/socketio-protocol.md).

A namespace is a channel. Events are the same packets for all clients of a channel, so ``EventPackets`` is shared by
them; a ``SocketIOEncoder`` belongs to one session, because replies depend on the namespaces that it has joined. All
packets are written as WebSocket frames; ``codecs.engineio`` makes payloads for clients that poll from them.

The tag of a command says how it is answered: see ``ack_tag``, ``connect_tag``, ``event_tag`` and ``SILENT``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Self

from twistedsock.codecs.framing import TextMessage
from twistedsock.codecs.json_encoder import (
    facts_fields,
    lost_field,
    member_object,
    stream_channels,
    stream_events,
    stream_list,
    subscribed_fields,
)
from twistedsock.codecs.payload import quote, quote_name
from twistedsock.codecs.socketio import NAMES_OF_LIBRARIES, PLACEHOLDER, event_name_to_client
from twistedsock.codecs.websocket import binary_frame, text_frame
from twistedsock.errors import Error
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import (
    BYTES,
    TEXT,
    Batch,
    Lost,
    Member,
    Page,
    Position,
    PresenceChange,
    RepeatedOffset,
    Reset,
    Tag,
)
from twistedsock.session.encoder import Endpoints, HistoryItem, Piece, SessionInfo

_FRAMING = TextMessage()

TOKEN_HINT = ": connect with auth: { token }"

MAX_LIST_BYTES = 1_000_000
"""Of the events or members in one ack, unless the first event is longer. An ack is one packet: it waits in memory until
it is complete if the client polls, and ``python-socketio`` closes a WebSocket that receives more than 4 MB at once."""

# Names of the server's own events. No client can publish an event with # in its name.

LOST, RESET, JOIN, LEAVE, NOTICE, ERROR = b"#lost", b"#reset", b"#join", b"#leave", b"#notice", b"#error"

# The first byte of a tag; the namespace without the slash follows, then a comma, then what the reply needs.

_ACK, _CONNECT, _EVENT = b"a", b"c", b"e"

SILENT = b"s,"
"""The tag of a command that is not answered."""


def ack_tag(namespace: bytes, id: int, channel: bytes = b"") -> bytes:
    """The answer is an ack. ``channel`` is that of a publication."""
    return b"%b%b,%d %b" % (_ACK, namespace, id, channel)


def ack_tags(tag: bytes, ids: Iterable[int]) -> list[Tag]:
    """The ``ack_tag`` of a publication, with other ids."""
    namespace, _, rest = tag.partition(b",")
    channel = rest.partition(b" ")[2]
    return [b"%b,%d %b" % (namespace, id, channel) for id in ids]


def connect_tag(namespace: bytes, recovery: bytes = b"") -> bytes:
    """The answer is CONNECT or CONNECT_ERROR. ``recovery`` is a ``recovery_text`` if the client wants to recover."""
    return b"%b%b,%b" % (_CONNECT, namespace, recovery)


def event_tag(namespace: bytes) -> bytes:
    """There is no answer, but errors are sent as an event."""
    return b"%b%b," % (_EVENT, namespace)


def recovery_text(pid: str = "", offset: str = "", since: int | None = None) -> bytes:
    """The fields that a client has sent to recover, without spaces in them. ``since`` is the offset after which it
    continues."""
    return f"{pid} {offset} {'' if since is None else since}".encode()


def _read_tag(tag: bytes) -> tuple[bytes, bytes, bytes]:
    """The kind of the answer, the namespace as packets write it, and the rest."""
    namespace, _, rest = tag[1:].partition(b",")
    return tag[:1], b"/%b," % namespace if namespace else b"", rest


def _event(prefix: bytes, name: bytes, value: bytes, position: bytes = b"") -> bytes:
    """An event of the server. ``position`` is one more argument, with a comma before it."""
    return text_frame(b'42%b["%b",%b%b]' % (prefix, name, value, position))


@lru_cache(maxsize=4096)
def _name_parts(name: bytes) -> tuple[bytes, bytes]:
    """The name of an event, quoted, and the field of ``meta`` that has the name if that cannot be used: clients would
    close the connection, or call handlers of other events."""
    shown = quote(event_name_to_client(name).encode())
    if event_name_to_client(name) in NAMES_OF_LIBRARIES:
        return quote(DEFAULT_EVENT_NAME), b',"name":' + shown
    return shown, b""


class EventPackets:
    """The encoder of events ``in_namespace`` or on the main namespace. If it ``recovers``, events have a position as
    their last argument, which Socket.IO clients keep to recover from there."""

    __slots__ = ("_in_namespace", "_recovers")

    overhead = 130

    def __init__(self, in_namespace: bool, recovers: bool = False) -> None:
        self._in_namespace = in_namespace
        self._recovers = recovers

    def _prefix(self, channel: bytes) -> bytes:
        return b"/%b," % channel if self._in_namespace else b""

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        kind, items, quoted = batch.payloads.kind, batch.payloads.items, quote_name(channel)
        prefix = b"/%b," % channel if self._in_namespace else b""
        name, more = _name_parts(batch.name)
        end = b',"time":%d,"from":%b%b' % (batch.time, quote_name(batch.sender), more)
        if kind is BYTES:
            frames = list[bytes]()
            for offset, payload in enumerate(items, batch.first):
                position = b',"%b:%d"' % (epoch, offset) if self._recovers else b""
                meta = b'{"channel":%b,"offset":%d%b}%b' % (quoted, offset, end, position)
                frames.append(text_frame(b"451-%b[%b,%b,%b]" % (prefix, name, PLACEHOLDER, meta)))
                frames.append(binary_frame(payload))
            return b"".join(frames)
        mark = b'"' if batch.payloads.is_plain and kind is TEXT else b""
        if kind is TEXT and not mark:
            items = tuple(map(quote, items))
        before, between = b"42%b[%b,%b" % (prefix, name, mark), b'%b,{"channel":%b,"offset":' % (mark, quoted)
        if not self._recovers:
            return _FRAMING.numbered_behind(before, items, (between,), batch.first, end + b"}]")
        return _FRAMING.numbered_behind(before, items, (between, b'%b},"%b:' % (end, epoch)), batch.first, b'"]')

    def with_time(self) -> Self:
        return self

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Nothing to do: this encoder does not remember what it has written."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes:
        prefix, quoted = self._prefix(channel), quote_name(channel)
        return b"".join(
            [
                _event(
                    prefix,
                    JOIN if change.joined else LEAVE,
                    b'{"channel":%b,"peer":%b}' % (quoted, member_object(change.member)),
                )
                for change in changes
            ]
        )

    def presence_lost(self, channel: bytes) -> bytes:
        text = b"joins and leaves were dropped because you read too slowly: ask for the members again"
        return _event(self._prefix(channel), NOTICE, b'{"text":"%b","channel":%b}' % (text, quote_name(channel)))

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        value = b'{"channel":%b,"first":%d,"last":%d}' % (quote_name(channel), first, last)
        return _event(self._prefix(channel), LOST, value)

    def reset(self, channel: bytes, reset: Reset) -> bytes:
        fields = (quote_name(channel), quote(reset.epoch), reset.good, reset.offset)
        position = b',"%b:%d"' % (reset.epoch, reset.offset) if self._recovers else b""
        return _event(
            self._prefix(channel), RESET, b'{"channel":%b,"epoch":%b,"good":%d,"offset":%d}' % fields, position
        )


# There is one object of each, because subscribers with the same encoder share the encoded bytes.

NAMESPACE_EVENTS = EventPackets(True)

RECOVERED_NAMESPACE_EVENTS = EventPackets(True, True)

MAIN_EVENTS = EventPackets(False)

RECOVERED_MAIN_EVENTS = EventPackets(False, True)


class SocketIOEncoder(EventPackets):
    """The replies to one client. ``find_time`` returns the time of the event with a channel and an offset, if it is
    known. Events are encoded by the objects above, which subscriptions name."""

    __slots__ = ("_find_time", "_sid", "connecting", "followed", "is_main_joined", "namespaces")

    title = "socketio"

    def __init__(self, find_time: Callable[[bytes, int], int | None]) -> None:
        super().__init__(False)
        self.namespaces: dict[bytes, None] = {}
        """The channels of the namespaces that the client has joined."""
        self.followed: dict[bytes, None] = {}
        """The channels whose events it receives on the main namespace."""
        self.is_main_joined = False
        self.connecting: bytes | None = None
        """The tag of a namespace that is being joined."""
        self._find_time = find_time
        self._sid = b'""'

    # The connection.

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        """Nothing: clients receive the id when they join a namespace."""
        self._sid = quote(id)
        return b""

    def main_joined(self) -> bytes:
        """The reply to a client that has joined the main namespace."""
        self.is_main_joined, self.connecting = True, None
        return self._connected(b"")

    def _connected(self, prefix: bytes, pid: bytes = b"") -> bytes:
        more = b',"pid":"%b"' % pid if pid else b""
        return text_frame(b'40%b{"sid":%b%b}' % (prefix, self._sid, more))

    def disconnected(self) -> bytes:
        """The last packets of a session. A client that receives them does not connect again by itself."""
        prefixes = [b"/%b," % channel for channel in self.namespaces] + [b""] * self.is_main_joined
        return b"".join([text_frame(b"41" + prefix) for prefix in prefixes])

    @property
    def _any_prefix(self) -> bytes:
        """A namespace for what concerns the whole connection."""
        first = next(iter(self.namespaces), None)
        return b"" if self.is_main_joined or first is None else b"/%b," % first

    # Replies.

    def _ok(self, tag: Tag, fields: bytes) -> bytes:
        kind, prefix, rest = _read_tag(tag or SILENT)
        if kind != _ACK:
            return b""
        return text_frame(b"43%b%b[{%b}]" % (prefix, rest.partition(b" ")[0], fields))

    def _begin_ack(self, tag: Tag) -> bytes:
        """The start of an ack that is written in parts, up to its first field. It ends with ``}]``."""
        _, prefix, rest = _read_tag(tag or SILENT)
        return b"43%b%b[{" % (prefix, rest.partition(b" ")[0])

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        if not (tags[0] or b"").startswith(_ACK) and tags.count(tags[0]) == len(tags):
            return b""  # nearly all clients that send much want no acks
        replies: list[bytes] = []
        time, repeated = b"", b',"repeated":true' if isinstance(first, RepeatedOffset) else b""
        for offset, tag in enumerate(tags, first):
            if tag is None or not tag.startswith(_ACK):
                continue
            _, prefix, rest = _read_tag(tag)
            id, _, channel = rest.partition(b" ")
            if not time:  # one for all, because they are one batch
                found = self._find_time(channel, first)
                time = b"" if found is None else b',"time":%d' % found
            replies.append(text_frame(b'43%b%b[{"offset":%d%b%b}]' % (prefix, id, offset, time, repeated)))
        return b"".join(replies)

    def subscribed(
        self,
        tag: Tag,
        channel: bytes,
        position: Position,
        recovered: bool | None,
        start: int | None = None,
        since: int | None = None,
    ) -> bytes:
        kind, prefix, rest = _read_tag(tag or SILENT)
        if kind != _CONNECT:
            self.followed[channel] = None
            return self._ok(tag, subscribed_fields(channel, position, recovered, since)[1:])
        self.connecting = None
        if prefix:
            self.namespaces[channel] = None
        else:
            self.is_main_joined = True
            self.followed[channel] = None
        if not rest:
            return self._connected(prefix)
        begin = Position(position.epoch, position.offset if start is None else start - 1)
        return self._recovered(channel, prefix, rest, begin, recovered, since is not None)

    def _recovered(
        self, channel: bytes, prefix: bytes, rest: bytes, begin: Position, recovered: bool | None, changes_epoch: bool
    ) -> bytes:
        """The reply to a client that can recover: events after ``begin`` follow. A client sees that nothing is missing
        by the ``pid`` of its last connection. Otherwise it gets another one, with the position at which it begins and
        the offset that the client has now: until that changes, it is older than the beginning."""
        pid, offset, asked = rest.split(b" ")
        if recovered:
            reply = self._connected(prefix, pid)
        else:
            number = int(pid.partition(b"/")[0] or 0) + 1
            former = b"/" + offset if offset else b""
            reply = self._connected(prefix, b"%d/%b:%d%b" % (number, begin.epoch, begin.offset, former))
        if changes_epoch or (recovered is False and begin.offset != int(asked)):
            # Otherwise the events that are lost, if any, follow with their offsets.
            good = int(asked) if changes_epoch else 0
            events = RECOVERED_NAMESPACE_EVENTS if prefix else RECOVERED_MAIN_EVENTS
            reply += events.reset(channel, Reset(begin.epoch, good, begin.offset, None))
        return reply

    def unsubscribed(self, tag: Tag, channel: bytes) -> bytes:
        self.followed.pop(channel, None)
        return self._ok(tag, b'"channel":' + quote_name(channel))

    def nicked(self, tag: Tag, nick: bytes) -> bytes:
        return self._ok(tag, b'"nick":' + quote_name(nick))

    def authenticated(self, tag: Tag, nick: bytes, expires: int | None) -> bytes:
        field = b"" if expires is None else b',"expires":%d' % expires
        return self._ok(tag, b'"nick":%b%b' % (quote_name(nick), field))

    def pong(self, tag: Tag, text: bytes) -> bytes:
        return self._ok(tag, b"")

    def facts(self, tag: Tag, facts: SessionInfo) -> bytes:
        return self._ok(tag, facts_fields(facts)[1:])

    def refused(self, tag: Tag, error: Error) -> bytes:
        code = error.code.value
        message = quote((error.message + (TOKEN_HINT if error.needs_token else "")).encode())
        if tag is None:
            return _event(self._any_prefix, ERROR, b'{"code":"%b","message":%b}' % (code, message))
        kind, prefix, _ = _read_tag(tag)
        if kind == _CONNECT:
            self.connecting = None
            if not prefix:  # a client that has joined cannot connect again
                self.is_main_joined = False
            return text_frame(b'44%b{"message":%b,"data":{"code":"%b"}}' % (prefix, message, code))
        if kind == _EVENT:
            return _event(prefix, ERROR, b'{"code":"%b","message":%b}' % (code, message))
        return self._ok(tag, b'"error":{"code":"%b","message":%b}' % (code, message))

    def history(
        self,
        tag: Tag,
        channel: bytes,
        events: Iterable[HistoryItem],
        position: Position,
        lost: Lost | None = None,
    ) -> Iterator[Piece]:
        before = b'%b"channel":%b%b' % (self._begin_ack(tag), quote_name(channel), lost_field(lost))
        after = b',"offset":%d,"epoch":%b}]' % (position.offset, quote(position.epoch))
        return _FRAMING.fragments(stream_events(channel, events, before, after, MAX_LIST_BYTES))

    def members(self, tag: Tag, channel: bytes, members: Iterable[Member]) -> Iterator[Piece]:
        opening = self._begin_ack(tag) + b'"members":['
        objects = (member_object(member) for member in members)
        return _FRAMING.fragments(stream_list(objects, opening, b"]}]", MAX_LIST_BYTES, b'],"complete":false}]'))

    def channels(self, tag: Tag, page: Page) -> Iterator[Piece]:
        return _FRAMING.fragments(stream_channels(page, self._begin_ack(tag), b"}]"))

    # Messages without a command.

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        """A reply to ``subscribe`` can be followed by this."""
        return (
            NAMESPACE_EVENTS.lost(channel, first, last)
            if channel in self.namespaces
            else super().lost(channel, first, last)
        )

    def notice(self, text: bytes, code: bytes = b"", channel: bytes = b"") -> bytes:
        """A subscription that the client has lost ends its namespace."""
        more = b',"code":' + quote(code) if code else b""
        if channel:
            more += b',"channel":' + quote_name(channel)
        value = b'{"text":%b%b}' % (quote(text), more)
        if code == b"forbidden" and channel in self.namespaces:
            del self.namespaces[channel]
            prefix = b"/%b," % channel
            return _event(prefix, NOTICE, value) + text_frame(b"41" + prefix)
        if code == b"forbidden":
            self.followed.pop(channel, None)
        return _event(self._any_prefix, NOTICE, value)

    def bye(self, text: bytes) -> bytes:
        """Nothing: the end of the connection says it."""
        return b""
