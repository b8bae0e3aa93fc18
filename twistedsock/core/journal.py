"""What a connection goes through, step by step, and who wants to hear of it."""

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from twistedsock.core.session import Session

MOST_STEPS = 20
"""Steps that are kept of one connection, beside those by which it came in: its first ones, and the newest. Who falls
behind and catches up all day must not fill the memory; nobody reads more of them."""

FIRST_STEPS = 6
"""Of these, how many are its first ones."""

MOST_WORDS = 80
"""Characters that are kept of the words of a step."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """``at`` is the broker's clock. ``name`` is one of accepted, proxied, handshake, open, authenticated, behind,
    caught-up, lost, closing and closed. ``words`` are what is to say of just this one: which handshake, as whom, of
    which channel, why. ``by`` says who did it, ``peer`` or ``server``, where that is a question."""

    at: float
    name: str
    words: str = ""
    by: str = ""


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """How a connection came in, where there is more to tell than that a session began. ``accepted_at`` is when its port
    took it; ``steps`` are what came then; ``handshake`` is the last of these, which was complete when the session
    began."""

    accepted_at: float
    handshake: str = ""
    steps: tuple[Step, ...] = ()


class Watcher(Protocol):
    """Who looks on. It must not raise, and not hold what it is told of."""

    def opened(self, session: "Session") -> None:
        """A session has begun."""

    def stepped(self, session: "Session", step: Step) -> None:
        """It has gone a step further."""

    def closed(self, session: "Session") -> None:
        """It is over; its socket may be open still, for a last look at its figures."""


class Journal:
    """``watchers`` are told in their order."""

    __slots__ = ("watchers",)

    def __init__(self) -> None:
        self.watchers: list[Watcher] = []

    def opened(self, session: "Session") -> None:
        for watcher in self.watchers:
            watcher.opened(session)

    def stepped(self, session: "Session", step: Step) -> None:
        for watcher in self.watchers:
            watcher.stepped(session, step)

    def closed(self, session: "Session") -> None:
        for watcher in self.watchers:
            watcher.closed(session)


def keep(steps: list[Step], step: Step) -> None:
    """Add a step to those of one connection; where they are too many, one from between goes."""
    if len(steps) >= MOST_STEPS:
        del steps[FIRST_STEPS]
    steps.append(step)
