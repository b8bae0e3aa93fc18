"""One peer, and what its connection has gone through."""

import msgspec

from twistedsock.core.journal import Step
from twistedsock.core.peer_record import PeerRecord
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
    peer: PeerRecord | None
    steps: list[ToldStep]


def told(step: Step, epoch: float, over_unix: bool) -> ToldStep:
    """``epoch`` is when the broker's clock stood at 0, in seconds since 1970."""
    return ToldStep(round(step.at + epoch, 6), step.name, lesson(step, over_unix), step.words, step.by)


def timeline(record: PeerRecord, steps: list[Step], epoch: float) -> bytes:
    """The page of one peer."""
    over_unix = record.client.startswith("unix:")
    return _encode(Timeline(record, [told(step, epoch, over_unix) for step in steps]))


UNKNOWN = _encode(Timeline(None, []))
"""The page of an id that no session has, and none of those that ended last."""
