"""What the rules ask of a dialect: how replies and events are written for one kind of peer.

A dialect is pure and shared by all peers that speak it. What it returns are the very bytes that go on the socket,
frame heads included; ``b""`` where this dialect says nothing. As it also writes the events, it is the *encoding* of
the lanes of its readers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from twistedsock.errors import Error
from twistedsock.pubsub.values import Batch, Event, Lost, Member, Position, PresenceChange, Tag


class Endpoints(msgspec.Struct, frozen=True, gc=False):
    """The two ends of a peer's socket, as the server sees them: ``127.0.0.1:53122``, ``[::1]:8081``, ``unix:-``."""

    client: bytes
    server: bytes


class SessionInfo(msgspec.Struct, frozen=True, gc=False):
    """What INFO tells. ``uptime`` is the server's, in whole seconds."""

    peer: Member
    ends: Endpoints
    channels: int
    uptime: int
    version: bytes


class Encoder(Protocol):
    title: str
    """What it is called where peers are counted by it: a word."""

    def welcome(self, id: bytes, ends: Endpoints) -> bytes: ...

    overhead: int
    """Bytes that it writes around a payload beside the channel's and the sender's name, roughly."""

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        """Replies to publishes whose offsets follow each other."""

    def subscribed(
        self, tag: Tag, channel: bytes, position: Position, recovered: bool | None, start: int | None = None
    ) -> bytes:
        """``start`` is the offset from which on events will come, or be told lost; None: the one after the head."""

    def unsubscribed(self, tag: Tag, channel: bytes) -> bytes: ...
    def nicked(self, tag: Tag, nick: bytes) -> bytes: ...

    def authenticated(self, tag: Tag, nick: bytes, expires: int | None) -> bytes:
        """A token was good: what the peer is called now, and for how many seconds the token lasts, if not for ever."""

    def pong(self, tag: Tag, text: bytes) -> bytes: ...
    def facts(self, tag: Tag, facts: SessionInfo) -> bytes: ...
    def quieted(self) -> bytes: ...
    def refused(self, tag: Tag, error: Error) -> bytes: ...

    def help(self, verb: bytes) -> bytes | None:
        """What HELP says, its ``OK`` included; None for a verb that does not exist."""

    def history(
        self,
        tag: Tag,
        channel: bytes,
        events: Iterable[Event | Lost],
        position: Position,
        lost: Lost | None = None,
    ) -> Iterator[bytes]:
        """A reply that may be long, in pieces of about a chunk, so that a peer that does not read costs one of them.
        ``events`` is asked for more when the next piece is. ``lost`` is what was gone before, of what was asked for."""

    def members(self, tag: Tag, channel: bytes, members: Iterable[Member]) -> Iterator[bytes]:
        """As ``history``."""

    def batch(self, channel: bytes, batch: Batch, epoch: bytes = b"") -> bytes:
        """Its events, each one message. This is the hot path."""

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """A reader has not taken what was written for it from ``cursor`` on, or begins there: for a dialect that one
        reader has for itself, and that remembers what it has written."""

    def presence(self, channel: bytes, changes: Sequence[PresenceChange]) -> bytes: ...
    def lost(self, channel: bytes, first: int, last: int) -> bytes: ...

    def notice(self, text: bytes, code: bytes = b"", channel: bytes = b"") -> bytes:
        """A word to the peer. ``code`` and ``channel`` say the same to programs, where it is theirs to do something."""

    def bye(self, text: bytes) -> bytes: ...
