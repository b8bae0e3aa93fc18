"""One peer's conversation: commands in, replies and events out.

Every command gets its reply in the order of the commands. Publishes may wait for the backplane together; any other
command waits until those before it are answered, and those after it wait for it, so that a peer sees its commands take
effect in the order in which it gave them, however slow the backplane is.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Any, ClassVar, TypeVar

from twistedsock.core import commands, errors
from twistedsock.core.access import Identity, Right
from twistedsock.core.bridge import Bridge
from twistedsock.core.broker import Talker
from twistedsock.core.channel import Channel
from twistedsock.core.commands import Command, Publish, Tag
from twistedsock.core.dialect import Dialect, Ending, Ends, Facts
from twistedsock.core.errors import Code, Refusal
from twistedsock.core.events import Member
from twistedsock.core.expiry import WARNING
from twistedsock.core.flight import Flight, Slot
from twistedsock.core.holdings import Holdings
from twistedsock.core.journal import MOST_WORDS, Arrival, Step, keep
from twistedsock.core.later import Later, when_known
from twistedsock.core.limits import MEMBERS_HELD, PUBLISHES_IN_FLIGHT
from twistedsock.core.names import is_nick, is_reserved
from twistedsock.core.reader import HELD, NOBODY, Outlet, Peer, Reader, Subscription
from twistedsock.core.recovery import place_to_start
from twistedsock.core.speaker import Speaker, nothing
from twistedsock.core.standing import MOST_FAILED, NO_KEYS, TOO_MANY_TOKENS, Standing, forbids_without_policy
from twistedsock.core.traffic import Traffic

T = TypeVar("T")


REFUSED_TOGETHER = 100
"""Refusals that are written at once."""


TAG_COST = 64
"""Bytes of memory that a tag takes, about."""


CALM = 1.0
"""Seconds within which falling behind again counts as still being behind, where steps are noted: the two can alternate
thousands of times a second."""


class State(Enum):
    """OPEN runs commands; CLOSING has said its last word; CLOSED has no socket any more."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Session(Speaker):
    """``hang_up`` closes the connection once what was written has left. ``listener`` is the endpoint that the peer came
    in by, as configured; ``arrival`` is how, where that took a while."""

    __slots__ = (
        "_bridge",
        "_dialect",
        "_flight",
        "_handshake",
        "_hang_up",
        "_listener",
        "_postponed",
        "_quiet",
        "_standing",
        "_steps",
        "accepted_at",
        "ends",
        "opened_at",
        "parting",
        "peer",
        "state",
        "subscriptions",
    )

    def __init__(
        self,
        bridge: Bridge,
        dialect: Dialect,
        outlet: Outlet,
        ends: Ends,
        hang_up: Callable[[Ending], None],
        listener: str = "",
        arrival: Arrival | None = None,
    ) -> None:
        self.peer = Peer(bridge.roster.new_id())
        reader = Reader(self.peer, dialect, outlet, self, bridge.holdings, bridge.tally)
        super().__init__(bridge.broker, outlet, reader)
        self.ends = ends
        self.state = State.OPEN
        # Why it was dismissed, for who can tell it on closing too.
        self.parting = b""
        self.opened_at = bridge.broker.clock()
        self.accepted_at = self.opened_at if arrival is None else arrival.accepted_at
        self._handshake = "" if arrival is None else arrival.handshake
        # Made for the first, as most connections are silent.
        self._steps: list[Step] | None = [*arrival.steps] if arrival is not None and arrival.steps else None
        self.subscriptions: dict[bytes, Subscription] = {}
        self._bridge = bridge
        self._dialect = dialect
        self._hang_up = hang_up
        self._listener = listener
        self._quiet = False
        # Made when the first publish has to wait, as an empty one is a third of an idle session.
        self._flight: Flight | None = None
        self._postponed: Command | None = None
        # Where there is no policy, none is asked for.
        self._standing: Standing | None = None
        if bridge.policy is not None:
            self._standing = Standing(bridge, bridge.policy, listener, self)
        bridge.roster.add(self)
        bridge.tally.opens(dialect.title)
        bridge.journal.opened(self)

    def welcome(self, before: bytes = b"", outcome: Identity | Refusal | None = None) -> None:
        """Say the first words. ``before`` is what leaves with them: the answer to a handshake. ``outcome`` is what the
        policy found of what the peer has shown on its way in; a refusal is told, and the connection closed."""
        self._say(before + self._dialect.welcome(self.peer.id, self.ends))
        refusal = self._standing.become(outcome) if self._standing is not None and outcome is not None else None
        if refusal is not None:
            self._refuse(None, refusal)
            self._close(Ending.POLICY, refusal.words)
        elif self._standing is not None and outcome is not None:
            self.note("authenticated", self._standing.identity.subject.decode())
        self.flush()

    def speak(self, dialect: Dialect) -> None:
        """Go on in another dialect; only before the first command."""
        self._bridge.tally.closes(self._dialect.title)
        self._bridge.tally.opens(dialect.title)
        self._dialect = self._reader.encoding = dialect

    def run(self, command: Command) -> None:
        """Carry out one command. Afterwards, while ``stalled``, no other must be given."""
        if self.state is not State.OPEN:
            return
        if self._flight and not isinstance(command, Publish | commands.Interrupt):
            self._postponed = command
            self._stall()
        else:
            self._STEPS[type(command)](self, command)

    @property
    def dialect_title(self) -> str:
        """What its dialect is called."""
        return self._dialect.title

    @property
    def identity(self) -> Identity | None:
        """Who the peer is, as far as the policy knows; None where there is no policy."""
        return None if self._standing is None else self._standing.identity

    @property
    def steps(self) -> list[Step]:
        """What its connection has gone through, in its order."""
        noted = self._steps or []
        early = [step for step in noted if step.name in ("proxied", "handshake")]
        handshake = [Step(self.opened_at, "handshake", self._handshake)] if self._handshake else []
        came = [Step(self.accepted_at, "accepted"), *early, *handshake, Step(self.opened_at, "open")]
        return came + [step for step in noted if step not in early]

    def note(self, name: str, words: str = "", by: str = "") -> None:
        """Its connection has gone a step further."""
        step = Step(self._broker.clock(), name, words[:MOST_WORDS], by)
        if self._steps is None:
            self._steps = []
        keep(self._steps, step)
        self._bridge.journal.stepped(self, step)

    def traffic(self) -> Traffic | None:
        """What has gone through its connection, where that is known; a system call."""
        return self._outlet.traffic()

    @property
    def behind(self) -> dict[Subscription, None]:
        """The channels of which it has not read all yet."""
        return self._reader.lagging

    @property
    def holdings(self) -> Holdings:
        """What all connections hold together."""
        return self._bridge.holdings

    def begin(self) -> None:
        """What one read has brought is going to be run."""
        self._broker.begin()

    def finish(self, talker: Talker) -> None:
        """It has been run: ``talker``, through whom this session talks, will be flushed when that is due."""
        self._broker.finish(talker)

    def now(self) -> float:
        """The time, as whoever runs the commands must know it to share it fairly."""
        return self._broker.clock()

    def postpone(self, go_on: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._broker.postpone(go_on)

    def drained(self) -> None:
        """Nothing waits in user space any more: go on with whatever had to wait for that."""
        if self.state is State.OPEN:
            super().drained()

    def dismiss(self, ending: Ending, words: bytes, code: bytes = b"") -> None:
        """Tell the peer why, and close. ``code`` says it to programs."""
        if self.state is State.OPEN:
            self.parting = words
            self._broker.flush()
            if self._pieces is None:  # else it would stand in the midst of a message
                self._say(self._dialect.notice(words, code))
                self._say(self._dialect.bye(b""))
            self._close(ending, words.decode())

    def turn_away(self, refusal: Refusal) -> None:
        """There is no room for what the peer asks for: tell it, and close, so that it comes back later."""
        if self.state is State.OPEN:
            self._broker.flush()
            if self._pieces is None:  # else it would stand in the midst of a message
                self._refuse(None, refusal)
            self._close(Ending.TRY_AGAIN, refusal.words)

    def cease(self, words: str = "", by: str = "server") -> None:
        """The connection is being closed by other means: say nothing more than what waits to be said. ``words`` are
        why, ``by`` is who wants it."""
        if self.state is State.OPEN:
            self._fall_silent()
            self.note("closing", words, by)

    def _fall_silent(self) -> None:
        self.flush()
        self.state = State.CLOSING
        self._leave_all()

    def lost(self, how: str = "") -> None:
        """The connection is gone; ``how`` it ended."""
        if self.state is not State.CLOSED:
            if self.state is State.OPEN:
                self._fall_silent()
            self.state = State.CLOSED
            self.note("closed", how)
            self._flight = None
            self._pieces = self._postponed = None
            self.on_ready = nothing
            self._reader.owner = NOBODY
            self._bridge.tally.closes(self._dialect.title)
            self._bridge.journal.closed(self)
            self._drop_standing()
            self._bridge.roster.remove(self)

    # The commands.

    def _publish(self, command: Publish) -> None:
        tags = command.tags
        answer: int | Refusal | Later[int]
        if self._standing is not None and (refusal := self._standing.forbids(command.channel, Right.WRITE)):
            answer = refusal
        elif is_reserved(command.channel):
            answer = errors.RESERVED_CHANNEL
        else:
            answer = self._broker.publish(self.peer, command.channel, command.name, command.content)
        if not self._flight and isinstance(answer, Refusal):
            self._refuse_all(tags, answer)
        elif not self._flight and not isinstance(answer, Later):
            self._say_published(tags, answer)
        else:
            if self._flight is None:
                self._flight = Flight()
            slot = self._flight.take_off(tags)
            when_known(answer, partial(self._land, self._flight, slot))
            if self._flight.publishes >= PUBLISHES_IN_FLIGHT:
                self._stall()
        if self._broker.urgent:
            self.flush()
            self._broker.flush()

    def _say_published(self, tags: Sequence[Tag], outcome: int | Refusal) -> None:
        if isinstance(outcome, Refusal):
            for tag in tags:
                self._refuse(tag, outcome)
        elif not self._quiet:
            said = self._dialect.published(tags, outcome)
            if said:
                self._say(said)

    def _land(self, flight: Flight, slot: Slot, outcome: int | Refusal) -> None:
        told = flight.land(slot, outcome)
        if self.state is not State.OPEN:
            return
        if not told:
            # The event may be delivered now, but its OK must be written first and cannot yet.
            self._outlet.blocked |= HELD
            return
        for tags, settled in told:
            self._say_published(tags, settled)
        self.flush()
        if not flight.has_overtaken():
            self._release()
        if self._postponed is None:
            if self._busy and flight.publishes < PUBLISHES_IN_FLIGHT:
                self._unstall()
        elif not flight:
            command, self._postponed = self._postponed, None
            self._busy = False
            self.run(command)
            self.flush()
            self._go_on()

    def _subscribe(self, command: commands.Subscribe) -> None:
        if (command.since is None) is not (command.epoch is None):
            self._refuse(command.tag, errors.SINCE_WITHOUT_EPOCH)
        elif (
            command.channel not in self.subscriptions
            and len(self.subscriptions) >= self._bridge.limits.max_channels_per_peer
        ):
            self._refuse(command.tag, errors.TOO_MANY_SUBSCRIPTIONS)
        elif self._may_read(command.channel, command.tag):
            self._with_channel(command.channel, command.tag, partial(self._subscribe_to, command))

    def _subscribe_to(self, command: commands.Subscribe, channel: Channel) -> None:
        if not self._may_read(channel.name, command.tag):  # any longer: it may have had to wait
            self._broker.forget_unused(channel)
            return
        self.flush()  # what is committed below may hold our own events, and their OK comes first
        subscription = self.subscriptions.get(channel.name)
        if subscription is None:
            if self._broker.subscriptions >= self._bridge.limits.max_subscriptions:
                self._refuse(command.tag, errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL)
                self._broker.forget_unused(channel)
                return
            subscription = Subscription(self._reader, channel, command.echo, command.presence)
            self.subscriptions[channel.name] = subscription
            self._broker.subscribe(channel, subscription)
        else:
            self._broker.resubscribe(subscription, command.echo, command.presence)
        start, recovered = place_to_start(command, channel)
        self._say(self._dialect.subscribed(command.tag, channel.name, channel.position, recovered, start))
        if start <= channel.head:
            if subscription in self._reader.lagging:
                start = min(start, subscription.cursor)
            first = channel.log.first
            if start < first:
                self._say(self._dialect.lost(channel.name, start, first - 1))
                channel.tally.lost += first - start
                start = first
            subscription.read_from(start)
            self._broker.wake(self._reader)

    def _unsubscribe(self, command: commands.Unsubscribe) -> None:
        if command.channel not in self.subscriptions:
            self._refuse(command.tag, errors.NOT_SUBSCRIBED)
            return
        self._leave(command.channel)
        self._say(self._dialect.unsubscribed(command.tag, command.channel))

    def _leave(self, channel: bytes) -> None:
        self.flush()
        self._broker.commit(self._broker.channels[channel])
        self._broker.unsubscribe(self.subscriptions.pop(channel))

    def _history(self, command: commands.History) -> None:
        if self._may_read(command.channel, command.tag):
            self._with_channel(command.channel, command.tag, partial(self._history_of, command))

    def _history_of(self, command: commands.History, channel: Channel) -> None:
        if not self._may_read(channel.name, command.tag):  # any longer: it may have had to wait
            self._broker.forget_unused(channel)
            return
        self.flush()
        self._broker.commit(channel)
        stop = channel.log.end
        start = (command.since or 0) + 1
        if command.last is not None:
            start = max(start, stop - command.last)
        events = self._while_readable(channel.name, channel.log.events(start, stop))
        self._stream(self._dialect.history(command.tag, channel.name, events, channel.position))
        self._broker.forget_unused(channel)

    def _who(self, command: commands.Who) -> None:
        def tell(members: list[Member]) -> None:
            if not self._may_read(command.channel, command.tag):  # any longer: it may have had to wait
                return
            if self._broker.members_held + len(members) > MEMBERS_HELD:
                self._refuse(command.tag, errors.TOO_MANY_ASK_WHO)
            else:
                held = self._while_readable(command.channel, self._broker.hold(members))
                self._stream(self._dialect.members(command.tag, command.channel, held))

        if self._may_read(command.channel, command.tag):
            self._await(self._broker.members(command.channel), command.tag, tell)

    def _nick(self, command: commands.Nick) -> None:
        if not is_nick(command.nick):
            self._refuse(command.tag, errors.BAD_NICK)
        elif command.nick != self.peer.id and command.nick in self._bridge.roster:
            self._refuse(command.tag, errors.NICK_IS_AN_ID)
        else:
            self.rename(command.nick if self._standing is None else self._standing.shown_nick(command.nick))
            self._say(self._dialect.nicked(command.tag, self.peer.nick))

    def rename(self, nick: bytes) -> None:
        """Be called otherwise from here on, by all who are told of it."""
        self.peer.nick = nick
        for subscription in self.subscriptions.values():
            self._broker.renamed(subscription)

    def _authenticate(self, command: commands.Auth) -> None:
        standing = self._standing
        if standing is None:
            self._refuse(command.tag, NO_KEYS)
            return
        refusal = standing.authenticate(command.token)
        if refusal is not None:
            self._refuse(command.tag, refusal)
            if standing.failed >= MOST_FAILED:
                self.dismiss(Ending.POLICY, TOO_MANY_TOKENS)
        else:
            self.note("authenticated", standing.identity.subject.decode())
            self._say(self._dialect.authenticated(command.tag, self.peer.nick, standing.seconds_left()))
            self._drop_forbidden(standing)

    def _ping(self, command: commands.Ping) -> None:
        self._say(self._dialect.pong(command.tag, command.text))

    def _info(self, command: commands.Info) -> None:
        bridge = self._bridge
        facts = Facts(self.peer.member(), self.ends, len(self.subscriptions), bridge.uptime(), bridge.version)
        self._say(self._dialect.facts(command.tag, facts))

    def _help(self, command: commands.Help) -> None:
        told = self._dialect.help(command.verb)
        if told is None:
            self._refuse(None, Refusal(Code.BAD_ARGUMENT, "there is no such command; HELP alone lists them"))
        else:
            self._say(told)

    def _be_quiet(self, command: commands.Quiet) -> None:
        self._quiet = command.on
        self._say(self._dialect.quieted())

    def _quit(self, command: commands.Quit) -> None:
        self.flush()
        self._broker.flush()
        self._say(self._dialect.bye(b""))
        self._close(Ending.NORMAL, command.words, "peer")

    def _interrupt(self, command: commands.Interrupt) -> None:
        self._say(self._dialect.notice(b"type QUIT to leave"))

    def _mistake(self, command: commands.Mistake) -> None:
        self._refuse_all((command.tag, *command.more), command.refusal)

    _STEPS: ClassVar[dict[type[Command], Callable[["Session", Any], None]]] = {
        Publish: _publish,
        commands.Subscribe: _subscribe,
        commands.Unsubscribe: _unsubscribe,
        commands.History: _history,
        commands.Who: _who,
        commands.Nick: _nick,
        commands.Auth: _authenticate,
        commands.Ping: _ping,
        commands.Info: _info,
        commands.Help: _help,
        commands.Quiet: _be_quiet,
        commands.Quit: _quit,
        commands.Interrupt: _interrupt,
        commands.Mistake: _mistake,
    }

    # Who the peer is, and what it may do.

    def review(self) -> None:
        """The policy is another: see whether the peer is still who it was, and what it may do now."""
        policy = self._bridge.policy
        if self.state is not State.OPEN:
            return
        if policy is None:
            self._drop_standing()
            return
        if self._standing is None:
            self._standing = Standing(self._bridge, policy, self._listener, self)
        refusal = self._standing.review(policy)
        if refusal is not None:
            self.dismiss(Ending.POLICY, refusal.words.encode())
            return
        self._drop_forbidden(self._standing)
        self.flush()

    def warn_of_expiry(self) -> None:
        """The peer's token is about to run out."""
        if self.state is not State.OPEN:
            return
        words = b"your token runs out in %d seconds: AUTH with another one" % WARNING
        self._say_between(self._dialect.notice(words, b"token-expires"))
        self.flush()

    def expire(self) -> None:
        """The peer's token has run out."""
        self.dismiss(Ending.POLICY, b"your token has run out")

    def _drop_standing(self) -> None:
        if self._standing is not None:
            self._standing.forget()
            self._standing = None

    def _may_read(self, channel: bytes, tag: Tag) -> bool:
        """Whether the peer may; where not, it has been told."""
        refusal = self._forbids_reading(channel)
        if refusal is not None:
            self._refuse(tag, refusal)
        return refusal is None

    def _forbids_reading(self, channel: bytes) -> Refusal | None:
        if self._standing is not None:
            return self._standing.forbids(channel, Right.READ)
        return forbids_without_policy(channel, Right.READ, self._bridge.is_admin(None, self.ends.client))

    def _while_readable(self, channel: bytes, told: Iterator[T]) -> Iterator[T]:
        """What is told bit by bit ends where the peer loses the right to it."""
        known: Identity | None = None
        for one in told:
            standing = self._standing
            if standing is not None and standing.identity is not known:
                if standing.forbids(channel, Right.READ):
                    return
                known = standing.identity
            yield one

    def _drop_forbidden(self, standing: Standing) -> None:
        for channel in list(self.subscriptions):
            if standing.forbids(channel, Right.READ):
                self._leave(channel)
                words = b"you may not read %b any longer, and are not subscribed to it" % channel
                self._say_between(self._dialect.notice(words, b"forbidden", channel))

    # What the commands are made of.

    def _refuse(self, tag: Tag, refusal: Refusal) -> None:
        self._bridge.tally.refuse(refusal.code)
        self._say(self._dialect.refused(tag, refusal))

    def _refuse_all(self, tags: Sequence[Tag], refusal: Refusal) -> None:
        """Each of them. A read can bring ten thousand publishes, and a refusal is ten times as long as the shortest of
        them: so they are said no faster than the peer reads."""
        if len(tags) <= REFUSED_TOGETHER:
            for tag in tags:
                self._refuse(tag, refusal)
            return
        self._bridge.tally.refuse(refusal.code, len(tags))
        self._stream(self._refusals(tags, refusal))
        if self._pieces is not None and self.holdings.too_much:
            self._pieces = None
            self.turn_away(errors.TOO_MUCH_HELD)

    def _refusals(self, tags: Sequence[Tag], refusal: Refusal) -> Iterator[bytes]:
        """In pieces; the tags are counted as long as they are held."""
        held = TAG_COST * len(tags)
        self.holdings.held += held
        try:
            for start in range(0, len(tags), REFUSED_TOGETHER):
                yield b"".join([self._dialect.refused(tag, refusal) for tag in tags[start : start + REFUSED_TOGETHER]])
        finally:
            self.holdings.held -= held

    def _with_channel(self, name: bytes, tag: Tag, action: Callable[[Channel], None]) -> None:
        def act(channel: Channel) -> None:
            if self._broker.channels.get(name) is channel:
                action(channel)
            else:  # somebody else who had waited for it found no use for it, and it is gone again
                self._with_channel(name, tag, action)

        self._await(self._broker.open(name), tag, act)

    def _await(self, answer: T | Refusal | Later[T], tag: Tag, action: Callable[[T], None]) -> None:
        """Go on with ``action`` once the answer is there; a refusal is told to the peer."""

        def act(outcome: T | Refusal) -> None:
            if isinstance(outcome, Refusal):
                self._refuse(tag, outcome)
            else:
                action(outcome)

        def act_late(outcome: T | Refusal) -> None:
            if self.state is State.OPEN:
                self._busy = False
                act(outcome)
                self.flush()
                self._go_on()

        if isinstance(answer, Later):
            self._stall()
            answer.then(act_late)
        else:
            act(answer)

    # How it reads.

    def may_skip(self, channel: bytes, first: int, last: int) -> bool:
        """The log has let go of what it has not been sent yet: whether it goes on all the same."""
        if self._bridge.limits.lag == "skip":
            if not self._has_just("lost"):
                self.note("lost", f"{channel.decode()} {first} to {last}")
            return True
        self.dismiss(Ending.TRY_AGAIN, b"you read too slowly; what you have missed may still be in the history")
        return False

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Its socket is full. Who had caught up just now has been behind all the time, as far as steps are noted."""
        if self._steps is not None and self._has_just("caught-up"):
            self._steps.pop()
        else:
            self.note("behind", f"{channel.decode()} from {cursor}")

    def caught_up(self, channel: bytes) -> None:
        """It is behind nowhere. Whoever was only sent what had been before it came was not behind."""
        for step in reversed(self._steps or ()):
            if step.name == "caught-up":
                return
            if step.name == "behind":
                self.note("caught-up", channel.decode())
                return

    def _has_just(self, name: str) -> bool:
        """Whether that was its last step, and not long ago."""
        if not self._steps or self._steps[-1].name != name:
            return False
        return self._broker.clock() - self._steps[-1].at < CALM

    def _close(self, ending: Ending, words: str = "", by: str = "server") -> None:
        self.flush()
        self.cease(words, by)
        self._hang_up(ending)

    def _leave_all(self) -> None:
        for subscription in self.subscriptions.values():
            self._broker.unsubscribe(subscription)
        self.subscriptions.clear()
        self._broker.sleep(self._reader)
