"""What one peer reads: its subscriptions, what it asks of logs and members, and whether it may."""

from collections.abc import Iterator
from functools import partial
from typing import TypeVar, cast

import msgspec

from twistedsock import errors
from twistedsock.auth.identity import Identity, Right
from twistedsock.errors import Error
from twistedsock.limits.principal import LOCAL
from twistedsock.limits.rate import RateLimiter, answer_price
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.history import History
from twistedsock.pubsub.subscription import RIGHTS_UNCHECKED, Outlet, Subscriber, Subscription
from twistedsock.pubsub.values import Event, Lost, Member, Tag
from twistedsock.session import commands
from twistedsock.session.authorizer import AuthenticatedSession, SessionAuth, check_access_without_policy
from twistedsock.session.encoder import Encoder, Endpoints
from twistedsock.session.recovery import history_start, lost_before, resume_offset
from twistedsock.session.registry import ServerContext
from twistedsock.session.replies import ReplyWriter, SessionState
from twistedsock.session.timeline import MAX_WORDS, HandshakeInfo, Step, append_bounded
from twistedsock.stats import TcpStats

BEHIND_DEBOUNCE_SECONDS = 1.0
"""Seconds within which falling behind again counts as still being behind, where steps are noted: the two can alternate
thousands of times a second."""


class TracedSession(ReplyWriter):
    """A session's own class, as the speaker is, and for the same reason. ``arrival`` is how the connection came in,
    where that took a while."""

    __slots__ = ("_handshake", "_steps", "accepted_at", "opened_at")

    def __init__(
        self, broker: Broker, dialect: Encoder, outlet: Outlet, subscriber: Subscriber, arrival: HandshakeInfo | None
    ) -> None:
        super().__init__(broker, dialect, outlet, subscriber)
        self.opened_at = broker.clock()
        self.accepted_at = self.opened_at if arrival is None else arrival.accepted_at
        self._handshake = "" if arrival is None else arrival.handshake
        # Made for the first, as most connections are silent.
        self._steps: list[Step] | None = [*arrival.steps] if arrival is not None and arrival.steps else None

    @property
    def steps(self) -> list[Step]:
        """What its connection has gone through, in its order."""
        noted = self._steps or []
        early = [step for step in noted if step.name in ("proxied", "handshake")]
        handshake = [Step(self.opened_at, "handshake", self._handshake)] if self._handshake else []
        came = [Step(self.accepted_at, "accepted"), *early, *handshake, Step(self.opened_at, "open")]
        return came + [step for step in noted if step not in early]

    def add_step(self, name: str, words: str = "", by: str = "") -> None:
        """Its connection has gone a step further."""
        step = Step(self._broker.clock(), name, words[:MAX_WORDS], by)
        if self._steps is None:
            self._steps = []
        append_bounded(self._steps, step)
        self._stepped(step)

    def _stepped(self, step: Step) -> None:
        """It has been noted."""

    def tcp_stats(self) -> TcpStats | None:
        """What has gone through its connection, where that is known; a system call."""
        return self._outlet.tcp_stats()

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Its socket is full. Who had caught up just now has been behind all the time, as far as steps are noted."""
        if self._steps is not None and self._has_just("caught-up"):
            self._steps.pop()
        else:
            self.add_step("behind", f"{channel.decode()} from {cursor}")

    def caught_up(self, channel: bytes) -> None:
        """It is behind nowhere. Whoever was only sent what had been before it came was not behind."""
        for step in reversed(self._steps or ()):
            if step.name == "caught-up":
                return
            if step.name == "behind":
                self.add_step("caught-up", channel.decode())
                return

    def _has_just(self, name: str) -> bool:
        """Whether that was its last step, and not long ago."""
        if not self._steps or self._steps[-1].name != name:
            return False
        return self._broker.clock() - self._steps[-1].at < BEHIND_DEBOUNCE_SECONDS


T = TypeVar("T")


class Reading(msgspec.Struct, frozen=True, gc=False):
    """How many channels a session reads, of how many it has not read all yet, and how many events that are."""

    channels: int
    behind: int
    lag: int


class SubscribingSession(TracedSession):
    """The reading half of a session: a class of its own for the same reason as the speaking one."""

    __slots__ = (
        "_context",
        "_checked",
        "_final_reading",
        "_listener",
        "_standing",
        "endpoints",
        "is_rate_limited",
        "client",
        "subscriptions",
    )

    def __init__(
        self,
        context: ServerContext,
        dialect: Encoder,
        outlet: Outlet,
        subscriber: Subscriber,
        endpoints: Endpoints,
        listener: str,
        arrival: HandshakeInfo | None,
    ) -> None:
        super().__init__(context.broker, dialect, outlet, subscriber, arrival)
        self.client = subscriber.client
        self.endpoints = endpoints
        self.is_rate_limited = context.rate_limiters.is_limited and self.client.principal != LOCAL
        """Whether its rate is limited: it is not for clients on this machine, whatever identity they prove."""
        self.subscriptions: dict[bytes, Subscription] = {}
        self._context = context
        self._listener = listener
        # By which identity all subscriptions have been checked.
        self._checked: Identity | None = None
        self._final_reading: Reading | None = None
        # Where there is no policy, none is asked for.
        self._standing: SessionAuth | None = None

    @property
    def identity(self) -> Identity | None:
        """Who the peer is, as far as the policy knows; None where there is no policy."""
        return None if self._standing is None else self._standing.identity

    @property
    def rate_limiter(self) -> RateLimiter | None:
        """The meter of its principal, None if its rate is not limited. It becomes another one when the client proves
        another identity."""
        return (
            self._context.rate_limiters.get(self.client.principal, self._broker.clock())
            if self.is_rate_limited
            else None
        )

    def charge(self, price: float) -> None:
        """Count what a command turned out to cost beside the price that it was judged by."""
        if (meter := self.rate_limiter) is not None:
            meter.charge(price)

    @property
    def behind(self) -> dict[Subscription, None]:
        """The channels of which it has not read all yet."""
        return self._subscriber.behind

    @property
    def lag(self) -> int:
        """Events that are in the logs, and that it has not been sent yet."""
        return sum([subscription.channel.history.end - subscription.cursor for subscription in self.behind])

    @property
    def read_progress(self) -> Reading:
        """What it reads, and how far it is behind; once it is closing, what that was in the end."""
        return self._final_reading or Reading(len(self.subscriptions), len(self.behind), self.lag)

    # The commands.

    def _subscribe(self, command: commands.Subscribe) -> None:
        if (command.since is None) is not (command.epoch is None):
            self._refuse(command.tag, errors.SINCE_WITHOUT_EPOCH)
        elif (
            command.channel not in self.subscriptions
            and len(self.subscriptions) >= self._context.limits.max_subscriptions_per_client
        ):
            self._refuse(command.tag, errors.TOO_MANY_SUBSCRIPTIONS)
        elif self._may_read(command.channel, command.tag):
            self._with_channel(command.channel, command.tag, partial(self._subscribe_to, command))

    def _subscribe_to(self, command: commands.Subscribe, channel: Channel) -> None:
        if not self._may_read(channel.name, command.tag):  # any longer: it may have had to wait
            self._broker.close_if_unused(channel)
            return
        self.flush()  # what is sent below may hold our own events, and their OK comes first
        subscription = self.subscriptions.get(channel.name)
        if subscription is None:
            if not self._broker.subscription_shares.admits(self.client.principal):
                self._refuse(command.tag, errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL)
                self._broker.close_if_unused(channel)
                return
            subscription = Subscription(self._subscriber, channel, command.echo, command.presence)
            if not self.subscriptions:
                self._checked = self.identity
            elif self._checked is not self.identity:
                self._checked = None  # this one is allowed by an identity that the others have not been checked by
            self.subscriptions[channel.name] = subscription
            self._broker.subscribe(channel, subscription)
        else:
            self._broker.change_options(subscription, command.echo, command.presence)
        start, recovered = resume_offset(command, channel)
        self._say(self._dialect.subscribed(command.tag, channel.name, channel.position, recovered, start))
        if start <= channel.head:
            if subscription in self._subscriber.behind:
                start = min(start, subscription.cursor)
            first = channel.history.first
            if start < first:
                self._say(self._dialect.lost(channel.name, start, first - 1))
                channel.stats.lost += first - start
                start = first
            if self.is_rate_limited:
                log = channel.history
                self.charge(answer_price(log.size * (log.end - start) // (len(log) or 1)))
            subscription.read_from(start)
            self._broker.resume(self._subscriber)

    def _unsubscribe(self, command: commands.Unsubscribe) -> None:
        if command.channel not in self.subscriptions:
            self._refuse(command.tag, errors.NOT_SUBSCRIBED)
            return
        self._leave(command.channel)
        self._say(self._dialect.unsubscribed(command.tag, command.channel))

    def _leave(self, channel: bytes) -> None:
        self.flush()
        self._broker.send_undelivered(self.subscriptions[channel])
        self._broker.unsubscribe(self.subscriptions.pop(channel))

    def _history(self, command: commands.History) -> None:
        if self._may_read(command.channel, command.tag):
            self._with_channel(command.channel, command.tag, partial(self._history_of, command))

    def _history_of(self, command: commands.History, channel: Channel) -> None:
        if not self._may_read(channel.name, command.tag):  # any longer: it may have had to wait
            self._broker.close_if_unused(channel)
            return
        self.flush()
        self._broker.histories.update(channel)
        if channel.name in self.subscriptions:  # it gets an event of its subscription before it finds it in the history
            self._broker.send_undelivered(self.subscriptions[channel.name])
        log = channel.history
        start = history_start(log, command.last, command.since)
        lost = lost_before(log, start)
        events = self._events_while_readable(channel.name, log, max(start, log.first))
        self._stream(self._charged(self._dialect.history(command.tag, channel.name, events, channel.position, lost)))
        self._broker.close_if_unused(channel)

    def _who(self, command: commands.Who) -> None:
        def tell(members: list[Member]) -> None:
            if not self._may_read(command.channel, command.tag):  # any longer: it may have had to wait
                return
            if not self._broker.member_shares.admits(self.client.principal, len(members)):
                self._refuse(command.tag, errors.TOO_MANY_ASK_WHO)
            else:
                held = self._while_readable(
                    command.channel, self._broker.member_shares.count_while_iterated(members, self.client.principal)
                )
                self._stream(self._charged(self._dialect.members(command.tag, command.channel, held)))

        if self._may_read(command.channel, command.tag):
            self._await(self._broker.members(command.channel), command.tag, tell)

    def _send_waiting(self) -> None:
        """Send all events that wait for this session, so that it gets them before its last words."""
        self.flush()
        for subscription in self.subscriptions.values():
            self._broker.send_undelivered(subscription)

    def _charged(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """A reply that may be long costs more, as it is written."""
        if not self.is_rate_limited:
            return pieces
        return self._charging(pieces)

    def _charging(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.charge(answer_price(len(piece)))
            yield piece

    def _leave_all(self) -> None:
        self._final_reading = self.read_progress
        for subscription in self.subscriptions.values():
            self._broker.unsubscribe(subscription)
        self.subscriptions.clear()
        self._broker.remove_subscriber(self._subscriber)

    # Whether it may.

    def _may_read(self, channel: bytes, tag: Tag) -> bool:
        """Whether the peer may; where not, it has been told."""
        error = self._forbids_reading(channel)
        if error is not None:
            self._refuse(tag, error)
        return error is None

    def _judged(self) -> SessionAuth:
        """The standing by the policy that holds now. There must be one."""
        policy, standing = self._context.policy, self._standing
        assert policy is not None
        if standing is None:
            standing = self._standing = SessionAuth(
                self._context, policy, self._listener, cast("AuthenticatedSession", self)
            )
            standing.review(policy)
        elif standing.policy is not policy:
            standing.review(policy)
        return standing

    def _forbids_reading(self, channel: bytes) -> Error | None:
        if self._context.policy is not None:
            return self._judged().check_access(channel, Right.READ)
        return check_access_without_policy(channel, Right.READ, self._context.is_admin(None, self.endpoints.client))

    def _while_readable(self, channel: bytes, told: Iterator[T]) -> Iterator[T]:
        """What is told bit by bit endpoints where the peer loses the right to it."""
        known: Identity | None = None
        for one in told:
            if self._context.policy is not None:
                standing = self._judged()
                if (standing.identity is not known or standing.error) and standing.check_access(channel, Right.READ):
                    return
                known = standing.identity
            yield one

    def _events_while_readable(self, channel: bytes, log: History, start: int) -> Iterator[Event | Lost]:
        """The rest of a log, as long as the peer may read it; then all that is left counts as lost."""
        stop = log.end
        for one in self._while_readable(channel, log.events(start, stop)):
            start = (one.last if isinstance(one, Lost) else one.offset) + 1
            yield one
        if start < stop:
            yield Lost(start, stop - 1)

    def pause_events(self) -> None:
        """Send no events until the subscriptions have been checked; they are read from the log then."""
        if self.subscriptions:
            self._outlet.blocked |= RIGHTS_UNCHECKED

    def _check_subscriptions(self) -> Iterator[None]:
        """End the subscriptions that the identity does not allow any more, one by one, then let events pass again. If
        the identity changes meanwhile, whatever has changed it checks once more."""
        standing = self._judged()
        identity, checked = standing.identity, self._checked
        if checked is None or not checked.allows_the_same_as(identity):
            for channel in list(self.subscriptions):
                if channel in self.subscriptions and standing.check_access(channel, Right.READ):
                    self._end_forbidden(channel)
                yield
                if self.state is not SessionState.OPEN or self._context.policy is None:
                    return
                standing = self._judged()
                if standing.identity is not identity or standing.error:
                    return
        self._checked = identity
        self.flush()
        if self._outlet.blocked & RIGHTS_UNCHECKED:
            self._outlet.blocked &= ~RIGHTS_UNCHECKED
            self._broker.resume(self._subscriber)

    def _end_forbidden(self, channel: bytes) -> None:
        self._leave(channel)
        words = b"you may not read %b any longer, and are not subscribed to it" % channel
        self._say_between(self._dialect.notice(words, b"forbidden", channel))


# TODO-MERGED-DOC: What the connection of one session has gone through, for those who want to see it.
