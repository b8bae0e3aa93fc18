"""What administrators can see of one session: while it is open, and when it has ended. It contains addresses."""

import msgspec

from twistedsock.session.session import Session


class ConnectionInfo(msgspec.Struct, frozen=True, gc=False, rename={"client": "from", "server": "to"}):
    """``age`` is in seconds, ``unsent``, ``sent`` and ``received`` in bytes. Null stands for values that the kernel
    does not provide, as with Unix sockets."""

    id: str
    nick: str
    subject: str
    """Empty without a proved identity."""
    dialect: str
    client: str
    server: str
    age: float
    state: str
    channels: int
    behind: int
    """Channels with events that were not sent yet."""
    lag: int
    """The number of these events."""
    unsent: int | None
    sent: int | None
    received: int | None
    rtt_ms: float | None


class ClosedConnectionInfo(msgspec.Struct, frozen=True, gc=False, rename={"client": "from", "server": "to"}):
    """``at`` is the time of the end, in seconds since 1970."""

    at: float
    id: str
    nick: str
    subject: str
    """Empty without a proved identity."""
    dialect: str
    client: str
    server: str
    seconds: float
    """Since the connection was accepted."""
    sent: int | None
    received: int | None
    by: str
    """Which side ended it: ``peer`` or ``server``."""
    why: str
    """The reason that was given, or ``how``."""
    how: str
    """``cleanly``: both sides ended their streams. ``broken``: it was reset, or the other machine did not answer.
    ``aborted``: the server reset it. Empty if unknown."""


def connection_info(session: Session, now: float) -> ConnectionInfo:
    """The present state. ``now`` is the broker's clock. It makes a system call, so call it only for sessions that are
    shown."""
    client, endpoints = session.client, session.endpoints
    progress, tcp = session.read_progress, session.tcp_stats()
    return ConnectionInfo(
        client.id.decode(),
        client.nick.decode(),
        _subject(session),
        session.protocol,
        endpoints.client.decode(),
        endpoints.server.decode(),
        round(now - session.timeline.accepted_at, 1),
        session.state.value,
        progress.channels,
        progress.behind,
        progress.lag,
        None if tcp is None else tcp.unsent,
        None if tcp is None else tcp.sent,
        None if tcp is None else tcp.received,
        None if tcp is None else round(1000 * tcp.rtt, 3),
    )


def closed_connection_info(session: Session, now: float, epoch: float) -> ClosedConnectionInfo:
    """The record of a session that is closed now. ``epoch`` is the time at which the broker's clock stood at 0, in
    seconds since 1970."""
    client, endpoints, tcp = session.client, session.endpoints, session.tcp_stats()
    steps = {step.name: step for step in session.timeline.steps}
    how = steps["closed"].words
    closing = steps.get("closing")
    if closing is None:
        by, why = "server" if how == "aborted" else "peer", how
    else:
        by, why = closing.by, closing.words
    return ClosedConnectionInfo(
        round(now + epoch, 3),
        client.id.decode(),
        client.nick.decode(),
        _subject(session),
        session.protocol,
        endpoints.client.decode(),
        endpoints.server.decode(),
        round(now - session.timeline.accepted_at, 3),
        None if tcp is None else tcp.sent,
        None if tcp is None else tcp.received,
        by,
        why,
        how,
    )


def _subject(session: Session) -> str:
    return "" if session.identity is None else session.identity.subject.decode()
