"""The commands of clients: decoders create them from bytes, sessions run them.

The reply to a command carries its ``tag``, so that the client can match the two: the ``id`` of a JSON command as it was
written, or None. The line protocol replies in order and uses no tags.
"""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Self

import msgspec
from msgspec.structs import replace

from twistedsock.errors import CloseReason, Error
from twistedsock.pubsub.subscription import EventEncoder
from twistedsock.pubsub.values import Position, Publication, Tag
from twistedsock.session.encoder import Encoder
from twistedsock.session.history_query import ALL_EVENTS, HistoryQuery

if TYPE_CHECKING:
    from twistedsock.pubsub.channel import Channel

MAX_OFFSET = 2**53 - 1
"""The largest offset or count: the largest integer that JavaScript holds exactly."""


class Publish(Publication, frozen=True, gc=False):
    """A publication with one tag for each payload. Busy publishers send many in a row that differ only in payload and
    tag: joined to one command they cost a fraction of what they cost one by one."""

    tags: Sequence[Tag] = (None,)

    def joined(self, following: Sequence[Self]) -> Self:
        tags = (*self.tags, *chain.from_iterable([other.tags for other in following]))
        return replace(Publication.joined(self, following), tags=tags)


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """``with_time``: events are written with their time, also in protocols that leave it out by default. ``encoder``,
    if there is one, writes the events of this channel instead of the one of the session."""

    channel: bytes
    last: int | None = None
    since: int | None = None
    epoch: bytes | None = None
    presence: bool = False
    echo: bool = True
    with_time: bool = False
    tag: Tag = None
    encoder: EventEncoder | None = None


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    """``has_left``: the client has left the channel with its message and gets no reply, so the rate limit charges the
    command and does not reject it."""

    channel: bytes
    tag: Tag = None
    has_left: bool = False


class ReadHistory(msgspec.Struct, frozen=True, gc=False):
    """``with_time`` as in ``Subscribe``."""

    channel: bytes
    query: HistoryQuery = ALL_EVENTS
    with_time: bool = False
    tag: Tag = None


class Who(msgspec.Struct, frozen=True, gc=False):
    channel: bytes
    tag: Tag = None


class ListChannels(msgspec.Struct, frozen=True, gc=False):
    """``after`` is the last channel of the page before."""

    prefix: bytes = b""
    after: bytes = b""
    tag: Tag = None


class Nick(msgspec.Struct, frozen=True, gc=False):
    nick: bytes
    tag: Tag = None


class Auth(msgspec.Struct, frozen=True, gc=False):
    """The token is a secret, so the repr does not contain it."""

    token: bytes
    tag: Tag = None

    def __repr__(self) -> str:
        return f"Auth(tag={self.tag!r})"


class Ping(msgspec.Struct, frozen=True, gc=False):
    text: bytes = b""
    tag: Tag = None


class Info(msgspec.Struct, frozen=True, gc=False):
    tag: Tag = None


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A command that its decoder has answered: ``data`` is sent in the order of the commands. ``encoder``, if there is
    one, encodes the replies from then on."""

    data: bytes
    encoder: Encoder | None = None
    tag: Tag = None
    """Of the error if the command exceeds the rate."""


class Quit(msgspec.Struct, frozen=True, gc=False):
    """``words`` are the reason for the timeline."""

    words: str = "QUIT"


class Close(msgspec.Struct, frozen=True, gc=False):
    """The last command of a session, which the server gives: ``Session.close`` when all before it are answered."""

    reason: CloseReason
    message: bytes


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A notice from the endpoint of the connection. It is no reply, so it does not wait for replies that are due before
    it. A client that sends too fast does not get it."""

    text: bytes


class InvalidCommand(msgspec.Struct, frozen=True, gc=False):
    """Input that is no valid command, or a command that must not be run: the reply is the error. ``more`` are the tags
    of the following commands with the same error."""

    error: Error
    tag: Tag = None
    more: Sequence[Tag] = ()


Command = (
    Publish
    | Subscribe
    | Unsubscribe
    | ReadHistory
    | Who
    | ListChannels
    | Nick
    | Auth
    | Ping
    | Info
    | Reply
    | Quit
    | Close
    | Notice
    | InvalidCommand
)


class Several(msgspec.Struct, frozen=True, gc=False):
    """What a decoder returns for a message that stands for several commands, or for messages that can only be decoded
    when the ones before them have been run."""

    messages: "Sequence[bytes | Command]"


def resume_offset(command: Subscribe, channel: "Channel", oldest: int | None = None) -> tuple[int, bool | None]:
    """The offset of the first event that a subscription asks for, by default the one after the newest event. The second
    value is True if all events after ``since`` are available, False if not, None if ``since`` was not given. The
    history may start after that offset."""
    history, head = channel.history, channel.head
    recovered: bool | None = None
    if command.since is not None and command.epoch is not None:
        since = offset_in_epoch(channel, Position(command.epoch, command.since))
        if since is not None:
            return since + 1, since + 1 >= (history.first if oldest is None else min(oldest, history.first))
        recovered = False
    if command.last:
        return max(history.first, head + 1 - command.last), recovered
    return head + 1, recovered


def dropped_since(command: Subscribe, channel: "Channel") -> Position | None:
    """The position after which a client wants to resume, in the epoch of the channel, if the history has dropped events
    after it."""
    if command.since is None or command.epoch is None:
        return None
    since = offset_in_epoch(channel, Position(command.epoch, command.since))
    return None if since is None or since + 1 >= channel.history.first else Position(channel.epoch, since)


def changes_epoch(command: Subscribe, channel: "Channel") -> bool:
    """Whether a subscription that asks for the events after a position of the epoch before continues in this one."""
    if command.since is None or command.epoch is None or command.epoch == channel.epoch:
        return False
    return offset_in_epoch(channel, Position(command.epoch, command.since)) is not None


def offset_in_epoch(channel: "Channel", position: Position) -> int | None:
    """The offset of a client's position in the epoch of the channel, if the events that the client has are all valid.
    The position can be in the epoch before that."""
    previous = channel.previous
    if position.epoch == channel.epoch:
        return position.offset if position.offset <= channel.head else None
    if previous is None or position.epoch != previous.epoch or position.offset > previous.offset:
        return None
    if previous.offset == channel.begin:  # the offsets of both epochs are one sequence
        return position.offset
    return channel.begin if position.offset == previous.offset else None
