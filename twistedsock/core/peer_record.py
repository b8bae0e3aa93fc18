"""What administrators can see of one session: while it lasts, and when it has ended. It holds addresses."""

import msgspec

from twistedsock.core.session import Session


class PeerRecord(msgspec.Struct, frozen=True, gc=False, rename={"client": "from", "server": "to"}):
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


def peer_record(session: Session, now: float) -> PeerRecord:
    """As things stand ``now``, by the broker's clock. It asks the socket, so it is for those who are shown."""
    peer, ends, reading, traffic = session.peer, session.ends, session.reading, session.traffic()
    return PeerRecord(
        peer.id.decode(),
        peer.nick.decode(),
        _subject(session),
        session.dialect_title,
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


class EndRecord(msgspec.Struct, frozen=True, gc=False, rename={"client": "from", "server": "to"}):
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


def end_record(session: Session, now: float, epoch: float) -> EndRecord:
    """To be called when the session is closed. ``now`` is by the broker's clock, which stood at 0 at ``epoch``, in
    seconds since 1970."""
    peer, ends, traffic = session.peer, session.ends, session.traffic()
    steps = {step.name: step for step in session.steps}
    how = steps["closed"].words
    closing = steps.get("closing")
    unsaid = ("server" if how == "aborted" else "peer", how)
    by, why = unsaid if closing is None else (closing.by, closing.words)
    return EndRecord(
        round(now + epoch, 3),
        peer.id.decode(),
        peer.nick.decode(),
        _subject(session),
        session.dialect_title,
        ends.client.decode(),
        ends.server.decode(),
        round(now - session.accepted_at, 3),
        None if traffic is None else traffic.sent,
        None if traffic is None else traffic.received,
        by,
        why,
        how,
    )


def _subject(session: Session) -> str:
    return "" if session.identity is None else session.identity.subject.decode()
