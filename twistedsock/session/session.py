"""One peer's conversation: commands in, replies and events out. What it says, what its connection goes through and what
it reads are classes of their own (``speaker``, ``trace``, ``subscriber``); here are its life, and all other commands.

Every command gets its reply in the order of the commands. Publishes may wait for the backplane together; any other
command waits until those before it are answered, and those after it wait for it, so that a peer sees its commands take
effect in the order in which it gave them, however slow the backplane is.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

from twistedsock import errors
from twistedsock.auth.expiry import EXPIRY_WARNING_SECONDS
from twistedsock.auth.identity import Identity, Right
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.principal import client_principal
from twistedsock.limits.rate import rename_price, rights_price
from twistedsock.limits.settings import MAX_PUBLISHES_IN_FLIGHT
from twistedsock.pubsub.broker import Flushable
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.names import check_nick, is_reserved
from twistedsock.pubsub.subscription import NULL_CALLBACKS, REPLY_PENDING, RIGHTS_UNCHECKED, Client, Outlet, Subscriber
from twistedsock.pubsub.values import Tag
from twistedsock.session import commands
from twistedsock.session.authorizer import MAX_FAILED_TOKENS, NO_KEYS, TOO_MANY_TOKENS, SessionAuth
from twistedsock.session.commands import Command, Publish
from twistedsock.session.encoder import Encoder, Endpoints, SessionInfo
from twistedsock.session.registry import ServerContext
from twistedsock.session.replies import PendingReplies, PendingReply, SessionState, nothing
from twistedsock.session.subscriber import SubscribingSession
from twistedsock.session.timeline import HandshakeInfo, Step

NUMBERED_ANEW = b"the events of a channel that you read are numbered anew: connect and subscribe again"

NOT_REVIEWED = b"internal error while your rights were checked: connect and subscribe again"


class Session(SubscribingSession):
    """``hang_up`` closes the connection once what was written has left. ``listener`` is the endpoint that the peer came
    in by, as configured; ``arrival`` is how, where that took a while."""

    __slots__ = ("_flight", "_hang_up", "_postponed", "close_message")

    def __init__(
        self,
        context: ServerContext,
        dialect: Encoder,
        outlet: Outlet,
        endpoints: Endpoints,
        hang_up: Callable[[CloseReason], None],
        listener: str = "",
        arrival: HandshakeInfo | None = None,
    ) -> None:
        client = Client(context.sessions.new_id(), client_principal(endpoints.client))
        outlet.principal = client.source
        subscriber = Subscriber(client, dialect, outlet, self, context.memory_budget, context.stats)
        super().__init__(context, dialect, outlet, subscriber, endpoints, listener, arrival)
        # Why it was dismissed, for who can tell it on closing too.
        self.close_message = b""
        self._hang_up = hang_up
        # Made when the first publish has to wait, as an empty one is a third of an idle session.
        self._flight: PendingReplies | None = None
        self._postponed: Command | None = None
        if context.policy is not None:
            self._standing = SessionAuth(context, context.policy, listener, self)
        context.sessions.add(self)
        context.stats.count_session_opened(dialect.title)
        context.connection_events.opened(self)

    def send_welcome(self, before: bytes = b"", outcome: Identity | Error | None = None) -> None:
        """Say the first words. ``before`` is what leaves with them: the answer to a handshake. ``outcome`` is what the
        policy found of what the peer has shown on its way in; a refusal is told, and the connection closed."""
        self._say(before + self._dialect.welcome(self.client.id, self.endpoints))
        error = self._standing.become(outcome) if self._standing is not None and outcome is not None else None
        if error is not None:
            self._refuse(None, error)
            self._close(CloseReason.POLICY, error.message)
        elif self._standing is not None and outcome is not None:
            self.add_step("authenticated", self._standing.identity.subject.decode())
        self.flush()

    def set_encoder(self, dialect: Encoder) -> None:
        """Go on in another dialect; only before the first command."""
        self._context.stats.count_session_closed(self._dialect.title)
        self._context.stats.count_session_opened(dialect.title)
        self._dialect = self._subscriber.encoder = dialect

    def handle(self, command: Command) -> None:
        """Carry out one command. Afterwards, while ``input_paused``, no other must be given."""
        if self.state is not SessionState.OPEN:
            return
        if self._flight and not isinstance(command, Publish | commands.Notice):
            self._postponed = command
            self._stall()
        else:
            self._STEPS[type(command)](self, command)

    @property
    def protocol(self) -> str:
        """What its dialect is called."""
        return self._dialect.title

    def begin(self) -> None:
        """What one read has brought is going to be run."""
        self._broker.start_input()

    def finish(self, talker: Flushable) -> None:
        """It has been run: ``talker``, through whom this session talks, will be flushed when that is due."""
        self._broker.end_input(talker)

    def now(self) -> float:
        """The time, as whoever runs the commands must know it to share it fairly."""
        return self._broker.clock()

    def postpone(self, go_on: Callable[[], None]) -> None:
        """Call back when others have had their turn."""
        self._broker.scheduler.defer(go_on)

    def close(self, ending: CloseReason, words: bytes, code: bytes = b"") -> None:
        """Tell the peer why, and close. ``code`` says it to programs."""
        if self.state is SessionState.OPEN:
            self.close_message = words
            self._send_waiting()
            if self._pieces is None:  # else it would stand in the midst of a message
                self._say(self._dialect.notice(words, code))
                self._say(self._dialect.bye(b""))
            self._close(ending, words.decode())

    def close_with_error(self, error: Error) -> None:
        """There is no room for what the peer asks for: tell it, and close, so that it comes back later."""
        if self.state is SessionState.OPEN:
            self._send_waiting()
            if self._pieces is None:  # else it would stand in the midst of a message
                self._refuse(None, error)
            self._close(CloseReason.TRY_AGAIN, error.message)

    def mark_closing(self, words: str = "", by: str = "server") -> None:
        """The connection is being closed by other means: say nothing more than what waits to be said. ``words`` are
        why, ``by`` is who wants it."""
        if self.state is SessionState.OPEN:
            self._fall_silent()
            self.add_step("closing", words, by)

    def _fall_silent(self) -> None:
        self.flush()
        self.state = SessionState.CLOSING
        self._leave_all()

    def connection_lost(self, how: str = "") -> None:
        """The connection is gone; ``how`` it ended."""
        if self.state is not SessionState.CLOSED:
            if self.state is SessionState.OPEN:
                self._fall_silent()
            self.state = SessionState.CLOSED
            self.add_step("closed", how)
            self._flight = None
            self._pieces = self._postponed = None
            self.on_input_resumed = nothing
            self._subscriber.callbacks = NULL_CALLBACKS
            self._context.stats.count_session_closed(self._dialect.title)
            self._context.connection_events.closed(self)
            self._drop_standing()
            self._context.sessions.remove(self)

    # The commands.

    def _publish(self, command: Publish) -> None:
        tags = command.tags
        answer: int | Error | Future[int]
        if self._context.policy is not None and (error := self._judged().check_access(command.channel, Right.WRITE)):
            answer = error
        elif is_reserved(command.channel):
            answer = errors.RESERVED_CHANNEL
        else:
            answer = self._broker.publish(self.client, command)
        if not self._flight and isinstance(answer, Error):
            self._refuse_all(tags, answer)
        elif not self._flight and not isinstance(answer, Future):
            self._say_published(tags, answer)
        else:
            if self._flight is None:
                self._flight = PendingReplies()
            slot = self._flight.take_off(tags)
            on_result(answer, partial(self._land, self._flight, slot))
            if self._flight.publishes >= MAX_PUBLISHES_IN_FLIGHT:
                self._stall()
        if self._broker.needs_flush:
            self.flush()
            self._broker.flush()

    def _say_published(self, tags: Sequence[Tag], outcome: int | Error) -> None:
        if isinstance(outcome, Error):
            for tag in tags:
                self._refuse(tag, outcome)
        elif said := self._dialect.published(tags, outcome):
            self._say(said)

    def _land(self, flight: PendingReplies, slot: PendingReply, outcome: int | Error) -> None:
        told = flight.land(slot, outcome)
        if self.state is not SessionState.OPEN:
            return
        if not told:
            # The event may be delivered now, but its OK must be written first and cannot yet.
            self._outlet.blocked |= REPLY_PENDING
            return
        for tags, settled in told:
            self._say_published(tags, settled)
        self.flush()
        if not flight.has_overtaken():
            self._release()
        if self._postponed is None:
            if self._busy and flight.publishes < MAX_PUBLISHES_IN_FLIGHT:
                self._unstall()
        elif not flight:
            command, self._postponed = self._postponed, None
            self._busy = False
            self.handle(command)
            self.flush()
            self._go_on()

    def _nick(self, command: commands.Nick) -> None:
        error = check_nick(command.nick)
        if error is not None:
            self._refuse(command.tag, error)
        elif command.nick != self.client.id and command.nick in self._context.sessions:
            self._refuse(command.tag, errors.NICK_IS_AN_ID)
        else:
            self.charge(rename_price(len(self.subscriptions)))
            self.rename(command.nick if self._context.policy is None else self._judged().displayed_nick(command.nick))
            self._say(self._dialect.nicked(command.tag, self.client.nick))

    def rename(self, nick: bytes) -> None:
        """Be called otherwise from here on, by all who are told of it."""
        self.client.nick = nick
        for subscription in self.subscriptions.values():
            self._broker.member_renamed(subscription)

    def _authenticate(self, command: commands.Auth) -> None:
        if self._context.policy is None:
            self._refuse(command.tag, NO_KEYS)
            return
        self._send_waiting()  # it was published for who it was until now
        standing = self._judged()
        error = standing.authenticate(command.token)
        if error is not None:
            self._refuse(command.tag, error)
            if standing.failed >= MAX_FAILED_TOKENS:
                self.close(CloseReason.POLICY, TOO_MANY_TOKENS)
        else:
            self.charge(rights_price(len(self.subscriptions), len(standing.identity.grants.pairs)))
            self.add_step("authenticated", standing.identity.subject.decode())
            self._say(self._dialect.authenticated(command.tag, self.client.nick, standing.seconds_left()))
            self.pause_events()
            self._busy = True  # until the subscriptions have been checked, which may take several turns
            self._broker.scheduler.run_steps(self.recheck_rights(), self._checked_all)
            if self._busy:
                self._stall()

    def _checked_all(self) -> None:
        if self.state is SessionState.OPEN:
            self._unstall()

    def _ping(self, command: commands.Ping) -> None:
        self._say(self._dialect.pong(command.tag, command.text))

    def _info(self, command: commands.Info) -> None:
        context = self._context
        facts = SessionInfo(
            self.client.member(), self.endpoints, len(self.subscriptions), context.uptime(), context.version
        )
        self._say(self._dialect.facts(command.tag, facts))

    def _reply(self, command: commands.Reply) -> None:
        if command.encoder is not None:
            self._dialect = command.encoder
        self._say(command.data)

    def _quit(self, command: commands.Quit) -> None:
        self._send_waiting()
        self._say(self._dialect.bye(b""))
        self._close(CloseReason.NORMAL, command.words, "peer")

    def _notice(self, command: commands.Notice) -> None:
        self._say(self._dialect.notice(command.text))

    def _mistake(self, command: commands.InvalidCommand) -> None:
        self._refuse_all((command.tag, *command.more), command.error)

    _STEPS: ClassVar[dict[type[Command], Callable[["Session", Any], None]]] = {
        Publish: _publish,
        commands.Subscribe: SubscribingSession._subscribe,
        commands.Unsubscribe: SubscribingSession._unsubscribe,
        commands.History: SubscribingSession._history,
        commands.Who: SubscribingSession._who,
        commands.Nick: _nick,
        commands.Auth: _authenticate,
        commands.Ping: _ping,
        commands.Info: _info,
        commands.Reply: _reply,
        commands.Quit: _quit,
        commands.Notice: _notice,
        commands.InvalidCommand: _mistake,
    }

    # Who the peer is, and what it may do.

    def recheck_rights(self) -> Iterator[None]:
        """The policy or the identity is another: see whether the peer is still who it was, and what it may do now; step
        by step. An exception closes the session: it would be sent no events any more, and no notice of that."""
        try:
            yield from self._review()
        except Exception:
            self.close(CloseReason.TRY_AGAIN, NOT_REVIEWED)
            raise

    def _review(self) -> Iterator[None]:
        if self.state is not SessionState.OPEN:
            return
        if self._context.policy is None:
            self._drop_standing()
            self._outlet.blocked &= ~RIGHTS_UNCHECKED
            self._broker.resume(self._subscriber)
            return
        error = self._judged().error
        if error is not None:
            self.close(CloseReason.POLICY, error.message.encode())
            return
        yield from self._check_subscriptions()

    def warn_of_token_expiry(self) -> None:
        """The peer's token is about to run out."""
        if self.state is not SessionState.OPEN:
            return
        words = b"your token runs out in %d seconds: AUTH with another one" % EXPIRY_WARNING_SECONDS
        self._say_between(self._dialect.notice(words, b"token-expires"))
        self.flush()

    def close_expired(self) -> None:
        """The peer's token has run out."""
        self.close(CloseReason.POLICY, b"your token has run out")

    def _drop_standing(self) -> None:
        if self._standing is not None:
            self._standing.forget()
            self._standing = None

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        """The log has let go of what it has not been sent yet: whether it goes on all the same."""
        if self._context.limits.slow_consumer == "skip":
            if not self._has_just("lost"):
                self.add_step("lost", f"{channel.decode()} {first} to {last}")
            return True
        self.close(CloseReason.TRY_AGAIN, b"you read too slowly; what you have missed may still be in the history")
        return False

    def epoch_changed(self) -> None:
        """It comes back, and is told by ``recovered`` that its place is of another epoch."""
        self.close(CloseReason.TRY_AGAIN, NUMBERED_ANEW)

    def _stepped(self, step: Step) -> None:
        self._context.connection_events.stepped(self, step)

    def _close(self, ending: CloseReason, words: str = "", by: str = "server") -> None:
        self.flush()
        try:
            self.mark_closing(words, by)
        finally:
            self._hang_up(ending)


class StreamSession(Session):
    """Who may not read one of its channels any longer is told so, and closed: its client comes back, and is refused
    then where it can understand it."""

    __slots__ = ()

    def _end_forbidden(self, channel: bytes) -> None:
        super()._end_forbidden(channel)
        self._close(CloseReason.POLICY, "it may not read all its channels any longer")


# TODO-MERGED-DOC: The session of a peer that says nothing: it reads the channels that it was opened for, and
# endpoints without one.
