"""Who is connected: sessions by id."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from twistedsock.auth.expiry import ExpiryWatcher
from twistedsock.auth.identity import Identity, Policy
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.memory import MemoryBudget
from twistedsock.limits.principal import Principal, is_remote
from twistedsock.limits.rate import Decision, RateLimiterPool
from twistedsock.limits.settings import Limits
from twistedsock.pubsub.backplane import Backplane
from twistedsock.pubsub.broker import Broker
from twistedsock.pubsub.scheduler import do_nothing
from twistedsock.pubsub.subscription import Client
from twistedsock.session.timeline import ConnectionEvents
from twistedsock.stats import Stats


class RegisteredSession(Protocol):
    """Who can be on the sessions: a session."""

    client: Client

    def close(self, ending: CloseReason, words: bytes) -> None:
        """Tell the peer why, and close."""

    def pause_events(self) -> None:
        """Send no events until the next review has ended."""

    def recheck_rights(self) -> Iterator[object]:
        """The policy is another; step by step."""


class SessionRegistry:
    """``draw_id`` gives a short random name; it is asked again while somebody has that name."""

    def __init__(self, draw_id: Callable[[], bytes]) -> None:
        self._draw_id = draw_id
        self._guests: dict[bytes, RegisteredSession | None] = {}
        self._on_empty: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[RegisteredSession]:
        return iter([guest for guest in self._guests.values() if guest is not None])

    def __contains__(self, id: bytes) -> bool:
        return id in self._guests

    def new_id(self) -> bytes:
        """An id that nobody has; it is taken until ``remove``."""
        while (id := self._draw_id()) in self._guests:
            pass
        self._guests[id] = None
        return id

    def add(self, guest: RegisteredSession) -> None:
        self._guests[guest.client.id] = guest

    def get(self, id: bytes) -> RegisteredSession | None:
        """Who has that id."""
        return self._guests.get(id)

    def remove(self, guest: RegisteredSession) -> None:
        self.give_back(guest.client.id)

    def give_back(self, id: bytes) -> None:
        """Nobody has that id any longer."""
        self._guests.pop(id, None)
        if not self._guests and self._on_empty is not None:
            self._on_empty()

    def when_empty(self, callback: Callable[[], None]) -> None:
        """Call back when the last one is gone: now, if there is none."""
        self._on_empty = callback
        if not self._guests:
            callback()


@dataclass(slots=True)
class ServerContext:
    broker: Broker
    sessions: SessionRegistry
    connection_limiter: ConnectionLimiter
    limits: Limits
    version: bytes
    started: float
    """The broker's clock at the start, for the uptime."""
    expiry_watcher: ExpiryWatcher
    rate_limiters: RateLimiterPool
    """The rates of remote clients."""
    policy: Policy | None = None
    """None: everybody may do everything. To be changed by ``change_policy``, but before the first connection."""
    draining: bool = False
    """Whether the server is going away: who is connected is let go in peace, and nobody new is served."""
    connection_events: ConnectionEvents = field(default_factory=ConnectionEvents)
    """What connections go through, and who wants to hear of it."""

    @property
    def memory_budget(self) -> MemoryBudget:
        """What all connections hold together."""
        return self.broker.memory_budget

    @property
    def stats(self) -> Stats:
        """What has happened since the start."""
        return self.broker.stats

    def is_admin(self, identity: Identity | None, client: bytes) -> bool:
        """Whether somebody may look behind the scenes, and send others away: whom the policy calls an administrator.
        Where there is no policy, everybody on this machine. ``client`` is the far end of the connection, as people
        write it."""
        if self.policy is None:
            return not is_remote(client)
        return identity is not None and identity.is_admin

    def uptime(self) -> int:
        """Whole seconds since the start."""
        return int(self.broker.clock() - self.started)

    def authenticate(
        self, listener: str, token: bytes | None = None, subject: bytes | None = None
    ) -> Identity | Error | None:
        """What the policy finds of what a peer has shown on its way in: a token, or the name in its certificate. None
        where it has shown nothing, or nobody looks."""
        if self.policy is not None and token is not None:
            return self.policy.by_token(token, listener)
        if self.policy is not None and subject is not None:
            return self.policy.by_certificate(subject, listener)
        return None

    def charge(self, principal: Principal, price: float, size: int = 0) -> bool:
        """Charge work to a client, and ``size`` bytes that were read; whether that is within its rate."""
        now = self.broker.clock()
        meter = self.rate_limiters.get(principal, now)
        return meter is None or meter.check(price, meter.count_bytes(size, now)) is Decision.ALLOW

    def change_policy(self, policy: Policy | None, done: Callable[[], object] = do_nothing) -> None:
        """Replace the policy. It holds at once for all commands, and for all events that are published from now on: a
        session gets none before its subscriptions have been checked. That takes time slices; ``done`` is called in the
        end. An exception in one session does not stop the others: all are raised in the end as an ExceptionGroup."""
        if policy is None and self.policy is None:
            done()
            return
        try:
            self.broker.flush(is_complete=True)  # what was published before is for those who could read it then
        finally:  # an error while sending must not keep the former policy in force
            self.policy = policy
            sessions = list(self.sessions)
            for session in sessions:
                session.pause_events()
            self.broker.scheduler.run_calls(
                [session.recheck_rights for session in sessions], "peers could not be reviewed", done
            )

    def close_all(self, ending: CloseReason, words: bytes) -> None:
        """Close all sessions, in time slices, and say why."""
        self.draining = True
        calls = [partial(session.close, ending, words) for session in self.sessions]
        self.broker.scheduler.run_calls(calls, "peers could not be told that they are sent away")


def build_context(
    backplane: Backplane,
    limits: Limits,
    version: str,
    clock: Callable[[], float],
    schedule: Callable[[Callable[[], None]], None],
    draw_id: Callable[[], bytes],
    wall_clock: Callable[[], float],
) -> ServerContext:
    """Put the parts together. ``schedule`` calls what it is given at the end of the reactor's turn; ``clock`` never
    goes back, ``wall_clock`` gives the seconds since 1970."""
    broker = Broker(backplane, limits, clock, lambda: schedule(broker.run_turn))
    expiry_watcher = ExpiryWatcher(wall_clock, broker.scheduler.run_calls)
    return ServerContext(
        broker,
        SessionRegistry(draw_id),
        ConnectionLimiter(limits),
        limits,
        version.encode(),
        clock(),
        expiry_watcher,
        RateLimiterPool(limits),
    )


# TODO-MERGED-DOC: What all conversations of one server share.
