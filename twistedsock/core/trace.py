"""What the connection of one session has gone through, for those who want to see it."""

from twistedsock.core.broker import Broker
from twistedsock.core.dialect import Dialect
from twistedsock.core.journal import MOST_WORDS, Arrival, Step, keep
from twistedsock.core.reader import Outlet, Reader
from twistedsock.core.speaker import Speaker
from twistedsock.core.traffic import Traffic

CALM = 1.0
"""Seconds within which falling behind again counts as still being behind, where steps are noted: the two can alternate
thousands of times a second."""


class Traced(Speaker):
    """A session's own class, as the speaker is, and for the same reason. ``arrival`` is how the connection came in,
    where that took a while."""

    __slots__ = ("_handshake", "_steps", "accepted_at", "opened_at")

    def __init__(
        self, broker: Broker, dialect: Dialect, outlet: Outlet, reader: Reader, arrival: Arrival | None
    ) -> None:
        super().__init__(broker, dialect, outlet, reader)
        self.opened_at = broker.clock()
        self.accepted_at = self.opened_at if arrival is None else arrival.accepted_at
        self._handshake = "" if arrival is None else arrival.handshake
        # Made for the first, as most connections are silent.
        self._steps: list[Step] | None = [*arrival.steps] if arrival is not None and arrival.steps else None

    @property
    def steps(self) -> list[Step]:
        """What its connection has gone through, in its order."""
        noted = self._steps or []
        early = [step for step in noted if step.name in ("proxied", "handshake")]
        handshake = [Step(self.opened_at, "handshake", self._handshake)] if self._handshake else []
        came = [Step(self.accepted_at, "accepted"), *early, *handshake, Step(self.opened_at, "open")]
        return came + [step for step in noted if step not in early]

    def note(self, name: str, words: str = "", by: str = "") -> None:
        """Its connection has gone a step further."""
        step = Step(self._broker.clock(), name, words[:MOST_WORDS], by)
        if self._steps is None:
            self._steps = []
        keep(self._steps, step)
        self._stepped(step)

    def _stepped(self, step: Step) -> None:
        """It has been noted."""

    def traffic(self) -> Traffic | None:
        """What has gone through its connection, where that is known; a system call."""
        return self._outlet.traffic()

    def fell_behind(self, channel: bytes, cursor: int) -> None:
        """Its socket is full. Who had caught up just now has been behind all the time, as far as steps are noted."""
        if self._steps is not None and self._has_just("caught-up"):
            self._steps.pop()
        else:
            self.note("behind", f"{channel.decode()} from {cursor}")

    def caught_up(self, channel: bytes) -> None:
        """It is behind nowhere. Whoever was only sent what had been before it came was not behind."""
        for step in reversed(self._steps or ()):
            if step.name == "caught-up":
                return
            if step.name == "behind":
                self.note("caught-up", channel.decode())
                return

    def _has_just(self, name: str) -> bool:
        """Whether that was its last step, and not long ago."""
        if not self._steps or self._steps[-1].name != name:
            return False
        return self._broker.clock() - self._steps[-1].at < CALM
