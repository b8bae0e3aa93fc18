"""What a connection goes through, step by step, and who wants to hear of it."""

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from twistedsock.session.session import Session

MAX_STEPS = 20
"""Steps that are kept of one connection, beside those by which it came in: its first ones, and the newest. Who falls
behind and catches up all day must not fill the memory; nobody reads more of them."""

FIRST_STEPS = 6
"""Of these, how many are its first ones."""

MAX_WORDS = 80
"""Characters that are kept of the words of a step."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """``at`` is the broker's clock. ``name`` is one of accepted, proxied, handshake, open, authenticated, behind,
    caught-up, lost, closing and closed. ``words`` are what is to say of just this one: which handshake, as whom, of
    which channel, why. ``by`` says who did it, ``peer`` or ``server``, where that is a question."""

    at: float
    name: str
    words: str = ""
    by: str = ""


class HandshakeInfo(msgspec.Struct, frozen=True, gc=False):
    """How a connection came in, where there is more to tell than that a session began. ``accepted_at`` is when its port
    took it; ``steps`` are what came then; ``handshake`` is the last of these, which was complete when the session
    began."""

    accepted_at: float
    handshake: str = ""
    steps: tuple[Step, ...] = ()


class ConnectionListener(Protocol):
    """Who looks on. It must not raise, and not hold what it is told of."""

    def opened(self, session: "Session") -> None:
        """A session has begun."""

    def stepped(self, session: "Session", step: Step) -> None:
        """It has gone a step further."""

    def closed(self, session: "Session") -> None:
        """It is over; its socket may be open still, for a last look at its figures."""


class ConnectionEvents:
    """``watchers`` are told in their order."""

    __slots__ = ("watchers",)

    def __init__(self) -> None:
        self.watchers: list[ConnectionListener] = []

    def opened(self, session: "Session") -> None:
        for watcher in self.watchers:
            watcher.opened(session)

    def stepped(self, session: "Session", step: Step) -> None:
        for watcher in self.watchers:
            watcher.stepped(session, step)

    def closed(self, session: "Session") -> None:
        for watcher in self.watchers:
            watcher.closed(session)


def append_bounded(steps: list[Step], step: Step) -> None:
    """Add a step to those of one connection; where they are too many, one from between goes."""
    if len(steps) >= MAX_STEPS:
        del steps[FIRST_STEPS]
    steps.append(step)


class ConnectionInfo(msgspec.Struct, frozen=True, gc=False, rename={"client": "from", "server": "to"}):
    """``age`` is in seconds, ``unsent``, ``sent`` and ``received`` in bytes. Null is what the connection's machine does
    not tell, as with Unix sockets."""

    id: str
    nick: str
    subject: str
    """Empty for those who have proved nothing."""
    dialect: str
    client: str
    server: str
    age: float
    state: str
    channels: int
    behind: int
    """Channels of which it has not read all yet."""
    lag: int
    """Events that it has still to read, on all of them."""
    unsent: int | None
    sent: int | None
    received: int | None
    rtt_ms: float | None


def connection_info(session: "Session", now: float) -> ConnectionInfo:
    """As things stand ``now``, by the broker's clock. It asks the socket, so it is for those who are shown."""
    peer, ends, reading, traffic = session.client, session.endpoints, session.read_progress, session.tcp_stats()
    return ConnectionInfo(
        peer.id.decode(),
        peer.nick.decode(),
        _subject(session),
        session.protocol,
        ends.client.decode(),
        ends.server.decode(),
        round(now - session.accepted_at, 1),
        session.state.value,
        reading.channels,
        reading.behind,
        reading.lag,
        None if traffic is None else traffic.unsent,
        None if traffic is None else traffic.sent,
        None if traffic is None else traffic.received,
        None if traffic is None else round(1000 * traffic.rtt, 3),
    )


class ClosedConnectionInfo(msgspec.Struct, frozen=True, gc=False, rename={"client": "from", "server": "to"}):
    """A session that has ended. ``at`` is in seconds since 1970; ``sent`` and ``received`` are null if the system does
    not report them."""

    at: float
    id: str
    nick: str
    subject: str
    """Empty for clients that have proved no identity."""
    dialect: str
    client: str
    server: str
    seconds: float
    """Since its connection was accepted."""
    sent: int | None
    received: int | None
    by: str
    """Who has ended it: ``peer`` or ``server``."""
    why: str
    """The reason that was given; ``how`` if there was none."""
    how: str
    """``cleanly``: both sides have ended their streams. ``broken``: it was reset, or the other machine did not answer.
    ``aborted``: the server has reset it. Empty if that is not known."""


def closed_connection_info(session: "Session", now: float, epoch: float) -> ClosedConnectionInfo:
    """To be called when the session is closed. ``now`` is by the broker's clock, which stood at 0 at ``epoch``, in
    seconds since 1970."""
    peer, ends, traffic = session.client, session.endpoints, session.tcp_stats()
    steps = {step.name: step for step in session.steps}
    how = steps["closed"].words
    closing = steps.get("closing")
    unsaid = ("server" if how == "aborted" else "peer", how)
    by, why = unsaid if closing is None else (closing.by, closing.words)
    return ClosedConnectionInfo(
        round(now + epoch, 3),
        peer.id.decode(),
        peer.nick.decode(),
        _subject(session),
        session.protocol,
        ends.client.decode(),
        ends.server.decode(),
        round(now - session.accepted_at, 3),
        None if traffic is None else traffic.sent,
        None if traffic is None else traffic.received,
        by,
        why,
        how,
    )


def _subject(session: "Session") -> str:
    return "" if session.identity is None else session.identity.subject.decode()


# TODO-MERGED-DOC: What administrators can see of one session: while it lasts, and when it has ended. It holds
# addresses.
