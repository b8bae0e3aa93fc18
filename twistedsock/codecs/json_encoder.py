"""The JSON protocol, outwards: replies and events as messages (docs/reference/json-protocol.md).

Messages are concatenated from parts that are JSON text already; no JSON library writes them. The HTTP API and
server-sent events use the same objects."""

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Self

from twistedsock.codecs.framing import Framing, JsonLine, TextMessage
from twistedsock.codecs.payload import payload_to_json, quote, quote_name
from twistedsock.codecs.websocket import CLOSE_CODES, binary_frame
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.values import (
    BYTES,
    JSON,
    TEXT,
    Batch,
    Event,
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

_HEAD = b'{"type":"event","channel":%b,"offset":%d,"time":%d,"from":%b,"name":%b'

_EVENT, _BASE64_EVENT, _BYTES_EVENT = _HEAD + b',"data":%b}', _HEAD + b',"base64":%b}', _HEAD + b"}\n%b"


_PUBLISHED = b'{"type":"ok","id":%b,"offset":%d%b}'


def event_message(channel: bytes, event: Event) -> bytes:
    """One event. ``channel`` is quoted already, because many events have the same."""
    kind = event.kind
    return (_BASE64_EVENT if kind is BYTES else _EVENT) % (
        channel,
        event.offset,
        event.time,
        quote_name(event.sender),
        quote_name(event.name),
        payload_to_json(event.payload, kind),
    )


def single_event_message(channel: bytes, batch: Batch) -> bytes:
    """The event of a batch that has only one. ``channel`` is quoted already."""
    payloads = batch.payloads
    kind, payload = payloads.kind, payloads.items[0]
    return (_BASE64_EVENT if kind is BYTES else _EVENT) % (
        channel,
        batch.first,
        batch.time,
        quote_name(batch.sender),
        quote_name(batch.name),
        b'"%b"' % payload if kind is TEXT and payloads.is_plain else payload_to_json(payload, kind),
    )


def bytes_message(channel: bytes, event: Event) -> bytes:
    """One event with bytes as a binary message. ``channel`` is quoted already."""
    names = quote_name(event.sender), quote_name(event.name)
    return _BYTES_EVENT % (channel, event.offset, event.time, *names, event.payload)


def event_parts(channel: bytes, batch: Batch) -> tuple[bytes, bytes, bytes]:
    """The parts of each event of a plain batch: before the offset, between offset and payload, and after the payload.
    ``channel`` is quoted already."""
    quotes = b"" if batch.payloads.kind is JSON else b'"'
    between = b',"time":%d,"from":%b,"name":%b,"data":%b' % (
        batch.time,
        quote_name(batch.sender),
        quote_name(batch.name),
        quotes,
    )
    return b'{"type":"event","channel":%b,"offset":' % channel, between, quotes + b"}"


def member_object(member: Member) -> bytes:
    """A subscriber in presence and member lists."""
    return b'{"id":%b,"nick":%b}' % (quote_name(member.id), quote_name(member.nick))


def range_object(lost: Lost) -> bytes:
    """A range of offsets whose events are lost."""
    return b'{"first":%d,"last":%d}' % (lost.first, lost.last)


def lost_field(lost: Lost | None) -> bytes:
    """The field for events that were lost before the list begins, with a comma before it."""
    return b"" if lost is None else b',"lost":' + range_object(lost)


def stream_events(
    channel: bytes, events: Iterable[HistoryItem], before: bytes, after: bytes, max_bytes: float = inf
) -> Iterator[Piece]:
    """A list of events, in pieces of about one chunk, between ``before`` and ``after``. Events that the history drops
    while the list is being sent are reported behind the list, in the field ``gaps``. A list that would be longer than
    ``max_bytes`` ends after its first event or later; the field ``next`` is the offset after which the rest begins."""
    quoted, gaps = quote_name(channel), list[Lost]()
    gathered, size, total = [before + b',"events":['], 0, 0
    comma = b""
    for one in events:
        if isinstance(one, Event):
            message = event_message(quoted, one)
            total += len(message)
            if comma and total > max_bytes:
                after = b',"next":%d%b' % (one.offset - 1, after)
                break
            gathered.append(comma + message)
            comma = b","
            size += len(message)
            if size >= CHUNK_BYTES:
                yield b"".join(gathered)
                gathered, size = [], 0
        elif isinstance(one, Lost):
            gaps.append(one)
        else:
            yield one
    missing = b',"gaps":[%b]' % b",".join(map(range_object, gaps)) if gaps else b""
    yield b"".join([*gathered, b"]", missing, after])


def stream_list(
    items: Iterable[bytes], before: bytes, after: bytes, max_bytes: float = inf, cut: bytes = b""
) -> Iterator[bytes]:
    """A long list in pieces of about one chunk, between ``before`` and ``after``. A list that would be longer than
    ``max_bytes`` ends before that, with ``cut`` in place of ``after``."""
    gathered, size, total = [before], 0, 0
    comma = b""
    for item in items:
        total += len(item)
        if total > max_bytes:
            after = cut
            break
        gathered.append(comma + item)
        comma = b","
        size += len(item)
        if size >= CHUNK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join([*gathered, after])


def stream_channels(page: Page, before: bytes, after: bytes) -> Iterator[bytes]:
    """A list of channels in pieces, between ``before`` and ``after``."""
    following = b"null" if page.following is None else quote_name(page.following)
    objects = (
        b'{"channel":%b,"readers":%d,"offset":%d}' % (quote(one.channel), one.readers, one.position.offset)
        for one in page.channels
    )
    ending = b'],"total":%d,"next":%b%b' % (page.total, following, after)
    return stream_list(objects, before + b'"channels":[', ending)


def facts_fields(facts: SessionInfo) -> bytes:
    """The fields of the reply to ``info``, with a comma before each."""
    return b',"peer":%b,"from":%b,"to":%b,"channels":%d,"uptime":%d,"version":%b' % (
        member_object(facts.peer),
        quote(facts.ends.client),
        quote(facts.ends.server),
        facts.channels,
        facts.uptime,
        quote(facts.version),
    )


def subscribed_fields(channel: bytes, position: Position, recovered: bool | None, since: int | None) -> bytes:
    fields = b',"channel":%b,"offset":%d,"epoch":%b' % (
        quote_name(channel),
        position.offset,
        quote_name(position.epoch),
    )
    if recovered is not None:
        fields += b',"recovered":' + (b"true" if recovered else b"false")
    return fields if since is None else b'%b,"since":%d' % (fields, since)


class JsonEncoder:
    """Replies carry the ``id`` of the command. A command without an id gets no reply that only reports success."""

    overhead = 105

    def __init__(self, framing: Framing, title: str = "json") -> None:
        self.title = title
        self._frame = framing.frame
        self._frames = framing.frames
        self._fragments = framing.fragments
        self._numbered = framing.numbered

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        return self._frame(
            b'{"type":"welcome","protocol":1,"id":%b,"from":%b,"to":%b}'
            % (quote(id), quote(ends.client), quote_name(ends.server))
        )

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        repeated = b',"repeated":true' if isinstance(first, RepeatedOffset) else b""
        if len(tags) == 1:
            (tag,) = tags
            return b"" if tag is None else self._frame(_PUBLISHED % (tag, first, repeated))
        if tags.count(None) == len(tags):
            return b""
        messages = [_PUBLISHED % (tag, offset, repeated) for offset, tag in enumerate(tags, first) if tag is not None]
        return b"".join(self._frames(messages))

    def subscribed(
        self,
        tag: Tag,
        channel: bytes,
        position: Position,
        recovered: bool | None,
        start: int | None = None,
        since: int | None = None,
    ) -> bytes:
        return self._ok(tag, subscribed_fields(channel, position, recovered, since))

    def unsubscribed(self, tag: Tag, channel: bytes) -> bytes:
        return self._ok(tag, b',"channel":' + quote_name(channel))

    def nicked(self, tag: Tag, nick: bytes) -> bytes:
        return self._ok(tag, b',"nick":' + quote_name(nick))

    def authenticated(self, tag: Tag, nick: bytes, expires: int | None) -> bytes:
        field = b"" if expires is None else b',"expires":%d' % expires
        return self._ok(tag, b',"nick":' + quote_name(nick) + field)

    def pong(self, tag: Tag, text: bytes) -> bytes:
        return self._frame(b'{"type":"pong"%b}' % _id(tag))

    def facts(self, tag: Tag, facts: SessionInfo) -> bytes:
        return self._frame(b'{"type":"ok"%b%b}' % (_id(tag), facts_fields(facts)))

    def refused(self, tag: Tag, error: Error) -> bytes:
        return self._frame(
            b'{"type":"error"%b,"code":"%b","message":%b}' % (_id(tag), error.code.value, quote(error.message.encode()))
        )

    def history(
        self,
        tag: Tag,
        channel: bytes,
        events: Iterable[HistoryItem],
        position: Position,
        lost: Lost | None = None,
    ) -> Iterator[Piece]:
        before = b'{"type":"ok"%b%b' % (_id(tag), lost_field(lost))
        after = b',"offset":%d,"epoch":%b}' % (position.offset, quote(position.epoch))
        return self._fragments(stream_events(channel, events, before, after))

    def members(self, tag: Tag, channel: bytes, members: Iterable[Member]) -> Iterator[Piece]:
        opening = b'{"type":"ok"%b,"members":[' % _id(tag)
        return self._fragments(stream_list((member_object(member) for member in members), opening, b"]}"))

    def channels(self, tag: Tag, page: Page) -> Iterator[Piece]:
        return self._fragments(stream_channels(page, b'{"type":"ok"%b,' % _id(tag), b"}"))

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        payloads, quoted = batch.payloads, quote_name(channel)
        if len(payloads.items) == 1:
            return self._frame(single_event_message(quoted, batch))
        if not payloads.is_plain:
            return b"".join(self._frames([event_message(quoted, event) for event in batch.events()]))
        before, between, after = event_parts(quoted, batch)
        return self._numbered(before, batch.first, between, payloads.items, after)

    def with_time(self) -> Self:
        return self

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Nothing to do: this encoder does not remember what it has written."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes:
        quoted = quote_name(channel)
        return b"".join(
            self._frames(
                [
                    b'{"type":"%b","channel":%b,"peer":%b}'
                    % (b"join" if change.joined else b"leave", quoted, member_object(change.member))
                    for change in changes
                ]
            )
        )

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        return self._frame(b'{"type":"lost","channel":%b,"first":%d,"last":%d}' % (quote_name(channel), first, last))

    def reset(self, channel: bytes, reset: Reset) -> bytes:
        return self._frame(
            b'{"type":"reset","channel":%b,"epoch":%b,"good":%d,"offset":%d}'
            % (quote_name(channel), quote(reset.epoch), reset.good, reset.offset)
        )

    def presence_lost(self, channel: bytes) -> bytes:
        return self.notice(
            b"joins and leaves on %b were dropped because you read too slowly: ask for the members again" % channel
        )

    def notice(self, text: bytes, code: bytes = b"", channel: bytes = b"") -> bytes:
        more = b',"code":' + quote(code) if code else b""
        if channel:
            more += b',"channel":' + quote_name(channel)
        return self._frame(b'{"type":"notice","text":%b%b}' % (quote(text), more))

    def bye(self, text: bytes) -> bytes:
        """Nothing: the close frame or the message ``close`` has the reason."""
        return b""

    def close(self, reason: CloseReason, text: bytes) -> bytes:
        """The last message of a session without close frames."""
        return self._frame(b'{"type":"close","code":%d,"reason":%b}' % (CLOSE_CODES[reason], quote(text)))

    def _ok(self, tag: Tag, rest: bytes) -> bytes:
        return self._frame(b'{"type":"ok","id":%b%b}' % (tag, rest)) if tag is not None else b""


class BinaryMessageEncoder(JsonEncoder):
    """JSON over WebSocket, except that events with bytes are binary messages."""

    def __init__(self) -> None:
        super().__init__(TextMessage())

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        if batch.payloads.kind is not BYTES:
            return super().batch(channel, batch, epoch)
        quoted = quote_name(channel)
        return b"".join([binary_frame(bytes_message(quoted, event)) for event in batch.events()])


def _id(tag: Tag) -> bytes:
    return b"" if tag is None else b',"id":' + tag


# There is one object of each, because subscribers with the same encoder share the encoded bytes.

JSON_MESSAGE_ENCODER = JsonEncoder(TextMessage())
"""JSON over WebSocket."""

BINARY_MESSAGE_ENCODER = BinaryMessageEncoder()
"""JSON over WebSocket, for clients that ask for binary messages."""

JSON_LINE_ENCODER = JsonEncoder(JsonLine())
"""JSON on the line port, one message in each line."""
