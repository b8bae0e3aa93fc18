"""The state of one client on the server: its subscriptions, identity and timeline, from the welcome to the close.

``session.handlers`` runs the commands of the client, and changes this state.
"""

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import msgspec

from twistedsock import errors
from twistedsock.auth.identity import Identity, Right
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.principal import LOCAL, client_principal
from twistedsock.limits.rate import RateLimiter
from twistedsock.pubsub.subscription import (
    NULL_CALLBACKS,
    RIGHTS_UNCHECKED,
    Client,
    EventEncoder,
    Outlet,
    Subscriber,
    Subscription,
)
from twistedsock.session.authorizer import SessionAuth
from twistedsock.session.commands import Close, Command, Subscribe
from twistedsock.session.encoder import Encoder, Endpoints
from twistedsock.session.replies import NO_INPUT, PendingReplies, ReplyWriter
from twistedsock.session.timeline import HandshakeInfo, Timeline
from twistedsock.stats import TcpStats

if TYPE_CHECKING:
    from twistedsock.limits.shares import MemoryBudget
    from twistedsock.pubsub.broker import Broker
    from twistedsock.pubsub.channel import Channel
    from twistedsock.session.registry import SessionContext


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


class SessionConnection(Protocol):
    """What carries a session and its input."""

    def close_connection(self, reason: CloseReason) -> None:
        """Close after the bytes that were written. Called once."""

    def pause_input(self) -> None:
        """Stop reading from the socket."""

    def resume_input(self) -> None:
        """Read again: all commands so far have been run."""


class Session:
    """``listener`` is the endpoint through which the client connected, as configured. A ``read_only`` session belongs
    to a stream without commands: when the client loses the right to read one of its channels, it is closed, because
    the client then connects again and receives the error as a response."""

    __slots__ = (
        "_auth",
        "_checked_identity",
        "_final_progress",
        "_listener",
        "_read_only",
        "broker",
        "client",
        "close_message",
        "connection",
        "context",
        "deferred_command",
        "endpoints",
        "is_rate_limited",
        "pending_replies",
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
        connection: SessionConnection,
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
        subscriber = Subscriber(self.client, encoder, outlet, self, broker.memory_budget, broker.stats)
        self.replies = ReplyWriter(broker, encoder, subscriber)
        self.context = context
        self.broker: Broker = broker
        self.connection = connection
        self._listener = listener
        self._read_only = read_only
        # Created for the first publish that waits, because an empty one is a third of an idle session.
        self.pending_replies: PendingReplies | None = None
        self.deferred_command: Command | None = None
        """The next command, which waits for these replies."""
        # The identity by which all subscriptions have been checked.
        self._checked_identity: Identity | None = None
        self._final_progress: ReadProgress | None = None
        self._auth: SessionAuth | None = None
        if context.policy is not None:
            self._auth = SessionAuth(context, context.policy, listener, self.client, endpoints.client)
        context.sessions.add(self.client.id, self)
        broker.stats.count_session_opened(encoder.title)
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
        return self.context.rate_limiters.get(self.client.principal, self.broker.clock())

    @property
    def behind(self) -> dict[Subscription, None]:
        """The subscriptions with events that were not sent yet."""
        return self.replies.subscriber.behind

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
        self.context.connection_events.stepped(self, step)

    # Opening and closing

    def send_welcome(self, prefix: bytes = b"", outcome: Identity | Error | None = None) -> None:
        """Write the first message. ``prefix`` leaves with it: the response to a handshake. ``outcome`` is the result of
        the authentication in the handshake; an error closes the session."""
        self.replies.write(prefix + self.replies.encoder.welcome(self.client.id, self.endpoints))
        if self._auth is not None and outcome is not None:
            error = self.update_identity(self._auth.apply_identity(outcome))
            if error is not None:
                self.replies.write_error(None, error)
                self.finish(CloseReason.POLICY, error.message)
            else:
                self.add_step("authenticated", self._auth.identity.subject.decode())
        self.replies.flush()

    def set_encoder(self, encoder: Encoder) -> None:
        """Change the protocol, before the first command."""
        self.context.stats.count_session_closed(self.protocol)
        self.context.stats.count_session_opened(encoder.title)
        self.replies.encoder = self.replies.subscriber.encoder = encoder

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
            self.send_undelivered()
            if not self.replies.has_unfinished_reply:
                self.replies.write(self.replies.encoder.notice(message, code))
                self.replies.write(self.replies.encoder.bye(b""))
            self.finish(reason, message.decode())

    def close_when_answered(self, reason: CloseReason, message: bytes) -> None:
        """Run no more input. Close when the commands that are being run, such as publications that wait for the
        backplane, are answered, or now if no command is running."""
        is_waiting = self.pending_replies or self.replies.is_busy
        if not (is_waiting and self.replies.input.end_with(Close(reason, message))):
            self.close(reason, message)

    def close_with_error(self, error: Error) -> None:
        """The server has no resources for the client: send the error, and close, so that the client
        connects again later."""
        if self.state is SessionState.OPEN:
            self.send_undelivered()
            if not self.replies.has_unfinished_reply:
                self.replies.write_error(None, error)
            self.finish(CloseReason.TRY_AGAIN, error.message)

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
        self.pending_replies = self.deferred_command = None
        self.replies.drop_unfinished_reply()
        self.replies.input = NO_INPUT
        self.replies.subscriber.callbacks = NULL_CALLBACKS
        self.context.stats.count_session_closed(self.protocol)
        self.context.connection_events.closed(self)
        self._drop_auth()
        self.context.sessions.remove(self.client.id)

    def finish(self, reason: CloseReason, message: str = "", by: str = "server") -> None:
        """Close the connection after the bytes that were written, without a notice."""
        self.replies.flush()
        try:
            self.mark_closing(message, by)
        finally:
            self.connection.close_connection(reason)

    def _stop(self) -> None:
        self.replies.flush()
        self.replies.is_closed = True
        self.state = SessionState.CLOSING
        self._final_progress = self.read_progress
        for subscription in self.subscriptions.values():
            self.broker.unsubscribe(subscription)
        self.subscriptions.clear()
        self.broker.remove_subscriber(self.replies.subscriber)

    # Charges and subscriptions

    def charge(self, price: float) -> None:
        """Charge the cost of a command that was not known before."""
        if (limiter := self.rate_limiter) is not None:
            limiter.charge(price)

    def send_undelivered(self) -> None:
        """Send the events that this session has not got yet, before its last message."""
        self.replies.flush()
        for subscription in self.subscriptions.values():
            self.broker.send_undelivered(subscription)

    def event_encoder(self, command: Subscribe) -> EventEncoder:
        """The encoder for the events of a subscription. All sessions of a protocol share it, so that they also share
        the encoded bytes."""
        encoder = command.encoder or self.replies.subscriber.encoder
        return encoder.with_time() if command.with_time else encoder

    def add_subscription(self, channel: "Channel", echo: bool, presence: bool, encoder: EventEncoder) -> Subscription:
        subscription = Subscription(self.replies.subscriber, channel, echo, presence, encoder)
        if not self.subscriptions:
            self._checked_identity = self.identity
        elif self._checked_identity is not self.identity:
            self._checked_identity = None  # the other subscriptions were checked by another identity
        self.subscriptions[channel.name] = subscription
        self.broker.subscribe(channel, subscription)
        return subscription

    def end_subscription(self, channel: bytes) -> None:
        self.replies.flush()
        self.broker.send_undelivered(self.subscriptions[channel])
        self.broker.unsubscribe(self.subscriptions.pop(channel))

    def rename(self, nick: bytes) -> None:
        self.client.nick = nick
        for subscription in self.subscriptions.values():
            self.broker.member_renamed(subscription)

    # Identity and rights

    def current_auth(self) -> SessionAuth:
        """The identity under the policy that is in force now. There must be one."""
        policy, auth = self.context.policy, self._auth
        assert policy is not None
        if auth is None:
            auth = self._auth = SessionAuth(self.context, policy, self._listener, self.client, self.endpoints.client)
            self.update_identity(auth.recheck(policy))
        elif auth.policy is not policy:
            self.update_identity(auth.recheck(policy))
        return auth

    def update_identity(self, error: Error | None) -> Error | None:
        """Let the connection follow the identity that was adopted without an error. Returns the error."""
        auth = self._auth
        if error is None and auth is not None:
            self.context.expiry_watcher.watch(self.token_expires, auth.identity.expires)
            if auth.nick != self.client.nick:
                self.rename(auth.nick)
        return error

    def _drop_auth(self) -> None:
        if self._auth is not None:
            self._auth.release()
            self.context.expiry_watcher.watch(self.token_expires, None)
            self._auth = None

    def token_expires(self, seconds: float) -> None:
        """The token expires in so many seconds: 0 closes the session, more is a warning."""
        if seconds <= 0:
            self.close(CloseReason.POLICY, errors.TOKEN_EXPIRED)
        elif self.state is SessionState.OPEN:
            self._notify(b"token expires in %d seconds: authenticate with a new one" % seconds, b"token-expires")

    def notify_subscriber(self, text: bytes, code: bytes) -> None:
        """Send a notice if the client has subscriptions."""
        if self.subscriptions and self.state is SessionState.OPEN:
            self._notify(text, code)

    def _notify(self, text: bytes, code: bytes) -> None:
        self.replies.write_between_replies(self.replies.encoder.notice(text, code))
        self.replies.flush()

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
        if self.context.policy is None:
            self._drop_auth()
            self._resume_events()
            return
        error = self.current_auth().error
        if error is not None:
            self.close(CloseReason.POLICY, error.message.encode())
            return
        yield from self._recheck_subscriptions()

    def _recheck_subscriptions(self) -> Iterator[None]:
        """End the subscriptions that the identity does not allow, then let events pass again. If the identity changes
        meanwhile, stop: that change starts a check of its own."""
        auth = self.current_auth()
        identity, checked = auth.identity, self._checked_identity
        if checked is None or not checked.allows_the_same_as(identity):
            for channel in list(self.subscriptions):
                if channel in self.subscriptions and auth.check_access(channel, Right.READ):
                    self._forbid_channel(channel)
                yield
                if self.state is not SessionState.OPEN or self.context.policy is None:
                    return
                auth = self.current_auth()
                if auth.identity is not identity or auth.error:
                    return
        self._checked_identity = identity
        self.replies.flush()
        self._resume_events()

    def _resume_events(self) -> None:
        if self.replies.outlet.blocked & RIGHTS_UNCHECKED:
            self.replies.outlet.blocked &= ~RIGHTS_UNCHECKED
            self.broker.resume(self.replies.subscriber)

    def _forbid_channel(self, channel: bytes) -> None:
        self.end_subscription(channel)
        words = b"right to read %b lost: the subscription has ended" % channel
        self.replies.write_between_replies(self.replies.encoder.notice(words, b"forbidden", channel))
        if self._read_only:
            self.finish(CloseReason.POLICY, "the right to read a channel was lost")

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
        if self.context.limits.slow_consumer == "skip":
            if not self.timeline.has_just_recorded("lost", self.broker.clock()):
                self.add_step("lost", f"{channel.decode()} {first} to {last}")
            return True
        self.close(CloseReason.TRY_AGAIN, errors.READS_TOO_SLOWLY)
        return False
