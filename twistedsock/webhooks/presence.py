"""Who is there, told late: what is undone within a few seconds is not told at all, so a quick reconnect says nothing.

A channel is occupied or vacated by its name. A member is known by its nick when it comes back, as a new connection has
a new id; who has no nick has its id in that place. Who came back is told of with the id that was told when it joined:
each ``member-left`` has the id of a ``member-joined``.
"""

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.pubsub.values import Member
from twistedsock.webhooks.config import Kind


class Change(msgspec.Struct, frozen=True):
    """``due`` by the clock that never goes back, ``time`` by that on the wall."""

    kind: Kind
    channel: bytes
    member: Member | None
    due: float
    time: float
    owner: Principal = ELSEWHERE
    """The principal that the channel counted for then: the channel may be gone when it is told."""


class Presence:
    """``tell`` is called with each change that was not undone within ``debounce`` seconds, the oldest first. ``most``
    are remembered that long; with more the oldest is told earlier."""

    def __init__(self, tell: Callable[[Change], None], debounce: float, most: int) -> None:
        self.debounce = debounce
        self.most = most
        self._tell = tell
        # In the order in which they are due, as all wait for the same time.
        self._pending: OrderedDict[tuple[object, ...], Change] = OrderedDict()
        # Who came back with another id: that under which it was told.
        self._told_ids: dict[tuple[bytes, bytes], bytes] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._pending)

    def occupied(self, channel: bytes, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        """The first reader came."""
        if self._pending.pop(("vacated", channel), None) is None:
            change = Change("channel-occupied", channel, None, now + self.debounce, time, owner)
            self._wait(("occupied", channel), change)

    def vacated(self, channel: bytes, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        """The last reader went."""
        if self._pending.pop(("occupied", channel), None) is None:
            change = Change("channel-vacated", channel, None, now + self.debounce, time, owner)
            self._wait(("vacated", channel), change)

    def joined(self, channel: bytes, member: Member, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        gone = self._pending.pop(("left", channel, member.nick), None)
        if gone is None:
            change = Change("member-joined", channel, member, now + self.debounce, time, owner)
            self._wait(("joined", channel, member.id), change)
        elif gone.member is not None and gone.member.id != member.id:
            self._told_ids[channel, member.id] = gone.member.id

    def left(self, channel: bytes, member: Member, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        told_id = self._told_ids.pop((channel, member.id), member.id)
        if self._pending.pop(("joined", channel, member.id), None) is not None:
            return
        key: tuple[object, ...] = ("left", channel, member.nick)
        if key in self._pending:  # a namesake has just left, too: only one of the two can be found again
            self._serial += 1
            key = (*key, self._serial)
        told = Member(told_id, member.nick)
        self._wait(key, Change("member-left", channel, told, now + self.debounce, time, owner))

    def due(self) -> float | None:
        """When there is something to tell; None while nothing waits."""
        for change in self._pending.values():
            return change.due
        return None

    def ripen(self, now: float) -> None:
        """Tell what is due."""
        while self._pending:
            key, change = next(iter(self._pending.items()))
            if change.due > now and len(self._pending) <= self.most:
                return
            del self._pending[key]
            self._tell(change)

    def tell_all(self) -> None:
        """Whatever waits, and wait for nothing any longer."""
        self.debounce = 0.0
        while self._pending:
            self._tell(self._pending.popitem(last=False)[1])

    def keep(self, is_told: Callable[[bytes], bool]) -> None:
        """Of other channels nothing is heard any longer: forget who was told by which id there."""
        self._told_ids = {key: id for key, id in self._told_ids.items() if is_told(key[0])}

    def _wait(self, key: tuple[object, ...], change: Change) -> None:
        if not self.debounce:
            self._tell(change)
            return
        self._pending[key] = change
        self.ripen(change.due - self.debounce)
