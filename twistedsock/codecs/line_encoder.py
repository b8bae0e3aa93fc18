"""The line protocol, outwards: replies and events as lines (docs/reference/line-protocol.md).

The same encoder writes lines on a socket and lines in WebSocket messages; they differ in the framing. ``HELP_LINES`` is
the text of ``HELP``: each line begins with a complete example that works when it is copied."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count

from twistedsock.codecs.framing import Framing, Newline, TextMessage
from twistedsock.codecs.payload import payload_to_line
from twistedsock.codecs.times import format_time
from twistedsock.errors import Error
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import BYTES, Batch, Event, Lost, Member, Page, Position, PresenceChange, Reset, Tag
from twistedsock.session.encoder import Endpoints, HistoryItem, Piece, SessionInfo

_LINES = {
    b"SUB": [b"SUB kitchen last=5", b"subscribe to a channel, here with its last 5 events first"],
    b"PUB": [b"PUB kitchen 21.5", b"publish text or JSON to all subscribers of a channel"],
    b"EMIT": [b"EMIT kitchen alarm smoke", b"publish an event with a name"],
    b"PUBBIN": [b"PUBBIN kitchen 3q2+7w==", b"publish bytes in base64"],
    b"EMITBIN": [b"EMITBIN kitchen pic /9g=", b"publish bytes in base64 with a name"],
    b"UNSUB": [b"UNSUB kitchen", b"unsubscribe from a channel"],
    b"HIST": [b"HIST kitchen last=10", b"list past events"],
    b"WHO": [b"WHO kitchen", b"list the subscribers of a channel"],
    b"LIST": [b"LIST sensors/", b"list the channels that begin with this, or all"],
    b"NICK": [b"NICK ann", b"change your nick to ann"],
    b"AUTH": [b"AUTH eyJhbGciOi...", b"authenticate with a token"],
    b"QUIET": [b"QUIET on", b"reply to PUB and EMIT only if they fail; QUIET off ends that"],
    b"PING": [b"PING hello", b"check the connection; the reply is PONG hello"],
    b"INFO": [b"INFO", b"show your id, nick and addresses"],
    b"HELP": [b"HELP SUB", b"show how to use a command"],
    b"QUIT": [b"QUIT", b"disconnect"],
}

_OPTIONS = {
    b"SUB": [
        b"SUB kitchen since=12 epoch=5f2c1a   continue after event 12; the reply to SUB contains the epoch",
        b"SUB kitchen presence=on             report changes of the subscribers as JOIN and LEAVE",
        b"SUB kitchen echo=off                do not send your own events back",
        b"SUB kitchen time=on                 write the time of each event after its offset",
    ],
    b"PUB": [
        b'PUB kitchen {"celsius": 21.5}       JSON if it begins with { [ or " and is valid, otherwise text',
    ],
    b"HIST": [
        b"HIST kitchen since=12               only the events after event 12",
        b"HIST kitchen after=-1h              only those of the last hour; or a time as 2026-11-29T05:00:00Z",
        b"HIST kitchen after=12 before=20     only events 13 to 19; before can be a time too",
        b"HIST kitchen time=on                write the time of each event after its offset",
    ],
}

HELP_LINES: dict[bytes, list[bytes]] = {
    b"": [b"%b   %b" % (example.ljust(24), text) for example, text in _LINES.values()]
}
"""The lines of ``HELP`` and of ``HELP <verb>``, by verb; b"" for all verbs."""

HELP_LINES.update(
    {
        verb: [b"%b   %b" % (example.ljust(33), text), *_OPTIONS.get(verb, ())]
        for verb, (example, text) in _LINES.items()
    }
)

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\xc2[\x80-\x9f]")


def _printable(text: bytes) -> bytes:
    """A text without characters that control a terminal."""
    return _CONTROL.sub(b"?", text)


def _event(channel: bytes, event: Event, time: bytes) -> bytes:
    payload = payload_to_line(event.payload, event.kind)
    if event.kind is BYTES:
        return b"BIN %b %d %b%b %b %b" % (channel, event.offset, time, event.sender, event.name, payload)
    if event.name == DEFAULT_EVENT_NAME:
        return b"MSG %b %d %b%b %b" % (channel, event.offset, time, event.sender, payload)
    return b"EVENT %b %d %b%b %b %b" % (channel, event.offset, time, event.sender, event.name, payload)


def _lost(channel: bytes, first: int, last: int) -> bytes:
    return b"LOST %b %d %d" % (channel, first, last)


TOKEN_HINT = ": send AUTH <token>"
"""Added to errors that need a token."""


class LineEncoder:
    """Replies come in the order of the commands, so tags are ignored."""

    title = "line"
    overhead = 24
    _has_time = False

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self._with_time = self if isinstance(self, TimedLineEncoder) else TimedLineEncoder(framing)
        self._frame = framing.frame
        self._frames = framing.frames
        self._numbered = framing.numbered
        self._counted = framing.counted

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        return self._frame(b"WELCOME sockbridge/1 id=%b from=%b to=%b" % (id, ends.client, ends.server))

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        if len(tags) == 1:
            return self._frame(b"OK %d" % first)
        return self._counted(b"OK ", first, len(tags))

    def subscribed(
        self,
        tag: Tag,
        channel: bytes,
        position: Position,
        recovered: bool | None,
        start: int | None = None,
        since: int | None = None,
    ) -> bytes:
        line = b"OK %b offset=%d epoch=%b" % (channel, position.offset, position.epoch)
        if recovered is not None:
            line += b" recovered=yes" if recovered else b" recovered=no"
        if since is not None:
            line += b" since=%d" % since
        return self._frame(line)

    def unsubscribed(self, tag: Tag, channel: bytes) -> bytes:
        return self._frame(b"OK " + channel)

    def nicked(self, tag: Tag, nick: bytes) -> bytes:
        return self._frame(b"OK " + nick)

    def authenticated(self, tag: Tag, nick: bytes, expires: int | None) -> bytes:
        return self._frame(b"OK " + nick if expires is None else b"OK %b expires=%d" % (nick, expires))

    def pong(self, tag: Tag, text: bytes) -> bytes:
        return self._frame(b"PONG " + _printable(text) if text else b"PONG")

    def facts(self, tag: Tag, facts: SessionInfo) -> bytes:
        return self._frame(
            b"OK id=%b nick=%b from=%b to=%b channels=%d uptime=%d version=%b"
            % (
                facts.peer.id,
                facts.peer.nick,
                facts.ends.client,
                facts.ends.server,
                facts.channels,
                facts.uptime,
                facts.version,
            )
        )

    def refused(self, tag: Tag, error: Error) -> bytes:
        message = error.message + TOKEN_HINT if error.needs_token else error.message
        return self._frame(b"ERR %b %b" % (error.code.value, _printable(message.encode())))

    def done(self) -> bytes:
        """The reply to ``QUIET``."""
        return self._frame(b"OK")

    def help(self, verb: bytes) -> bytes:
        """The reply to ``HELP_LINES``; ``verb`` is a key of the table."""
        return b"".join(self._frames([b"INFO " + line for line in HELP_LINES[verb]] + [b"OK"]))

    def history(
        self,
        tag: Tag,
        channel: bytes,
        events: Iterable[HistoryItem],
        position: Position,
        lost: Lost | None = None,
    ) -> Iterator[Piece]:
        gathered: list[bytes] = []
        sent = size = 0
        for one in events if lost is None else chain((lost,), events):
            if isinstance(one, Event):
                sent += 1
                line = _event(channel, one, self._time(one.time))
            elif isinstance(one, Lost):
                line = _lost(channel, one.first, one.last)
            else:
                yield one
                continue
            gathered.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                yield b"".join(self._frames(gathered))
                gathered, size = [], 0
        if gathered:
            yield b"".join(self._frames(gathered))
        yield self._frame(b"OK %d" % sent)

    def members(self, tag: Tag, channel: bytes, members: Iterable[Member]) -> Iterator[bytes]:
        counter = count()
        yield from self._chunks(
            b"MEMBER %b %b %b" % (channel, member.id, member.nick) for member, _ in zip(members, counter, strict=False)
        )
        yield self._frame(b"OK %d" % next(counter))

    def channels(self, tag: Tag, page: Page) -> Iterator[bytes]:
        yield from self._chunks(
            b"CHANNEL %b %d %d" % (one.channel, one.readers, one.position.offset) for one in page.channels
        )
        following = b"" if page.following is None else b" next=" + page.following
        yield self._frame(b"OK %d total=%d%b" % (len(page.channels), page.total, following))

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        payloads = batch.payloads
        time = self._time(batch.time) if self._has_time else b""
        if not payloads.is_plain:
            return b"".join(self._frames([_event(channel, event, time) for event in batch.events()]))
        name = b"" if batch.name == DEFAULT_EVENT_NAME else batch.name + b" "
        before = b"%b %b " % (b"EVENT" if name else b"MSG", channel)
        after = b" %b%b %b" % (time, batch.sender, name)
        if len(payloads.items) == 1:
            return self._frame(b"%b%d%b%b" % (before, batch.first, after, payloads.items[0]))
        return self._numbered(before, batch.first, after, payloads.items, b"")

    def _time(self, milliseconds: int) -> bytes:
        """The field for the time of an event, with a space after it."""
        return format_time(milliseconds) + b" " if self._has_time else b""

    def with_time(self) -> "TimedLineEncoder":
        return self._with_time

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Nothing to do: this encoder does not remember what it has written."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes:
        return b"".join(
            self._frames(
                [
                    b"%b %b %b %b"
                    % (b"JOIN" if change.joined else b"LEAVE", channel, change.member.id, change.member.nick)
                    for change in changes
                ]
            )
        )

    def lost(self, channel: bytes, first: int, last: int) -> bytes:
        return self._frame(_lost(channel, first, last))

    def reset(self, channel: bytes, reset: Reset) -> bytes:
        return self._frame(b"RESET %b epoch=%b good=%d offset=%d" % (channel, reset.epoch, reset.good, reset.offset))

    def presence_lost(self, channel: bytes) -> bytes:
        return self.notice(
            b"joins and leaves on %b were dropped because you read too slowly: send WHO %b" % (channel, channel)
        )

    def notice(self, text: bytes, code: bytes = b"", channel: bytes = b"") -> bytes:
        return self._frame(b"NOTICE " + _printable(text))

    def bye(self, text: bytes) -> bytes:
        return self._frame(b"BYE " + _printable(text) if text else b"BYE")

    def _chunks(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        gathered: list[bytes] = []
        size = 0
        for line in lines:
            gathered.append(line)
            size += len(line)
            if size >= CHUNK_BYTES:
                yield b"".join(self._frames(gathered))
                gathered, size = [], 0
        if gathered:
            yield b"".join(self._frames(gathered))


class TimedLineEncoder(LineEncoder):
    """Events have their time, after the offset (``time=on``)."""

    overhead = LineEncoder.overhead + 25

    _has_time = True


class QuietLineEncoder(LineEncoder):
    """After ``QUIET on``: publishes are answered only if they fail."""

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        return b""


# There is one object of each, because subscribers with the same encoder share the encoded bytes.

LINE_ENCODER = LineEncoder(Newline())
"""Lines on a TCP or Unix socket."""

LINE_MESSAGE_ENCODER = LineEncoder(TextMessage())
"""Lines over WebSocket: each is a text message."""
