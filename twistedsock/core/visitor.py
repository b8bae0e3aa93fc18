"""Who asks one thing and goes: what an HTTP request is to the bridge. A session without a conversation."""

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from twistedsock.core.access import Identity, Right
from twistedsock.core.bridge import Bridge
from twistedsock.core.channel import Channel
from twistedsock.core.commands import Subscribe
from twistedsock.core.dialect import Position
from twistedsock.core.errors import NICK_IS_AN_ID, UNAVAILABLE, Refusal
from twistedsock.core.events import Content, Event, Lost, Member
from twistedsock.core.later import Later, and_then, when_known
from twistedsock.core.names import DEFAULT_EVENT_NAME, check_nick
from twistedsock.core.patterns import AnyOf
from twistedsock.core.principal import Principal, client_principal
from twistedsock.core.reader import Peer
from twistedsock.core.recovery import history_start, lost_before, place_to_start
from twistedsock.core.standing import forbids, forbids_without_policy, shown_nick, vouched_nick

IN_A_HEADER = "it comes in a header, Authorization: Bearer"
"""How who asks one thing and goes shows a token: there is no conversation in which it could say ``AUTH`` (RFC 6750)."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an event stands: of several published together, the first."""

    offset: int
    epoch: bytes


class Publishing(msgspec.Struct, frozen=True, gc=False):
    """Events of one kind that are to be published in a row."""

    channel: bytes
    content: Content
    name: bytes = DEFAULT_EVENT_NAME


class Kept(msgspec.Struct, frozen=True):
    """What a log holds of what was asked for. ``start`` is the first offset that was asked for and is there, ``stop``
    the one after the last. ``recovered`` is None where no position was given to go on from. ``lost`` is what was gone
    when this was made; ``events`` reads the log when it is asked for more, and reports as ``Lost`` what went since."""

    channel: bytes
    position: Position
    start: int
    stop: int
    recovered: bool | None
    lost: Lost | None
    events: Iterator[Event | Lost]


class Visitor:
    """``identity`` is what the policy has found of who asks: None for who has shown nothing, or where there is no
    policy. ``client`` is the far end of the connection, as people write it."""

    __slots__ = ("_bridge", "_client", "_identity", "_is_admin")

    def __init__(self, bridge: Bridge, listener: str, client: bytes, identity: Identity | None = None) -> None:
        self._bridge = bridge
        self._client = client
        if identity is None and bridge.policy is not None:
            identity = bridge.policy.anonymous(listener)
        self._identity = identity
        self._is_admin = bridge.is_admin(identity, client)

    @property
    def is_admin(self) -> bool:
        """Whether it may look behind the scenes, and send others away."""
        return self._is_admin

    @property
    def subject(self) -> bytes:
        """Who it is, where that is proved; else empty."""
        return b"" if self._identity is None else self._identity.subject

    @property
    def principal(self) -> Principal:
        """What it counts as for rates, limits and shared tables."""
        return client_principal(self._client, self.subject)

    def forbids(self, channel: bytes, right: Right) -> Refusal | None:
        """Why something may not be done on a channel; None where it may."""
        if self._identity is None:
            return forbids_without_policy(channel, right, self._is_admin)
        return forbids(self._identity, channel, right, IN_A_HEADER)

    def readable(self) -> AnyOf | None:
        """Which of many channels it may read that are not the server's own; None for all."""
        return None if self._identity is None else self._identity.grants.readable()

    def publish(
        self, channel: bytes, content: Content, name: bytes = DEFAULT_EVENT_NAME, nick: bytes = b""
    ) -> Place | Refusal | Later[Place]:
        """Publish events of one kind in a row. The sender is whom the identity names, or ``nick``, or an id that is
        drawn for this once."""
        refusal = self.forbids(channel, Right.WRITE) or self._forbids_nick(nick)
        if refusal is not None:
            return refusal
        publisher = self._publisher(nick)
        answer = self._publish(publisher, Publishing(channel, content, name))
        when_known(answer, lambda outcome: self._bridge.roster.give_back(publisher.id))
        return answer

    def publish_all(
        self, asked: Sequence[Publishing], nick: bytes = b""
    ) -> list[Place | Refusal] | Refusal | Later[list[Place | Refusal]]:
        """Publish in this order, all from one sender: what becomes of each. Where one is refused, the others are not;
        where the ``nick`` is, nothing is published."""
        refusal = self._forbids_nick(nick)
        if refusal is not None:
            return refusal
        publisher = self._publisher(nick)
        outcomes: list[Place | Refusal] = [UNAVAILABLE] * len(asked)
        told = Later[list[Place | Refusal]]()
        awaited = len(asked) + 1

        def note(place: int, outcome: Place | Refusal) -> None:
            outcomes[place] = outcome
            settle()

        def settle() -> None:
            nonlocal awaited
            awaited -= 1
            if not awaited:
                self._bridge.roster.give_back(publisher.id)
                told.settle(outcomes)

        for place, one in enumerate(asked):
            refusal = self.forbids(one.channel, Right.WRITE)
            when_known(self._publish(publisher, one) if refusal is None else refusal, partial(note, place))
        settle()
        return told if awaited else outcomes

    def _forbids_nick(self, nick: bytes) -> Refusal | None:
        roster = self._bridge.roster
        refusal = check_nick(nick) if nick else None
        if refusal is not None:
            return refusal
        return NICK_IS_AN_ID if nick in roster or self.subject in roster else None

    def _publisher(self, nick: bytes) -> Peer:
        """Whose id is to be given back."""
        publisher = Peer(self._bridge.roster.new_id(), self.principal)
        publisher.nick = self._shown(nick) or publisher.id
        return publisher

    def _publish(self, publisher: Peer, asked: Publishing) -> Place | Refusal | Later[Place]:
        opened = self._bridge.broker.open(asked.channel, publisher.principal)
        return and_then(opened, lambda channel: self._publish_on(channel, publisher, asked.name, asked.content))

    def _shown(self, nick: bytes) -> bytes:
        if self._identity is None:
            return nick
        return shown_nick(self.subject, nick) if nick else vouched_nick(self.subject)

    def _publish_on(
        self, channel: Channel, publisher: Peer, name: bytes, content: Content
    ) -> Place | Refusal | Later[Place]:
        broker = self._bridge.broker
        answer = broker.publish(publisher, channel.name, name, content)
        if broker.urgent:
            broker.flush()
        placed = and_then(answer, lambda offset: Place(offset, broker.channels.get(channel.name, channel).epoch))
        when_known(placed, lambda outcome: broker.forget_unused(channel))
        return placed

    def history(
        self, channel: bytes, last: int | None = None, since: int | None = None, epoch: bytes | None = None
    ) -> Kept | Refusal | Later[Kept]:
        """The events that a log holds: the newest ``last``, or those after ``since``, or of those the newest. Where
        ``epoch`` is given too, it is a position to go on from, and is told whether that was possible."""

        def look(opened: Channel) -> Kept | Refusal:
            refusal = self.forbids(channel, Right.READ)  # any longer: it may have had to wait
            if refusal is None:
                self._bridge.broker.commit(opened)
            kept = refusal or self.look_into(opened, last, since, epoch)
            self._bridge.broker.forget_unused(opened)
            return kept

        refusal = self.forbids(channel, Right.READ)
        return refusal if refusal is not None else and_then(self._bridge.broker.open(channel, self.principal), look)

    def look_into(
        self, channel: Channel, last: int | None = None, since: int | None = None, epoch: bytes | None = None
    ) -> Kept:
        """As ``history``, of a channel that may be read, is open and has been committed: to commit another one now can
        drop events of this one, so several channels are committed before the first is looked into."""
        log, recovered = channel.log, None
        if since is not None and epoch is not None:
            start, recovered = place_to_start(Subscribe(channel.name, last, since, epoch), channel)
        else:
            start = history_start(log, last, since)
        lost = lost_before(log, start)
        start = max(start, log.first)
        events = log.events(start, log.end)
        return Kept(channel.name, channel.position, start, log.end, recovered, lost, events)

    def members(self, channel: bytes) -> list[Member] | Refusal | Later[list[Member]]:
        """Who reads a channel, on all nodes."""
        refusal = self.forbids(channel, Right.READ)
        return refusal if refusal is not None else self._bridge.broker.members(channel)
