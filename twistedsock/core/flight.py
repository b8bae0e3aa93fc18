"""Publishes that wait for the backplane, in the order of their commands.

They may be answered in any order, as they may go to different channels; their replies go out in the order in which
they were asked for.
"""

from collections import deque
from collections.abc import Sequence

from twistedsock.core.commands import Tag
from twistedsock.core.errors import Refusal


class Slot:
    """The place of some publishes among the replies."""

    __slots__ = ("outcome", "tags")

    def __init__(self, tags: Sequence[Tag]) -> None:
        self.tags = tags
        self.outcome: int | Refusal | None = None


class Flight:
    """``publishes`` is how many wait."""

    __slots__ = ("_slots", "publishes")

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque()
        self.publishes = 0

    def __bool__(self) -> bool:
        return bool(self._slots)

    def take_off(self, tags: Sequence[Tag]) -> Slot:
        """Publishes were asked for, one for each tag."""
        slot = Slot(tags)
        self._slots.append(slot)
        self.publishes += len(tags)
        return slot

    def land(self, slot: Slot, outcome: int | Refusal) -> list[tuple[Sequence[Tag], int | Refusal]]:
        """The backplane has answered; gives what can be told now: nothing, while something asked before is out."""
        slot.outcome = outcome
        told: list[tuple[Sequence[Tag], int | Refusal]] = []
        while self._slots and (settled := self._slots[0].outcome) is not None:
            tags = self._slots.popleft().tags
            self.publishes -= len(tags)
            told.append((tags, settled))
        return told

    def has_overtaken(self) -> bool:
        """Whether something is answered and cannot be told yet."""
        return any(slot.outcome is not None for slot in self._slots)
