"""Events between the connection and a program that handles them more slowly."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from sockbridge.channels import Subscription
from sockbridge.core import Core
from sockbridge.errors import SockbridgeError
from sockbridge.values import Event, Lost, Position, Report, Reset

_log = logging.getLogger("sockbridge")

MAX_REPORTS = 1000
"""When so many wait, the client asks the server to stop, and to continue when half of them are handled. The server
keeps the events meanwhile, so that a slow program costs no memory and delays no other channel."""


class ReportQueue:
    """A subscription, and its reports until the program takes them. ``changed`` is called when there is something new,
    ``ended`` when the subscription has ended. ``options`` are those of the Subscription."""

    def __init__(
        self,
        core: Core,
        channel: str,
        changed: Callable[[], None],
        ended: Callable[[ReportQueue], None],
        **options: Any,
    ) -> None:
        self.channel = channel
        self.position: Position | None = None
        """Of the last event that was taken from the queue."""
        self.is_ready = False
        self.is_ended = False
        self._error: SockbridgeError | None = None
        self._core = core
        self._changed = changed
        self._ended = ended
        self._reports = deque[Report]()
        self._subscription = Subscription(channel, self._put, self._set_ready, self._end, **options)
        core.channels.subscribe(self._subscription)

    def __bool__(self) -> bool:
        return bool(self._reports)

    def _put(self, report: Report) -> None:
        self._reports.append(report)
        if len(self._reports) >= MAX_REPORTS:
            self._core.channels.pause(self._subscription)
        self._changed()

    def get(self) -> Report:
        """Take the oldest report. The caller sends the output of the core afterwards."""
        report = self._reports.popleft()
        if isinstance(report, Event):
            self.position = report.position
        elif isinstance(report, Reset):
            self.position = Position(report.epoch, report.offset)
        if len(self._reports) == MAX_REPORTS // 2:
            self._core.channels.resume(self._subscription)
        return report

    def _set_ready(self) -> None:
        self.is_ready = True
        self._changed()

    def _end(self, error: SockbridgeError | None) -> None:
        """No more reports follow. An error of the server is raised after them."""
        self.is_ended = True
        self._error = error
        self._ended(self)
        self._changed()

    def unsubscribe(self) -> None:
        """End the subscription."""
        self._core.channels.unsubscribe(self._subscription)
        self._end(None)

    def raise_error(self) -> None:
        """Raise the error that has ended the subscription, if there is one."""
        if self._error is not None:
            raise self._error


class ReportQueues:
    """The queues of a client by channel, until their subscriptions end, or the client is closed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_channel: dict[str, ReportQueue] = {}

    def open(self, channel: str, changed: Callable[[], None], **options: Any) -> ReportQueue:
        """Subscribe to a channel."""
        queue = ReportQueue(self._core, channel, changed, self._forget, **options)
        if not queue.is_ended:
            self._by_channel[channel] = queue
        return queue

    @property
    def positions(self) -> dict[str, Position]:
        """The position of the last event of each channel that was taken from its queue."""
        return {channel: queue.position for channel, queue in self._by_channel.items() if queue.position is not None}

    def _forget(self, queue: ReportQueue) -> None:
        if not self._core.is_closed and self._by_channel.get(queue.channel) is queue:
            del self._by_channel[queue.channel]


def log_report(report: Report) -> None:
    """Log what a program that only wants events does not receive."""
    if isinstance(report, Lost):
        last = "" if report.last is None else f" to {report.last}"
        _log.warning("events of %s are lost: from %d%s", report.channel, report.first, last)
    elif isinstance(report, Reset):
        _log.warning("events of %s after %d are void: the server has lost them", report.channel, report.good)
