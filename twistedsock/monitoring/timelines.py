"""One peer, and what its connection has gone through: as a page of its own, and in one line at its end."""

import msgspec

from twistedsock.core.journal import Step
from twistedsock.core.peer_record import PeerRecord
from twistedsock.core.session import Session
from twistedsock.monitoring.lessons import lesson

_encode = msgspec.json.Encoder().encode


class ToldStep(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """``at`` is in seconds since 1970. ``detail`` is what there is to say of just this one."""

    at: float
    step: str
    words: str
    detail: str = ""
    by: str = ""


class Timeline(msgspec.Struct, frozen=True):
    peer: PeerRecord
    steps: list[ToldStep]


class Closed(msgspec.Struct, frozen=True):
    """A connection that has ended: ``by`` whom, the peer or the server, and ``why``."""

    id: str
    dialect: str
    client: str = msgspec.field(name="from")
    seconds: float
    sent: int | None
    received: int | None
    by: str
    why: str


def told(step: Step, epoch: float, over_unix: bool) -> ToldStep:
    """``epoch`` is when the broker's clock stood at 0, in seconds since 1970."""
    return ToldStep(round(step.at + epoch, 6), step.name, lesson(step, over_unix), step.words, step.by)


def timeline(record: PeerRecord, steps: list[Step], epoch: float) -> bytes:
    """The page of one peer."""
    over_unix = record.client.startswith("unix:")
    return _encode(Timeline(record, [told(step, epoch, over_unix) for step in steps]))


def closed(session: Session, now: float) -> bytes:
    """The line at its end. Who says nothing before it goes has gone by itself."""
    by, why = "peer", ""
    for step in session.steps:
        if step.name == "closing" or (step.name == "closed" and not why):
            by, why = step.by or by, step.words
    traffic = session.traffic()
    return _encode(
        Closed(
            id=session.peer.id.decode(),
            dialect=session.dialect_title,
            client=session.ends.client.decode(),
            seconds=round(now - session.accepted_at, 3),
            sent=None if traffic is None else traffic.sent,
            received=None if traffic is None else traffic.received,
            by=by,
            why=why,
        )
    )
