"""What is told about one peer to those who look after the bridge. It holds addresses, so it is for administrators."""

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


def lag_of(session: Session) -> int:
    """Events that are in the logs, and that it has not been sent yet."""
    return sum([subscription.channel.log.end - subscription.cursor for subscription in session.behind])


def peer_record(session: Session, now: float) -> PeerRecord:
    """As things stand ``now``, by the broker's clock. It asks the socket, so it is for those who are shown."""
    peer, ends, identity, traffic = session.peer, session.ends, session.identity, session.traffic()
    return PeerRecord(
        peer.id.decode(),
        peer.nick.decode(),
        "" if identity is None else identity.subject.decode(),
        session.dialect_title,
        ends.client.decode(),
        ends.server.decode(),
        round(now - session.accepted_at, 1),
        session.state.value,
        len(session.subscriptions),
        len(session.behind),
        lag_of(session),
        None if traffic is None else traffic.unsent,
        None if traffic is None else traffic.sent,
        None if traffic is None else traffic.received,
        None if traffic is None else round(1000 * traffic.rtt, 3),
    )
