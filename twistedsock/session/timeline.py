"""The timeline of one connection: the steps from its acceptance to its end, for operators."""

import msgspec

MAX_STEPS = 20
"""Steps that are kept of one connection beside those of its opening: its first ones and the newest. A client that falls
behind and catches up all day must not fill the memory."""

FIRST_STEPS = 6
"""The number of first steps among them."""

MAX_WORDS = 80
"""Maximum length of the details of a step, in characters."""

BEHIND_DEBOUNCE_SECONDS = 1.0
"""A client that falls behind again within this time after it has caught up is recorded as one step: the two can
alternate thousands of times a second."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """``at`` is the broker's clock. ``name`` is one of accepted, proxied, handshake, open, authenticated, behind,
    caught-up, lost, closing and closed. ``words`` are the details: the kind of handshake, the identity, the channel, or
    the reason. ``by`` is ``peer`` or ``server`` if either could have caused it."""

    at: float
    name: str
    words: str = ""
    by: str = ""


class HandshakeInfo(msgspec.Struct, frozen=True, gc=False):
    """The opening of a connection that had a handshake. ``accepted_at`` is the time when the port accepted it,
    ``steps`` followed, and ``handshake`` is the last handshake, complete when the session was opened."""

    accepted_at: float
    handshake: str = ""
    steps: tuple[Step, ...] = ()


class Timeline(msgspec.Struct, gc=False, eq=False):
    """The steps of one connection. Its parts hold no references back, so it needs no garbage collector; that saves 16
    bytes for each connection."""

    opened_at: float
    _handshake: HandshakeInfo | None = None
    _steps: list[Step] | None = None
    """Created for the first step, because most connections are silent."""

    def __post_init__(self) -> None:
        if self._handshake is not None and self._handshake.steps:
            self._steps = [*self._handshake.steps]

    @property
    def accepted_at(self) -> float:
        return self.opened_at if self._handshake is None else self._handshake.accepted_at

    @property
    def steps(self) -> list[Step]:
        """All recorded steps in their order, with those of the opening."""
        recorded = self._steps or []
        early = [step for step in recorded if step.name in ("proxied", "handshake")]
        handshake: list[Step] = []
        if self._handshake is not None and self._handshake.handshake:
            handshake.append(Step(self.opened_at, "handshake", self._handshake.handshake))
        opening = [Step(self.accepted_at, "accepted"), *early, *handshake, Step(self.opened_at, "open")]
        return opening + [step for step in recorded if step not in early]

    def add(self, at: float, name: str, words: str = "", by: str = "") -> Step:
        """Record a step. If there are too many, one between the first and the newest is dropped."""
        step = Step(at, name, words[:MAX_WORDS], by)
        if self._steps is None:
            self._steps = []
        append_bounded(self._steps, step)
        return step

    def undo_caught_up(self, now: float) -> bool:
        """Remove the last step if the client had caught up just before. Returns False if it had not."""
        if self._steps is None or not self.has_just_recorded("caught-up", now):
            return False
        self._steps.pop()
        return True

    def is_behind(self) -> bool:
        """True if the client has fallen behind and has not caught up since. A client that was only sent the history it
        asked for was not behind."""
        for step in reversed(self._steps or ()):
            if step.name == "caught-up":
                return False
            if step.name == "behind":
                return True
        return False

    def has_just_recorded(self, name: str, now: float) -> bool:
        """True if the last step has this name and is recent."""
        if not self._steps or self._steps[-1].name != name:
            return False
        return now - self._steps[-1].at < BEHIND_DEBOUNCE_SECONDS


def append_bounded(steps: list[Step], step: Step) -> None:
    """Append a step; with ``MAX_STEPS`` of them, drop the oldest after the first ones."""
    if len(steps) >= MAX_STEPS:
        del steps[FIRST_STEPS]
    steps.append(step)
