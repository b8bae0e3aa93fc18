"""How the server lets its clients go when it stops: it answers what they have asked, says goodbye, and waits for them,
but only for a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twistedsock.codecs.native import NATIVE_ENCODER
from twistedsock.errors import CloseReason
from twistedsock.server.http.site import HTTPSite
from twistedsock.session.context import ServerContext

ANSWERS_SHARE = 0.5
"""The part of ``shutdown_timeout`` in which clients are given the answers to their commands, for example publications
that wait for Redis. The rest is for closing the connections."""


class Drain:
    """``timeout`` is the longest time that clients have, in seconds. ``sites`` are those of the web ports.
    ``close_others`` closes the connections that have no session."""

    _log = Logger()

    def __init__(
        self,
        context: ServerContext,
        reactor: Any,
        timeout: float,
        sites: Sequence[HTTPSite],
        close_others: Callable[[], object],
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._seconds = timeout
        self._sites = sites
        self._close_others = close_others
        self._ends_at = 0.0
        self._timeout: Any = None

    def announce(self) -> None:
        """New clients are turned away from now on."""
        self._context.draining = True
        self._ends_at = self._reactor.seconds() + self._seconds
        self.log_wait(self._count_connected(), "client", "to disconnect")

    def start(self) -> Deferred[None]:
        """Notify the clients. The result fires when all have disconnected, at the latest after the timeout."""
        self._close_sessions(waits=True)
        self._close_others()
        drained: Deferred[None] = Deferred()
        timeout = self._reactor.callLater(self._seconds, self._abort_connections, drained)
        self._timeout = timeout
        answers = self._reactor.callLater(self._seconds * ANSWERS_SHARE, self._close_sessions, waits=False)
        drained.addCallback(lambda result: answers.cancel() if answers.active() else None)
        waiting: set[object] = {self._context.sessions, *self._sites}

        def finish(part: object) -> None:
            waiting.discard(part)
            if not waiting and timeout.active():
                timeout.cancel()
                drained.callback(None)

        for site in self._sites:
            site.shut_down(partial(finish, site))
        self._context.sessions.when_empty(lambda: finish(self._context.sessions))
        return drained

    def end_now(self) -> None:
        """Do not wait any longer."""
        if self._timeout is not None and self._timeout.active():
            self._timeout.reset(0)

    def log_wait(self, count: int, noun: str, event: str) -> None:
        """Log what the server waits for and how to end the wait, which would look like a hang otherwise."""
        seconds = self._ends_at - self._reactor.seconds()
        if count and seconds > 0:
            self._log.info(
                "stopping: waiting up to {seconds:.3g} s for {count} {noun} {event}; Ctrl-C or SIGTERM again stops now",
                seconds=seconds,
                count=count,
                noun=noun if count == 1 else f"{noun}s",
                event=event,
            )

    def _close_sessions(self, waits: bool) -> None:
        try:
            self._context.close_all(CloseReason.GOING_AWAY, b"the server is going away", waits)
        except Exception:  # twistd would ignore it
            self._log.failure("notifying the clients of the shutdown failed")

    def _abort_connections(self, drained: Deferred[None]) -> None:
        self._log.info("shutdown timeout: aborted clients: {count}", count=self._count_connected())
        for site in self._sites:
            site.abort_unfinished()
        # The next turn sends the resets before this callback.
        self._reactor.callLater(0, drained.callback, None)

    def _count_connected(self) -> int:
        """Return the number of sessions of other programs, and of HTTP requests without a response."""
        sessions = [session for session in self._context.sessions if session.protocol != NATIVE_ENCODER.title]
        return len(sessions) + sum(site.running_requests for site in self._sites)
