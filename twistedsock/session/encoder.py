"""How replies become bytes: what sessions need of an encoder."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from twistedsock.errors import Error
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.subscription import EventEncoder
from twistedsock.pubsub.values import Event, Lost, Member, Page, Position, Tag

HistoryItem = Event | Lost | Future[Any]
"""A future stands for the wait for the following items."""

Piece = bytes | Future[Any]
"""A part of a long reply. After a future, the next part is available when that is settled."""


class Endpoints(msgspec.Struct, frozen=True, gc=False):
    """Both addresses of a client's connection as the server sees them: ``127.0.0.1:53122``, ``[::1]:8081``,
    ``unix:-``."""

    client: bytes
    server: bytes


class SessionInfo(msgspec.Struct, frozen=True, gc=False):
    """The reply to ``INFO``. ``uptime`` is the server's, in whole seconds."""

    peer: Member
    ends: Endpoints
    channels: int
    uptime: int
    version: bytes


class ReplyEncoder(Protocol):
    """Pure, and shared by all sessions of one protocol. Each method returns the very bytes that go on the socket, frame
    heads included, or ``b""`` if the protocol has no such message."""

    title: str
    """The name under which sessions are counted: one word."""

    def welcome(self, id: bytes, ends: Endpoints) -> bytes: ...

    def published(self, tags: Sequence[Tag], first: int) -> bytes:
        """Replies to publishes whose offsets follow each other. ``first`` is a ``RepeatedOffset`` if they were
        published before."""

    def subscribed(
        self,
        tag: Tag,
        channel: bytes,
        position: Position,
        recovered: bool | None,
        start: int | None = None,
        since: int | None = None,
    ) -> bytes:
        """``start`` is the offset of the first event that will be sent or reported as lost; None: the one after
        ``position``. ``since`` is the client's offset if it gave a position of the epoch before this one."""

    def unsubscribed(self, tag: Tag, channel: bytes) -> bytes: ...
    def nicked(self, tag: Tag, nick: bytes) -> bytes: ...

    def authenticated(self, tag: Tag, nick: bytes, expires: int | None) -> bytes:
        """A token was accepted. ``nick`` is the client's nick from now on, ``expires`` the seconds until the token
        expires, if it does."""

    def pong(self, tag: Tag, text: bytes) -> bytes: ...
    def facts(self, tag: Tag, facts: SessionInfo) -> bytes: ...
    def refused(self, tag: Tag, error: Error) -> bytes: ...

    def history(
        self,
        tag: Tag,
        channel: bytes,
        events: Iterable[HistoryItem],
        position: Position,
        lost: Lost | None = None,
    ) -> Iterator[Piece]:
        """A reply that may be long, in pieces of about a chunk, so that a client that does not read costs one of them.
        ``events`` is read as far as the pieces that were asked for need; its futures are pieces too. ``lost`` is the
        part of the requested events that had been dropped before."""

    def members(self, tag: Tag, channel: bytes, members: Iterable[Member]) -> Iterator[Piece]:
        """Like ``history``."""

    def channels(self, tag: Tag, page: Page) -> Iterator[Piece]:
        """Like ``history``."""

    def notice(self, text: bytes, code: bytes = b"", channel: bytes = b"") -> bytes:
        """A message for people. ``code`` and ``channel`` are for programs, if they should react to it."""

    def bye(self, text: bytes) -> bytes: ...


class Encoder(EventEncoder, ReplyEncoder, Protocol):
    """All that is sent to the clients of one protocol."""

    def with_time(self) -> "Encoder": ...
