"""When a webhook's batches leave: one request at a time, in order, again after a failure, and once more at the end."""

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as AnswerTimeoutError
from twisted.internet.error import TimeoutError as ConnectingTimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from twistedsock.webhooks.collector import EventCollector, Figures
from twistedsock.webhooks.queue import Batch

FIRST_WAIT = 1.0
"""Seconds that the first wait takes at most; each further one twice as long."""

MAX_WAIT = 60.0
"""Seconds: a receiver that is back is told within a minute."""

MAX_RETRY_AFTER = 600.0
"""Seconds for which a receiver can tell us to wait; who asks for more is asked again earlier."""

_AGAIN = {408, 429}


class RetryDecision(Enum):
    DELIVERED = "delivered"
    AGAIN = "again"
    REFUSED = "refused"


def retry_decision(status: int) -> RetryDecision:
    """Of the status of an answer (RFC 9110 section 15). Redirects are not followed, and mean no."""
    if 200 <= status < 300:
        return RetryDecision.DELIVERED
    return RetryDecision.AGAIN if status >= 500 or status in _AGAIN else RetryDecision.REFUSED


def wait_before(attempt: int, chance: Callable[[], float]) -> float:
    """Seconds before the next attempt, when ``attempt`` have failed. ``chance`` gives numbers from 0 to 1: of many who
    wait for the same receiver, each comes at another time."""
    return chance() * min(MAX_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 30))


def retry_after(value: str | None, now: float) -> float:
    """Seconds that a header Retry-After (RFC 9110 section 10.2.3) asks for; 0 where it says nothing of use. ``now`` by
    the clock on the wall."""
    if value is None:
        return 0.0
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER)
    try:
        wanted = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(wanted, 0.0), MAX_RETRY_AFTER)


TOLD_EVERY = 60.0
"""Seconds between two words in the log about one webhook that fails, or drops what it cannot deliver."""

MAX_WORDS = 200
"""Characters of what another program says of a failure."""

_log = Logger()


class Answer(msgspec.Struct, frozen=True):
    status: int
    retry_after: str | None = None


Post = Callable[[bytes, dict[str, str]], "Deferred[Answer]"]
"""Send a body with headers; it fails if there is no answer, or none in time."""


class DeliveryWorker:
    """Takes what a hook has queued, and brings it to its receiver. ``chance`` gives numbers from 0 to 1. ``hook`` and
    ``post`` are to be set before anything happens."""

    hook: EventCollector
    post: Post

    def __init__(self, reactor: Any, wall_clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._reactor = reactor
        self._wall_clock = wall_clock
        self._chance = chance
        self._timer: Any = None
        self._batch: Batch | None = None
        self._under_way: Deferred[Any] | None = None
        self._attempts = 0
        self._first_at = 0.0
        self._delivered = 0
        self._failed = 0
        self._last_status = 0
        self._told_at = -TOLD_EVERY
        self._told_dropped = 0
        self._seen_overflowed = 0
        self._in_trouble = False
        self._waits = False
        self._ending = False
        self._over = False
        self._ends: list[Deferred[None]] = []

    @property
    def figures(self) -> Figures:
        queue, batch = self.hook.queue, self._batch
        return Figures(
            len(queue) + (len(batch.events) if batch is not None else 0),
            queue.bytes + (batch.size if batch is not None else 0),
            self._delivered,
            queue.dropped,
            self._failed,
            self._last_status,
        )

    def wake(self) -> None:
        """Something has been queued, or something waits for its time."""
        if self._under_way is None and not self._waits and not self._over:
            due = self.hook.due()
            if due is not None:
                self._look_at(due)
        if self.hook.queue.overflowed != self._seen_overflowed:
            self._seen_overflowed = self.hook.queue.overflowed
            self._tell("more is queued than may be, so the oldest events go")

    def use(self, post: Post) -> None:
        """Go another way from now on. What is under way stays so; what waits after a failure does not."""
        self.post = post
        if self._waits:
            self._go()

    # The end.

    def hasten(self) -> None:
        """Bring what is there, now, and what is still to come; but where that fails it is over."""
        self._ending = True
        self.hook.hasten()
        if self._waits:
            self._go()
        else:
            self.wake()

    def end(self) -> "Deferred[None]":
        """Nothing more comes, after ``hasten``. Calls back when all is delivered, when that failed, or when ``give_up``
        is called. Can be asked several times."""
        ended: Deferred[None] = Deferred()
        self._ends.append(ended)
        if self._over or (self._under_way is None and not self.hook.queue):
            self._finish()
        return ended

    def give_up(self) -> None:
        """Wait no longer."""
        self._over = True
        if self._under_way is not None:
            self._under_way.cancel()
        if self._ends:
            self._finish()

    def _finish(self) -> None:
        self._over = True
        self._stop_timer()
        left = self.figures.queued
        if left:
            _log.warn("webhook {name}: {count} events were not delivered", name=self._name, count=left)
        ends, self._ends = self._ends, []
        for ended in ends:
            ended.callback(None)

    # Going.

    def _look_at(self, due: float) -> None:
        wait = max(0.0, due - self._reactor.seconds())
        if self._timer is None:
            self._timer = self._reactor.callLater(wait, self._look)
        elif self._timer.getTime() > due:
            self._timer.reset(wait)

    def _look(self) -> None:
        self._timer = None
        self._batch = self.hook.take()
        if self._batch is None:
            self.wake()
        else:
            self._attempts = 0
            self._first_at = self._reactor.seconds()
            self._send(self._batch)

    def _go(self) -> None:
        """Try again what failed."""
        self._stop_timer()
        self._waits = False
        assert self._batch is not None, "it is why we wait"
        self._send(self._batch)

    def _send(self, batch: Batch) -> None:
        # maybeDeferred: an exception while the request is made is a failed attempt like any other.
        self._under_way = sending = maybeDeferred(lambda: self.post(*self.hook.write(batch)))
        sending.addCallbacks(self._judge, self._lost)
        sending.addErrback(self._broken, batch)

    def _broken(self, failure: Failure, batch: Batch) -> None:
        """A fault of ours in what handles the answer. The batch is not forgotten: this counts as a failed attempt."""
        _log.failure("webhook {name} failed", failure, name=self._name)
        if self._batch is batch and not self._waits and not self._over:
            self._again("the answer could not be handled", 0.0)

    def _judge(self, answer: Answer) -> None:
        self._under_way = None
        self._last_status = answer.status
        verdict = retry_decision(answer.status)
        if verdict is RetryDecision.DELIVERED:
            assert self._batch is not None
            self._delivered += len(self._batch.events)
            if self._in_trouble:
                self._in_trouble = False
                _log.info("webhook {name}: deliveries are taken again", name=self._name)
            self._next()
        elif verdict is RetryDecision.AGAIN:
            asked = retry_after(answer.retry_after, self._wall_clock())
            self._again(f"the receiver answered {answer.status}", asked)
        else:
            self._failed += 1
            self._drop(f"the receiver answered {answer.status}")

    def _lost(self, failure: Failure) -> None:
        self._under_way = None
        self._last_status = 0
        self._again(_words(failure, self.hook.table.timeout), 0.0)

    def _again(self, words: str, asked: float) -> None:
        assert self._batch is not None
        self._failed += 1
        self._attempts += 1
        if self._ending:
            self._over = True
            self._tell(words)
            if self._ends:
                self._finish()
        elif self._reactor.seconds() - self._first_at >= self.hook.table.retry_for:
            self._drop(f"{words}, for too long")
        else:
            self._in_trouble |= self._tell(f"{words}; it is tried again")
            self._waits = True
            wait = max(wait_before(self._attempts, self._chance), asked)
            self._timer = self._reactor.callLater(wait, self._go)

    def _drop(self, words: str) -> None:
        assert self._batch is not None
        self.hook.queue.give_up(self._batch)
        self._in_trouble |= self._tell(words)
        self._next()

    def _next(self) -> None:
        self._batch = None
        if self._ends and not self.hook.queue:
            self._finish()
        else:
            self.wake()

    # The log.

    @property
    def _name(self) -> str:
        return self.hook.table.title

    def _tell(self, words: str) -> bool:
        """Once a minute at most, together with what was dropped since the last time. Whether it was told."""
        now = self._reactor.seconds()
        if now - self._told_at < TOLD_EVERY:
            return False
        self._told_at = now
        dropped = self.hook.queue.dropped
        if dropped != self._told_dropped:
            words += f"; events dropped since the last word: {dropped - self._told_dropped}"
            self._told_dropped = dropped
        _log.warn("webhook {name}: {words}", name=self._name, words=words)
        return True

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _words(failure: Failure, timeout: float) -> str:
    """What went wrong, for people. Twisted wraps it in a list of reasons."""
    error: Any = failure.value
    while getattr(error, "reasons", None):
        error = error.reasons[0].value
    if isinstance(error, (AnswerTimeoutError, ConnectingTimeoutError, CancelledError)):
        return f"no answer came within {timeout:g} s"
    words: Any = error
    if error.args and isinstance(error.args[0], list):  # the queue of errors of OpenSSL, each with its library
        words = ", ".join(str(one[-1]) for one in error.args[0])
    told = f"{type(error).__name__}: {words}"[:MAX_WORDS]
    # Some of it may be what the receiver has sent: it must not look like a line of ours.
    return "".join(sign if sign.isprintable() else "?" for sign in told)


# TODO-MERGED-DOC: What an answer means, and when to try again: exponential backoff with full jitter.
