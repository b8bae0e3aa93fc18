"""The server's side of one client: runs its commands, and writes replies and events to its outlet.

Replies leave in the order of the commands. Several publishes may wait for the backplane together; any other command
waits for the replies to those before it, and those after it wait for its own reply. So a client sees its commands take
effect in their order, however slow the backplane is.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import msgspec

from twistedsock import errors
from twistedsock.auth.identity import Identity, Right, check_access
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.principal import LOCAL, client_principal
from twistedsock.limits.rate import RateLimiter, answer_price, rename_price, rights_price
from twistedsock.limits.settings import MAX_PUBLISHES_IN_FLIGHT
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.names import check_nick, is_reserved
from twistedsock.pubsub.subscription import (
    NULL_CALLBACKS,
    RIGHTS_UNCHECKED,
    Client,
    Outlet,
    Subscriber,
    Subscription,
)
from twistedsock.pubsub.values import Event, Lost, Member, Tag
from twistedsock.session import commands
from twistedsock.session.authorizer import MAX_FAILED_TOKENS, SessionAuth
from twistedsock.session.commands import Command, Publish, history_start, missing_events, resume_offset
from twistedsock.session.encoder import Encoder, Endpoints, SessionInfo
from twistedsock.session.replies import NO_INPUT, PendingReplies, PendingReply, ReplyWriter
from twistedsock.session.timeline import HandshakeInfo, Timeline
from twistedsock.stats import TcpStats

if TYPE_CHECKING:
    from twistedsock.limits.shares import MemoryBudget
    from twistedsock.pubsub.broker import Broker
    from twistedsock.pubsub.channel import Channel
    from twistedsock.pubsub.history import History
    from twistedsock.session.registry import SessionContext

T = TypeVar("T")


class SessionState(Enum):
    """OPEN runs commands, CLOSING has written its last bytes, CLOSED has no connection any more."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class ReadProgress(msgspec.Struct, frozen=True, gc=False):
    """``channels`` with a subscription, ``behind`` of them with events that were not sent yet, ``lag`` such events."""

    channels: int
    behind: int
    lag: int


class Session:
    """``close_transport`` closes the connection after the bytes that were written. ``listener`` is the endpoint through
    which the client connected, as configured. A ``read_only`` session belongs to a stream without commands: when the
    client loses the right to read one of its channels, it is closed, because the client then connects again and
    receives the error as a response."""

    __slots__ = (
        "_auth",
        "_checked_identity",
        "_close_transport",
        "_context",
        "_deferred_command",
        "_final_progress",
        "_listener",
        "_pending",
        "_read_only",
        "_subscriber",
        "broker",
        "client",
        "close_message",
        "endpoints",
        "is_rate_limited",
        "replies",
        "state",
        "subscriptions",
        "timeline",
    )

    def __init__(
        self,
        context: "SessionContext[Session]",
        encoder: Encoder,
        outlet: Outlet,
        endpoints: Endpoints,
        close_transport: Callable[[CloseReason], None],
        listener: str = "",
        handshake: HandshakeInfo | None = None,
        read_only: bool = False,
    ) -> None:
        broker = context.broker
        self.client = Client(context.sessions.new_id(), client_principal(endpoints.client))
        self.endpoints = endpoints
        self.state = SessionState.OPEN
        self.subscriptions: dict[bytes, Subscription] = {}
        self.timeline = Timeline(broker.clock(), handshake)
        self.close_message = b""
        """The reason for which the server closes the session, for transports whose close can carry one."""
        self.is_rate_limited = context.rate_limiters.is_limited and self.client.principal != LOCAL
        """False for clients on this machine, whatever identity they prove."""
        outlet.principal = self.client.source
        self._subscriber = Subscriber(self.client, encoder, outlet, self, context.memory_budget, context.stats)
        self.replies = ReplyWriter(broker, encoder, outlet, self._subscriber)
        self._context = context
        self.broker: Broker = broker
        self._close_transport = close_transport
        self._listener = listener
        self._read_only = read_only
        # Created for the first publish that waits, because an empty one is a third of an idle session.
        self._pending: PendingReplies | None = None
        self._deferred_command: Command | None = None
        # The identity by which all subscriptions have been checked.
        self._checked_identity: Identity | None = None
        self._final_progress: ReadProgress | None = None
        self._auth: SessionAuth | None = None
        if context.policy is not None:
            self._auth = SessionAuth(context, context.policy, listener, self.client, endpoints.client)
        context.sessions.add(self.client.id, self)
        context.stats.count_session_opened(encoder.title)
        context.connection_events.opened(self)

    # State

    @property
    def memory_budget(self) -> "MemoryBudget":
        return self.broker.memory_budget

    @property
    def protocol(self) -> str:
        """The name of the protocol that the client uses."""
        return self.replies.encoder.title

    @property
    def identity(self) -> Identity | None:
        """The client's identity under the policy; None without a policy."""
        return None if self._auth is None else self._auth.identity

    @property
    def rate_limiter(self) -> RateLimiter | None:
        """The rate limiter of the client's principal, which depends on its identity; None if its rate is not
        limited."""
        if not self.is_rate_limited:
            return None
        return self._context.rate_limiters.get(self.client.principal, self.broker.clock())

    @property
    def behind(self) -> dict[Subscription, None]:
        """The subscriptions with events that were not sent yet."""
        return self._subscriber.behind

    @property
    def lag(self) -> int:
        """The number of events in histories that were not sent yet."""
        return sum([subscription.channel.history.end - subscription.cursor for subscription in self.behind])

    @property
    def read_progress(self) -> ReadProgress:
        """The present progress; of a session that closes, the last one before."""
        return self._final_progress or ReadProgress(len(self.subscriptions), len(self.behind), self.lag)

    def tcp_stats(self) -> TcpStats | None:
        """Statistics of the connection, if the kernel provides them; a system call."""
        return self.replies.outlet.tcp_stats()

    def add_step(self, name: str, words: str = "", by: str = "") -> None:
        """Add a step to the timeline."""
        step = self.timeline.add(self.broker.clock(), name, words, by)
        self._context.connection_events.stepped(self, step)

    # Opening and closing

    def send_welcome(self, prefix: bytes = b"", outcome: Identity | Error | None = None) -> None:
        """Write the first message. ``prefix`` leaves with it: the response to a handshake. ``outcome`` is the result of
        the authentication in the handshake; an error closes the session."""
        self.replies.write(prefix + self.replies.encoder.welcome(self.client.id, self.endpoints))
        if self._auth is not None and outcome is not None:
            error = self._apply(self._auth.apply_identity(outcome))
            if error is not None:
                self.replies.write_error(None, error)
                self._close(CloseReason.POLICY, error.message)
            else:
                self.add_step("authenticated", self._auth.identity.subject.decode())
        self.replies.flush()

    def set_encoder(self, encoder: Encoder) -> None:
        """Change the protocol, before the first command."""
        self._context.stats.count_session_closed(self.protocol)
        self._context.stats.count_session_opened(encoder.title)
        self.replies.encoder = self._subscriber.encoder = encoder

    def flush(self) -> None:
        """Write the replies to the commands that were handled."""
        self.replies.flush()

    def resume_writing(self) -> None:
        """Called by the outlet when the socket has accepted all waiting bytes."""
        self.replies.resume()

    def close(self, reason: CloseReason, message: bytes, code: bytes = b"") -> None:
        """Send a notice with this message, and close. ``code`` is for programs."""
        if self.state is SessionState.OPEN:
            self.close_message = message
            self._send_undelivered()
            if not self.replies.has_unfinished_reply:
                self.replies.write(self.replies.encoder.notice(message, code))
                self.replies.write(self.replies.encoder.bye(b""))
            self._close(reason, message.decode())

    def close_with_error(self, error: Error) -> None:
        """The server has no resources for the client: send the error, and close, so that the client comes back
        later."""
        if self.state is SessionState.OPEN:
            self._send_undelivered()
            if not self.replies.has_unfinished_reply:
                self.replies.write_error(None, error)
            self._close(CloseReason.TRY_AGAIN, error.message)

    def mark_closing(self, message: str = "", by: str = "server") -> None:
        """The connection is being closed by other means: write what was collected, and nothing after it. ``message`` is
        the reason, ``by`` the side that closes."""
        if self.state is SessionState.OPEN:
            self._stop()
            self.add_step("closing", message, by)

    def connection_lost(self, how: str = "") -> None:
        """The connection has ended. ``how``: cleanly, broken or aborted."""
        if self.state is SessionState.CLOSED:
            return
        if self.state is SessionState.OPEN:
            self._stop()
        self.state = SessionState.CLOSED
        self.add_step("closed", how)
        self._pending = self._deferred_command = None
        self.replies.drop_unfinished_reply()
        self.replies.input = NO_INPUT
        self._subscriber.callbacks = NULL_CALLBACKS
        self._context.stats.count_session_closed(self.protocol)
        self._context.connection_events.closed(self)
        self._drop_auth()
        self._context.sessions.remove(self.client.id)

    def _close(self, reason: CloseReason, message: str = "", by: str = "server") -> None:
        self.replies.flush()
        try:
            self.mark_closing(message, by)
        finally:
            self._close_transport(reason)

    def _stop(self) -> None:
        self.replies.flush()
        self.replies.is_closed = True
        self.state = SessionState.CLOSING
        self._final_progress = self.read_progress
        for subscription in self.subscriptions.values():
            self.broker.unsubscribe(subscription)
        self.subscriptions.clear()
        self.broker.remove_subscriber(self._subscriber)

    # Commands

    def handle(self, command: Command) -> None:
        """Run one command. Then, while ``replies.input_paused``, no other may be run."""
        if self.state is not SessionState.OPEN:
            return
        if self._pending and not isinstance(command, Publish | commands.Notice):
            self._deferred_command = command
            self.replies.pause_input()
        else:
            self._HANDLERS[type(command)](self, command)

    def charge(self, price: float) -> None:
        """Charge the cost of a command that was not known before."""
        if (limiter := self.rate_limiter) is not None:
            limiter.charge(price)

    def _when_ready(self, result: T | Error | Future[T], tag: Tag, action: Callable[[T], None]) -> None:
        """Continue a command with ``action`` when the result is known; an error is the reply."""

        def act(outcome: T | Error) -> None:
            if isinstance(outcome, Error):
                self.replies.write_error(tag, outcome)
            else:
                action(outcome)

        def act_later(outcome: T | Error) -> None:
            if self.state is SessionState.OPEN:
                self.replies.is_busy = False
                act(outcome)
                self.replies.flush()
                self.replies.resume_input()

        if isinstance(result, Future):
            self.replies.pause_input()
            result.then(act_later)
        else:
            act(result)

    def _with_channel(self, name: bytes, tag: Tag, action: Callable[["Channel"], None]) -> None:
        def act(channel: "Channel") -> None:
            if self.broker.channels.get(name) is channel:
                action(channel)
            else:  # another session that waited for the channel did not need it, so that it was closed
                self._with_channel(name, tag, action)

        self._when_ready(self.broker.open(name, self.client.principal), tag, act)

    def _stream(self, pieces: Iterator[bytes]) -> None:
        """Write a reply that can be long. It is charged as it is written."""
        self.replies.stream(self._charged(pieces) if self.is_rate_limited else pieces)

    def _charged(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.charge(answer_price(len(piece)))
            yield piece

    def _send_undelivered(self) -> None:
        """Send the events that this session has not got yet, before its last message."""
        self.replies.flush()
        for subscription in self.subscriptions.values():
            self.broker.send_undelivered(subscription)

    def _publish(self, command: Publish) -> None:
        tags, pending = command.tags, self._pending
        result: int | Error | Future[int]
        if self._context.policy is not None and (
            error := self._current_auth().check_access(command.channel, Right.WRITE)
        ):
            result = error
        elif is_reserved(command.channel):
            result = errors.RESERVED_CHANNEL
        else:
            result = self.broker.publish(self.client, command)
        if not pending and isinstance(result, Error):
            self._write_errors(tags, result)
        elif not pending and not isinstance(result, Future):
            self._write_published(tags, result)
        else:
            if pending is None:
                pending = self._pending = PendingReplies()
            on_result(result, partial(self._published, pending, pending.add(tags)))
            if pending.publishes >= MAX_PUBLISHES_IN_FLIGHT:
                self.replies.pause_input()
        if self.broker.needs_flush:
            self.replies.flush()
            self.broker.flush()

    def _published(self, pending: PendingReplies, reply: PendingReply, outcome: int | Error) -> None:
        ready = pending.resolve(reply, outcome)
        if self.state is not SessionState.OPEN:
            return
        if not ready:
            # The event can be delivered now, but the replies before it, which must precede it, are not known.
            self.replies.hold_events()
            return
        for tags, result in ready:
            self._write_published(tags, result)
        self.replies.flush()
        if not pending.has_out_of_order():
            self.replies.release_events()
        if self._deferred_command is None:
            if self.replies.is_busy and pending.publishes < MAX_PUBLISHES_IN_FLIGHT:
                self.replies.finish_command()
        elif not pending:
            command, self._deferred_command = self._deferred_command, None
            self.replies.is_busy = False
            self.handle(command)
            self.replies.flush()
            self.replies.resume_input()

    def _write_published(self, tags: Sequence[Tag], outcome: int | Error) -> None:
        if isinstance(outcome, Error):
            for tag in tags:
                self.replies.write_error(tag, outcome)
        elif data := self.replies.encoder.published(tags, outcome):
            self.replies.write(data)

    def _write_errors(self, tags: Sequence[Tag], error: Error) -> None:
        self.replies.write_errors(tags, error)
        if self.replies.has_unfinished_reply and self.memory_budget.is_exceeded_by(self.client.source):
            self.replies.drop_unfinished_reply()
            self.close_with_error(errors.MEMORY_LIMIT_REACHED)

    def _subscribe(self, command: commands.Subscribe) -> None:
        limit = self._context.limits.max_subscriptions_per_client
        if (command.since is None) is not (command.epoch is None):
            self.replies.write_error(command.tag, errors.SINCE_WITHOUT_EPOCH)
        elif command.channel not in self.subscriptions and len(self.subscriptions) >= limit:
            self.replies.write_error(command.tag, errors.TOO_MANY_SUBSCRIPTIONS)
        elif self._may_read(command.channel, command.tag):
            self._with_channel(command.channel, command.tag, partial(self._subscribe_to, command))

    def _subscribe_to(self, command: commands.Subscribe, channel: "Channel") -> None:
        broker = self.broker
        if not self._may_read(channel.name, command.tag):  # checked again, because the command may have waited
            broker.close_if_unused(channel)
            return
        self.replies.flush()  # the replies to the client's own publishes precede their events, which follow now
        subscription = self.subscriptions.get(channel.name)
        if subscription is None:
            if not broker.subscription_shares.admits(self.client.principal):
                self.replies.write_error(command.tag, errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL)
                broker.close_if_unused(channel)
                return
            subscription = Subscription(self._subscriber, channel, command.echo, command.presence)
            if not self.subscriptions:
                self._checked_identity = self.identity
            elif self._checked_identity is not self.identity:
                self._checked_identity = None  # the other subscriptions were checked by another identity
            self.subscriptions[channel.name] = subscription
            broker.subscribe(channel, subscription)
        else:
            broker.change_options(subscription, command.echo, command.presence)
        start, recovered = resume_offset(command, channel)
        encoder = self.replies.encoder
        self.replies.write(encoder.subscribed(command.tag, channel.name, channel.position, recovered, start))
        if start <= channel.head:
            self._replay(subscription, channel, start)

    def _replay(self, subscription: Subscription, channel: "Channel", start: int) -> None:
        history = channel.history
        if subscription in self._subscriber.behind:
            start = min(start, subscription.cursor)
        if start < history.first:
            self.replies.write(self.replies.encoder.lost(channel.name, start, history.first - 1))
            channel.stats.lost += history.first - start
            start = history.first
        if self.is_rate_limited:
            self.charge(answer_price(history.size * (history.end - start) // (len(history) or 1)))
        subscription.read_from(start)
        self.broker.resume(self._subscriber)

    def _unsubscribe(self, command: commands.Unsubscribe) -> None:
        if command.channel not in self.subscriptions:
            self.replies.write_error(command.tag, errors.NOT_SUBSCRIBED)
            return
        self._end_subscription(command.channel)
        self.replies.write(self.replies.encoder.unsubscribed(command.tag, command.channel))

    def _end_subscription(self, channel: bytes) -> None:
        self.replies.flush()
        self.broker.send_undelivered(self.subscriptions[channel])
        self.broker.unsubscribe(self.subscriptions.pop(channel))

    def _history(self, command: commands.ReadHistory) -> None:
        if self._may_read(command.channel, command.tag):
            self._with_channel(command.channel, command.tag, partial(self._history_of, command))

    def _history_of(self, command: commands.ReadHistory, channel: "Channel") -> None:
        broker, history = self.broker, channel.history
        if not self._may_read(channel.name, command.tag):  # checked again, because the command may have waited
            broker.close_if_unused(channel)
            return
        self.replies.flush()
        broker.histories.update(channel)
        if channel.name in self.subscriptions:  # the subscription gets each event before the history shows it
            broker.send_undelivered(self.subscriptions[channel.name])
        start = history_start(history, command.last, command.since)
        lost = missing_events(history, start)
        events = self._events_while_readable(channel.name, history, max(start, history.first))
        encoder = self.replies.encoder
        self._stream(encoder.history(command.tag, channel.name, events, channel.position, lost))
        broker.close_if_unused(channel)

    def _who(self, command: commands.Who) -> None:
        if self._may_read(command.channel, command.tag):
            members = self.broker.members(command.channel)
            self._when_ready(members, command.tag, partial(self._write_members, command))

    def _write_members(self, command: commands.Who, members: list[Member]) -> None:
        broker = self.broker
        if not self._may_read(command.channel, command.tag):  # checked again, because the command may have waited
            return
        if not broker.member_shares.admits(self.client.principal, len(members)):
            self.replies.write_error(command.tag, errors.TOO_MANY_MEMBER_LISTS)
            return
        counted = broker.member_shares.count_while_iterated(members, self.client.principal)
        readable = self._while_readable(command.channel, counted)
        self._stream(self.replies.encoder.members(command.tag, command.channel, readable))

    def _nick(self, command: commands.Nick) -> None:
        error = check_nick(command.nick)
        if error is not None:
            self.replies.write_error(command.tag, error)
        elif command.nick != self.client.id and command.nick in self._context.sessions:
            self.replies.write_error(command.tag, errors.NICK_IS_AN_ID)
        else:
            self.charge(rename_price(len(self.subscriptions)))
            has_policy = self._context.policy is not None
            self._rename(self._current_auth().displayed_nick(command.nick) if has_policy else command.nick)
            self.replies.write(self.replies.encoder.nicked(command.tag, self.client.nick))

    def _rename(self, nick: bytes) -> None:
        self.client.nick = nick
        for subscription in self.subscriptions.values():
            self.broker.member_renamed(subscription)

    def _authenticate(self, command: commands.Auth) -> None:
        if self._context.policy is None:
            self.replies.write_error(command.tag, errors.NO_KEYS)
            return
        self._send_undelivered()  # the former identity had the right to these events
        auth = self._current_auth()
        error = self._apply(auth.authenticate(command.token))
        if error is not None:
            self.replies.write_error(command.tag, error)
            if auth.failed >= MAX_FAILED_TOKENS:
                self.close(CloseReason.POLICY, errors.TOO_MANY_TOKENS)
            return
        self.charge(rights_price(len(self.subscriptions), len(auth.identity.grants.pairs)))
        self.add_step("authenticated", auth.identity.subject.decode())
        encoder = self.replies.encoder
        self.replies.write(encoder.authenticated(command.tag, self.client.nick, auth.seconds_left()))
        self.pause_events()
        self.replies.is_busy = True  # until the subscriptions have been checked, which can take several turns
        self.broker.scheduler.run_steps(self.recheck_rights(), self._rights_checked)
        if self.replies.is_busy:
            self.replies.pause_input()

    def _rights_checked(self) -> None:
        if self.state is SessionState.OPEN:
            self.replies.finish_command()

    def _ping(self, command: commands.Ping) -> None:
        self.replies.write(self.replies.encoder.pong(command.tag, command.text))

    def _info(self, command: commands.Info) -> None:
        context = self._context
        info = SessionInfo(
            self.client.member(), self.endpoints, len(self.subscriptions), context.uptime(), context.version
        )
        self.replies.write(self.replies.encoder.facts(command.tag, info))

    def _reply(self, command: commands.Reply) -> None:
        if command.encoder is not None:
            self.replies.encoder = command.encoder
        self.replies.write(command.data)

    def _notice(self, command: commands.Notice) -> None:
        self.replies.write(self.replies.encoder.notice(command.text))

    def _quit(self, command: commands.Quit) -> None:
        self._send_undelivered()
        self.replies.write(self.replies.encoder.bye(b""))
        self._close(CloseReason.NORMAL, command.words, "peer")

    def _invalid_command(self, command: commands.InvalidCommand) -> None:
        self._write_errors((command.tag, *command.more), command.error)

    _HANDLERS: ClassVar[dict[type[Command], Callable[["Session", Any], None]]] = {
        Publish: _publish,
        commands.Subscribe: _subscribe,
        commands.Unsubscribe: _unsubscribe,
        commands.ReadHistory: _history,
        commands.Who: _who,
        commands.Nick: _nick,
        commands.Auth: _authenticate,
        commands.Ping: _ping,
        commands.Info: _info,
        commands.Reply: _reply,
        commands.Quit: _quit,
        commands.Notice: _notice,
        commands.InvalidCommand: _invalid_command,
    }

    # Identity and rights

    def _current_auth(self) -> SessionAuth:
        """The identity under the policy that is in force now. There must be one."""
        policy, auth = self._context.policy, self._auth
        assert policy is not None
        if auth is None:
            auth = self._auth = SessionAuth(self._context, policy, self._listener, self.client, self.endpoints.client)
            self._apply(auth.recheck(policy))
        elif auth.policy is not policy:
            self._apply(auth.recheck(policy))
        return auth

    def _apply(self, error: Error | None) -> Error | None:
        """Let the connection follow the identity that was adopted without an error. Returns the error."""
        auth = self._auth
        if error is None and auth is not None:
            self._context.expiry_watcher.watch(self.token_expires, auth.identity.expires)
            if auth.nick != self.client.nick:
                self._rename(auth.nick)
        return error

    def _drop_auth(self) -> None:
        if self._auth is not None:
            self._auth.release()
            self._context.expiry_watcher.watch(self.token_expires, None)
            self._auth = None

    def token_expires(self, seconds: float) -> None:
        """The token expires in so many seconds: 0 closes the session, more is a warning."""
        if seconds <= 0:
            self.close(CloseReason.POLICY, errors.TOKEN_EXPIRED)
        elif self.state is SessionState.OPEN:
            warning = self.replies.encoder.notice(
                b"token expires in %d seconds: authenticate with a new one" % seconds, b"token-expires"
            )
            self.replies.write_between_replies(warning)
            self.replies.flush()

    def _check_read_access(self, channel: bytes) -> Error | None:
        if self._context.policy is not None:
            return self._current_auth().check_access(channel, Right.READ)
        return check_access(None, channel, Right.READ, self._context.is_admin(None, self.endpoints.client))

    def _may_read(self, channel: bytes, tag: Tag) -> bool:
        """Returns False after writing an error if the client has no right to read the channel."""
        error = self._check_read_access(channel)
        if error is not None:
            self.replies.write_error(tag, error)
        return error is None

    def _while_readable(self, channel: bytes, items: Iterator[T]) -> Iterator[T]:
        """Items of a reply that is written in pieces; it ends when the client loses the right to read the channel."""
        checked: Identity | None = None
        for item in items:
            if self._context.policy is not None:
                auth = self._current_auth()
                if (auth.identity is not checked or auth.error) and auth.check_access(channel, Right.READ):
                    return
                checked = auth.identity
            yield item

    def _events_while_readable(self, channel: bytes, history: "History", start: int) -> Iterator[Event | Lost]:
        """The events of a history; those that the client loses the right to read are reported as lost."""
        stop = history.end
        for item in self._while_readable(channel, history.events(start, stop)):
            start = (item.last if isinstance(item, Lost) else item.offset) + 1
            yield item
        if start < stop:
            yield Lost(start, stop - 1)

    def pause_events(self) -> None:
        """Send no events until ``recheck_rights`` is complete. They stay in the histories meanwhile."""
        if self.subscriptions:
            self.replies.outlet.blocked |= RIGHTS_UNCHECKED

    def recheck_rights(self) -> Iterator[None]:
        """The policy or the identity has changed: check the identity and the subscriptions, step by step. An exception
        closes the session, because it would not get any events otherwise."""
        try:
            yield from self._recheck_rights()
        except Exception:
            self.close(CloseReason.TRY_AGAIN, errors.RIGHTS_NOT_CHECKED)
            raise

    def _recheck_rights(self) -> Iterator[None]:
        if self.state is not SessionState.OPEN:
            return
        if self._context.policy is None:
            self._drop_auth()
            self._resume_events()
            return
        error = self._current_auth().error
        if error is not None:
            self.close(CloseReason.POLICY, error.message.encode())
            return
        yield from self._recheck_subscriptions()

    def _recheck_subscriptions(self) -> Iterator[None]:
        """End the subscriptions that the identity does not allow, then let events pass again. If the identity changes
        meanwhile, stop: that change starts a check of its own."""
        auth = self._current_auth()
        identity, checked = auth.identity, self._checked_identity
        if checked is None or not checked.allows_the_same_as(identity):
            for channel in list(self.subscriptions):
                if channel in self.subscriptions and auth.check_access(channel, Right.READ):
                    self._forbid_channel(channel)
                yield
                if self.state is not SessionState.OPEN or self._context.policy is None:
                    return
                auth = self._current_auth()
                if auth.identity is not identity or auth.error:
                    return
        self._checked_identity = identity
        self.replies.flush()
        self._resume_events()

    def _resume_events(self) -> None:
        if self.replies.outlet.blocked & RIGHTS_UNCHECKED:
            self.replies.outlet.blocked &= ~RIGHTS_UNCHECKED
            self.broker.resume(self._subscriber)

    def _forbid_channel(self, channel: bytes) -> None:
        self._end_subscription(channel)
        words = b"right to read %b lost: the subscription has ended" % channel
        self.replies.write_between_replies(self.replies.encoder.notice(words, b"forbidden", channel))
        if self._read_only:
            self._close(CloseReason.POLICY, "the right to read a channel was lost")

    # Calls of the subscriber

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """The socket is full. ``cursor`` is the first offset that was not sent."""
        if not self.timeline.undo_caught_up(self.broker.clock()):
            self.add_step("behind", f"{channel.decode()} from {cursor}")

    def caught_up(self, channel: bytes) -> None:
        """All events of all channels were sent."""
        if self.timeline.is_behind():
            self.add_step("caught-up", channel.decode())

    def accept_loss(self, channel: bytes, first: int, last: int) -> bool:
        """The history does not contain events any more that were not sent. Returns True if the session continues
        without them; otherwise it is closed."""
        if self._context.limits.slow_consumer == "skip":
            if not self.timeline.has_just_recorded("lost", self.broker.clock()):
                self.add_step("lost", f"{channel.decode()} {first} to {last}")
            return True
        self.close(CloseReason.TRY_AGAIN, errors.READS_TOO_SLOWLY)
        return False

    def epoch_changed(self) -> None:
        """Close, so that the client subscribes again and learns that its position is of another epoch."""
        self.close(CloseReason.TRY_AGAIN, errors.EPOCH_CHANGED)
