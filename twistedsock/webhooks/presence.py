"""Presence changes, debounced: a change that is undone within a few seconds, as by a reconnect, is not reported.

Channels are matched by name. Members are matched by nick, because a new connection has a new id; a member without a
nick has its id in place of the nick. A member that has reconnected keeps being reported under the id with which it
joined: each ``member-left`` has the id of a ``member-joined``.
"""

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.pubsub.values import Member
from twistedsock.webhooks.config import EventKind


class Change(msgspec.Struct, frozen=True):
    kind: EventKind
    channel: bytes
    member: Member | None
    due: float
    """Monotonic time when it is reported."""
    time: float
    """Wall clock time when it happened."""
    owner: Principal = ELSEWHERE
    """The principal that the channel counted for. The channel may be closed when the change is reported."""


class PresenceDebouncer:
    """Calls ``report`` with each change that was not undone within ``debounce`` seconds, the oldest first. With more
    than ``max_pending`` changes, the oldest is reported earlier."""

    def __init__(self, report: Callable[[Change], None], debounce: float, max_pending: int) -> None:
        self.debounce = debounce
        self.max_pending = max_pending
        self._report = report
        # In the order in which they are due, because the delay is the same for all.
        self._pending: OrderedDict[tuple[object, ...], Change] = OrderedDict()
        # The ids under which members that have reconnected were reported.
        self._reported_ids: dict[tuple[bytes, bytes], bytes] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._pending)

    def occupied(self, channel: bytes, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        """The channel has its first subscriber."""
        if self._pending.pop(("vacated", channel), None) is None:
            change = Change("channel-occupied", channel, None, now + self.debounce, time, owner)
            self._add(("occupied", channel), change)

    def vacated(self, channel: bytes, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        """The channel has lost its last subscriber."""
        if self._pending.pop(("occupied", channel), None) is None:
            change = Change("channel-vacated", channel, None, now + self.debounce, time, owner)
            self._add(("vacated", channel), change)

    def joined(self, channel: bytes, member: Member, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        left = self._pending.pop(("left", channel, member.nick), None)
        if left is None:
            change = Change("member-joined", channel, member, now + self.debounce, time, owner)
            self._add(("joined", channel, member.id), change)
        elif left.member is not None and left.member.id != member.id:
            self._reported_ids[channel, member.id] = left.member.id

    def left(self, channel: bytes, member: Member, now: float, time: float, owner: Principal = ELSEWHERE) -> None:
        reported_id = self._reported_ids.pop((channel, member.id), member.id)
        if self._pending.pop(("joined", channel, member.id), None) is not None:
            return
        key: tuple[object, ...] = ("left", channel, member.nick)
        if key in self._pending:  # another member with this nick has just left: one of them can be matched
            self._serial += 1
            key = (*key, self._serial)
        change = Change("member-left", channel, Member(reported_id, member.nick), now + self.debounce, time, owner)
        self._add(key, change)

    def next_due(self) -> float | None:
        """Monotonic time of the next change. None if nothing waits."""
        for change in self._pending.values():
            return change.due
        return None

    def report_due(self, now: float) -> None:
        while self._pending:
            key, change = next(iter(self._pending.items()))
            if change.due > now and len(self._pending) <= self.max_pending:
                return
            del self._pending[key]
            self._report(change)

    def report_all(self) -> None:
        """Report all pending changes, and later ones without delay."""
        self.debounce = 0.0
        while self._pending:
            self._report(self._pending.popitem(last=False)[1])

    def forget_other_channels(self, is_matched: Callable[[bytes], bool]) -> None:
        """Forget members of channels that no longer match."""
        self._reported_ids = {key: id for key, id in self._reported_ids.items() if is_matched(key[0])}

    def _add(self, key: tuple[object, ...], change: Change) -> None:
        if not self.debounce:
            self._report(change)
            return
        self._pending[key] = change
        self.report_due(change.due - self.debounce)
