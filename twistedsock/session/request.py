"""HTTP requests as clients of the broker: they publish or read once, without a session."""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from twistedsock.auth.identity import Identity, Right, check_access, displayed_nick, verified_nick
from twistedsock.errors import KEY_REUSED, NICK_IS_AN_ID, Error
from twistedsock.limits.principal import Principal, client_principal
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.future import Future, Steps, complete, map_result, on_result, wait_for
from twistedsock.pubsub.names import AnyOf, check_nick
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Lost, Member, Position, Publication
from twistedsock.session.commands import Subscribe, resume_offset
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import HistoryItem
from twistedsock.session.history_query import ALL_EVENTS, HistoryQuery
from twistedsock.session.history_reader import read_memory, read_part


class HistoryPage(msgspec.Struct, frozen=True):
    """A part of a channel's history: the offsets from ``start`` to before ``stop``. ``recovered`` is True if all events
    after the given position are available, None if no position was given. ``lost`` are the requested events that were
    dropped before; ``events`` reads the history lazily, and yields ``Lost`` for events that are dropped meanwhile."""

    channel: bytes
    position: Position
    start: int
    stop: int
    recovered: bool | None
    lost: Lost | None
    events: Iterator[HistoryItem]


class RequestClient:
    """``identity`` is the client's identity under the policy: None for an anonymous client, or without a policy.
    ``client`` is the client's address as text."""

    __slots__ = ("_context", "_client", "_identity", "_is_admin")

    def __init__(self, context: ServerContext, listener: str, client: bytes, identity: Identity | None = None) -> None:
        self._context = context
        self._client = client
        if identity is None and context.policy is not None:
            identity = context.policy.anonymous(listener)
        self._identity = identity
        self._is_admin = context.is_admin(identity, client)

    @property
    def is_admin(self) -> bool:
        """True if it can read the server's own channels and disconnect clients."""
        return self._is_admin

    @property
    def subject(self) -> bytes:
        """The subject of the identity; empty for an anonymous client."""
        return b"" if self._identity is None else self._identity.subject

    @property
    def principal(self) -> Principal:
        """The principal that its requests are counted for."""
        return client_principal(self._client, self.subject)

    def check_access(self, channel: bytes, right: Right) -> Error | None:
        """The error that prevents this, if any."""
        return check_access(self._identity, channel, right, self._is_admin)

    def readable(self) -> AnyOf | None:
        """The channels that it can read, without the server's own; None for all."""
        return None if self._identity is None else self._identity.grants.readable()

    def publish(self, publication: Publication, nick: bytes = b"") -> Position | Error | Future[Position]:
        """The sender is the subject of the identity, or ``nick``, or an id that is made for this request."""
        error = self.check_access(publication.channel, Right.WRITE) or self._check_nick(nick)
        if error is not None:
            return error
        publisher = self._publisher(nick)
        answer = self._publish(publisher, publication)
        on_result(answer, lambda outcome: self._context.sessions.remove(publisher.id))
        return answer

    def publish_all(
        self, publications: Sequence[Publication], nick: bytes = b""
    ) -> list[Position | Error] | Error | Future[list[Position | Error]]:
        """Publish in this order, all from one sender. Returns the result of each: the remaining publications
        are published after an error. If the ``nick`` is invalid, or their key was used for another request, nothing is
        published."""
        error = self._check_nick(nick)
        if error is not None:
            return error
        publisher = self._publisher(nick)
        answer = complete(self._publish_each(publisher, publications))
        on_result(answer, lambda outcomes: self._context.sessions.remove(publisher.id))
        return answer

    def _publish_each(
        self, publisher: Client, publications: Sequence[Publication]
    ) -> Steps[list[Position | Error] | Error]:
        def publish(publication: Publication) -> Position | Error | Future[Position]:
            return self.check_access(publication.channel, Right.WRITE) or self._publish(publisher, publication)

        outcomes: list[Position | Error] = []
        remaining = iter(publications)
        if publications and publications[0].key:
            # The first one alone: its result shows whether the key was used for another request, of fewer publications.
            for publication in remaining:
                outcome = yield from wait_for(publish(publication))
                if outcome is KEY_REUSED:
                    return KEY_REUSED
                outcomes.append(outcome)
                if isinstance(outcome, Position):
                    break
        for answer in [publish(publication) for publication in remaining]:
            outcome = yield from wait_for(answer)
            outcomes.append(outcome)
        return outcomes

    def _check_nick(self, nick: bytes) -> Error | None:
        sessions = self._context.sessions
        error = check_nick(nick) if nick else None
        if error is not None:
            return error
        return NICK_IS_AN_ID if sessions.is_id(nick) or sessions.is_id(self.subject) else None

    def _publisher(self, nick: bytes) -> Client:
        """A client with an id of its own, which the caller must release."""
        publisher = Client(self._context.sessions.new_id(), self.principal)
        publisher.nick = self._displayed_nick(nick) or publisher.id
        return publisher

    def _publish(self, publisher: Client, publication: Publication) -> Position | Error | Future[Position]:
        opened = self._context.broker.channels.open(publication.channel, publisher.principal)
        return map_result(opened, lambda channel: self._publish_on(channel, publisher, publication))

    def _displayed_nick(self, nick: bytes) -> bytes:
        if self._identity is None:
            return nick
        return displayed_nick(self.subject, nick) if nick else verified_nick(self.subject)

    def _publish_on(
        self, channel: Channel, publisher: Client, publication: Publication
    ) -> Position | Error | Future[Position]:
        broker = self._context.broker
        if broker.channels.get(channel.name) is not channel:  # another request that waited for it did not need it
            return self._publish(publisher, publication)
        answer = broker.publish(publisher, publication)
        if broker.needs_flush:
            broker.flush()
        position = map_result(answer, lambda offset: Position(broker.channels.get(channel.name, channel).epoch, offset))
        on_result(position, lambda outcome: broker.channels.close_if_unused(channel))
        return position

    def history(
        self, channel: bytes, query: HistoryQuery = ALL_EVENTS, epoch: bytes | None = None
    ) -> HistoryPage | Error | Future[HistoryPage]:
        """A part of the history. With ``epoch``, ``since`` of the query is a position, and the page has ``recovered``.
        If that position is known, ``last`` does not count; otherwise only ``last`` and ``after`` request events."""

        def read(opened: Channel) -> HistoryPage | Error | Future[HistoryPage]:
            error = self.check_access(channel, Right.READ)  # checked again, because the request may have waited
            page: HistoryPage | Error | Future[HistoryPage]
            if error is not None:
                page = error
            else:
                self._context.broker.histories.update(opened)
                page = complete(self._read_page(opened, query, epoch))
            self._context.broker.channels.close_if_unused(opened)
            return page

        error = self.check_access(channel, Right.READ)
        if error is not None:
            return error
        return map_result(self._context.broker.channels.open(channel, self.principal), read)

    def read_page(self, channel: Channel, query: HistoryQuery, epoch: bytes | None = None) -> HistoryPage:
        """Like ``history``, for a channel that is open and readable, and only what is in memory. Its history must be up
        to date: to update another one now can drop events of this one, so update all of them before you read the
        first."""
        query, recovered = _resume(channel, query, epoch)
        part = read_memory(channel, query, self._context.wall_clock())
        return HistoryPage(channel.name, channel.position, part.start, part.stop, recovered, part.lost, part.events)

    def _read_page(self, channel: Channel, query: HistoryQuery, epoch: bytes | None) -> Steps[HistoryPage | Error]:
        position, (query, recovered) = channel.position, _resume(channel, query, epoch)
        part = yield from read_part(self._context.broker, channel, query, self._context.wall_clock(), self.principal)
        if isinstance(part, Error):
            return part
        if recovered is False and query.since is not None:
            recovered = part.lost is None and part.start == query.since + 1
        return HistoryPage(channel.name, position, part.start, part.stop, recovered, part.lost, part.events)

    def members(self, channel: bytes) -> list[Member] | Error | Future[list[Member]]:
        """The subscribers of a channel, on all nodes."""
        error = self.check_access(channel, Right.READ)
        return error if error is not None else self._context.broker.members(channel)


def _resume(channel: Channel, query: HistoryQuery, epoch: bytes | None) -> tuple[HistoryQuery, bool | None]:
    """The query without a position, and whether all events after that are in memory."""
    if query.since is None or epoch is None:
        return query, None
    start, recovered = resume_offset(Subscribe(channel.name, since=query.since, epoch=epoch), channel)
    if recovered or start <= channel.head:
        return replace(query, since=start - 1, last=None), recovered
    last = 0 if query.last is None and query.after is None else query.last
    return replace(query, since=None, last=last), recovered
