"""What all conversations of one server share."""

from collections.abc import Callable
from dataclasses import dataclass

from twistedsock.core.admission import Admission
from twistedsock.core.broker import Backplane, Broker
from twistedsock.core.limits import Limits
from twistedsock.core.roster import Roster


@dataclass(frozen=True, slots=True)
class Bridge:
    broker: Broker
    roster: Roster
    admission: Admission
    limits: Limits
    version: bytes
    started: float
    """The broker's clock at the start, for the uptime."""

    def uptime(self) -> int:
        """Whole seconds since the start."""
        return int(self.broker.clock() - self.started)


def build(
    backplane: Backplane,
    limits: Limits,
    version: str,
    clock: Callable[[], float],
    schedule: Callable[[Callable[[], None]], None],
    draw_id: Callable[[], bytes],
) -> Bridge:
    """Put the parts together. ``schedule`` calls what it is given at the end of the reactor's turn."""
    broker = Broker(backplane, limits, clock, lambda: schedule(broker.turn))
    return Bridge(broker, Roster(draw_id), Admission(limits), limits, version.encode(), clock())
