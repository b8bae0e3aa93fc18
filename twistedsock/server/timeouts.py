"""Timeouts of connections: the first command, the end of a line or message that has begun, and the next command.

Equal timeouts share one reactor timer, because a timer for each connection would be created and cancelled with it.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twistedsock.errors import CloseReason
from twistedsock.limits.settings import Limits
from twistedsock.session.input_pipeline import InputPipeline

T = TypeVar("T")


class TimeoutQueue(Generic[T]):
    """Items that all time out ``seconds`` after they were started, unless they are stopped; 0 disables the timeout.
    ``expired`` is called with each item that timed out. Items expire in the order in which they were started, so the
    queue needs one timer only."""

    def __init__(self, reactor: Any, seconds: float, expired: Callable[[T], object]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._expired = expired
        self._deadlines: dict[T, float] = {}
        self._timer: Any = None

    def start(self, item: T) -> None:
        """Start the timeout of an item, or start it again."""
        if not self._seconds:
            return
        self._deadlines.pop(item, None)
        self._deadlines[item] = self._reactor.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._reactor.callLater(self._seconds, self._check)

    def stop(self, item: T) -> None:
        """Stop the timeout of an item. Items without a timeout are ignored."""
        self._deadlines.pop(item, None)

    def now(self) -> float:
        """The reactor's time in seconds. Items expire by this clock."""
        now: float = self._reactor.seconds()
        return now

    def cancel_if_empty(self) -> None:
        """Cancel the timer if no item needs it."""
        if self._timer is not None and not self._deadlines:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        now = self._reactor.seconds()
        expired = []
        for item, deadline in self._deadlines.items():
            if deadline > now:
                break
            expired.append(item)
        for item in expired:
            del self._deadlines[item]
        first = next(iter(self._deadlines.values()), None)
        self._timer = None if first is None else self._reactor.callLater(first - now, self._check)
        for item in expired:
            self._expired(item)


class ConnectionTimeouts:
    """The timeouts of all sessions of one listener. A session that exceeds one is closed with a notice."""

    def __init__(self, limits: Limits, reactor: Any) -> None:
        self.has_idle_timeout = bool(limits.idle_timeout)
        """Whether ``command_received`` must be called."""
        self._first_command = _queue(reactor, limits.first_command_timeout, "no command received within {} seconds")
        self._unfinished = _queue(reactor, limits.read_timeout, "a line or message was not completed within {} seconds")
        self._idle = _queue(
            reactor, limits.idle_timeout, "no command received for {} seconds: send PING to stay connected"
        )

    def start(self, pipeline: InputPipeline, awaits_first_command: bool) -> None:
        """A session has opened. After a handshake, such as the one of WebSocket, no first command is required."""
        if awaits_first_command:
            self._first_command.start(pipeline)
        self._idle.start(pipeline)

    def first_command_received(self, pipeline: InputPipeline) -> None:
        """Stop the timeout of the first command."""
        self._first_command.stop(pipeline)

    def command_received(self, pipeline: InputPipeline) -> None:
        """Start the idle timeout again."""
        self._idle.start(pipeline)

    def input_begun(self, pipeline: InputPipeline) -> None:
        """A line, frame or message has begun, and must end in time."""
        self._unfinished.start(pipeline)

    def input_ended(self, pipeline: InputPipeline) -> None:
        """Nothing unfinished remains."""
        self._unfinished.stop(pipeline)

    def stop(self, pipeline: InputPipeline) -> None:
        """The connection is lost: stop all its timeouts."""
        for queue in (self._first_command, self._unfinished, self._idle):
            queue.stop(pipeline)
            queue.cancel_if_empty()


def _queue(reactor: Any, seconds: float, notice: str) -> TimeoutQueue[InputPipeline]:
    text = notice.format(f"{seconds:g}").encode()

    def expired(pipeline: InputPipeline) -> None:
        if pipeline.is_paused:  # the rest of its input may be in its socket, because the server does not read it
            queue.start(pipeline)
        else:
            pipeline.session.close(CloseReason.POLICY, text)

    queue: TimeoutQueue[InputPipeline] = TimeoutQueue(reactor, seconds, expired)
    return queue
