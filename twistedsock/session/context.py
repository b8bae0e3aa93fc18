"""The context of a server: everything its connections share, and what is done to all sessions at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twistedsock.auth.expiry import ExpiryWatcher
from twistedsock.auth.identity import Identity, Policy
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.principal import Principal
from twistedsock.limits.rate import Decision, RateLimiterPool
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Backplane
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.channel_index import ChannelIndex
from twistedsock.pubsub.scheduler import do_nothing
from twistedsock.pubsub.values import NodeCommand
from twistedsock.session.idempotency import Idempotency
from twistedsock.session.registry import SessionContext, SessionRegistry
from twistedsock.session.session import Session


@dataclass(slots=True)
class ServerContext(SessionContext[Session]):
    def authenticate(
        self, listener: str, token: bytes | None = None, subject: bytes | None = None
    ) -> Identity | Error | None:
        """The identity of a new client that presented a token, or a certificate with the name ``subject``. None if it
        presented neither, or if there is no policy."""
        if self.policy is not None and token is not None:
            return self.policy.by_token(token, listener)
        if self.policy is not None and subject is not None:
            return self.policy.by_certificate(subject, listener)
        return None

    def charge(self, principal: Principal, price: float, size: int = 0) -> bool:
        """Charge work, and ``size`` bytes of input, to a client. Returns False if its rate is exceeded."""
        now = self.broker.clock()
        limiter = self.rate_limiters.get(principal, now)
        return limiter is None or limiter.check(price, limiter.count_bytes(size, now)) is Decision.ALLOW

    def change_policy(self, policy: Policy | None, done: Callable[[], object] = do_nothing) -> None:
        """Replace the policy. It is in force at once for all commands, and for all events that are published from now
        on: a session gets no events before its subscriptions have been checked. That takes several time slices;
        ``done`` is called at the end. An exception in one session does not stop the others: all are raised at the end
        as an ExceptionGroup."""
        if policy is None and self.policy is None:
            done()
            return
        try:
            self.broker.flush(is_complete=True)  # events that are already published are checked by the former policy
        finally:  # an error while sending must not keep the former policy in force
            self.policy = policy
            sessions = list(self.sessions)
            for session in sessions:
                session.pause_events()
            calls = [session.recheck_rights for session in sessions]
            self.broker.scheduler.run_calls(calls, "the rights of some sessions could not be checked", done)

    def run_command(self, command: NodeCommand) -> None:
        """Run a command of another node."""
        session = self.sessions.get(command.id)
        if session is not None:
            session.close(CloseReason.POLICY, command.message, command.code)

    def close_all(self, reason: CloseReason, message: bytes, waits: bool = False) -> None:
        """Close all sessions, in time slices, with this message. With ``waits``, sessions run no more commands, and
        those whose commands wait for answers are closed when they have them."""
        self.draining = True
        calls = [partial(_close, session, reason, message, waits) for session in self.sessions]
        self.broker.scheduler.run_calls(calls, "some sessions could not be closed")


def _close(session: Session, reason: CloseReason, message: bytes, waits: bool) -> None:
    if waits:
        session.close_when_answered(reason, message)
    else:
        session.close(reason, message)


def build_context(
    backplane: Backplane,
    limits: Limits,
    version: str,
    clock: Callable[[], float],
    schedule: Callable[[Callable[[], None]], None],
    draw_id: Callable[[], bytes],
    wall_clock: Callable[[], float],
) -> ServerContext:
    """Build the parts of a server. ``schedule`` calls a function at the end of the reactor's turn; ``clock`` is
    monotonic, ``wall_clock`` returns the seconds since 1970."""
    broker = Broker(backplane, limits, clock, lambda: schedule(broker.run_turn), wall_clock)
    context = ServerContext(
        broker,
        SessionRegistry(draw_id, backplane.node_name),
        ConnectionLimiter(limits),
        ChannelIndex(broker),
        # Another node, or the process after a restart, may get the next attempt.
        Idempotency(clock, is_shared=bool(backplane.node_name) or backplane.keeps_history),
        limits,
        version.encode(),
        clock(),
        wall_clock,
        ExpiryWatcher(wall_clock, broker.scheduler.run_calls),
        RateLimiterPool(limits),
    )
    broker.handle_command = context.run_command
    return context
