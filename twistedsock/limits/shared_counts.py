"""The connections of each address and identity to several processes together.

Each process reports its counts when they change, at most every ``SHARE_SECONDS``. What keeps the counts of all
processes, a hub or Redis, sends back the connections elsewhere of principals with half of the maximum or more. So the
limits hold to what a client can open in that time, and a process knows only principals that are near their limit.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Protocol, runtime_checkable

from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.principal import Principal

SHARE_SECONDS = 0.1
"""The time in which changes are gathered. With each client that connects, one message would be sent otherwise."""

MAX_COUNTS_PER_REPORT = 1_000
"""Principals in one report, so that encoding it does not delay events."""

Counts = Mapping[Principal, int]


class SharedCounts:
    """Reports the counts of ``limiter`` with ``send``, and gives it those of other processes. ``schedule`` calls a
    function after some seconds."""

    def __init__(
        self,
        limiter: ConnectionLimiter,
        schedule: Callable[[float, Callable[[], None]], object],
        send: Callable[[Counts], None],
    ) -> None:
        self._limiter = limiter
        self._schedule = schedule
        self._send = send
        self._is_connected = self._is_scheduled = False
        # Not more than there were connections in the time in which changes are gathered, or than there are now.
        self._changed: dict[Principal, None] = {}
        limiter.changed = self._count_changed

    def connected(self) -> None:
        """What keeps the counts knows nothing about this process: report all."""
        self.disconnected()
        self._is_connected = True
        self._changed = dict.fromkeys(self._limiter.counts)
        self._report()

    def disconnected(self) -> None:
        """Without the counts of others, each process applies the limits alone."""
        self._is_connected = False
        self._changed.clear()
        self._limiter.elsewhere_of.clear()

    def received(self, elsewhere: Counts) -> None:
        """The connections of some principals to other processes. 0: few, or none."""
        for principal, count in elsewhere.items():
            if count:
                self._limiter.elsewhere_of[principal] = count
            else:
                self._limiter.elsewhere_of.pop(principal, None)

    def _count_changed(self, principal: Principal) -> None:
        if self._is_connected:
            self._changed[principal] = None
            self._report_later()

    def _report_later(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._schedule(SHARE_SECONDS, self._report_changed)

    def _report_changed(self) -> None:
        self._is_scheduled = False
        self._report()

    def _report(self) -> None:
        counts = self._limiter.counts
        report = {principal: counts.get(principal, 0) for principal in islice(self._changed, MAX_COUNTS_PER_REPORT)}
        for principal in report:
            del self._changed[principal]
        if report:
            self._send(report)
        if self._changed:
            self._report_later()


@runtime_checkable
class KeepsCounts(Protocol):
    """A backplane that knows the connections to all processes. It calls ``counts`` when it is connected and when it is
    not, and with what it learns."""

    counts: SharedCounts | None

    def send_counts(self, counts: Counts) -> None:
        """Report the connections of some addresses and identities to this process. Lost if it is not connected."""
