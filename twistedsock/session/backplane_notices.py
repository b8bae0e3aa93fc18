"""Notifies subscribers once when the backplane is away, and once when it is back."""

from functools import partial

from twistedsock.session.context import ServerContext

NOTICE_AFTER_SECONDS = 5.0
"""How long the backplane must have been away, or back, before clients are notified: a hub is started again in less, and
a connection that fails again and again must not cause a notice each time."""

AWAY = b"the server cannot reach its backplane: publications fail and events are delayed"

BACK = b"the server reaches its backplane again: missed events follow, and losses are reported"

AWAY_CODE = b"backplane-away"

BACK_CODE = b"backplane-back"


class BackplaneNotices:
    """Call ``check`` every second."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._was_ready = self._is_announced_ready = True
        self._changed_at = 0.0
        self._has_notified = False
        """Whether there were subscribers when the backplane was lost: there are none if it has not been ready yet."""

    def check(self) -> None:
        broker = self._context.broker
        is_ready, now = broker.is_ready, broker.clock()
        if is_ready != self._was_ready:
            self._was_ready, self._changed_at = is_ready, now
        if is_ready == self._is_announced_ready or now - self._changed_at < NOTICE_AFTER_SECONDS:
            return
        self._is_announced_ready = is_ready
        if not is_ready:
            self._has_notified = any(session.subscriptions for session in self._context.sessions)
        if self._has_notified:
            self._notify(*((BACK, BACK_CODE) if is_ready else (AWAY, AWAY_CODE)))

    def _notify(self, text: bytes, code: bytes) -> None:
        """Notify all sessions that have subscriptions, in time slices."""
        if not self._context.draining:
            calls = [partial(session.notify_subscriber, text, code) for session in self._context.sessions]
            self._context.broker.scheduler.run_calls(calls, "some sessions could not be notified")
