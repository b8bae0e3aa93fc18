"""What all conversations of one server share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from twistedsock.core.access import Identity, Policy
from twistedsock.core.admission import Admission
from twistedsock.core.backplane import Backplane
from twistedsock.core.broker import Broker, nothing
from twistedsock.core.dialect import Ending
from twistedsock.core.errors import Refusal
from twistedsock.core.expiry import Expiries
from twistedsock.core.holdings import Holdings
from twistedsock.core.journal import Journal
from twistedsock.core.limits import Limits
from twistedsock.core.principal import Principal, is_stranger
from twistedsock.core.rate import Meters, Verdict
from twistedsock.core.roster import Roster
from twistedsock.core.tally import Tally


@dataclass(slots=True)
class Bridge:
    broker: Broker
    roster: Roster
    admission: Admission
    limits: Limits
    version: bytes
    started: float
    """The broker's clock at the start, for the uptime."""
    expiries: Expiries
    meters: Meters
    """The rates of remote clients."""
    policy: Policy | None = None
    """None: everybody may do everything. To be changed by ``change_policy``, but before the first connection."""
    draining: bool = False
    """Whether the server is going away: who is connected is let go in peace, and nobody new is served."""
    journal: Journal = field(default_factory=Journal)
    """What connections go through, and who wants to hear of it."""

    @property
    def holdings(self) -> Holdings:
        """What all connections hold together."""
        return self.broker.holdings

    @property
    def tally(self) -> Tally:
        """What has happened since the start."""
        return self.broker.tally

    def is_admin(self, identity: Identity | None, client: bytes) -> bool:
        """Whether somebody may look behind the scenes, and send others away: whom the policy calls an administrator.
        Where there is no policy, everybody on this machine. ``client`` is the far end of the connection, as people
        write it."""
        if self.policy is None:
            return not is_stranger(client)
        return identity is not None and identity.is_admin

    def uptime(self) -> int:
        """Whole seconds since the start."""
        return int(self.broker.clock() - self.started)

    def recognize(
        self, listener: str, token: bytes | None = None, subject: bytes | None = None
    ) -> Identity | Refusal | None:
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
        meter = self.meters.of(principal, now)
        return meter is None or meter.judge(price, meter.read(size, now)) is Verdict.RUN

    def change_policy(self, policy: Policy | None, done: Callable[[], object] = nothing) -> None:
        """Replace the policy. It holds at once for all commands, and for all events that are published from now on: a
        session gets none before its subscriptions have been checked. That takes time slices; ``done`` is called in the
        end. An exception in one session does not stop the others: all are raised in the end as an ExceptionGroup."""
        if policy is None and self.policy is None:
            done()
            return
        try:
            self.broker.flush(is_whole=True)  # what was published before is for those who could read it then
        finally:  # an error while sending must not keep the former policy in force
            self.policy = policy
            sessions = list(self.roster)
            for session in sessions:
                session.hold_events()
            self.broker.make_calls([session.review for session in sessions], "peers could not be reviewed", done)

    def dismiss_all(self, ending: Ending, words: bytes) -> None:
        """Close all sessions, in time slices, and say why."""
        self.draining = True
        calls = [partial(session.dismiss, ending, words) for session in self.roster]
        self.broker.make_calls(calls, "peers could not be told that they are sent away")


def build(
    backplane: Backplane,
    limits: Limits,
    version: str,
    clock: Callable[[], float],
    schedule: Callable[[Callable[[], None]], None],
    draw_id: Callable[[], bytes],
    wall_clock: Callable[[], float],
) -> Bridge:
    """Put the parts together. ``schedule`` calls what it is given at the end of the reactor's turn; ``clock`` never
    goes back, ``wall_clock`` gives the seconds since 1970."""
    broker = Broker(backplane, limits, clock, lambda: schedule(broker.turn))
    expiries = Expiries(wall_clock, broker.make_calls)
    return Bridge(
        broker, Roster(draw_id), Admission(limits), limits, version.encode(), clock(), expiries, Meters(limits)
    )
